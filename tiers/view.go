package tiers

import (
	"errors"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// ErrFenced ends a session: a newer one of the same place runs elsewhere.
var ErrFenced = errors.New("a newer session of this place runs elsewhere; two processes must not be the same place")

const (
	// goneAfter is how many heartbeats a child may miss before it counts as behind.
	goneAfter = 3
	// maxAge is the oldest that a watermark is taken for: a century, so that
	// no sum of times overflows.
	maxAge = 100 * 365 * 24 * time.Hour
)

// A View is a key's total at a place above.
type View struct {
	Place  Place
	Total  Total
	Age    time.Duration // everything that happened earlier is in it; negative: not known
	Behind int           // places below it that its total waits for
}

// Get returns a key's total here, and at the places above as far as they are
// known; it asks for them for a while. Watched says that they are kept coming:
// not all keys are, where too many are asked for.
func (m *Machine) Get(now limiter.Time, name Name) (total Total, views []View, watched bool, err error) {
	o, err := m.countable(now, name)
	if err != nil {
		return Total{}, nil, false, err
	}
	o.view.asked = now.Add(watchFor)
	watched = m.watch(now, o, o.view.asked) && !o.view.refused
	marks := m.upper.wishes.marks(&o.view)
	for i, t := range o.view.totals {
		if i >= len(marks) {
			break
		}
		w := marks[i].mark(now)
		views = append(views, View{Place: w.Place, Total: t, Age: w.Age, Behind: w.Behind})
	}
	return m.counted(o).total, views, watched, nil
}

// watermark is how far this place's totals are complete: at a leaf always,
// elsewhere as far as the oldest of the children's; and how many places
// below stop it.
func (m *Machine) watermark(now limiter.Time) (age time.Duration, behind int) {
	if m.cfg.Leaf {
		return 0, 0
	}
	oldest, known := now, true
	for _, c := range m.lower.order {
		if !c.reported || now.Sub(c.seenAt) > goneAfter*m.cfg.Heartbeat {
			behind++
		} else {
			behind += c.behind
		}
		known = known && c.known
		oldest = min(oldest, c.through)
	}
	if !known {
		return -1, behind
	}
	return now.Sub(oldest), behind
}
