package tiers

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// ErrFenced ends a session: a newer one of the same place runs elsewhere.
var ErrFenced = errors.New("a newer session of this place runs elsewhere; two processes must not be the same place")

const (
	// watchFor is how long a get keeps a key's totals above coming.
	watchFor = 60 * time.Second
	// watchEach is how often a place asks for news while it watches keys, if
	// nothing else makes it report.
	watchEach = 100 * time.Millisecond
	// sayEach is how often it says which keys it watches, and keepWatch how
	// long its parent believes it.
	sayEach   = time.Second
	keepWatch = 5 * time.Second
	// goneAfter is how many heartbeats a child may miss before it counts as behind.
	goneAfter = 3
	// maxAge is the oldest that a watermark is taken for: a century, so that
	// no sum of times overflows.
	maxAge = 100 * 365 * 24 * time.Hour
)

// view is what a place knows of one key's totals above it.
type view struct {
	until   limiter.Time // it is asked for until then
	said    limiter.Time
	watched bool // it stands in the machine's list
	totals  []Total
}

// watched is a key that a child watches.
type watched struct {
	until limiter.Time
	last  []Total
}

// A View is a key's total at a place above.
type View struct {
	Place  Place
	Total  Total
	Age    time.Duration // everything that happened earlier is in it; negative: not known
	Behind int           // places below it that its total waits for
}

// Get returns a key's total here, and at the places above as far as they are
// known; it asks for them for a while.
func (m *Machine) Get(now limiter.Time, name Name) (Total, []View, error) {
	o, err := m.countable(now, name)
	if err != nil {
		return Total{}, nil, err
	}
	m.watch(o, now.Add(watchFor))
	var views []View
	for i, t := range o.view.totals {
		if i >= len(m.upper.above) {
			break
		}
		w := m.upper.above[i].mark(now)
		views = append(views, View{Place: w.Place, Total: t, Age: w.Age, Behind: w.Behind})
	}
	return m.counted(o).total, views, nil
}

// watch asks for a key's totals above until a time, if there is room.
func (m *Machine) watch(o *object, until limiter.Time) {
	if m.cfg.Place == Root {
		return
	}
	if !o.view.watched {
		if len(m.watched) >= maxWatched {
			return
		}
		o.view = view{watched: true, totals: o.view.totals}
		m.watched = append(m.watched, o)
		m.upper.hurry = true
	}
	o.view.until = max(o.view.until, until)
}

// fillWatch names the watched keys in a report, each once in a while.
func (m *Machine) fillWatch(now limiter.Time, r *Report, keep room) {
	m.watched = slices.DeleteFunc(m.watched, func(o *object) bool {
		if now >= o.view.until {
			o.view = view{}
			return true
		}
		return false
	})
	m.upper.watchAt = limiter.Never
	for _, o := range m.watched {
		if (o.view.said == 0 || now.Sub(o.view.said) >= sayEach) && m.upper.room.take(nameSize(o.name), keep) {
			o.view.said = now
			r.Watch = append(r.Watch, o.name)
		}
		m.upper.watchAt = now.Add(watchEach)
	}
}

// watches notes which keys a child watches; this place then watches them too.
func (m *Machine) watches(now limiter.Time, c *child, r *Report) {
	for _, n := range r.Watch {
		w := c.watch[n]
		if w == nil {
			if len(c.watch) >= maxWatched {
				continue
			}
			w = &watched{}
			c.watch[n] = w
		}
		w.until = now.Add(keepWatch)
		m.watch(m.object(now, m.space(n.Namespace), n.Key), w.until)
	}
}

// viewsFor puts into an answer what changed of the totals that a child
// watches, and how far the totals here and above are complete.
func (m *Machine) viewsFor(now limiter.Time, c *child, r *Report, a *Ack) {
	age, behind := m.watermark(now)
	a.Above = append(a.Above, Watermark{m.cfg.Place, age, behind})
	for _, u := range m.upper.above {
		a.Above = append(a.Above, u.mark(now))
	}
	names := make([]Name, 0, len(c.watch))
	for n, w := range c.watch { // sorted below
		if now >= w.until {
			delete(c.watch, n)
			continue
		}
		names = append(names, n)
	}
	slices.SortFunc(names, compareNames)
	for _, n := range names {
		w := c.watch[n]
		o := m.object(now, m.space(n.Namespace), n.Key)
		totals := append([]Total{m.counted(o).total}, o.view.totals...)
		if len(o.view.totals) == 0 && m.cfg.Place != Root && len(m.upper.above) > 0 {
			totals = totals[:1] // not known above yet
		}
		if r.Got != c.sent || !slices.Equal(totals, w.last) {
			if !m.lower.room.take(totalsSize(n, len(totals)), 0) {
				w.last = nil // so that another answer tells it
				continue
			}
			a.Views = append(a.Views, Totals{n, totals})
		}
		w.last = totals
	}
	c.sent = r.Sequence
}

func compareNames(a, b Name) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Key, b.Key))
}

// seen takes the totals above from an answer.
func (m *Machine) seen(r *Report, a *Ack) {
	u := &m.upper
	if a.Fenced || r.Number == 0 {
		return
	}
	above := make([]aboveMark, 0, len(a.Above))
	for i, w := range a.Above {
		mark := aboveMark{place: w.Place, known: w.Age >= 0, behind: w.Behind}
		if mark.known {
			// The answer was built after the report: what it holds is at most
			// as old as it says, counted from then.
			mark.through = u.builtAt - limiter.Time(min(w.Age, maxAge))
		}
		if i < len(u.above) && u.above[i].place == w.Place && u.above[i].known && (!mark.known || mark.through < u.above[i].through) {
			mark.through, mark.known = u.above[i].through, true
		}
		above = append(above, mark)
	}
	u.above = above
	for _, v := range a.Views {
		if s := m.spaces[v.Name.Namespace]; s != nil {
			if o := s.objects[v.Name.Key]; o != nil && o.view.watched {
				o.view.totals = v.Totals
			}
		}
	}
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
