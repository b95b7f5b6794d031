package objects

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func TestReopenFindsEverything(t *testing.T) {
	checkLeaks(t)
	dir := filepath.Join(t.TempDir(), "new", "folder")
	for round := range 3 {
		s, err := Open(dir, Options{})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		if n := value(t, k, "a"); n != uint64(round) {
			t.Errorf("the counter is %d in round %d", n, round)
		}
		must(t, k.Do(ctx, "a", increment))
		must(t, s.Close())
		must(t, s.Close())
	}
}

func TestCloseTellsWhatWaitsAndRefusesTheRest(t *testing.T) {
	checkLeaks(t)
	s, err := Open("d", Options{FS: vfs.NewMem()})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	var told, closed atomic.Int32
	var wg sync.WaitGroup
	for caller := range 4 {
		wg.Go(func() {
			for i := 0; closed.Load() == 0; i++ {
				wg.Add(1)
				k.Submit(name(i%10+caller), increment, func(err error) {
					defer wg.Done()
					switch {
					case err == nil:
						told.Add(1)
					case errors.Is(err, ErrClosed):
						closed.Add(1)
					case !errors.Is(err, ErrOverloaded):
						t.Error(err)
					}
				})
			}
		})
	}
	eventually(t, "some increments", func() bool { return told.Load() > 100 })
	must(t, s.Close())
	wg.Wait()
	if n := int64(told.Load()); n != s.Stats().Ops || s.Stats().Pending != 0 {
		t.Errorf("%d were told, figures %+v", n, s.Stats())
	}
	wantError(t, k.Do(ctx, "a", increment), ErrClosed)
	_, err = k.List(ctx, "", 1)
	wantError(t, err, ErrClosed)
	if s.Metrics() != nil {
		t.Error("a closed store has metrics")
	}
}

func TestOpenExplainsWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	wantError(t, err, ErrInUse)
	wd, err := os.Getwd()
	must(t, err)
	relative, err := filepath.Rel(wd, dir)
	must(t, err)
	_, err = Open(relative, Options{})
	wantError(t, err, ErrInUse)
	must(t, s.Close())

	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(filepath.Join(file, "sub"), Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a folder under a file: %v", err)
	}

	readonly := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpMkdirAll {
			return os.ErrPermission
		}
		return nil
	}))
	_, err = Open("d", Options{FS: readonly})
	wantError(t, err, os.ErrPermission)

	other := t.TempDir()
	db, err := pebble.Open(other, &pebble.Options{Logger: newGuard(&Events{})})
	must(t, err)
	must(t, db.Set([]byte("theirs"), nil, nil))
	must(t, db.Close())
	_, err = Open(other, Options{})
	wantError(t, err, ErrFormat)

	db, err = pebble.Open(dir, &pebble.Options{Logger: newGuard(&Events{})})
	must(t, err)
	must(t, db.Set([]byte(formatKey), []byte("2"), nil))
	must(t, db.Close())
	for range 2 { // the lock is given back
		_, err = Open(dir, Options{})
		wantError(t, err, ErrFormat)
		if !strings.Contains(err.Error(), `the store has format 2, and this program knows format 1`) {
			t.Errorf("the error is %q", err)
		}
	}
}

func TestLowSpaceRefusesPutsUntilThereIsRoom(t *testing.T) {
	fs := vfs.NewMem()
	free := func(bytes uint64) { fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40}) }
	free(1 << 30)
	var events []bool
	s := open(t, "d", Options{FS: fs, Events: Events{OnFull: func(full bool, _ int64) { events = append(events, full) }}})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	free(DefaultMinFreeBytes - 1)
	s.space.last.Store(0) // a second has passed
	wantError(t, k.Do(ctx, "a", increment), ErrFull)
	if n := value(t, k, "a"); n != 1 {
		t.Errorf("the counter is %d after a refused increment", n)
	}
	must(t, k.Do(ctx, "a", func(tx *Tx, c *counter) error { c.n = 0; return tx.Delete("n") }))
	wantError(t, s.Full(), ErrFull)
	must(t, k.Do(ctx, "b", func(tx *Tx, c *counter) error { tx.UseReserve(); return increment(tx, c) }))
	wantError(t, k.Do(ctx, "b", increment), ErrFull) // the reserve was for one operation
	if st := s.Stats(); !st.Full || st.Refused != 2 {
		t.Errorf("the figures: %+v", st)
	}
	free(DefaultMinFreeBytes)
	s.space.last.Store(0)
	must(t, s.Full())
	must(t, k.Do(ctx, "a", increment))
	if n := value(t, k, "a"); n != 1 || len(events) != 2 || !events[0] || events[1] {
		t.Errorf("the counter is %d, events %v", n, events)
	}
}

func TestSpaceIsLookedAtOnceASecondAndAfterMuchWasWritten(t *testing.T) {
	fs := vfs.NewMem()
	sp := &space{fs: fs, dir: "d", min: 1 << 20, start: time.Now()}
	low := vfs.DiskUsage{AvailBytes: 1, TotalBytes: 1 << 40}
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 40})
	must(t, sp.check(0))
	fs.TestingSetDiskUsage(low)
	must(t, sp.check(1))
	sp.written.Store(1 << 20)
	must(t, sp.check(1)) // nothing was committed since
	wantError(t, sp.check(2), ErrFull)
	sp.min = -1
	must(t, sp.check(3))
}

// faults makes operations on files fail while it is on.
func faults(on *atomic.Bool, err error, match func(errorfs.Op) bool) (vfs.FS, *vfs.MemFS) {
	mem := vfs.NewCrashableMem()
	return errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on.Load() && match(op) {
			return err
		}
		return nil
	})), mem
}

func isLog(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }

func TestAFailedSyncEndsTheStore(t *testing.T) {
	checkLeaks(t)
	var on atomic.Bool
	oops := errors.New("the disk is gone")
	fs, mem := faults(&on, oops, func(op errorfs.Op) bool {
		return isLog(op) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData)
	})
	failure := make(chan error, 2)
	s, err := Open("d", Options{FS: fs, Events: Events{OnFailure: func(err error) { failure <- err }}})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	must(t, k.Do(ctx, "clean", increment))
	on.Store(true)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		k.Submit(name(i%3), increment, func(err error) {
			defer wg.Done()
			if !errors.Is(err, ErrFailed) {
				t.Errorf("an increment that was not synced was told %v", err)
			}
		})
	}
	wg.Wait()
	wantError(t, <-failure, oops)
	on.Store(false) // the disk heals; the store does not
	for _, n := range []string{name(0), "a", "clean", "new"} {
		err := k.Do(ctx, n, func(*Tx, *counter) error { t.Error("an operation ran"); return nil })
		wantError(t, err, ErrFailed)
		wantError(t, err, oops)
	}
	_, err = k.List(ctx, "", 1)
	wantError(t, err, ErrFailed)
	wantError(t, s.Err(), oops)
	must(t, s.Close())

	s = open(t, "d", Options{FS: mem})
	k = Register(s, "counter", wakeCounter)
	if n := value(t, k, "a"); n != 1 {
		t.Errorf("the counter is %d after the store was opened again", n)
	}
}

func TestALogThatCannotBeWrittenEndsTheStoreAndTheFolderCanBeReopened(t *testing.T) {
	for _, size := range []int{1, 100 << 10, MaxValueBytes} { // small: at the sync; large: Pebble panics in its commit
		var on atomic.Bool
		fs, mem := faults(&on, syscall.ENOSPC, func(op errorfs.Op) bool {
			return isLog(op) && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
		})
		s, err := Open("d", Options{FS: fs})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		must(t, k.Do(ctx, "a", increment))
		on.Store(true)
		big := make([]byte, size)
		err = k.Do(ctx, "a", func(tx *Tx, c *counter) error { return errors.Join(increment(tx, c), tx.Put("big", big)) })
		wantError(t, err, ErrFailed)
		wantError(t, err, syscall.ENOSPC)
		wantError(t, k.Do(ctx, "a", increment), ErrFailed)
		on.Store(false)
		if size == MaxValueBytes && !s.guard.gone.Load() {
			t.Error("this test should make Pebble break down")
		}
		must(t, s.Close())

		s, err = Open("d", Options{FS: mem})
		must(t, err)
		k = Register(s, "counter", wakeCounter)
		if n := value(t, k, "a"); n < 1 {
			t.Errorf("the counter is %d after the folder was opened again", n)
		}
		must(t, k.Do(ctx, "a", increment))
		must(t, s.Close())
	}
}

func TestAFullDiskDuringFlushesIsSurvived(t *testing.T) {
	var on atomic.Bool
	fs, _ := faults(&on, syscall.ENOSPC, func(op errorfs.Op) bool {
		return strings.HasSuffix(op.Path, ".sst") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	})
	var events, errs atomic.Int64
	s := open(t, "d", Options{FS: fs, MemTableBytes: 64 << 10, Events: Events{
		OnBackgroundError: func(_ error, times int) { events.Add(1); errs.Add(int64(times)) },
	}})
	k := Register(s, "counter", wakeCounter)
	on.Store(true)
	var wg sync.WaitGroup
	pad := make([]byte, 4<<10)
	for i := range 200 {
		wg.Add(1)
		k.Submit(name(i), func(tx *Tx, c *counter) error {
			return errors.Join(increment(tx, c), tx.Put("pad", pad))
		}, func(err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "a failing flush", func() bool { return events.Load() > 0 })
	on.Store(false)
	wg.Wait()
	if events.Load() > 5 {
		t.Errorf("%d events about %d errors", events.Load(), errs.Load())
	}
	for i := range 200 {
		if n := value(t, k, name(i)); n != 1 {
			t.Errorf("object %d is %d", i, n)
		}
	}
}

func TestBackgroundErrorsAreThinned(t *testing.T) {
	var told []int
	g := newGuard(&Events{OnBackgroundError: func(_ error, times int) { told = append(told, times) }})
	for range 1000 {
		g.background(syscall.ENOSPC)
	}
	g.lastTold = g.lastTold.Add(-time.Second)
	g.background(syscall.ENOSPC)
	if len(told) != 2 || told[0] != 1 || told[1] != 1000 {
		t.Errorf("told of %v errors", told)
	}
}

func TestAFatalErrorOfPebbleDoesNotEndTheProcess(t *testing.T) {
	var on atomic.Bool
	fs, mem := faults(&on, syscall.EIO, func(op errorfs.Op) bool {
		return strings.Contains(op.Path, "MANIFEST") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	})
	s, err := Open("d", Options{FS: fs})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	on.Store(true)
	go func() { _ = s.db.Flush() }()
	eventually(t, "the store to fail", func() bool { return s.Err() != nil })
	wantError(t, k.Do(ctx, "a", increment), ErrFailed)
	wantError(t, s.Err(), syscall.EIO)
	must(t, s.Close())
	s = open(t, "d", Options{FS: mem})
	k = Register(s, "counter", wakeCounter)
	if n := value(t, k, "a"); n != 1 {
		t.Errorf("the counter is %d after the folder was opened again", n)
	}
}
