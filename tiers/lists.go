package tiers

import (
	"container/heap"

	"github.com/tributary-io/tributary/limiter"
)

// links hold an object in a list.
type links struct{ prev, next *object }

// An object stands in several lists, each with links of its own.
const (
	byUse   = iota // all that are awake
	bySweep        // those that lack a task, or those that lack none
	numLists
)

// lru is a list of awake objects, the longest untouched first.
type lru struct {
	first, last *object
	of          int // which of an object's links it uses
}

func (l *lru) push(o *object) {
	o.links[l.of] = links{prev: l.last}
	if l.last != nil {
		l.last.links[l.of].next = o
	} else {
		l.first = o
	}
	l.last = o
}

func (l *lru) remove(o *object) {
	at := &o.links[l.of]
	if at.prev != nil {
		at.prev.links[l.of].next = at.next
	} else {
		l.first = at.next
	}
	if at.next != nil {
		at.next.links[l.of].prev = at.prev
	} else {
		l.last = at.prev
	}
	*at = links{}
}

// take appends all of another list's, which is then empty.
func (l *lru) take(other *lru) {
	switch {
	case other.first == nil:
		return
	case l.last == nil:
		l.first = other.first
	default:
		l.last.links[l.of].next = other.first
		other.first.links[l.of].prev = l.last
	}
	l.last = other.last
	other.first, other.last = nil, nil
}

func (l *lru) touch(o *object) {
	if l.last != o {
		l.remove(o)
		l.push(o)
	}
}

// dirtyList holds the counts that the parent may lack, by mark.
type dirtyList struct {
	first, last *count
	length      int
	cleared     uint64 // how often
}

// has says that a count is in the list.
func (l *dirtyList) has(c *count) bool { return c.dirty == l.cleared+1 }

// push appends a count, whose mark is the largest, taking it from where it was.
func (l *dirtyList) push(c *count) {
	if l.has(c) {
		l.remove(c)
	}
	c.dirty, c.prev, c.next = l.cleared+1, l.last, nil
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
	l.length++
}

func (l *dirtyList) remove(c *count) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.dirty, c.prev, c.next = 0, nil, nil
	l.length--
}

// clear empties the list without a look at what is in it: that is known by
// when it was put there.
func (l *dirtyList) clear() {
	l.first, l.last, l.length = nil, nil, 0
	l.cleared++
}

// A timer is when an object wants to be looked at.
type timer struct {
	at    limiter.Time
	index int // in the heap; -1: not in it
}

// timers is a heap of objects by their time.
type timers struct{ heap timerHeap }

func (t *timers) next() limiter.Time {
	if len(t.heap) == 0 {
		return limiter.Never
	}
	return t.heap[0].timer.at
}

// set makes o due at at; Never takes it out.
func (t *timers) set(o *object, at limiter.Time) {
	switch {
	case at == limiter.Never:
		t.remove(o)
	case o.timer.index < 0:
		o.timer.at = at
		heap.Push(&t.heap, o)
	case o.timer.at != at:
		o.timer.at = at
		heap.Fix(&t.heap, o.timer.index)
	}
}

func (t *timers) remove(o *object) {
	if o.timer.index >= 0 {
		heap.Remove(&t.heap, o.timer.index)
	}
	o.timer.at = limiter.Never
}

// due takes out one object whose time has come.
func (t *timers) due(now limiter.Time) *object {
	if len(t.heap) == 0 || t.heap[0].timer.at > now {
		return nil
	}
	o := t.heap[0]
	t.remove(o)
	return o
}

type timerHeap []*object

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].timer.at < h[j].timer.at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer.index, h[j].timer.index = i, j
}

func (h *timerHeap) Push(x any) {
	o := x.(*object)
	o.timer.index = len(*h)
	*h = append(*h, o)
}

func (h *timerHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	o.timer.index = -1
	return o
}
