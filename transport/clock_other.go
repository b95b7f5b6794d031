//go:build !linux && !darwin

package transport

import "time"

var processStart = time.Now()

// boottime is Go's monotonic time. On Windows that goes on while the machine sleeps; elsewhere it may stand still.
func boottime() int64 { return int64(time.Since(processStart)) }
