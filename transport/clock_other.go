//go:build !linux

package transport

import "time"

var processStart = time.Now()

// boottime is the monotonic time: on other systems than Linux it may stand
// still while the machine sleeps.
func boottime() int64 { return int64(time.Since(processStart)) }
