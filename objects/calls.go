package objects

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// frame is an operation that may call other objects. It is the context that Tx.Context returns, so that a call which
// has to wait knows the operations that wait for it.
type frame struct {
	context.Context
	parent *frame
	store  *Store
	obj    *object
	ended  atomic.Bool
	saw    atomic.Uint64 // the last group of what calls let out before it was durable
}

type frameKey struct{}

func (f *frame) Value(key any) any {
	if key == (frameKey{}) {
		return f
	}
	return f.Context.Value(key)
}

// frameOf returns the operation that a call is made from, or nil.
func frameOf(ctx context.Context) *frame {
	f, _ := ctx.Value(frameKey{}).(*frame)
	return f
}

// depend makes the frame's outcome wait for the group num.
func (f *frame) depend(num uint64) {
	for {
		saw := f.saw.Load()
		if saw >= num || f.saw.CompareAndSwap(saw, num) {
			return
		}
	}
}

// holder returns the frame, of f and those that wait for it, whose operation has o's turn, or nil.
func (f *frame) holder(o *object) *frame {
	for ; f != nil; f = f.parent {
		if f.obj == o && !f.ended.Load() {
			return f
		}
	}
	return nil
}

// calls are the calls between operations, of all stores, that wait for an object's turn. An operation that waits holds
// its own object, and so do those that called it. A call that would wait for itself in that way is refused: whoever
// closes a ring comes last, and so finds it. (An operation that waits for nothing is in no ring, so calls are entered
// only when the turn they want is taken; and those that came without a frame hold nothing.)
var calls = callGraph{waits: map[*object][]*call{}}

type callGraph struct {
	mu    sync.Mutex
	waits map[*object][]*call // by the objects that are held meanwhile
}

// call is made by from, and waits for to.
type call struct {
	from *frame
	to   *object
}

// enter makes it known that f waits for o, until leave; or returns ErrCycle.
func (g *callGraph) enter(f *frame, o *object) (*call, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if way := g.way(o, f, map[*object]bool{}); way != nil {
		ring := append(f.since(way[len(way)-1]), way...)
		names := make([]string, len(ring))
		for i, o := range ring {
			names[i] = fmt.Sprintf("%s %q", o.kind.name, o.name)
		}
		return nil, fmt.Errorf("%w: %s", ErrCycle, strings.Join(names, " → "))
	}
	c := &call{f, o}
	for ; f != nil; f = f.parent {
		g.waits[f.obj] = append(g.waits[f.obj], c)
	}
	return c, nil
}

func (g *callGraph) leave(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := c.from; f != nil; f = f.parent {
		rest := g.waits[f.obj]
		if i := slices.Index(rest, c); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
		if g.waits[f.obj] = rest; len(rest) == 0 {
			delete(g.waits, f.obj)
		}
	}
}

// way returns the objects that lead, each waiting for the next, from o to one that f or a caller of f holds; nil if
// there is no way.
func (g *callGraph) way(o *object, f *frame, seen map[*object]bool) []*object {
	if f.holder(o) != nil {
		return []*object{o}
	}
	if seen[o] {
		return nil
	}
	seen[o] = true
	for _, c := range g.waits[o] {
		if c.from.holder(o) == nil {
			continue // it waits on after its operation has returned, and holds nothing
		}
		if rest := g.way(c.to, f, seen); rest != nil {
			return append(c.from.since(o), rest...)
		}
	}
	return nil
}

// since returns the objects from o down to f, each of which called the next.
func (f *frame) since(o *object) []*object {
	var chain []*object
	for ; f != nil; f = f.parent {
		chain = append(chain, f.obj)
		if f.obj == o {
			break
		}
	}
	slices.Reverse(chain)
	return chain
}
