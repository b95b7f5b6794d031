package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// nest calls the objects that the path names, each from within the one before it, and increments them.
func nest(ctx context.Context, kinds map[string]*Kind[*counter], path ...string) error {
	kind, name, _ := strings.Cut(path[0], "/")
	return kinds[kind].Do(ctx, name, func(tx *Tx, c *counter) error {
		if err := increment(tx, c); err != nil || len(path) == 1 {
			return err
		}
		return nest(tx.Context(), kinds, path[1:]...)
	})
}

func chatKinds(s *Store) map[string]*Kind[*counter] {
	return map[string]*Kind[*counter]{
		"chat": Register(s, "chat", wakeCounter),
		"room": Register(s, "room", wakeCounter),
	}
}

func TestACallThatClosesACycleIsRefused(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	kinds := chatKinds(s)
	for path, want := range map[string]string{
		"chat/a chat/a":                      `chat "a" → chat "a"`,
		"chat/a room/b chat/a":               `chat "a" → room "b" → chat "a"`,
		"chat/a room/b room/c room/d room/b": `room "b" → room "c" → room "d" → room "b"`,
		"chat/a room/a chat/b room/b":        "",
	} {
		t.Run(path, func(t *testing.T) {
			err := nest(ctx, kinds, strings.Fields(path)...)
			if want == "" {
				must(t, err)
				return
			}
			wantError(t, err, ErrCycle)
			if !strings.HasSuffix(err.Error(), ": "+want) {
				t.Errorf("the error is %q", err)
			}
		})
	}
}

// TestConcurrentCallsFindTheirCycle lets each of some operations take its object, before each calls the next one's.
func TestConcurrentCallsFindTheirCycle(t *testing.T) {
	for _, n := range []int{2, 3, 7} {
		s := open(t, fmt.Sprint(n), Options{FS: vfs.NewMem()})
		k := Register(s, "ring", wakeCounter)
		var ready, done sync.WaitGroup
		ready.Add(n)
		var cycles atomic.Int32
		for i := range n {
			done.Go(func() {
				err := k.Do(ctx, name(i), func(tx *Tx, c *counter) error {
					ready.Done()
					ready.Wait()
					return errors.Join(increment(tx, c), k.Do(tx.Context(), name((i+1)%n), increment))
				})
				if errors.Is(err, ErrCycle) {
					cycles.Add(1)
					if strings.Count(err.Error(), "ring") != n+1 {
						t.Errorf("the cycle of %d is %q", n, err)
					}
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if cycles.Load() != 1 {
			t.Errorf("%d of %d operations were refused, want one", cycles.Load(), n)
		}
		var sum uint64
		for i := range n {
			sum += value(t, k, name(i))
		}
		if want := uint64(2*n - 2); sum != want { // the victim's own, and its call's, are undone
			t.Errorf("counted %d, want %d", sum, want)
		}
	}
}

func TestAnOperationWaitsForSeveralObjectsAtOnce(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "k", wakeCounter)
	entered, leave := make(chan struct{}), make(chan struct{})
	hold := func(*Tx, *counter) error { entered <- struct{}{}; <-leave; return nil }
	var wg sync.WaitGroup
	wg.Go(func() { must(t, k.Do(ctx, "slow", hold)) })
	<-entered
	bIn, bGo := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		err := k.Do(ctx, "b", func(tx *Tx, _ *counter) error {
			close(bIn)
			<-bGo
			return k.Do(tx.Context(), "a", increment) // a waits for slow, and for b
		})
		wantError(t, err, ErrCycle)
		if !strings.HasSuffix(err.Error(), `: k "b" → k "a" → k "b"`) {
			t.Errorf("the error is %q", err)
		}
		close(leave)
	})
	<-bIn
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		errs := make(chan error, 2)
		for _, n := range []string{"slow", "b"} {
			c := tx.Context()
			go func() { errs <- k.Do(c, n, increment) }()
		}
		eventually(t, "both calls to wait", func() bool {
			calls.mu.Lock()
			defer calls.mu.Unlock()
			return len(calls.waits[tx.o]) == 2
		})
		close(bGo)
		return errors.Join(<-errs, <-errs)
	}))
	wg.Wait()
}

// A goroutine that outlives its operation holds nothing: who waits for it waits for no one.
func TestACallThatOutlivesItsOperationIsInNoCycle(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "k", wakeCounter)
	var wg sync.WaitGroup
	must(t, k.Do(ctx, "b", func(tx *Tx, _ *counter) error {
		a, b := (*object)(nil), tx.o
		must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
			a = tx.o
			c := tx.Context()
			wg.Go(func() { must(t, k.Do(c, "b", increment)) })
			eventually(t, "the call to wait", func() bool { return queued(&b.turn) == 1 })
			return nil
		}))
		in := make(chan struct{})
		wg.Go(func() { // another one has a when b's operation calls it
			must(t, k.Do(ctx, "a", func(*Tx, *counter) error {
				close(in)
				eventually(t, "b's call to wait", func() bool { return queued(&a.turn) == 1 })
				return nil
			}))
		})
		<-in
		return k.Do(tx.Context(), "a", increment)
	}))
	wg.Wait()
	if len(calls.waits) != 0 {
		t.Errorf("calls are left: %v", calls.waits)
	}
}

// TestNoDeadlock has many operations call random chains of few objects, in parallel, and wants every one to end.
func TestNoDeadlock(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	kinds := chatKinds(s)
	var done, cycles, counted atomic.Int64
	var wg sync.WaitGroup
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for caller := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(caller), 0))
			for range 200 {
				path := make([]string, 1+rng.IntN(4))
				for i := range path {
					path[i] = fmt.Sprintf("%s/%d", []string{"chat", "room"}[rng.IntN(2)], rng.IntN(3))
				}
				err := nest(bounded, kinds, path...)
				switch {
				case err == nil:
					done.Add(1)
					counted.Add(int64(len(path)))
				case errors.Is(err, ErrCycle):
					cycles.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if done.Load() == 0 || cycles.Load() == 0 {
		t.Errorf("%d operations ended well, %d in a cycle", done.Load(), cycles.Load())
	}
	var sum int64
	for _, k := range kinds {
		for i := range 3 {
			sum += int64(value(t, k, fmt.Sprint(i)))
		}
	}
	if sum != counted.Load() {
		t.Errorf("the objects counted %d, the operations %d", sum, counted.Load())
	}
	if len(calls.waits) != 0 {
		t.Errorf("calls are left: %v", calls.waits)
	}
}
