package transport

import (
	"context"
	"sync/atomic"
)

// gate bounds how many operations are in flight, and lets a stop wait for them. Once it is closed nothing enters, and
// what is inside is waited for: so after wait has returned nil, nothing is inside and nothing will be.
type gate struct {
	most   int64
	inside atomic.Int64
	closed atomic.Bool
	// left has a token when somebody left a closed gate.
	left chan struct{}
}

func newGate(most int) *gate {
	return &gate{most: int64(most), left: make(chan struct{}, 1)}
}

// enter admits n operations, all or none of them.
func (g *gate) enter(n int) *Error {
	inside := g.inside.Add(int64(n))
	// The order matters: wait closes first and counts then, so either it sees us or we see it.
	if g.closed.Load() {
		g.leave(n)
		return ErrDraining.Errorf("the place is stopping: ask again, another process or place may answer")
	}
	if inside > g.most {
		g.leave(n)
		return ErrOverloaded.Errorf("%d requests are in flight here and at most %d may be: ask again more slowly",
			inside-int64(n), g.most)
	}
	return nil
}

// crowded reports whether more than half of the room is taken.
func (g *gate) crowded() bool { return g.inside.Load() > g.most/2 }

func (g *gate) leave(n int) {
	if g.inside.Add(-int64(n)) == 0 && g.closed.Load() {
		select {
		case g.left <- struct{}{}:
		default:
		}
	}
}

// wait closes the gate and returns when nobody is inside, or with the context's error.
func (g *gate) wait(ctx context.Context) error {
	g.closed.Store(true)
	for g.inside.Load() != 0 {
		select {
		case <-g.left:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// Another one may wait too.
	select {
	case g.left <- struct{}{}:
	default:
	}
	return nil
}
