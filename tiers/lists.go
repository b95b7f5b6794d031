package tiers

import (
	"container/heap"

	"github.com/tributary-io/tributary/limiter"
)

// links hold an object in a list.
type links struct{ prev, next *object }

// lru is the list of awake objects, the longest unused first.
type lru struct{ first, last *object }

func (l *lru) push(o *object) {
	o.idle = links{prev: l.last}
	if l.last != nil {
		l.last.idle.next = o
	} else {
		l.first = o
	}
	l.last = o
}

func (l *lru) remove(o *object) {
	if o.idle.prev != nil {
		o.idle.prev.idle.next = o.idle.next
	} else {
		l.first = o.idle.next
	}
	if o.idle.next != nil {
		o.idle.next.idle.prev = o.idle.prev
	} else {
		l.last = o.idle.prev
	}
	o.idle = links{}
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
}

// push appends a count, whose mark is the largest, taking it from where it was.
func (l *dirtyList) push(c *count) {
	if c.dirty {
		l.remove(c)
	}
	c.dirty, c.prev, c.next = true, l.last, nil
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
	c.dirty, c.prev, c.next = false, nil, nil
	l.length--
}

func (l *dirtyList) clear() {
	for l.first != nil {
		l.remove(l.first)
	}
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
