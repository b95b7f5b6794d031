package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Store is a folder of objects. It is safe for use by many goroutines.
type Store struct {
	dir    string
	opts   Options
	db     *pebble.DB
	lock   *pebble.Lock
	guard  *guard
	files  *keeper
	commit *committer
	space  space
	alarms *scheduler

	shards  []shard
	waiters waiters
	kinds   sync.Map // name -> struct{}

	unwatch  chan struct{}
	watching sync.WaitGroup

	closed  atomic.Bool
	reading sync.RWMutex // held shared by what uses db outside operations; exclusively by Close
	closing sync.Once
	closeTo error

	panics, overloads, fulls, stuck atomic.Int64

	mark    runtimeState // what the store says of itself (runtime.go)
	backups backups
}

// Open opens the store in the folder dir, making it if it is not there. It returns ErrInUse if it is open already,
// ErrFormat if another version of this package wrote it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{opts: o.withDefaults()}
	if s.opts.FS == disk {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("objects: open %s: %w", dir, err)
		}
		dir = abs // two names of one folder must not pass Pebble's lock, which goes by name within a process
	}
	s.dir = dir
	s.guard = newGuard(&s.opts.Events)
	s.files = &keeper{fs: s.opts.FS, dir: dir, guard: s.guard}
	if err := s.open(); err != nil {
		if isFull(err) {
			err = fmt.Errorf("%w: a store needs a little room to start: make some (%w)", ErrFull, err)
		}
		return nil, fmt.Errorf("objects: open %s: %w", dir, err)
	}
	s.space = space{
		fs: s.opts.FS, dir: dir, min: s.opts.MinFreeBytes, onChange: s.opts.Events.OnFull, start: time.Now(),
	}
	s.makeShards()
	s.alarms = newScheduler(s)
	s.commit = newCommitter(s.db, &s.opts, &s.space, s.guard, s.alarms)
	s.guard.watch(s.commit.fail)
	if s.unwatch = make(chan struct{}); s.opts.StuckAfter > 0 {
		s.watching.Add(1)
		go s.watch()
	}
	return s, nil
}

// memTables is how many there are at most.
const memTables = 4

func (s *Store) open() (err error) {
	fs := s.opts.FS
	if err := makeDir(fs, s.dir); err != nil {
		return fmt.Errorf("the folder cannot be made: %w", err)
	}
	if s.lock, err = pebble.LockDirectory(s.dir, fs); err != nil {
		return lockError(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	closeFolder(fs, s.dir)
	holds, err := s.checkFolder()
	if err != nil {
		return err
	}
	po := &pebble.Options{
		FS:                          &fenceFS{fs, s.guard, s.files},
		Logger:                      s.guard,
		EventListener:               s.guard.listener(),
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   s.opts.CacheBytes + memTables*s.opts.MemTableBytes, // Pebble reserves them out of it
		MemTableSize:                uint64(s.opts.MemTableBytes),
		MemTableStopWritesThreshold: memTables, // a burst of so many waits for no flush
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // an absent key, as of a new object, costs no read (see byFilter)
	}
	po.EnsureDefaults()
	if s.db, err = s.guard.openPebble(s.dir, po); err != nil {
		return opened(err)
	}
	if err := s.startFormat(holds); err != nil {
		return corrupt(err)
	}
	if err := s.files.opened(); err != nil {
		return err
	}
	return s.guard.broke()
}

// release gives up what open took. If all went well, the inventory then has all files; where it cannot be written, the
// store opens next as it does after a crash.
func (s *Store) release() error {
	var err error
	if s.db != nil && !s.guard.gone.Load() {
		err = s.guard.attempt(s.db.Close)
	}
	if s.commit != nil && err == nil && s.Err() == nil {
		_ = s.files.stopped()
	}
	s.files.end()
	return errors.Join(err, s.lock.Close())
}

// stuckGrace is what Close gives operations that should have returned long ago: the contexts of alarms' handlers have
// ended only now.
const stuckGrace = time.Second

// makeDir makes dir and syncs the folders that its new part is named in.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	var parents []string
	for p := fs.PathDir(dir); ; p = fs.PathDir(p) {
		parents = append(parents, p)
		if _, err := fs.Stat(p); err == nil || fs.PathDir(p) == p {
			break
		}
	}
	if err := fs.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	for _, p := range parents {
		d, err := fs.OpenDir(p)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// lockError tells a folder that is in use from one that cannot be written. Pebble says the former with EAGAIN or
// EACCES from the system's lock, or with an error of its own for a lock of the same process; the latter comes with
// the path of the file that could not be made.
func lockError(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) && !errors.Is(err, syscall.EAGAIN) {
		return fmt.Errorf("the folder cannot be written: %w", err)
	}
	return fmt.Errorf("%w by this or another process (%w)", ErrInUse, err)
}

// Close lets running operations end, commits what is pending, tells those who waited, and closes the folder. It may be
// called again, and then returns the same. Operations that come later get ErrClosed. It must not be called from an
// operation or a done function, and it waits as long as the disk takes.
//
// It waits for operations at most Options.StuckAfter, and a second for objects that are marked stuck. Then it returns
// an error that wraps ErrStuck and names an object. Nothing that such an operation does afterwards reaches the disk,
// and the folder may be opened again; but what Pebble holds in memory is then lost to the process.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.closed.Store(true)
		s.alarms.close()
		running := context.Background()
		if s.opts.StuckAfter > 0 {
			var cancel context.CancelFunc
			running, cancel = context.WithTimeout(running, s.opts.StuckAfter)
			defer cancel()
		}
		left := s.retireAll(running)
		for end := time.Now().Add(stuckGrace); len(left) > 0 && time.Now().Before(end); left = s.retireAll(running) {
			time.Sleep(stuckGrace / 100)
		}
		close(s.unwatch)
		s.watching.Wait()
		s.commit.close()
		ended := make(chan struct{})
		go func() {
			s.commit.loops.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-s.guard.broken: // the loops may hang in it
		}
		s.commit.failures.Wait()
		if len(left) == 0 {
			s.alarms.wait()
		}
		s.reading.Lock()
		defer s.reading.Unlock()
		if len(left) > 0 {
			s.guard.gone.Store(true) // an operation may read from Pebble, or walk through it
			s.closeTo = fmt.Errorf("objects: close %s: %w", s.dir, stuckError(left[0], len(left)-1))
		} else if s.Err() == nil {
			_ = s.unlessBroken(s.sealLog) // without it damage of the last group would not be seen
		}
		if err := s.release(); err != nil && s.Err() == nil { // a failed store's log fails to close, too
			s.closeTo = errors.Join(s.closeTo, fmt.Errorf("objects: close %s: %w", s.dir, err))
		}
	})
	return s.closeTo
}

// Err returns why the store has failed, an error that wraps ErrFailed and the cause, or nil.
func (s *Store) Err() error { return s.commit.failure() }

// Full returns why an operation that stores something would be refused for lack of room on the disk, an error that wraps
// ErrFull, or nil.
func (s *Store) Full() error { return s.space.check(s.commit.durable.Load()) }

// Stats are a store's figures at one moment.
type Stats struct {
	Awake        int    // objects in memory
	Memory       int64  // bytes that they take, about
	Stuck        int64  // of them, stuck in an operation
	Started      uint64 // operations that were let in since Open
	Commits      uint64 // group commits made durable since Open
	Ops          int64  // operations with writes in them
	Bytes        int64  // their keys and values
	Pending      int64  // operations that wait for the disk
	PendingBytes int64  // keys and values that do
	Panics       int64  // operations that panicked
	Rung         int64  // alarms that were handled
	AlarmErrors  int64  // attempts that failed
	Overloaded   int64  // operations refused with ErrOverloaded
	Refused      int64  // operations refused with ErrFull
	Full         bool   // whether they are now
}

// Stats returns the store's figures.
func (s *Store) Stats() Stats {
	st := Stats{
		Commits:      s.commit.durable.Load(),
		Ops:          s.commit.ops.Load(),
		Bytes:        s.commit.bytes.Load(),
		Pending:      s.commit.pending.Load(),
		PendingBytes: s.commit.pendingB.Load(),
		Stuck:        s.stuck.Load(),
		Panics:       s.panics.Load(),
		Rung:         s.alarms.rung.Load(),
		AlarmErrors:  s.alarms.failed.Load(),
		Overloaded:   s.overloads.Load(),
		Refused:      s.fulls.Load(),
		Full:         s.space.full.Load(),
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Awake += sh.count
		st.Memory += sh.size
		st.Started += sh.started
		sh.mu.Unlock()
	}
	return st
}

// Metrics returns Pebble's metrics, or nil once the store is closed or Pebble broke down.
func (s *Store) Metrics() *pebble.Metrics {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed.Load() || s.guard.gone.Load() {
		return nil
	}
	return s.db.Metrics()
}
