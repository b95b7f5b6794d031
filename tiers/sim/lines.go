package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// lineLaws is what the checker of lines remembers.
type lineLaws struct {
	off             bool // the core cannot be inspected
	touched         []touch
	child, parent   tiers.Explanation // reused
	decided, summed tiers.Explanation
	next            int // target and node to look at unasked
	sumAt           uint64
	cutFrom         map[cut]upperLine
}

// touch is a key at a place that a step may have changed.
type touch struct {
	node   *Node
	target *target
}

// A cut is a line that a child holds, as seen last.
type cut struct {
	child  *Node
	target *target
	limit  uint64
	line   uint64
}

// upperLine is the line that another one was cut from.
type upperLine struct{ lender, line uint64 }

func upperLineOf(s *tiers.LimitState) upperLine {
	if s.Held == nil {
		return upperLine{}
	}
	return upperLine{s.Held.Lender, s.Held.Line}
}

// maxTouched bounds how many keys of one message are looked at.
const maxTouched = 4

// touched notes that a step changed a key at a place; without a name, that
// it may have changed any.
func (w *World) touched(n *Node, name tiers.Name) {
	l := w.laws
	if l == nil || l.lines.off || len(l.lines.touched) >= maxTouched {
		return
	}
	if name == (tiers.Name{}) {
		if len(l.targets) == 0 {
			return
		}
		l.lines.next++
		l.lines.touched = append(l.lines.touched, touch{n, l.targets[l.lines.next%len(l.targets)]})
	} else if t := l.byName[name]; t != nil && t.limited {
		l.lines.touched = append(l.lines.touched, touch{n, t})
	}
}

func (w *World) touchedLines(n *Node, r *tiers.Report) {
	for i := range min(len(r.Lines), maxTouched) {
		w.touched(n, r.Lines[i].Name)
	}
}

func (w *World) touchedGrants(n *Node, a *tiers.Ack) {
	for i := range min(len(a.Lines), maxTouched) {
		w.touched(n, a.Lines[i].Name)
	}
}

func (w *World) touchedRecall(n *Node, r *tiers.Recall) {
	for i := range min(len(r.Lines), maxTouched) {
		w.touched(n, r.Lines[i].Name)
	}
}

// look inspects a key at a node that runs; false: there is nothing to see.
func (l *laws) look(n *Node, t *target, e *tiers.Explanation) bool {
	return !l.lines.off && n.Running() && n.proc.inspect(t.name, e)
}

// inspected is what a node knows of a key now, or nil.
func (l *laws) inspected(n *Node, t *target) *tiers.Explanation {
	if l.look(n, t, &l.lines.decided) {
		return &l.lines.decided
	}
	return nil
}

// stepLines checks the lines that the last event touched, and once in a
// while the sums over all of a limit's places.
func (l *laws) stepLines() {
	for _, t := range l.lines.touched {
		if l.err == nil && t.target.limited {
			l.pair(t.node, t.target)
			for _, below := range t.node.site.below {
				if len(t.node.site.below) > 2 && l.world.steps%uint64(len(t.node.site.below)) != uint64(below.nodes[0].drift&1) {
					continue // all of them would take long: some, at any time
				}
				for _, n := range below.nodes {
					l.pair(n, t.target)
				}
			}
		}
	}
	l.lines.touched = l.lines.touched[:0]
	if l.err == nil && !l.lines.off && l.world.steps >= l.lines.sumAt && len(l.oracles) > 0 {
		l.lines.sumAt = l.world.steps + 64 + 8*uint64(len(l.world.order))
		l.lines.next++
		l.sums(l.oracles[l.lines.next%len(l.oracles)])
		l.keptSums(l.world.order[l.lines.next%len(l.world.order)])
	}
}

// keptSums compares what a place keeps of the sums over its keys with what
// they are.
func (l *laws) keptSums(n *Node) {
	if !n.Running() {
		return
	}
	type sum struct {
		keys                                           int
		hereCapacity, hereRate, lentCapacity, lentRate int64 // rates per day
	}
	type limitOf struct {
		namespace string
		id        uint64
	}
	is, kept := map[limitOf]sum{}, map[limitOf]sum{}
	holds, awake := false, 0
	for _, t := range l.targets {
		e := &l.lines.summed
		if l.byName[t.name] != t || !l.look(n, t, e) {
			continue
		}
		awake++
		for i := range e.Limits {
			s := &e.Limits[i]
			var lent limiter.Share
			for j := range s.Lines {
				lent = lent.Plus(s.Lines[j].Lent.Minus(s.Lines[j].Returned))
			}
			here, perDay := s.Holding.Minus(lent), int64(24*time.Hour/s.Limit.Period)
			of := limitOf{t.name.Namespace, s.Limit.ID}
			was := is[of]
			is[of] = sum{
				was.keys + 1, was.hereCapacity + here.Capacity, was.hereRate + here.Rate*perDay,
				was.lentCapacity + lent.Capacity, was.lentRate + lent.Rate*perDay,
			}
			holds = holds || s.Held != nil && !s.Held.Ended && e.Now < s.Held.Expires
		}
	}
	stats := n.proc.stats()
	if awake < stats.Awake {
		return // what concerns every key is not done with all of them, and those are not shown
	}
	for _, p := range stats.Pools {
		kept[limitOf{p.Namespace, p.Limit.ID}] = sum{
			p.Keys, int64(p.Here.Capacity.Low), int64(p.Here.RatePerDay.Low), int64(p.Lent.Capacity.Low), int64(p.Lent.RatePerDay.Low),
		}
	}
	l.checks++
	if !maps.Equal(is, kept) {
		l.broken("sums are kept as they change", n, "over all keys they are %+v, kept are %+v", is, kept)
	}
	if holds && stats.Lease <= 0 {
		l.broken("sums are kept as they change", n, "a share is held, and %s of the lease are left", stats.Lease)
	}
}

// pair checks a child's lines of a key against its parent's ledger: what the
// child was lent is at most what the parent says it lent, what the parent
// took back is at most what the child says it gave, and the child's lease
// ends, in true time, before the parent's.
func (l *laws) pair(n *Node, t *target) {
	if !l.look(n, t, &l.lines.child) {
		return
	}
	l.balance(n, t, &l.lines.child)
	if n.Leaf {
		l.sees(n, t, &l.lines.child)
	}
	parent := n.parent
	if parent == nil {
		return
	}
	child := &l.lines.child
	for _, at := range parent.site.nodes {
		if at.Running() && at.proc.session == child.Parent && l.look(at, t, &l.lines.parent) {
			l.checks++
			l.against(n, at, t, child, &l.lines.parent)
		}
	}
}

func (l *laws) against(n, parent *Node, t *target, c, p *tiers.Explanation) {
	for i := range c.Limits {
		held := c.Limits[i].Held
		if held == nil || held.Lender != p.Session {
			continue
		}
		lender := limitState(p, c.Limits[i].Limit.ID)
		if lender == nil {
			continue
		}
		line := lineOf(lender, n.Place, c.Session, held.Line)
		usable := !held.Ended && c.Now < held.Expires && (held.Lent.Minus(held.Returned).Capacity > 0 || held.Lent.Minus(held.Returned).Rate > 0)
		seen := cut{n, t, c.Limits[i].Limit.ID, held.Line}
		if line == nil {
			// A place whose own line was replaced knows no more of what it cut
			// from the old one. It is covered: the place's own parent counts
			// the old line as lent until its end.
			if from, known := l.lines.cutFrom[seen]; usable && known && p.Now >= lender.Quiet && c.Limits[i].Window == lender.Window && from == upperLineOf(lender) {
				l.broken("a child's lease ends before its parent's", n, "%s %s: line %d is held, with %s left, and %s has ended it", t.name, c.Limits[i].Limit,
					held.Line, held.Expires.Sub(c.Now), parent.Place)
			}
			continue
		}
		l.lines.cutFrom[seen] = upperLineOf(lender)
		if !line.Lent.Covers(held.Lent) {
			l.broken("a child holds at most what it was lent", n, "%s %s line %d: lent %+v, holds %+v", t.name, c.Limits[i].Limit, held.Line, line.Lent, held.Lent)
		}
		if !held.Returned.Covers(line.Returned) {
			l.broken("a parent takes back at most what was returned", n, "%s %s line %d: returned %+v, taken %+v", t.name, c.Limits[i].Limit, held.Line, held.Returned, line.Returned)
		}
		if usable && n.trueTime(held.Expires) > parent.trueTime(line.Expires) {
			l.broken("a child's lease ends before its parent's", n, "%s %s line %d: at %d, the parent's at %d", t.name, c.Limits[i].Limit, held.Line,
				n.trueTime(held.Expires), parent.trueTime(line.Expires))
		}
	}
}

func lineOf(s *tiers.LimitState, child tiers.Place, session, number uint64) *tiers.LineState {
	for i := range s.Lines {
		if x := &s.Lines[i]; x.Child == child && x.Session == session && x.Line == number {
			return x
		}
	}
	return nil
}

// balance checks a place's own ledger: what is here and what is lent is what
// it holds, and no line that it lends outlives the one that it holds.
func (l *laws) balance(n *Node, t *target, e *tiers.Explanation) {
	for i := range e.Limits {
		s := &e.Limits[i]
		all := s.Bucket
		all.Capacity += s.Frozen
		for j := range s.Lines {
			all = all.Plus(s.Lines[j].Lent.Minus(s.Lines[j].Returned))
			if s.Held != nil && !s.Held.Ended && e.Now < s.Held.Expires && !s.Limit.Durable() && s.Lines[j].Line != 0 && s.Lines[j].Expires > s.Held.Expires && s.Lines[j].Lent != s.Lines[j].Returned {
				l.broken("a lease never outlives the one it is cut from", n, "%s %s: lent until %d, held until %d", t.name, s.Limit, s.Lines[j].Expires, s.Held.Expires)
			}
		}
		if all.Capacity > s.Holding.Capacity || all.Rate > s.Holding.Rate {
			l.broken("a ledger balances", n, "%s %s: holds %+v, has and lends %+v", t.name, s.Limit, s.Holding, all)
		}
		// What fills, or is lent, while leases of an earlier session may run is
		// there twice, but seldom so much of it that the one bucket overflows.
		if s.Owner && s.Limit.Kind == limiter.Rate && e.Now < s.Quiet && (s.Bucket.Tokens > 0 && !l.wasReset(n, t, s.Limit.ID) || len(s.Lines) > 0) {
			l.broken("a silent owner neither fills nor lends", n, "%s %s: %+v, %d lines, silent for %s", t.name, s.Limit, s.Bucket, len(s.Lines), s.Quiet.Sub(e.Now))
		}
		if s.Bucket.Tokens > s.Bucket.Capacity {
			l.broken("tokens fit their capacity", n, "%s %s: %+v", t.name, s.Limit, s.Bucket)
		}
	}
}

// wasReset says that a node's session was told by an operator that a limit is
// whole.
func (l *laws) wasReset(n *Node, t *target, id uint64) bool {
	return slices.ContainsFunc(l.oracles, func(o *oracle) bool {
		return o.owner == n.site && o.target == t && o.id == id && (o.resetBy == n.session() || o.owner.twice)
	})
}

// sums adds up what all places below an owner may spend at this instant of
// one limit: never more than the limit.
func (l *laws) sums(o *oracle) {
	if o.node != nil || !o.exists || o.limit.Soft || o.owner.twice {
		return
	}
	o.settle(l.world.now)
	var all limiter.Share
	for _, n := range l.world.order {
		if !n.site.under(o.owner) || !l.look(n, o.target, &l.lines.summed) {
			continue
		}
		e := &l.lines.summed
		s := limitState(e, o.id)
		switch {
		case s == nil, s.Window != o.newest: // what is left of an older window is no part of this one
		case s.Owner && l.lendsNothingYet(n):
		case s.Owner && e.Now >= s.Quiet, s.Held != nil && !s.Held.Ended && e.Now < s.Held.Expires:
			all = all.Plus(s.Bucket)
		}
	}
	l.checks++
	if all.Capacity > (1+o.again)*o.limit.Burst+o.extra || all.Rate > (1+o.again)*o.limit.Rate {
		l.broken("shares sum to at most the limit", nil, "%s %s of %s: %+v", o.target.name, &o.limit, o.owner.place, all)
	}
}

// under says that s is at or below another place.
func (s *site) under(top *site) bool {
	for s != nil && s.depth > top.depth {
		s = s.parent
	}
	return s == top
}
