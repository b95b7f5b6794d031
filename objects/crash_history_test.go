package objects

import (
	"fmt"
	"math"
	"time"
)

// image is all that an object of the crash test has stored.
type image struct {
	keys  [4]mark // "a" to "d"
	bulk  mark    // of all the keys "m00" to "m69" alike
	woke  uint32  // "w": the operation whose waking wrote it
	alarm int64   // microseconds; 0: none
}

// mark is a value: the operation that wrote it, and so many bytes.
type mark struct {
	op  uint32
	pad uint16
}

func (i *image) empty() bool { return *i == image{} }

func (m mark) String() string {
	if m.op == 0 {
		return "-"
	}
	return fmt.Sprintf("%d+%d", m.op, m.pad)
}

func (i image) String() string {
	return fmt.Sprintf("{%v bulk %v woke %d alarm %d}", i.keys, i.bulk, i.woke, i.alarm)
}

// version is an object between two writes.
type version struct {
	image
	op        uint32
	confirmed bool      // a later operation saw it, or it was acknowledged
	dropped   bool      // it was refused when it was to be published
	refused   bool      // it may have been
	after     uint64    // it was published later than what had happened by this moment
	before    uint64    // and earlier than what happened after this one
	due       time.Time // an Async operation's: when it must be durable; else zero
}

// history is what became of an object since it was last looked at after a crash, and how much of that must survive
// the next. Version 0 is what was found then.
type history struct {
	versions []*version
	sure     int // what was acknowledged, and what acknowledged operations saw
	timely   int // what Async operations wrote long enough before the crash
}

func newHistory(found image) *history {
	return &history{versions: []*version{{image: found, confirmed: true}}}
}

func (h *history) last() *version { return h.versions[len(h.versions)-1] }

// see finds which version an operation saw: the last, or the one before if that was refused, for which there must be a
// reason. now is the moment.
func (h *history) see(got image, now uint64, refusals bool) (n int, ok bool) {
	last := h.last()
	if n = len(h.versions) - 1; got == last.image {
		if refusals && n > 0 && got == h.versions[n-1].image {
			return n - 1, true // that for sure
		}
		last.confirmed, last.before = true, min(last.before, now)
		return n, true
	}
	if last.confirmed || !refusals || got != h.versions[n-1].image {
		return n, false
	}
	h.drop(last)
	return n - 1, true
}

func (h *history) add(v *version) int {
	v.before = math.MaxUint64
	h.versions = append(h.versions, v)
	return len(h.versions) - 1
}

// drop takes back what was refused, and says whether that can be.
func (h *history) drop(v *version) bool {
	if v.dropped {
		return true
	}
	if v.confirmed || v != h.last() {
		return false
	}
	v.dropped = true
	h.versions = h.versions[:len(h.versions)-1]
	return true
}

// all makes sure of everything that was published.
func (h *history) all(refusals bool) {
	if h.sure = len(h.versions) - 1; refusals && !h.last().confirmed && h.last().refused {
		h.sure--
	}
}

// find returns the first version from n on that looks like got, or -1.
func (h *history) find(got image, n int) int {
	for ; n < len(h.versions); n++ {
		if h.versions[n].image == got {
			return n
		}
	}
	return -1
}

// violation is a promise that was not kept.
type violation struct{ promise, text string }

// The promises.
const (
	lostAcknowledged = "an acknowledged operation is there"
	lostAsync        = "an Async operation is durable in time"
	tornOperation    = "an operation is there as a whole or not at all"
	reordered        = "what survives is up to some moment"
	misread          = "an operation sees all operations before it"
	mistold          = "an operation is told what became of it"
	alarmLost        = "an alarm goes off"
	alarmEarly       = "an alarm goes off in time"
	badList          = "a list shows what there is"
	storeWorks       = "the store works"
)

// compare looks for what the objects were, by their histories, when they were as found. It returns the versions.
//
// Versions may look alike, so it begins with the first that each can be, and goes on to a later one only where it must:
// if one object's version survived, then so did everything that had been published before that was. The condition only
// ever asks for later versions, so the first solution is the least, and if there is none there, there is none.
func compare(found []image, all []*history) (at []int, v *violation) {
	at = make([]int, len(all))
	for o, h := range all {
		for _, floor := range []struct {
			n       int
			promise string
		}{{0, tornOperation}, {h.sure, lostAcknowledged}, {max(h.sure, h.timely), lostAsync}} {
			if at[o] = h.find(found[o], floor.n); at[o] < 0 {
				return nil, &violation{floor.promise, fmt.Sprintf("object %d is %v; %v", o, found[o], h.tail(floor.n))}
			}
		}
	}
	for again := true; again; {
		again = false
		var survived uint64 // the latest moment at which something that survived was not published yet
		var witness string
		for o, h := range all {
			for n, v := range h.versions[:at[o]+1] {
				if v.after > survived {
					survived, witness = v.after, fmt.Sprintf("version %d of object %d, %v, published after %d, survived", n, o, v.image, v.after)
				}
			}
		}
		for o, h := range all {
			for n := len(h.versions) - 1; n > at[o]; n-- {
				if h.versions[n].before >= survived {
					continue
				}
				if at[o] = h.find(found[o], n); at[o] < 0 {
					return nil, &violation{reordered, fmt.Sprintf("object %d is %v; %v; %s", o, found[o], h.tail(n), witness)}
				}
				again = true
				break
			}
		}
	}
	return at, nil
}

// tail tells of the versions around n.
func (h *history) tail(n int) string {
	text := fmt.Sprintf("at least version %d of %d should be there:", n, len(h.versions)-1)
	for i := max(0, n-4); i < min(len(h.versions), n+4); i++ {
		v := h.versions[i]
		text += fmt.Sprintf("\n\t%d: %v by operation %d, published in (%d, %d)", i, v.image, v.op, v.after, v.before)
	}
	return text
}
