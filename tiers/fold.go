package tiers

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file sums what will not change any more. Every start of a leaf is a
// pair of its own, for each key; those of sessions that ended long ago are
// folded into one total, and so are the counts of children that were
// forgotten.
//
// What a total sums is said by a list that goes with it: the sessions that are
// folded, or the children that are forgotten. The parent makes the list, it
// only grows, and whoever has or is told a total has its list first. A pair
// whose session is in the list is never kept beside the total, and is only
// part of it: of two totals the larger is kept, since each is a sum of what
// was truly counted. Where each of two has what the other lacks, less than the
// truth is kept: so a session that still runs when it is folded is refused.

// ErrEnded ends a session that its parent takes no reports of any more: what
// it counted since is on its disk only.
var ErrEnded = errors.New("the parent takes nothing of this session any more; what it counted last is kept in its data folder, and not in the totals")

// Errors that an operator is answered with.
var (
	ErrNoChild = errors.New("no such place reports here")
	ErrReports = errors.New("the place still reports: stop it first")
)

const (
	maxFolded = 4096 // sessions and children in a list
	maxEnded  = 256  // sessions of one child that wait for being folded
)

// mark64 stands for a forgotten child in a list.
func (p Place) mark64() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(p))
	return h.Sum64()
}

// listed says that a list, which is sorted, has a number.
func listed(list []uint64, n uint64) bool {
	if len(list) == 0 {
		return false
	}
	_, found := slices.BinarySearch(list, n)
	return found
}

// union returns all that is in list or in more, sorted; list itself if that
// has all.
func union(list, more []uint64) []uint64 {
	if !slices.ContainsFunc(more, func(n uint64) bool { return !listed(list, n) }) {
		return list
	}
	all := slices.Concat(list, more)
	slices.Sort(all)
	return slices.Compact(all)
}

// fold takes the pairs of folded sessions out of pairs, and sums them.
func fold(list []uint64, pairs []Pair) (left []Pair, sum Total, fits bool) {
	if len(list) == 0 || !slices.ContainsFunc(pairs, func(p Pair) bool { return listed(list, p.Session) }) {
		return pairs, sum, true
	}
	for _, p := range pairs {
		if !listed(list, p.Session) {
			left = append(left, p)
		} else if sum, fits = sum.plus(p.Total); !fits {
			return nil, sum, false
		}
	}
	return left, sum, true
}

// foldEnded folds the sessions of a child that ended long enough ago: not the
// one that reports.
func (m *Machine) foldEnded(now limiter.Time, c *child, reports uint64) {
	if i := slices.IndexFunc(c.ended, func(e endedSession) bool { return e.session == reports }); i >= 0 {
		c.ended = slices.Delete(c.ended, i, i+1) // it is fenced, and runs: it ends later
		if reports != c.session {
			c.ended = append(c.ended, endedSession{reports, now})
		}
	}
	var over []uint64
	for _, e := range c.ended { // the longest known first
		if now.Sub(e.since) < m.foldAfter() || len(c.record.Folded)+len(over) >= maxFolded {
			break
		}
		m.event(EventFold, c.place, fmt.Sprintf("what session %016x counted is kept as a part of one total from now on", e.session))
		over = append(over, e.session)
	}
	c.ended = slices.Delete(c.ended, 0, len(over))
	m.toldFolded(now, c, over)
}

// noteEnded remembers sessions that counted, and are not the newest.
func (c *child) noteEnded(now limiter.Time, pairs []Pair) {
	for _, p := range pairs {
		if p.Session == 0 || p.Session == c.session || len(c.ended) >= maxEnded {
			continue
		}
		if !slices.ContainsFunc(c.ended, func(e endedSession) bool { return e.session == p.Session }) {
			c.ended = append(c.ended, endedSession{p.Session, now})
		}
	}
}

// endedSession is one that ended, at the latest, at a time by this place's
// running clock: clocks that are set, and time while it was down, fold nothing.
type endedSession struct {
	session uint64
	since   limiter.Time
}

// with is a copy of a record with changes.
func (r *ChildRecord) with(change func(*ChildRecord)) *ChildRecord {
	c := *r
	change(&c)
	return &c
}

// saveChild writes down what is known of a child.
func (m *Machine) saveChild(now limiter.Time, c *child) {
	c.record = c.record.with(func(r *ChildRecord) {
		r.Ended = nil
		for _, e := range c.ended {
			r.Ended = append(r.Ended, EndedSession{e.session, max(0, now.Sub(e.since))})
		}
	})
	m.write(childKey(c.place), c.record)
}

// toldFolded adds to the list of what is folded of a child: what goes with its
// report, or what ended.
func (m *Machine) toldFolded(now limiter.Time, c *child, list []uint64) {
	if all := union(c.record.Folded, list); len(all) > len(c.record.Folded) {
		c.record = c.record.with(func(r *ChildRecord) { r.Folded = all })
		m.saveChild(now, c)
	}
}

// adoptFolded takes the list that goes with what the parent hands back. A
// place that learns that it had forgotten children forgets them again.
func (m *Machine) adoptFolded(now limiter.Time, list []uint64) {
	all := union(m.meta.Folded, list)
	if len(all) == len(m.meta.Folded) {
		return
	}
	m.meta.Folded = all
	m.write(metaKey, m.saved())
	for _, c := range slices.Clone(m.lower.order) {
		if listed(all, c.place.mark64()) {
			m.leave(now, c)
		}
	}
}

// Forget drops a child that left for good. Its counts are kept by this place
// itself, its shares come back when their leases end, and nobody waits for its
// reports; it is refused from now on. A child that still reports is an error.
func (m *Machine) Forget(now limiter.Time, place Place) error {
	c := m.lower.children[place]
	switch {
	case c == nil:
		return ErrNoChild
	case c.record.Forgotten:
		return nil
	case c.reported && now.Sub(c.seenAt) <= goneAfter*m.cfg.Heartbeat:
		return ErrReports
	}
	m.meta.Folded = union(m.meta.Folded, []uint64{place.mark64()})
	m.write(metaKey, m.saved())
	m.leave(now, c)
	return nil
}

// leave makes what a child counted this place's own, which takes several steps.
func (m *Machine) leave(now limiter.Time, c *child) {
	c.unheard = nil
	c.record = c.record.with(func(r *ChildRecord) { r.Forgotten, r.Leaving, r.Sessions = true, true, nil })
	m.saveChild(now, c)
	m.lower.order = slices.DeleteFunc(m.lower.order, func(o *child) bool { return o == c })
	m.lower.left = append(m.lower.left, c)
	m.forAll(now, taskForget, func(at limiter.Time, o *object) {
		for _, p := range o.pools {
			for _, l := range p.lines {
				if l.child.record.Forgotten {
					l.demand = Demand{}
				}
			}
			p.drop(at)
		}
	})
	m.leaves(now, c)
}

// leaving is how far counts of children that were forgotten became the place's
// own. Those of one key do so in one commit, so its total does not change, and
// a crash amid them leaves the others for the next session.
type leaving struct {
	children map[Place]*child
	after    Key          // up to this one, no record is of such a child
	at       limiter.Time // the next step
	keys     int          // how many were taken over
}

// leaves has the walk through the counts begin anew, for one child more.
func (m *Machine) leaves(now limiter.Time, c *child) {
	if m.leaving.children == nil {
		m.leaving.children = map[Place]*child{}
	}
	m.leaving.children[c.place], m.leaving.after, m.leaving.at = c, "", now
}

// leaveAt is when the next counts are taken over.
func (m *Machine) leaveAt() limiter.Time {
	if len(m.leaving.children) == 0 {
		return limiter.Never
	}
	return m.leaving.at
}

// takeOver makes some counts of forgotten children the place's own.
func (m *Machine) takeOver(now limiter.Time) {
	w := &m.leaving
	var names []Name
	records := 0
	ended := true
	m.scan(countPrefix, w.after, func(k Key, _ Record) bool {
		if records == m.maxStep() {
			ended = false
			return false
		}
		records++
		w.after = k
		if name, from := parseCountKey(k); w.children[from] != nil && (len(names) == 0 || names[len(names)-1] != name) {
			names = append(names, name)
		}
		return true
	})
	m.work += records
	for _, name := range names {
		n := m.counted(m.object(now, m.space(name.Namespace), name.Key))
		if err := m.keep(n, Total{}); err != nil {
			m.event(EventOverflow, m.cfg.Place, err.Error())
		}
	}
	w.at = now.Add(sweepPause)
	w.keys += len(names)
	if !ended || m.err != nil {
		return
	}
	for _, place := range slices.Sorted(maps.Keys(w.children)) {
		c := w.children[place]
		c.record = c.record.with(func(r *ChildRecord) { r.Leaving = false })
		m.saveChild(now, c)
		m.event(EventForgotten, place, fmt.Sprintf("what it counted of %d keys is kept here; its reports are refused", w.keys))
	}
	m.leaving = leaving{}
}

// keep makes the counts of forgotten children the place's own, at least as
// much as the parent says they were.
func (m *Machine) keep(n *count, told Total) error {
	own := n.source("")
	sum := own.kept
	var gone []Place
	for i := range n.sources {
		if s := &n.sources[i]; s.place != "" && listed(m.meta.Folded, s.place.mark64()) {
			var fits bool
			if sum, fits = sum.plus(s.total()); !fits {
				return n.tooLarge()
			}
			gone = append(gone, s.place)
		}
	}
	kept := sum.larger(told)
	if kept == own.kept && gone == nil {
		return nil
	}
	total, fits := n.total.plus(Total{kept.Added - sum.Added, kept.Removed - sum.Removed})
	if !fits {
		return n.tooLarge()
	}
	n.total, own.kept = total, kept
	for _, place := range gone {
		m.write(countKey(n.object.name, place), nil)
	}
	n.sources = slices.DeleteFunc(n.sources, func(s source) bool { return slices.Contains(gone, s.place) })
	m.changed(n, n.source(""))
	return nil
}

// foldAfter is how long after its end a session's counts are folded.
func (m *Machine) foldAfter() time.Duration {
	if m.cfg.FoldAfter > 0 {
		return m.cfg.FoldAfter
	}
	return m.rules.FoldAfter
}
