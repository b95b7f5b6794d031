package transport

import (
	"sync/atomic"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// Clock reads the time since boot, the time that the machine slept included:
// a lease must not outlast a sleep. Go's own monotonic clock stands still
// then, and reading the system's boot clock costs a system call, too much
// for a check. A sleep shows as a jump of the wall clock against the
// monotonic one, and both come with one time.Now: only then the boot clock
// is asked again.
type Clock struct {
	base   time.Time
	offset atomic.Int64 // boot clock minus monotonic clock
	skew   atomic.Int64 // wall clock minus monotonic clock, when offset was taken
}

// clockJump is how far the wall clock may move against the monotonic one
// before the boot clock is asked: less than a lease's 2 % of slack.
const clockJump = int64(5 * time.Millisecond)

// NewClock returns a clock.
func NewClock() *Clock {
	c := &Clock{base: time.Now()}
	c.reset(c.base)
	return c
}

// Now reads the clock. It never runs backwards.
func (c *Clock) Now() limiter.Time {
	now := time.Now()
	elapsed := int64(now.Sub(c.base))
	if jump := now.UnixNano() - elapsed - c.skew.Load(); jump > clockJump || jump < -clockJump {
		c.reset(now)
	}
	return limiter.Time(elapsed + c.offset.Load())
}

func (c *Clock) reset(now time.Time) {
	elapsed := int64(now.Sub(c.base))
	offset := boottime() - int64(time.Since(c.base))
	for old := c.offset.Load(); offset > old && !c.offset.CompareAndSwap(old, offset); old = c.offset.Load() {
	}
	c.skew.Store(now.UnixNano() - elapsed)
}
