package sim

import (
	"slices"
	"strconv"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// This file is what clients and operators do beyond votes: checks, with ids
// and without, what gives them back, and resets; and what the laws make of it.

// maxPermits is how many permits clients remember.
const maxPermits = 200

// A heldPermit is what a client got with a check.
type heldPermit struct {
	node    *Node
	target  *target
	session uint64
	serial  uint64
	hits    int64
}

// check asks a leaf, and charges what it admits.
func (s *scenario) check(n *Node, t *target, hits int64, wait time.Duration) {
	p := n.proc
	s.laws.offered(n, t, hits)
	p.check(t.name, hits, wait, "", func(d tiers.Decision, err error) {
		switch {
		case err != nil || p.dead:
			t.ask(hits) // nobody knows, and it may be counted
		default:
			s.laws.decidedCheck(n, t, hits, &d)
			s.holds(n, t, hits, &d)
		}
	})
	s.world.touched(n, t.name)
}

// holds remembers the permit of a check.
func (s *scenario) holds(n *Node, t *target, hits int64, d *tiers.Decision) {
	if d.Permit == 0 || !d.Allowed || d.Shadow {
		return
	}
	if len(s.permits) == maxPermits {
		s.permits = slices.Delete(s.permits, 0, maxPermits/4) // their clients are gone
	}
	s.permits = append(s.permits, heldPermit{n, t, n.session(), d.Permit, hits})
}

// retry sends a request with an id, and again until it is answered, and at
// times once more. Send returns false if nobody is there to take it. A place
// that has another disk than before does not remember the id.
func (s *scenario) retry(n *Node, forgot func(), send func(p *process, answered func())) {
	disk, tries := n.disk.number, 0
	var try func()
	try = func() {
		tries++
		done := false
		if n.ready() {
			if disk != n.disk.number {
				disk = n.disk.number
				forgot()
			}
			if tries > 1 {
				s.world.hurt[Retry]++
			}
			send(n.proc, func() { done = true })
		}
		s.world.After(200*time.Millisecond, func() {
			if (!done || s.load.IntN(10) == 0) && tries < 20 && !n.gone {
				try()
			}
		})
	}
	try()
}

func (s *scenario) id() string {
	s.requests++
	return strconv.FormatUint(s.requests, 36)
}

// once adds with a request id.
func (s *scenario) once(n *Node, t *target, delta int64) {
	id := s.id()
	r := s.laws.requestNamed(t.name.Namespace, id)
	t.ask(delta)
	s.retry(n, func() { t.ask(delta) }, func(p *process, answered func()) {
		before := len(r.records)
		p.add(t.name, delta, id, func(total tiers.Total, err error) {
			if err != nil || p.dead {
				return
			}
			answered()
			if before > 0 && len(r.records) == before {
				s.laws.retried(n, t, r, nil, total)
			}
		})
	})
}

// checkOnce checks with a request id. What it spends is charged when its
// record is written.
func (s *scenario) checkOnce(n *Node, t *target, hits int64) {
	id := s.id()
	r := s.laws.requestNamed(t.name.Namespace, id)
	wait := pick(s.load, 0, 50*time.Millisecond, 500*time.Millisecond)
	s.retry(n, func() {}, func(p *process, answered func()) {
		if !s.checks(t) {
			answered()
			return
		}
		before := len(r.records)
		s.laws.offered(n, t, hits)
		p.check(t.name, hits, wait, id, func(d tiers.Decision, err error) {
			if err != nil || p.dead {
				return
			}
			answered()
			if before > 0 && len(r.records) == before && d.Allowed && !d.Shadow {
				s.laws.retried(n, t, r, &d, tiers.Total{})
			}
			s.holds(n, t, hits, &d)
		})
		s.world.touched(n, t.name)
	})
}

// operate does what is neither a vote nor a plain check.
func (s *scenario) operate(n *Node) {
	switch roll := s.load.IntN(20); {
	case roll < 12:
		s.release(roll < 4)
	case roll < 15:
		s.refund(n)
	case roll < 19:
		if t := s.limited[s.load.IntN(len(s.limited))]; s.checks(t) && s.spec.Namespaces[t.name.Namespace].Dedupe != "" {
			s.checkOnce(n, t, s.hits(n, t))
		}
	default:
		s.reset(n)
	}
}

// release gives a permit back where it was got, or renews it. It may be
// released again later, or in the name of another key.
func (s *scenario) release(renew bool) {
	if len(s.permits) == 0 {
		return
	}
	r := s.load
	i := r.IntN(len(s.permits))
	if r.IntN(2) == 0 { // the latest are likely to be alive
		i = max(i, len(s.permits)-1-r.IntN(8))
	}
	permit := s.permits[i]
	if !renew && r.IntN(3) > 0 {
		s.permits = slices.Delete(s.permits, i, i+1)
	}
	p := s.world.nodes[permit.node.Place].any()
	if p == nil || !p.node.ready() {
		return
	}
	n, t := p.node, permit.target
	if r.IntN(20) == 0 {
		t = s.limited[r.IntN(len(s.limited))]
	}
	p.release(&permit, t.name, renew, func(ok bool, err error) {
		if err == nil && !p.dead {
			s.laws.released(n, t, &permit, renew, ok)
		}
	})
	s.world.touched(n, t.name)
}

// released is called when a place says whether it released or renewed a
// permit.
func (l *laws) released(n *Node, t *target, permit *heldPermit, renewed, ok bool) {
	what := pathRelease
	if renewed {
		what = pathRenewal
	}
	l.checks++
	l.world.say(n, "%s: %v, %d of %s", what, ok, permit.serial, t.name)
	switch {
	case !ok && permit.session != n.session():
		l.path(pathEndedPermit)
		return
	case !ok:
		return
	case t != permit.target:
		l.broken("a permit belongs to one check", n, "%s has released or renewed that of %s", t.name, permit.target.name)
		return
	}
	l.path(what)
	found := false
	c := l.charge(n, t)
	for at, o := range c.oracles {
		o.expire(l, l.world.now)
		id := permitID{n, permit.session, permit.serial}
		i := slices.IndexFunc(o.permits, func(p permitOut) bool { return p.permitID == id })
		switch {
		case i < 0 && renewed && o.ended[id]:
			l.broken("a permit that ended is not renewed", n, "%s %s: permit %d of session %016x", t.name, &o.limit, permit.serial, permit.session)
			return
		case i < 0:
			continue
		case renewed:
			o.permits[i].until = n.trueTime(n.clock().Add(c.rule.Limits[at].Hold))
		default:
			o.out -= o.permits[i].hits
			o.permits = slices.Delete(o.permits, i, i+1)
		}
		found = true
	}
	if !found {
		l.broken("a permit is released once", n, "%s: permit %d of session %016x had ended", t.name, permit.serial, permit.session)
	}
}

// refund takes back what was admitted, or more, or at another place.
func (s *scenario) refund(n *Node) {
	t := s.limited[s.load.IntN(len(s.limited))]
	if t == s.steady || !s.checking {
		return
	}
	hits := s.hits(n, t)
	p := n.proc
	window := s.laws.windows(n, t)
	p.runner.Refund(t.name, hits, func(refunded int64, err error) {
		if err == nil && !p.dead && refunded != 0 {
			s.laws.refunded(n, t, hits, refunded, window)
		}
	})
	s.world.touched(n, t.name)
}

// windows are those that a leaf has of a key's limits.
func (l *laws) windows(n *Node, t *target) (windows []int64) {
	c := l.charge(n, t)
	windows = make([]int64, len(c.oracles))
	if state := l.inspected(n, t); state != nil {
		for i, o := range c.oracles {
			if at := limitState(state, o.id); at != nil {
				windows[i] = at.Window
			}
		}
	}
	return windows
}

// refunded is called at the instant at which a place took back what was
// admitted there: at most that, by this session.
func (l *laws) refunded(n *Node, t *target, asked, refunded int64, windows []int64) {
	l.path(pathRefund)
	l.world.say(n, "refunds %d of %d of %s", refunded, asked, t.name)
	l.checks++
	for i, o := range l.charge(n, t).oracles {
		if o.limit.Kind == limiter.Concurrency {
			continue
		}
		if net := o.net[n.session()]; refunded < 0 || refunded > asked || refunded > net {
			l.broken("a refund is at most what was admitted", n, "%s %s: %d of %d, admitted here %d", t.name, &o.limit, refunded, asked, net)
			return
		}
		o.net[n.session()] -= refunded
		o.settle(l.world.now)
		switch o.limit.Kind {
		case limiter.Quota:
			if windows[i] == 0 { // the key lacked what concerned all of them, and was brought up to date
				windows[i] = l.windows(n, t)[i]
			}
			w := o.window(windows[i])
			w.spent = max(0, w.spent-refunded) // it may have been reset since
		case limiter.Budget:
			o.spent = max(0, o.spent-refunded)
		default:
			o.bucket.Add(l.world.now, limiter.Share{Tokens: refunded})
		}
	}
}

// reset is an operator's, at the place that owns one of a key's limits.
func (s *scenario) reset(n *Node) {
	t := s.limited[s.load.IntN(len(s.limited))]
	c := s.laws.charge(n, t)
	if t == s.steady || !s.checking || len(c.oracles) == 0 {
		return
	}
	o := c.oracles[s.load.IntN(len(c.oracles))]
	p := o.owner.nodes[0].any()
	if o.node != nil {
		p = o.node.proc
	}
	if p == nil || !p.node.ready() {
		return
	}
	owner, refused, told := p.node, false, false
	p.runner.Reset(t.name, func(err error) {
		refused = !told && err != nil
		if told && err == nil && !p.dead {
			s.world.say(owner, "the reset of %s is durable", t.name)
		}
	})
	told = true
	if !refused && !p.dead {
		s.laws.reset(owner, t)
	}
	s.world.touched(owner, t.name)
}

// reset is called at the instant at which an owner reset its limits of a key.
// Its own part is full at once. What it lent is filled when its holder hears
// of it, and until then holds what it held: at most as much again, of each
// share once, for each reset that it has not heard of. A share whose holder
// does not hear ends with its lease; a budget's and a quota's does not.
func (l *laws) reset(n *Node, t *target) {
	l.path(pathReset)
	l.world.say(n, "resets %s", t.name)
	now := l.world.now
	state := l.inspected(n, t)
	for _, o := range l.oracles {
		if o.owner != n.site || o.node != nil && o.node != n || o.target != t || !o.exists || o.limit.Kind == limiter.Concurrency {
			continue
		}
		var lent, window int64
		if state == nil && o.goneAt > 0 { // the lines of before it left the rules, that one that sleeps knows nothing of
			lent = o.limit.Burst
		}
		if state != nil {
			if at := limitState(state, o.id); at != nil {
				window = at.Window
				for _, line := range at.Lines {
					lent += line.Lent.Minus(line.Returned).Capacity
				}
				if state.Now < at.Quiet { // an earlier session's lines, that it knows nothing of
					lent = o.limit.Burst
				}
			}
		}
		o.settle(now)
		o.resetBy = n.session()
		switch o.limit.Kind {
		case limiter.Quota:
			if window != 0 {
				o.window(window) // what was lent of it may be all
			}
			for i := range o.windows {
				// Of one that fell asleep at once it is not known which window it is in.
				if w := &o.windows[i]; window == 0 || w.begin == window {
					w.spent, w.unheard = 0, w.unheard+lent
				}
			}
		case limiter.Budget:
			o.spent, o.unheard, o.unheardUntil = 0, o.unheard+lent, limiter.Never
		default:
			o.bucket = limiter.NewBucket(o.limit.Period*100, faster(&o.limit), now)
			o.unheard, o.sinceReset = o.unheard+lent, 0
			o.unheardUntil = now.Add(time.Duration(l.deepest()+1) * drifting(drifting(drifting(drifting(drifting(l.world.longestLease()))))))
		}
	}
}

// deepest is how deep the tree is.
func (l *laws) deepest() (depth int) {
	for _, s := range l.all {
		depth = max(depth, s.depth)
	}
	return depth
}
