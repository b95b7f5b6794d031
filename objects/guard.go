package objects

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// guard stands between Pebble and the process: Pebble's fatal errors fail the store instead of ending the process, its
// floods of background errors are thinned, and a Pebble that broke down is fenced off from its files (fence.go).
//
// After a fatal error, or an error of the log in the midst of a commit, Pebble's own locks may be held for ever, so that
// it cannot be closed. It is abandoned, and the folder's lock is released, so that the same process can open the folder
// again. What Pebble held in memory is lost to the process (a cache, some memtables, a few sleeping goroutines): the
// price of a rare event. A sync that fails, the likelier event, does not break Pebble, and such a store closes cleanly.
type guard struct {
	events *Events
	broken chan struct{} // closed when Pebble is abandoned
	once   sync.Once
	gone   atomic.Bool
	// opening is set while Pebble opens, when it survives no error of anything that it writes.
	opening atomic.Bool
	// inCommit is set while Pebble logs and applies a batch, when it survives no error of the log.
	inCommit atomic.Bool
	// logFailed is the first error of the log, after which Pebble survives no commit.
	logFailed atomic.Pointer[error]

	mu       sync.Mutex
	fatal    error           // the first
	fail     func(err error) // the committer's, once there is one
	lastTold time.Time
	untold   int
}

// errAbandoned is what operations get that were reading.
var errAbandoned = fmt.Errorf("%w: pebble was abandoned after it broke down", ErrFailed)

// flushBackoff paces what Pebble repeats without pause when it fails, such as a flush to a full disk. It is slept in
// Pebble's callback, with its lock held: such a store does little else.
const flushBackoff = 10 * time.Millisecond

func newGuard(events *Events) *guard {
	return &guard{events: events, broken: make(chan struct{})}
}

// watch makes fail hear of fatal errors, those of before included.
func (g *guard) watch(fail func(error)) {
	g.mu.Lock()
	g.fail = fail
	fatal := g.fatal
	g.mu.Unlock()
	if fatal != nil {
		fail(fatal)
	}
}

// Infof implements pebble.Logger. Pebble's chatter is not passed on: its metrics say it better.
func (g *guard) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (g *guard) Errorf(format string, args ...any) {
	g.background(fmt.Errorf(format, args...))
}

// Fatalf implements pebble.Logger. Pebble does not expect it to return; the fence sees to it that nothing which it
// does afterwards reaches a file.
func (g *guard) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebble: "+format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = fmt.Errorf("pebble broke down: %w", cause)
		}
	}
	g.breakDown(err)
}

// breakDown abandons Pebble, and fails the store: first the fence, then those who wait are told, then Close may go on.
func (g *guard) breakDown(err error) {
	g.gone.Store(true)
	g.mu.Lock()
	if g.fatal == nil {
		g.fatal = err
	}
	fail := g.fail
	g.mu.Unlock()
	if fail != nil {
		fail(err)
	}
	g.once.Do(func() { close(g.broken) })
}

// openPebble opens Pebble, which may break down at that already.
func (g *guard) openPebble(dir string, o *pebble.Options) (*pebble.DB, error) {
	g.opening.Store(true)
	defer g.opening.Store(false)
	var opened *pebble.DB
	if err := g.attempt(func() (err error) { opened, err = pebble.Open(dir, o); return err }); err != nil {
		return nil, err
	}
	return opened, nil
}

// commit has Pebble log and apply a batch, without waiting for the sync, unless its log has failed. Of that and of the
// commit whichever comes later sees the other (fenceFS.wrote).
func (g *guard) commit(db *pebble.DB, b *pebble.Batch) error {
	g.inCommit.Store(true)
	defer g.inCommit.Store(false)
	if err := g.logFailed.Load(); err != nil {
		return fmt.Errorf("the log cannot be written: %w", *err)
	}
	return db.ApplyNoSyncWait(b, pebble.Sync)
}

// attempt has Pebble do something at which it may break down, by a panic, or so that it does not return.
func (g *guard) attempt(something func() error) error {
	ended := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if r := recover(); r != nil {
				cause, ok := r.(error)
				if !ok {
					cause = fmt.Errorf("%v\n%s", r, debug.Stack())
				}
				err = fmt.Errorf("pebble panicked: %w", cause)
				g.breakDown(err)
			}
			ended <- err
		}()
		err = something()
	}()
	select {
	case err := <-ended:
		return err
	case <-g.broken:
		return g.broke()
	}
}

// broke returns why Pebble broke down, or nil.
func (g *guard) broke() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fatal
}

func (g *guard) background(err error) {
	g.mu.Lock()
	g.untold++
	times, now := g.untold, time.Now()
	tell := g.events.OnBackgroundError
	if now.Sub(g.lastTold) < time.Second {
		tell = nil
	} else {
		g.untold, g.lastTold = 0, now
	}
	g.mu.Unlock()
	if tell != nil {
		tell(err, times)
	}
}

func (g *guard) listener() *pebble.EventListener {
	l := &pebble.EventListener{
		BackgroundError: func(err error) {
			g.background(err)
			time.Sleep(flushBackoff)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			g.background(fmt.Errorf("corruption in %s: %w", info.Path, info.Details))
		},
	}
	if f := g.events.OnWriteStall; f != nil {
		l.WriteStallBegin = func(info pebble.WriteStallBeginInfo) { f(true, info.Reason) }
		l.WriteStallEnd = func() { f(false, "") }
	}
	if f := g.events.OnSlowDisk; f != nil {
		l.DiskSlow = func(info pebble.DiskSlowInfo) { f(info.Path, info.Duration) }
	}
	return l
}
