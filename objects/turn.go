package objects

import (
	"context"
	"sync"
	"sync/atomic"
)

// turn is an object's lock: one operation at a time, in order of arrival, and a context ends the wait. (A sync.Mutex
// serves newcomers first, and knows no contexts.) Free and taken without waiters are one compare-and-swap each.
//
// Its state is a set of flags, and above them the number of turns taken so far, by which a turn that never ends is
// known (stuck.go):
//
//	free -> taken            by anyone
//	taken -> free            by the holder
//	taken -> taken, awaited  under mu, by the first who waits
//	taken, awaited -> taken  under mu, by the holder who hands over to the last one waiting, or by the last one
//	                         waiting who gives up
//	taken -> taken, stuck    under mu, by the watch; those who wait are sent away, and nobody waits from then on
//	taken, stuck -> free     under mu, by the holder, after all
type turn struct {
	state atomic.Uint32
	mu    sync.Mutex
	last  *waiter // guarded by mu: a ring, last.next is the first who waits
}

const (
	turnTaken   = 1 << iota
	turnAwaited // there are waiters
	turnStuck
	turnNumber // one turn

	turnFlags = turnNumber - 1
)

// waiter is a place in the queue. It is told once: true is its turn, false that the one before it is stuck.
type waiter struct {
	told chan bool
	next *waiter
}

// waiters are spare ones. Each store has its own, so that a store can live in a synctest bubble.
type waiters struct{ pool sync.Pool }

func (ws *waiters) get() *waiter {
	if w, ok := ws.pool.Get().(*waiter); ok {
		return w
	}
	return &waiter{told: make(chan bool, 1)}
}

func (t *turn) tryLock() bool {
	s := t.state.Load()
	return s&turnFlags == 0 && t.state.CompareAndSwap(s, s+turnNumber|turnTaken)
}

// lock takes the turn, or returns the context's error, or ErrStuck.
func (t *turn) lock(ctx context.Context, spare *waiters) error {
	t.mu.Lock()
	for s := t.state.Load(); s&turnAwaited == 0; s = t.state.Load() {
		if s&turnStuck != 0 {
			t.mu.Unlock()
			return ErrStuck
		}
		if t.tryLock() {
			t.mu.Unlock()
			return nil
		}
		if s&turnTaken != 0 && t.state.CompareAndSwap(s, s|turnAwaited) {
			break
		}
	}
	w := spare.get()
	t.push(w)
	t.mu.Unlock()

	select {
	case mine := <-w.told:
		spare.pool.Put(w)
		if !mine {
			return ErrStuck
		}
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	waited := t.remove(w)
	t.mu.Unlock()
	if !waited && <-w.told { // it was handed over meanwhile: pass it on
		t.unlock()
	}
	spare.pool.Put(w)
	return ctx.Err()
}

// unlock ends the turn, and says whether it was stuck.
func (t *turn) unlock() (wasStuck bool) {
	if s := t.state.Load(); s&turnFlags == turnTaken && t.state.CompareAndSwap(s, s&^turnFlags) {
		return false
	}
	t.mu.Lock()
	s := t.state.Load()
	next := t.next()
	t.mu.Unlock()
	if next != nil {
		next.told <- true
	}
	return s&turnStuck != 0
}

// next takes out the first who waits, whose turn it is, or frees the turn. The caller has the turn, and holds mu.
func (t *turn) next() *waiter {
	s := t.state.Load() &^ turnFlags
	w := t.pop()
	if w == nil { // stuck, or the last one gave up after the holder saw it; a new one needs mu
		t.state.Store(s)
		return nil
	}
	s += turnNumber | turnTaken
	if t.last != nil {
		s |= turnAwaited
	}
	t.state.Store(s)
	return w
}

// running returns the number of the turn that is taken; false if none is.
func (t *turn) running() (number uint32, taken bool) {
	s := t.state.Load()
	return s / turnNumber, s&turnTaken != 0
}

// mark marks the turn of that number stuck, unless it has ended or is marked already, and sends away who waits.
func (t *turn) mark(number uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		s := t.state.Load()
		if s&turnTaken == 0 || s&turnStuck != 0 || s/turnNumber != number {
			return false
		}
		if t.state.CompareAndSwap(s, s&^turnAwaited|turnStuck) {
			break
		}
	}
	for w := t.pop(); w != nil; w = t.pop() {
		w.told <- false
	}
	return true
}

func (t *turn) push(w *waiter) {
	if t.last == nil {
		w.next = w
	} else {
		w.next, t.last.next = t.last.next, w
	}
	t.last = w
}

func (t *turn) pop() *waiter {
	if t.last == nil {
		return nil
	}
	w := t.last.next
	if w == t.last {
		t.last = nil
	} else {
		t.last.next = w.next
	}
	w.next = nil
	return w
}

// remove takes w out of the queue; false if it is not in it.
func (t *turn) remove(w *waiter) bool {
	if t.last == nil {
		return false
	}
	for p := t.last; ; p = p.next {
		if p.next != w {
			if p.next == t.last {
				return false
			}
			continue
		}
		if p == w {
			t.last = nil
			t.state.Store(t.state.Load() &^ turnAwaited)
		} else {
			p.next = w.next
			if t.last == w {
				t.last = p
			}
		}
		w.next = nil
		return true
	}
}
