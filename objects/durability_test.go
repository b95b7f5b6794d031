package objects

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func incrementAs(d Durability) func(*Tx, *counter) error {
	return func(tx *Tx, c *counter) error {
		tx.SetDurability(d)
		return increment(tx, c)
	}
}

func TestAsyncIsDurableWithinItsIntervalAndNoneWithTheNextCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &gateFS{FS: vfs.NewMem()}
		s, err := Open("d", Options{FS: fs})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		pending := func(want int) {
			t.Helper()
			synctest.Wait()
			if n := s.Stats().PendingBytes; n != int64(want*len("n")+want*8) {
				t.Errorf("%d bytes are pending, want %d operations", n, want)
			}
		}
		start, syncs := time.Now(), fs.syncs.Load()
		must(t, k.Do(ctx, "a", incrementAs(None)))
		time.Sleep(time.Hour)
		pending(1)
		if n := fs.syncs.Load() - syncs; n != 0 {
			t.Errorf("None caused %d syncs", n)
		}
		must(t, k.Do(ctx, "b", incrementAs(Async)))
		must(t, k.Do(ctx, "b", incrementAs(Async)))
		pending(3)
		time.Sleep(DefaultAsyncWithin / 4)
		must(t, k.Do(ctx, "c", incrementAs(Async)))
		pending(4)
		time.Sleep(DefaultAsyncWithin / 4)
		pending(0)
		if n := s.Stats().Commits; n != 1 {
			t.Errorf("%d commits", n)
		}
		if took := time.Since(start); took != time.Hour+DefaultAsyncWithin/2 {
			t.Errorf("the clock went on by %v: somebody waited", took)
		}
		must(t, k.Do(ctx, "a", incrementAs(None)))
		must(t, k.Do(ctx, "d", increment))
		pending(0)
		must(t, s.Close())
	})
}

func TestASyncOperationWaitsForWhatItSaw(t *testing.T) {
	read := func(*Tx, *counter) error { return nil }
	readAsync := func(tx *Tx, _ *counter) error { tx.SetDurability(Async); return nil }
	for what, c := range map[string]struct {
		op    func(k *Kind[*counter]) error
		waits bool
	}{
		"read":         {func(k *Kind[*counter]) error { return k.Do(ctx, "a", read) }, true},
		"async read":   {func(k *Kind[*counter]) error { return k.Do(ctx, "a", readAsync) }, false},
		"overwrite":    {func(k *Kind[*counter]) error { return k.Do(ctx, "a", increment) }, true},
		"async write":  {func(k *Kind[*counter]) error { return k.Do(ctx, "a", incrementAs(Async)) }, false},
		"other":        {func(k *Kind[*counter]) error { return k.Do(ctx, "b", read) }, false},
		"error":        {func(k *Kind[*counter]) error { return swap(k.Do(ctx, "a", fails)) }, true},
		"async error":  {func(k *Kind[*counter]) error { return swap(k.Do(ctx, "a", failsAsync)) }, false},
		"call":         {func(k *Kind[*counter]) error { return k.Do(ctx, "b", calling(k, readAsync)) }, true},
		"deeper calls": {func(k *Kind[*counter]) error { return k.Do(ctx, "b", callingTwice(k, readAsync)) }, true},
		"call in vain": {func(k *Kind[*counter]) error { return k.Do(ctx, "b", calling(k, failsAsync)) }, true},
	} {
		for _, d := range []Durability{Async, None} {
			t.Run(fmt.Sprint(what, d), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fs := &gateFS{FS: vfs.NewMem()}
					s, err := Open("d", Options{FS: fs})
					must(t, err)
					k := Register(s, "counter", wakeCounter)
					must(t, k.Do(ctx, "b", increment))
					must(t, k.Do(ctx, "a", incrementAs(d)))
					fs.close()
					var told atomic.Bool
					out := make(chan error, 1)
					start := time.Now()
					go func() {
						err := c.op(k)
						told.Store(true)
						out <- err
					}()
					synctest.Wait()
					if told.Load() == c.waits {
						t.Errorf("it returned before the sync: %t", told.Load())
					}
					fs.open()
					must(t, <-out)
					if time.Since(start) != 0 {
						t.Error("the commit was not made at once")
					}
					must(t, s.Close())
				})
			})
		}
	}
}

var errNo = errors.New("no")

func fails(*Tx, *counter) error { return errNo }

func failsAsync(tx *Tx, _ *counter) error { tx.SetDurability(None); return errNo }

func swap(err error) error {
	if errors.Is(err, errNo) {
		return nil
	}
	return fmt.Errorf("got %w", err)
}

// calling is an operation that does nothing but run op on a.
func calling(k *Kind[*counter], op func(*Tx, *counter) error) func(*Tx, *counter) error {
	return func(tx *Tx, _ *counter) error {
		if err := k.Do(tx.Context(), "a", op); !errors.Is(err, errNo) {
			return err
		}
		return nil
	}
}

func callingTwice(k *Kind[*counter], op func(*Tx, *counter) error) func(*Tx, *counter) error {
	return func(tx *Tx, _ *counter) error {
		return k.Do(tx.Context(), "c", func(tx *Tx, c *counter) error {
			tx.SetDurability(Async)
			return calling(k, op)(tx, c)
		})
	}
}

func TestAGroupOfNoneIsCommittedWhenItIsLarge(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "blob", func(*Tx) (int, error) { return 0, nil })
	value := make([]byte, 100<<10)
	for i := range 8 * maxGroupBytes / len(value) {
		err := k.Do(ctx, name(i), func(tx *Tx, _ int) error { tx.SetDurability(None); return tx.Put("v", value) })
		if errors.Is(err, ErrOverloaded) {
			time.Sleep(time.Millisecond)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all but the last megabyte to be durable", func() bool { return s.Stats().PendingBytes <= maxGroupBytes })
}

// TestACrashLeavesAPrefix runs operations that are numbered throughout, of every durability, on some objects, and
// crashes: what is there must be the first ones, up to at least the last that was durable for sure.
func TestACrashLeavesAPrefix(t *testing.T) {
	const within = 20 * time.Millisecond
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 0))
		mem := vfs.NewCrashableMem()
		s, err := Open("d", Options{FS: mem, AsyncWithin: within})
		must(t, err)
		s.commit.sealAt = 300
		k := Register(s, "counter", wakeCounter)
		var sure, last uint64 // operations that must be there, and that may
		type op struct {
			object int
			d      Durability
			at     time.Time
		}
		ops := []op{{}}
		for range 20 + rng.IntN(100) {
			last++
			o := op{rng.IntN(4), Durability(rng.IntN(10) % 3), time.Now()}
			ops = append(ops, o)
			put := func(tx *Tx, _ *counter) error {
				tx.SetDurability(o.d)
				return tx.Put("n", number(last))
			}
			must(t, k.Do(ctx, name(o.object), put))
			if o.d == Sync {
				sure = last
			}
		}
		if seed%2 == 0 { // nothing more comes: what is Async must still get there
			time.Sleep(within)
			for i, o := range ops {
				if o.d == Async {
					sure = max(sure, uint64(i))
				}
			}
			eventually(t, "the last Async commit", func() bool {
				return s.Stats().PendingBytes <= int64(last-sure)*int64(len("n")+8)
			})
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		must(t, s.Close())

		s, err = Open("d", Options{FS: crashed})
		must(t, err)
		k = Register(s, "counter", wakeCounter)
		var got [4]uint64
		var upTo uint64
		for i := range got {
			got[i] = value(t, k, name(i))
			upTo = max(upTo, got[i])
		}
		if upTo < sure {
			t.Errorf("seed %d: operation %d is durable, the last one there is %d", seed, sure, upTo)
		}
		var want [4]uint64
		for i, o := range ops[:upTo+1] {
			want[o.object] = max(want[o.object], uint64(i))
		}
		if got != want {
			t.Errorf("seed %d: the objects are %v, after %d operations they were %v", seed, got, upTo, want)
		}
		must(t, s.Close())
	}
}
