package objects

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// space knows whether the disk has room. It asks the file system at most once a second, or once an eighth of the
// margin was written since; while writes are refused it may be asked by any of them.
type space struct {
	fs       vfs.FS
	dir      string
	min      int64
	onChange func(full bool, free int64)

	start   time.Time
	last    atomic.Int64  // nanoseconds since start of the last look, plus one; 0 is never
	seen    atomic.Uint64 // commits at the last look at the clock
	written atomic.Int64  // bytes committed since the last look
	full    atomic.Bool
	free    atomic.Int64
}

const spaceInterval = time.Second

// check returns ErrFull when the disk is too full to store anything. The number of commits so far spares the clock:
// nothing can have been written since the last look if nothing was committed since, and an operation after a pause
// always follows a commit.
func (sp *space) check(commits uint64) error {
	if sp.min < 0 {
		return nil
	}
	if sp.last.Load() == 0 || sp.full.Load() || sp.seen.Load() != commits {
		sp.seen.Store(commits)
		sp.look()
	}
	if sp.full.Load() {
		return fmt.Errorf("%w: %s has %d MiB left, less than the %d MiB kept free: make room",
			ErrFull, sp.dir, sp.free.Load()>>20, sp.min>>20)
	}
	return nil
}

func (sp *space) look() {
	last, now := sp.last.Load(), int64(time.Since(sp.start))+1
	if last != 0 && now-last < int64(spaceInterval) && sp.written.Load() < sp.min/8 {
		return
	}
	if !sp.last.CompareAndSwap(last, now) {
		return // another operation looks
	}
	sp.written.Store(0)
	usage, err := sp.fs.GetDiskUsage(sp.dir)
	if err != nil {
		return // a file system that cannot tell; a full disk then shows as a failed write
	}
	free := int64(min(usage.AvailBytes, 1<<62))
	sp.free.Store(free)
	full := free < sp.min
	if sp.full.Swap(full) != full && sp.onChange != nil {
		sp.onChange(full, free)
	}
}
