package tiers

import (
	"container/list"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file brings the totals of the tiers above down to the places that want
// to see them. A place names the keys that it watches in its reports, new ones
// first and then all in turns, and its parent watches them too. An answer
// brings the totals that changed, those that wait longest first, as many as it
// has room for: the rest follows in the next, for which the child then does not
// wait. So nothing here takes longer than one message does, however many keys
// are watched.
//
// A total is worth little without the time up to which it is complete. That
// time is one for all keys, and goes on only when an answer left nothing out:
// it says so if it did (Ack.Partial), and what came in it has a time of its own
// until the next that is complete.
//
// A place watches so many keys at most. When more are wanted, each is watched
// in turn: some wait, and one that was watched for a while makes room for the
// one that waits longest.

const (
	// maxWatched is how many keys a place watches, and how many its children
	// do, all together. As many wait for room, and all are at most four fifths
	// of what is kept in memory.
	maxWatched = 100_000
	// watchFor is how long a get keeps a key's totals above coming, and how
	// long a parent believes that its child wants them.
	watchFor = 60 * time.Second
	// watchTurn is how long a key is watched, at least, before it makes room.
	watchTurn = 10 * time.Second
	// watchEach is how often a place asks for news while it watches keys, if
	// nothing else makes it report.
	watchEach = 100 * time.Millisecond
	// sayEach is how often it says that it watches a key, if the turn comes to
	// that key as soon.
	sayEach = 2 * time.Second
	// keepOld is how long a child of a version before is believed, which names
	// all that it watches each second, and says not which are new to it.
	keepOld = 5 * time.Second
	// maxGone is how many totals may wait for a child before it is told no
	// more, one by one, that keys are not watched.
	maxGone = 8 * maxEntries
)

// watchState says in which of a place's lists a key stands.
type watchState uint8

const (
	unwatched   watchState = iota
	waitsToTurn            // there is no room for it yet
	unsaid                 // the parent has not been told of it
	told
)

// view is what a place knows of one key's totals above it.
type view struct {
	state  watchState
	asked  limiter.Time  // a client of this place wants it until then
	until  limiter.Time  // and somebody does until then
	since  limiter.Time  // it has been watched since
	said   limiter.Time  // to the parent, last
	saidIn uint64        // the era
	at     *list.Element // of its list

	totals  []Total
	marks   []aboveMark // how far they were complete when they came
	era     uint64      // in which they came
	came    uint64      // the report whose answer brought them
	refused bool        // the parent does not watch it
}

// A settlement is what an answer that left nothing out says: up to when all
// totals that its sender watches for this place are complete.
type settlement struct {
	era      uint64
	sequence uint64
	marks    []aboveMark
}

// wishes are the keys that a place watches, for itself and for its children.
type wishes struct {
	waiting list.List // for room, the one that waits longest first
	fresh   list.List // that the parent has not been told of, the oldest first
	told    list.List // in the order in which they were
	known   int       // have totals
	valid   int       // have totals of this era

	// An era begins with a session of the parent, and when that forgot what this
	// place watches. What came in one before is not kept up to date any more.
	era             uint64
	settled, before settlement // in this era, and in the one before
}

func (w *wishes) len() int { return w.fresh.Len() + w.told.Len() }

// put has a key stand last in the list of a state.
func (w *wishes) put(o *object, state watchState) {
	if at := o.view.at; at != nil {
		w.list(o.view.state).Remove(at)
		o.view.at = nil
	}
	if o.view.state = state; state != unwatched {
		o.view.at = w.list(state).PushBack(o)
	}
}

func (w *wishes) list(state watchState) *list.List {
	switch state {
	case waitsToTurn:
		return &w.waiting
	case unsaid:
		return &w.fresh
	}
	return &w.told
}

// stale says that there are totals of an era before: there may be others by now.
func (w *wishes) stale() bool { return w.valid < w.known }

// turn begins an era: the parent has to be told all anew.
func (w *wishes) turn() {
	if w.settled.era > 0 {
		w.before = w.settled
	}
	w.era, w.settled, w.valid = w.era+1, settlement{}, 0
}

// marks says how far the totals of a view are complete.
func (w *wishes) marks(v *view) []aboveMark {
	for _, s := range []*settlement{&w.settled, &w.before} {
		if s.sequence >= v.came && s.era == v.era {
			return s.marks
		}
	}
	return v.marks
}

// mostWatched is how many keys are watched at most.
func (m *Machine) mostWatched() int { return max(1, min(maxWatched, m.cfg.MaxAwake/5*2)) }

// watch asks for a key's totals above until a time. False: there is no room for
// it yet.
func (m *Machine) watch(now limiter.Time, o *object, until limiter.Time) bool {
	w := &m.upper.wishes
	if m.cfg.Place == Root {
		return true
	}
	o.view.until = max(o.view.until, until)
	if o.view.state == unwatched {
		if w.waiting.Len() >= m.mostWatched() {
			return false
		}
		w.put(o, waitsToTurn)
		m.admit(now)
	}
	return o.view.state != waitsToTurn
}

// admit has the key watched that waits longest, if there is room, or another was
// watched for long enough.
func (m *Machine) admit(now limiter.Time) bool {
	w := &m.upper.wishes
	first := w.waiting.Front()
	if first == nil {
		return false
	}
	o := first.Value.(*object)
	if now >= o.view.until {
		m.unwatch(o)
		return true
	}
	if w.len() >= m.mostWatched() {
		old := w.told.Front()
		if old == nil || now.Sub(old.Value.(*object).view.since) < watchTurn {
			return false
		}
		m.unwatch(old.Value.(*object))
	}
	w.put(o, unsaid)
	o.view.since, m.upper.hurry = now, true
	return true
}

// unwatch forgets what is known of a key above.
func (m *Machine) unwatch(o *object) {
	m.setView(o, view{})
	m.upper.wishes.put(o, unwatched)
	o.view = view{}
	o.tellWatchers()
}

// setView notes what the parent sent of a key.
func (m *Machine) setView(o *object, v view) {
	w := &m.upper.wishes
	count := func(by int) {
		if len(o.view.totals) > 0 {
			w.known += by
			if o.view.era == w.era {
				w.valid += by
			}
		}
	}
	count(-1)
	o.view.totals, o.view.marks, o.view.era, o.view.came, o.view.refused = v.totals, v.marks, v.era, v.came, v.refused
	count(1)
}

// fillWatch names watched keys in a report: new ones, and then those that were
// not named for the longest.
func (m *Machine) fillWatch(now limiter.Time, r *Report, keep room) {
	w := &m.upper.wishes
	for steps := 0; steps < maxEntries && m.admit(now); steps++ {
	}
	for range maxEntries {
		first, again := w.fresh.Front(), false
		if first == nil {
			first, again = w.told.Front(), true
		}
		if first == nil {
			break
		}
		o := first.Value.(*object)
		if now >= o.view.until {
			m.unwatch(o)
			continue
		}
		if again && o.view.saidIn == w.era && now.Sub(o.view.said) < sayEach || !m.upper.room.take(nameSize(o.name), keep) {
			break
		}
		w.put(o, told)
		if !again || o.view.saidIn != w.era {
			r.Fresh++
		}
		o.view.said, o.view.saidIn = now, w.era
		r.Watch = append(r.Watch, o.name)
	}
	if m.upper.watchAt = limiter.Never; w.len() > 0 {
		m.upper.watchAt = now.Add(watchEach)
	}
}

// unsaid says that a report has more keys to name that the parent does not know
// of than the last one had room for.
func (w *wishes) unsaid() bool {
	if w.fresh.Len() > 0 {
		return true
	}
	first := w.told.Front()
	return first != nil && first.Value.(*object).view.saidIn != w.era
}

// resay has the keys of a report that was lost named anew.
func (m *Machine) resay(r *Report) {
	w := &m.upper.wishes
	for _, n := range r.Watch {
		o := m.known(n)
		if o != nil && o.view.state == told {
			w.put(o, unsaid)
		}
	}
}

// known returns the object of a name that is awake, or nil.
func (m *Machine) known(n Name) *object {
	if s := m.spaces[n.Namespace]; s != nil {
		return s.objects[n.Key]
	}
	return nil
}

// A watcher is a child that watches a key.
type watcher struct {
	child   *child
	object  *object
	session uint64 // of the child's, that said so
	until   limiter.Time
	since   limiter.Time
	at      *list.Element // of the child's list
	queued  bool          // its totals wait for an answer
	gone    bool          // the key is not watched any more
}

// watching is what a parent knows of the keys that a child watches.
type watching struct {
	by    map[Name]*watcher
	order list.List // in the order in which they were said last
	queue list.List // whose totals the child may lack, in the order in which that came about
	sent  []*watcher
	at    uint64 // sequence of the report whose answer held what was sent
	anew  bool   // more was forgotten than the child can be told: it has to say all anew
	said  bool   // the last answer said so
	new   uint64 // the session of the child that said which keys are new to it
}

// tell has the child told of a key's totals.
func (w *watcher) tell() {
	to := &w.child.watch
	switch {
	case w.queued:
	case w.gone && to.queue.Len() >= maxGone:
		to.anew = true
	default:
		w.queued = true
		to.queue.PushBack(w)
	}
}

// tellWatchers has the children told that watch a key: its totals changed.
func (o *object) tellWatchers() {
	for _, w := range o.watchers {
		w.tell()
	}
}

// watches notes which keys a child watches; this place then watches them too.
// Fresh ones have it told of their totals, whatever it was told before.
func (m *Machine) watches(now limiter.Time, c *child, r *Report) {
	m.sweepWatchers(now)
	if r.Fresh > 0 {
		c.watch.new = r.Session
	}
	keep := watchFor
	if c.watch.new != r.Session {
		keep = keepOld
	}
	for i, n := range r.Watch[:min(len(r.Watch), maxEntries)] {
		w := c.watch.by[n]
		if w == nil {
			o := m.object(now, m.space(n.Namespace), n.Key)
			w = &watcher{child: c, object: o, since: now}
			if w.gone = m.lower.watched >= m.mostWatched() && !m.yieldChild(now, c); !w.gone {
				c.watch.by[n], w.at = w, c.watch.order.PushBack(w)
				o.watchers = append(o.watchers, w)
				m.lower.watched++
			}
		}
		if w.gone || w.session != r.Session || i < r.Fresh {
			w.session = r.Session
			w.tell()
		}
		if w.gone {
			continue
		}
		c.watch.order.MoveToBack(w.at)
		w.until = now.Add(keep)
		if !m.watch(now, w.object, w.until) {
			w.tell() // it is not watched above
		}
	}
}

// yieldChild has a key make room for one of a child: of those of the child that
// has the most, unless that is the same, the one that was said longest ago.
func (m *Machine) yieldChild(now limiter.Time, c *child) bool {
	most := c
	for _, o := range m.lower.order {
		if o.watch.order.Len() > most.watch.order.Len() {
			most = o
		}
	}
	first := most.watch.order.Front()
	if first == nil {
		return false
	}
	w := first.Value.(*watcher)
	if most.watch.order.Len() <= c.watch.order.Len()+1 && now.Sub(w.since) < watchTurn {
		return false
	}
	m.dropWatcher(now, w)
	return true
}

// dropWatcher ends that a child watches a key, and has it told so.
func (m *Machine) dropWatcher(now limiter.Time, w *watcher) {
	c := w.child
	delete(c.watch.by, w.object.name)
	c.watch.order.Remove(w.at)
	w.object.watchers = slices.DeleteFunc(w.object.watchers, func(o *watcher) bool { return o == w })
	m.lower.watched--
	w.gone = true
	w.tell()
	if o := w.object; len(o.watchers) == 0 && now >= o.view.asked && o.view.state != unwatched {
		m.unwatch(o)
	}
}

// expireWatchers drops keys that a child does not watch any more.
func (m *Machine) expireWatchers(now limiter.Time, c *child) {
	for range maxEntries {
		first := c.watch.order.Front()
		if first == nil || now < first.Value.(*watcher).until && !c.record.Forgotten {
			break
		}
		m.dropWatcher(now, first.Value.(*watcher))
	}
	if c.record.Forgotten { // there is nobody to tell
		c.watch.queue.Init()
		c.watch.sent = nil
	}
}

// sweepWatchers does so for the next child, which may be silent.
func (m *Machine) sweepWatchers(now limiter.Time) {
	l := &m.lower
	if n := len(l.left); n > 0 {
		if m.expireWatchers(now, l.left[n-1]); l.left[n-1].watch.order.Len() == 0 {
			l.left = l.left[:n-1]
		}
		return
	}
	if l.swept++; l.swept >= len(l.order) {
		l.swept = 0
	}
	m.expireWatchers(now, l.order[l.swept])
}

// viewsFor puts into an answer totals that a child lacks of the keys that it
// watches, and how far the totals here and above are complete.
func (m *Machine) viewsFor(now limiter.Time, c *child, r *Report, a *Ack) {
	age, behind := m.watermark(now)
	a.Above = append(a.Above, Watermark{m.cfg.Place, age, behind})
	for _, u := range m.upper.wishes.settled.marks {
		a.Above = append(a.Above, u.mark(now))
	}
	w := &c.watch
	m.expireWatchers(now, c)
	if r.Got != w.at { // the answer that held them may be lost
		w.anew = w.anew || w.said
		for _, lost := range w.sent {
			lost.tell()
		}
	}
	w.sent, w.at = nil, r.Sequence
	a.Anew, w.said, w.anew = w.anew, w.anew, false
	for steps := 0; steps < maxEntries && w.queue.Len() > 0; steps++ {
		first := w.queue.Front()
		of := first.Value.(*watcher)
		t := m.totalsFor(of)
		if of.gone && w.by[t.Name] != nil { // it is watched again
			of.queued = false
			w.queue.Remove(first)
			continue
		}
		if !m.lower.room.take(totalsSize(t.Name, len(t.Totals)), 0) {
			break
		}
		of.queued = false
		w.queue.Remove(first)
		a.Views = append(a.Views, t)
		w.sent = append(w.sent, of)
	}
	a.Partial = w.queue.Len() > 0 || m.upper.wishes.stale()
}

// totalsFor is what a child is told of a key that it watches, or does not any
// more.
func (m *Machine) totalsFor(w *watcher) Totals {
	o := w.object
	if w.gone {
		return Totals{Name: o.name, Unwatched: true}
	}
	t := Totals{Name: o.name, Totals: []Total{m.counted(o).total}}
	if m.cfg.Place == Root {
		return t
	}
	if o.view.era == m.upper.wishes.era {
		t.Totals = append(t.Totals, o.view.totals...)
	}
	t.Unwatched = o.view.state <= waitsToTurn || o.view.refused
	return t
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
	if a.Anew {
		u.wishes.turn()
	}
	for _, v := range a.Views {
		o := m.known(v.Name)
		if o == nil || o.view.state <= waitsToTurn {
			continue
		}
		m.setView(o, view{totals: v.Totals, marks: above, era: u.wishes.era, came: r.Sequence, refused: v.Unwatched})
		o.tellWatchers()
	}
	if !a.Partial {
		u.wishes.settled = settlement{u.wishes.era, r.Sequence, above}
	} else if len(a.Views) > 0 {
		u.hurry = true // for the rest
	}
}
