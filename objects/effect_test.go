package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// heard is what effects and outcomes say, in the order in which they come.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) say(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, what)
}

func (h *heard) so(t testing.TB, far ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.all, far) {
		t.Errorf("heard %q, want %q", h.all, far)
	}
}

// with is op with an effect.
func (h *heard) with(effect string, op func(*Tx, *counter) error) func(*Tx, *counter) error {
	return func(tx *Tx, c *counter) error {
		tx.OnDurable(func() { h.say(effect) })
		return op(tx, c)
	}
}

func (h *heard) done(what string) func(error) {
	return func(err error) { h.say(fmt.Sprint(what, ": ", err)) }
}

func reads(*Tx, *counter) error { return nil }

func TestEffectsWaitForWhatTheirOperationWroteAndSaw(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "other", increment))

	fs.close()
	var h heard
	k.Submit("a", h.with("effect 1", increment), h.done("write 1"))
	fs.awaitBlocked(t)
	k.Submit("a", h.with("effect 2", reads), h.done("read"))
	k.Submit("a", h.with("effect 3", func(tx *Tx, _ *counter) error { tx.SetDurability(Async); return nil }), nil)
	k.Submit("a", h.with("never", fails), h.done("failure"))
	k.Submit("a", h.with("never", func(*Tx, *counter) error { return Refuse(errNo) }), h.done("refusal"))
	k.Submit("a", h.with("never", func(*Tx, *counter) error { panic("boom") }), nil)
	k.Submit("a", h.with("effect 4", h.with("effect 5", increment)), h.done("write 2"))
	must(t, k.Do(ctx, "other", h.with("at once", reads))) // it saw nothing pending
	h.so(t, "at once")

	fs.open()
	must(t, k.Do(ctx, "a", reads))
	h.so(t, "at once", "effect 1", "write 1: <nil>", "effect 2", "read: <nil>", "effect 3",
		"failure: no", "refusal: no", "effect 4", "effect 5", "write 2: <nil>")
}

func TestEffectsComeBeforeDoReturns(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	for i := range 1000 {
		var came atomic.Bool
		op := increment
		if i%3 == 0 {
			op = reads
		}
		must(t, k.Do(ctx, name(i%2), func(tx *Tx, c *counter) error {
			tx.OnDurable(func() {
				time.Sleep(10 * time.Microsecond)
				came.Store(true)
			})
			return op(tx, c)
		}))
		if !came.Load() {
			t.Fatal("Do returned before the effect came")
		}
	}
}

func TestEffectsOfAsyncAndNoneHurryNoCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("d", Options{FS: vfs.NewMem()})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		readsNone := func(tx *Tx, _ *counter) error { tx.SetDurability(None); return nil }
		var h heard
		must(t, k.Do(ctx, "a", h.with("none", incrementAs(None))))
		must(t, k.Do(ctx, "a", h.with("read", readsNone)))
		must(t, k.Do(ctx, "b", h.with("call", callingNone(k, "a"))))
		time.Sleep(time.Hour)
		synctest.Wait()
		h.so(t)
		must(t, k.Do(ctx, "c", h.with("async", incrementAs(Async))))
		time.Sleep(DefaultAsyncWithin / 4)
		synctest.Wait()
		h.so(t)
		time.Sleep(DefaultAsyncWithin / 4)
		synctest.Wait()
		h.so(t, "none", "read", "call", "async")

		must(t, k.Do(ctx, "a", h.with("last", incrementAs(None))))
		must(t, s.Close())
		h.so(t, "none", "read", "call", "async", "last")
	})
}

// callingNone reads another object, and does not wait for what it saw there.
func callingNone(k *Kind[*counter], other string) func(*Tx, *counter) error {
	return func(tx *Tx, _ *counter) error {
		tx.SetDurability(None)
		return k.Do(tx.Context(), other, func(tx *Tx, _ *counter) error { tx.SetDurability(None); return nil })
	}
}

func TestEffectsDoNotPileUp(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	var came atomic.Int64
	must(t, k.Do(ctx, "a", incrementAs(None)))
	for range maxUnwanted + 10 {
		must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
			tx.SetDurability(None)
			tx.OnDurable(func() { came.Add(1) })
			return nil
		}))
	}
	eventually(t, "the effects", func() bool { return came.Load() >= maxUnwanted })
}

func TestAFailedStoreHasNoEffects(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s, err := Open("d", Options{FS: fs})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	fs.close()
	var h heard
	k.Submit("a", h.with("never", increment), nil)
	fs.awaitBlocked(t)
	k.Submit("b", h.with("never", incrementAs(None)), nil)
	k.Submit("b", h.with("never", func(tx *Tx, _ *counter) error {
		s.commit.fail(errors.New("broken"))
		return nil
	}), h.done("b"))
	fs.open()
	must(t, s.Close())
	h.so(t, "b: "+s.Err().Error())
}

func TestAPanicOfAnEffectFailsTheStore(t *testing.T) {
	for what, op := range map[string]func(*Tx, *counter) error{"pending": increment, "at once": reads} {
		t.Run(what, func(t *testing.T) {
			s, err := Open("d", Options{FS: vfs.NewMem()})
			must(t, err)
			k := Register(s, "counter", wakeCounter)
			_ = k.Do(ctx, "a", func(tx *Tx, c *counter) error {
				tx.OnDurable(func() { panic("boom") })
				return op(tx, c)
			})
			wantError(t, s.Err(), ErrFailed)
			must(t, s.Close())
		})
	}
}

// TestEffectsKeepTheOrderOfOperations runs operations of every kind on few objects that often fall asleep.
func TestEffectsKeepTheOrderOfOperations(t *testing.T) {
	const objects, callers, each = 3, 8, 1500
	s := open(t, "d", Options{FS: vfs.NewMem(), Memory: objectBytes * 2, AsyncWithin: time.Millisecond})
	s.commit.sealAt = 200
	k := Register(s, "counter", func(*Tx) (*counter, error) { return &counter{}, nil })
	var ran, came [objects]atomic.Int64 // ran changes in the object's turn
	var all sync.WaitGroup
	for caller := range callers {
		rng := rand.New(rand.NewPCG(uint64(caller), 0))
		all.Go(func() {
			for range each {
				i := rng.IntN(objects)
				kind, durability := rng.IntN(5), Durability(rng.IntN(3))
				op := func(tx *Tx, _ *counter) (err error) {
					tx.SetDurability(durability)
					switch kind {
					case 0, 1:
						err = tx.Put("x", nil)
					case 2:
						if i > 0 { // downwards only: no cycle
							tx.OnDurable(func() {})
							err = callingNone(k, name(i-1))(tx, nil)
							tx.SetDurability(durability)
						}
					case 3:
						tx.OnDurable(func() { t.Error("a failed operation has an effect") })
						return errNo
					}
					number := ran[i].Add(1)
					tx.OnDurable(func() {
						if n := came[i].Add(1); n != number {
							t.Errorf("object %d: effect %d came as the %d.", i, number, n)
						}
					})
					return err
				}
				var err error
				if rng.IntN(2) == 0 {
					err = k.Do(ctx, name(i), op)
				} else {
					k.Submit(name(i), op, nil)
				}
				if err != nil && !errors.Is(err, errNo) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	must(t, s.Close())
	for i := range objects {
		if came[i].Load() != ran[i].Load() {
			t.Errorf("object %d: %d effects of %d operations", i, came[i].Load(), ran[i].Load())
		}
	}
}

func TestAnObjectStaysAwakeUntilItsEffectsCame(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem(), Memory: 1})
	k := Register(s, "counter", wakeCounter)
	var h heard
	telling, tell := make(chan struct{}), make(chan struct{})
	k.Submit("a", func(tx *Tx, c *counter) error {
		tx.OnDurable(func() {
			close(telling)
			<-tell
			h.say("first")
		})
		return increment(tx, c)
	}, nil)
	<-telling
	must(t, k.Do(ctx, "b", reads)) // there is room for one only
	second := make(chan error)
	go func() { second <- k.Do(ctx, "a", h.with("second", reads)) }()
	select {
	case err := <-second:
		t.Errorf("the second effect did not wait for the first (%v)", err)
		close(tell)
	case <-time.After(20 * time.Millisecond):
		close(tell)
		must(t, <-second)
	}
	h.so(t, "first", "second")
}

// TestACrashTakesBackNoEffect crashes at syncs: what an effect has told must be there afterwards.
func TestACrashTakesBackNoEffect(t *testing.T) {
	seeds := 50
	if testing.Short() {
		seeds = min(seeds, 10)
	}
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 0))
		mem := vfs.NewCrashableMem()
		fs := &gateFS{FS: mem}
		s, err := Open("d", Options{FS: fs, AsyncWithin: time.Millisecond})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		type crash struct {
			fs   vfs.FS
			told uint64
		}
		var told atomic.Uint64
		var crashes []crash
		crashRng := rand.New(rand.NewPCG(seed, 1))
		fs.hook(func() {
			n := told.Load()
			crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: crashRng}), n})
		})
		for range 30 {
			d, reading := Durability(rng.IntN(3)), rng.IntN(3) == 0
			bounded, cancel := context.WithTimeout(ctx, time.Minute)
			must(t, k.Do(bounded, "a", func(tx *Tx, c *counter) error {
				tx.SetDurability(d)
				op := increment
				if reading {
					op = reads
				}
				err := op(tx, c)
				n := c.n
				tx.OnDurable(func() { told.Store(n) })
				return err
			}))
			cancel()
		}
		must(t, s.Close())
		for _, c := range crashes {
			s, err := Open("d", Options{FS: c.fs})
			must(t, err)
			if n := value(t, Register(s, "counter", wakeCounter), "a"); n < c.told {
				t.Fatalf("seed %d: %d is there, and %d was told", seed, n, c.told)
			}
			must(t, s.Close())
		}
	}
}
