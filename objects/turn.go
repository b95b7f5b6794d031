package objects

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// turn is an object's lock: one operation at a time, in order of arrival, and a context ends the wait. (A sync.Mutex
// serves newcomers first, and knows no contexts.) Free and taken without waiters are one compare-and-swap each.
//
//	turnFree -> turnTaken     by anyone
//	turnTaken -> turnFree     by the holder
//	turnTaken -> turnAwaited  under mu, by the first who waits
//	turnAwaited -> turnTaken  under mu, by the holder who hands over to the last one waiting, or by the last one
//	                          waiting who gives up
type turn struct {
	state   atomic.Int32
	mu      sync.Mutex
	waiting []chan struct{} // guarded by mu; each has room for one token: your turn
}

const (
	turnFree = iota
	turnTaken
	turnAwaited
)

var tickets = sync.Pool{New: func() any { return make(chan struct{}, 1) }}

func (t *turn) tryLock() bool { return t.state.CompareAndSwap(turnFree, turnTaken) }

func (t *turn) lock(ctx context.Context) error {
	if t.tryLock() {
		return nil
	}
	t.mu.Lock()
	for t.state.Load() != turnAwaited {
		if t.tryLock() {
			t.mu.Unlock()
			return nil
		}
		if t.state.CompareAndSwap(turnTaken, turnAwaited) {
			break
		}
	}
	ticket := tickets.Get().(chan struct{})
	t.waiting = append(t.waiting, ticket)
	t.mu.Unlock()

	select {
	case <-ticket:
		tickets.Put(ticket)
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	if i := slices.Index(t.waiting, ticket); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		if len(t.waiting) == 0 {
			t.waiting = nil
			t.state.Store(turnTaken)
		}
		t.mu.Unlock()
	} else {
		t.mu.Unlock()
		<-ticket // it was handed over meanwhile: pass it on
		t.unlock()
	}
	tickets.Put(ticket)
	return ctx.Err()
}

func (t *turn) unlock() {
	if t.state.CompareAndSwap(turnTaken, turnFree) {
		return
	}
	t.mu.Lock()
	next := t.next()
	t.mu.Unlock()
	if next != nil {
		next <- struct{}{}
	}
}

// next takes out the first who waits, whose turn it is, or frees the turn. The caller has the turn, and holds mu.
func (t *turn) next() chan struct{} {
	if len(t.waiting) == 0 { // the last one gave up after the holder saw it; a new one needs mu
		t.state.Store(turnFree)
		return nil
	}
	next := t.waiting[0]
	t.waiting = t.waiting[1:]
	if len(t.waiting) == 0 {
		t.waiting = nil
		t.state.Store(turnTaken)
	}
	return next
}
