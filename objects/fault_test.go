package objects

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestADiskThatFailsDuringOpenIsSurvived fails each change of the disk that Open makes, once and from then on.
func TestADiskThatFailsDuringOpenIsSurvived(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		for _, ever := range []bool{true, false} {
			failures, rounds := 0, 1
			for ; ; rounds++ {
				var n atomic.Int64
				var on atomic.Bool
				at := int64(rounds)
				fs, _ := faults(&on, syscall.ENOSPC, func(op errorfs.Op) bool {
					if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose {
						return false
					}
					i := n.Add(1)
					return i == at || ever && i > at
				})
				if !fresh {
					s, err := Open("a/d", Options{FS: fs})
					must(t, err)
					k := Register(s, "counter", wakeCounter)
					must(t, k.Do(ctx, "a", increment))
					must(t, s.Close())
				}
				on.Store(true)
				s, err := Open("a/d", Options{FS: fs})
				on.Store(false)
				if err == nil {
					_ = s.Close() // it may have failed later
				} else if failures++; !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("change %d: %v", rounds, err)
				}
				if n.Load() < at {
					break
				}

				s, err = Open("a/d", Options{FS: fs})
				must(t, err)
				k := Register(s, "counter", wakeCounter)
				must(t, k.Do(ctx, "a", increment))
				want := uint64(2)
				if fresh {
					want = 1
				}
				if got := value(t, k, "a"); got != want {
					t.Errorf("change %d: the counter is %d, want %d", rounds, got, want)
				}
				must(t, s.Close())
			}
			if failures < 10 {
				t.Errorf("only %d of %d changes made Open fail: this test tests little", failures, rounds)
			}
		}
	}
}

// TestACrashDuringOpenIsSurvived crashes before each change of the disk that Open makes, with each name and block that
// was not synced kept or lost at random.
func TestACrashDuringOpenIsSurvived(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := Open("a/d", Options{FS: mem})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	must(t, s.Close())
	var mu sync.Mutex
	var crashes []*vfs.MemFS
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			for seed := range uint64(10) {
				rng := rand.New(rand.NewPCG(seed, uint64(len(crashes))))
				crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
			}
		}
		return nil
	}))
	s, err = Open("a/d", Options{FS: fs})
	must(t, err)
	must(t, s.Close())
	for i, crashed := range crashes {
		s, err := Open("a/d", Options{FS: crashed})
		if err != nil {
			t.Errorf("crash %d of %d: %v", i, len(crashes), err)
			continue
		}
		k := Register(s, "counter", wakeCounter)
		if n := value(t, k, "a"); n != 1 {
			t.Errorf("crash %d of %d: the counter is %d", i, len(crashes), n)
		}
		must(t, s.Close())
	}
}

func TestAnOperationThatReadsWhenPebbleBreaksDownGetsErrFailed(t *testing.T) {
	s, err := Open("d", Options{FS: vfs.NewMem()})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	must(t, s.db.Flush()) // so that it is read from a file
	err = k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		tx.SetDurability(Async)
		s.guard.breakDown(syscall.EIO)
		_, _, err := tx.Get("n")
		return err
	})
	wantError(t, err, ErrFailed)
	must(t, s.Close())
}

func TestAPebbleThatBreaksDownWhileItClosesIsLeft(t *testing.T) {
	var s *Store
	var on atomic.Bool
	fs, mem := faults(&on, nil, func(op errorfs.Op) bool {
		if isLog(op) && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			s.guard.breakDown(syscall.EIO) // as by a flush that runs beside
		}
		return false
	})
	s, err := Open("d", Options{FS: fs})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	on.Store(true)
	must(t, s.Close())
	wantError(t, s.Err(), syscall.EIO)
	on.Store(false)
	s = open(t, "d", Options{FS: mem})
	if n := value(t, Register(s, "counter", wakeCounter), "a"); n != 1 {
		t.Errorf("the counter is %d", n)
	}
}

// TestNoCommitBeginsOnALogThatFailed: Pebble would take the process down with it, if it had to rotate that.
func TestNoCommitBeginsOnALogThatFailed(t *testing.T) {
	g := newGuard(&Events{})
	f := &fenceFS{FS: vfs.NewMem(), guard: g}
	wantError(t, f.wrote(syscall.EIO, true), syscall.EIO)
	wantError(t, g.commit(nil, nil), syscall.EIO)
}

// TestASlowDiskRefusesWhatCannotWait offers several times what may wait while a sync runs, which takes a second. Two syncs
// must then bring all that may wait (while one runs that holds all of it, nothing more is let in), nothing that was let in
// may wait for longer than that, and the rest must be refused at once. Who needs no disk is not kept waiting either.
func TestASlowDiskRefusesWhatCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &gateFS{FS: vfs.NewMem()}
		s, err := Open("d", Options{FS: fs})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		must(t, k.Do(ctx, "calm", increment))
		fs.hook(func() { time.Sleep(time.Second) })
		must(t, k.Do(ctx, "slow", increment)) // it is known to be slow from its last sync
		const seconds = 4
		var done, refused int
		var longest time.Duration
		for range 10 * seconds {
			for i := range MaxPending / 3 {
				began := time.Now()
				k.Submit(name(i%100), increment, func(err error) {
					switch took := time.Since(began); {
					case err == nil:
						done++
						longest = max(longest, took)
					case !errors.Is(err, ErrOverloaded):
						t.Error(err)
					case took > 0:
						t.Errorf("it took %v to refuse an operation", took)
					default:
						refused++
					}
				})
			}
			if n := s.Stats().Pending; n > MaxPending {
				t.Errorf("%d operations wait", n)
			}
			began := time.Now()
			err := k.Do(ctx, "calm", func(*Tx, *counter) error { return nil })
			if took := time.Since(began); err != nil && !errors.Is(err, ErrOverloaded) || took > 0 {
				t.Errorf("the calm object: %v, after %v", err, took)
			}
			time.Sleep(time.Second / 10)
		}
		must(t, s.Close())
		if want := seconds / 2 * MaxPending; done < want || refused < want {
			t.Errorf("%d were done in %d s, %d refused", done, seconds, refused)
		}
		if longest > 2*time.Second {
			t.Errorf("one waited for %v", longest)
		}
		t.Logf("%d were done in %d s, %d refused, the longest took %v", done, seconds, refused, longest)
	})
}

// TestZeroesAheadOfANewLog: small syncs find the file long enough nearly always, it is never longer by more than it was
// or a mebibyte, and large syncs get no zeroes.
func TestZeroesAheadOfANewLog(t *testing.T) {
	for _, test := range []struct{ bytes, syncs, longer int }{
		{100, 10_000, 5},
		{1000, 9_000, 14},
		{largeSync, 100, 18},
		{largeSync + 1, 100, 100},
	} {
		file, err := vfs.NewMem().Create("000002.log", "")
		must(t, err)
		z, data := &zeroes{last: test.bytes}, bytes.Repeat([]byte{1}, test.bytes)
		longer, size := 0, int64(0)
		for range test.syncs {
			z.ahead(file, test.bytes)
			_, err := file.Write(data)
			must(t, err)
			z.synced()
			info, err := file.Stat()
			must(t, err)
			if info.Size() > size {
				longer++
			}
			if size = info.Size(); size < z.at || size > z.at+min(max(z.at, firstZeroes), mostZeroes) {
				t.Fatalf("syncs of %d bytes: the file has %d when %d are written", test.bytes, size, z.at)
			}
		}
		if longer > test.longer || test.bytes > largeSync && size != z.at {
			t.Errorf("syncs of %d bytes: %d of %d made the file longer, which has %d when %d are written", test.bytes, longer, test.syncs, size, z.at)
		}
	}
}

// TestZeroesThatFailAreNotMissed: what is written ahead may fail, for want of room; what is written must not.
func TestZeroesThatFailAreNotMissed(t *testing.T) {
	var on atomic.Bool
	var failed atomic.Int64
	on.Store(true)
	fs, mem := faults(&on, syscall.ENOSPC, func(op errorfs.Op) bool {
		ahead := isLog(op) && op.Kind == errorfs.OpFileWriteAt
		if ahead {
			failed.Add(1)
		}
		return ahead
	})
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	for range 1000 {
		must(t, k.Do(ctx, "a", increment))
	}
	must(t, s.Close())
	s = open(t, "d", Options{FS: mem})
	if n := value(t, Register(s, "counter", wakeCounter), "a"); n != 1000 || failed.Load() == 0 {
		t.Errorf("the counter is %d, after %d writes that failed", n, failed.Load())
	}
}
