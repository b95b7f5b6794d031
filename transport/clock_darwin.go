package transport

import (
	"time"

	"golang.org/x/sys/unix"
)

var processStart = time.Now()

// boottime is a time that goes on while the machine sleeps, as macOS promises of this clock.
func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return int64(time.Since(processStart))
	}
	return ts.Nano()
}
