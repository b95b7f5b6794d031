package objects

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

var spare waiters

func lockTurn(ctx context.Context, t *turn) error {
	if t.tryLock() {
		return nil
	}
	return t.lock(ctx, &spare)
}

func queued(t *turn) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return 0
	}
	for w := t.last.next; ; w = w.next {
		if n++; w == t.last {
			return n
		}
	}
}

func TestTurnsAreTakenInOrderOfArrival(t *testing.T) {
	var tr turn
	must(t, lockTurn(ctx, &tr))
	var order []int
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			_ = lockTurn(ctx, &tr)
			order = append(order, i)
			tr.unlock()
		})
		eventually(t, "the caller to wait", func() bool { return queued(&tr) == i+1 })
	}
	tr.unlock()
	wg.Wait()
	if !slices.IsSorted(order) {
		t.Errorf("turns came in the order %v", order)
	}
	if !tr.tryLock() {
		t.Error("the turn is not free at the end")
	}
}

func TestCallersLeaveTheQueueAnywhereInIt(t *testing.T) {
	for leaves := range 8 { // a set of three
		var tr turn
		must(t, lockTurn(ctx, &tr))
		var mu sync.Mutex
		var order []int
		var stay, gone sync.WaitGroup
		var cancels []context.CancelFunc
		for i := range 3 {
			ends, cancel := context.WithCancel(ctx)
			defer cancel()
			wg := &stay
			if leaves>>i&1 == 1 {
				cancels, wg = append(cancels, cancel), &gone
			}
			wg.Go(func() {
				if lockTurn(ends, &tr) == nil {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					tr.unlock()
				}
			})
			eventually(t, "the caller to wait", func() bool { return queued(&tr) == i+1 })
		}
		for _, cancel := range cancels {
			cancel()
		}
		gone.Wait()
		if n := queued(&tr); n != 3-len(cancels) {
			t.Fatalf("%03b left, %d wait", leaves, n)
		}
		tr.unlock()
		stay.Wait()
		if !slices.IsSorted(order) || len(order) != 3-len(cancels) || !tr.tryLock() {
			t.Errorf("%03b left: turns %v", leaves, order)
		}
	}
}

func TestATurnHandedToACallerThatGivesUpIsPassedOn(t *testing.T) {
	for range 50 {
		var tr turn
		must(t, lockTurn(ctx, &tr))
		ends, cancel := context.WithCancel(ctx)
		out := make(chan error)
		go func() { out <- lockTurn(ends, &tr) }()
		eventually(t, "the caller to wait", func() bool { return queued(&tr) == 1 })
		tr.mu.Lock()
		cancel()
		time.Sleep(100 * time.Microsecond) // so that it has most likely given up, and waits for mu
		next := tr.next()
		tr.mu.Unlock()
		next.told <- true
		if <-out == nil {
			tr.unlock()
		}
		if !tr.tryLock() {
			t.Fatal("the turn was lost")
		}
	}
}

func TestTheLastCallerGivesUpWhileTheTurnIsFreed(t *testing.T) {
	var held turn
	must(t, lockTurn(ctx, &held))
	held.mu.Lock()
	if _, taken := held.running(); held.next() != nil || !taken {
		t.Error("the holder found one who waits")
	}
	held.mu.Unlock()
	if _, taken := held.running(); taken {
		t.Error("the holder did not free the turn")
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	var tr turn
	for range 20_000 {
		must(t, lockTurn(ctx, &tr))
		out := make(chan struct{})
		go func() {
			if lockTurn(ended, &tr) == nil {
				tr.unlock()
			}
			close(out)
		}()
		for gone := false; tr.state.Load()&turnFlags == turnTaken && !gone; runtime.Gosched() {
			select {
			case <-out:
				gone = true
			default:
			}
		}
		tr.unlock()
		<-out
		if _, taken := tr.running(); taken {
			t.Fatal("the turn was lost")
		}
	}
}

func TestAMarkedTurnSendsAwayWhoWaitsUntilItEnds(t *testing.T) {
	var tr turn
	must(t, lockTurn(ctx, &tr))
	number, _ := tr.running()
	out := make(chan error, 3)
	for i := range 3 {
		go func() { out <- lockTurn(ctx, &tr) }()
		eventually(t, "the caller to wait", func() bool { return queued(&tr) == i+1 })
	}
	if tr.mark(number + 1) {
		t.Error("another turn was marked")
	}
	if !tr.mark(number) || tr.mark(number) {
		t.Error("the turn was not marked once")
	}
	for range 3 {
		wantError(t, <-out, ErrStuck)
	}
	wantError(t, lockTurn(ctx, &tr), ErrStuck)
	if !tr.unlock() {
		t.Error("the holder does not hear that it was stuck")
	}
	must(t, lockTurn(ctx, &tr))
	if tr.mark(number) || tr.unlock() {
		t.Error("a mark came late, or stayed")
	}
}
