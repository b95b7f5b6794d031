package tiers

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// TestDirtyListIsAList compares it with a slice.
func TestDirtyListIsAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := make([]count, 6)
		var list dirtyList
		var model []*count
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			c := &counts[rapid.IntRange(0, len(counts)-1).Draw(t, "count")]
			at := slices.Index(model, c)
			if at >= 0 {
				model = slices.Delete(model, at, at+1)
			}
			if at < 0 || rapid.Bool().Draw(t, "push") {
				list.push(c)
				model = append(model, c)
			} else {
				list.remove(c)
			}
			var forward, backward []*count
			for c := list.first; c != nil; c = c.next {
				forward = append(forward, c)
			}
			for c := list.last; c != nil; c = c.prev {
				backward = append(backward, c)
			}
			slices.Reverse(backward)
			if !slices.Equal(forward, model) || !slices.Equal(backward, model) || list.length != len(model) {
				t.Fatalf("forward %v, backward %v, length %d; want %v", forward, backward, list.length, model)
			}
			for i := range counts {
				if list.has(&counts[i]) != slices.Contains(model, &counts[i]) {
					t.Fatalf("count %d: in the list: %v", i, list.has(&counts[i]))
				}
			}
		}
	})
}

// TestLongestUnusedComesFirst compares the list of awake objects with a slice.
func TestLongestUnusedComesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := make([]object, 6)
		var list lru
		var model []*object
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			o := &objects[rapid.IntRange(0, len(objects)-1).Draw(t, "object")]
			at := slices.Index(model, o)
			if at >= 0 {
				model = slices.Delete(model, at, at+1)
			}
			switch {
			case at < 0:
				list.push(o)
				model = append(model, o)
			case rapid.Bool().Draw(t, "touch"):
				list.touch(o)
				model = append(model, o)
			default:
				list.remove(o)
			}
			var forward, backward []*object
			for o := list.first; o != nil; o = o.links[list.of].next {
				forward = append(forward, o)
			}
			for o := list.last; o != nil; o = o.links[list.of].prev {
				backward = append(backward, o)
			}
			slices.Reverse(backward)
			if !slices.Equal(forward, model) || !slices.Equal(backward, model) {
				t.Fatalf("forward %v, backward %v; want %v", forward, backward, model)
			}
		}
	})
}

// TestTimersComeInTime compares the heap with a map.
func TestTimersComeInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		objects := make([]object, 6)
		for i := range objects {
			objects[i].timer = timer{index: -1, at: limiter.Never}
		}
		var timers timers
		model := map[*object]limiter.Time{}
		earliest := func() limiter.Time {
			at := limiter.Never
			for _, t := range model {
				at = min(at, t)
			}
			return at
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			o := &objects[rapid.IntRange(0, len(objects)-1).Draw(t, "object")]
			at := limiter.Time(rapid.Int64Range(-2, 20).Draw(t, "at"))
			switch rapid.SampledFrom([]string{"set", "set", "never", "remove", "due"}).Draw(t, "do") {
			case "set":
				timers.set(o, at)
				model[o] = at
			case "never":
				timers.set(o, limiter.Never)
				delete(model, o)
			case "remove":
				timers.remove(o)
				delete(model, o)
			case "due":
				next := earliest()
				switch got := timers.due(at); {
				case got == nil && next <= at:
					t.Fatalf("nothing is due at %d, but one was at %d", at, next)
				case got != nil && (next > at || model[got] != next):
					t.Fatalf("due at %d is one of %d, the earliest is %d", at, model[got], next)
				case got != nil:
					delete(model, got)
				}
			}
			if next := earliest(); timers.next() != next {
				t.Fatalf("next is %d, want %d", timers.next(), next)
			}
			for i := range objects {
				at, set := model[&objects[i]]
				if set != (objects[i].timer.index >= 0) || set && objects[i].timer.at != at {
					t.Fatalf("object %d: %+v, want %d, %v", i, objects[i].timer, at, set)
				}
			}
		}
	})
}
