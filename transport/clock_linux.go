package transport

import (
	"time"

	"golang.org/x/sys/unix"
)

var processStart = time.Now()

// boottime is the time since boot in nanoseconds, sleep included.
func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return int64(time.Since(processStart))
	}
	return ts.Nano()
}
