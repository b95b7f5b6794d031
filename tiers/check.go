package tiers

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// Reason says why a check was denied.
type Reason string

// The reasons.
const (
	ReasonLimit Reason = "limit" // the limit is spent
	ReasonShare Reason = "share" // no share of it is here
	ReasonBurst Reason = "burst" // the limit never holds so many tokens
)

// A Decision answers a check. Scope, Limit and Remaining are those of the
// limit that denied it, or of the one with the least remaining.
type Decision struct {
	Allowed    bool
	Limited    bool // the namespace has limits; without, nothing else is set
	Shadow     bool // it would have been denied, for Reason, but the rule only looks on
	Reason     Reason
	Scope      limiter.Scope
	Kind       limiter.Kind
	Limit      int64         // the rule's figure: tokens per period, or in all
	Remaining  int64         // what this place can admit now without asking
	RetryAfter time.Duration // 0: not known
	Reset      time.Duration // until the limit is whole again if nobody comes; 0: it is, or not known
	Permit     uint64        // of a concurrency: to be released; 0: none
	Hold       time.Duration // how long the permit lives that is not renewed
}

// maxAsking bounds the tokens that the waiters of one key need together.
const maxAsking = limiter.MaxTokens

// A waiter is a check that waits for a share.
type waiter struct {
	id       uint64
	hits     int64
	deadline limiter.Time
}

// Decided is the decision on a check that waited.
type Decided struct {
	ID       uint64
	Decision Decision
}

// Check spends hits tokens from every limit of a key, or from none. A check
// that finds no share here, or less than its hits, waits for one until the
// deadline: then decided is false, and an Output will bring the decision
// under id.
func (m *Machine) Check(now limiter.Time, name Name, hits int64, deadline limiter.Time, id uint64) (d Decision, decided bool, err error) {
	if s := m.spaces[name.Namespace]; s != nil && s.rule != nil && m.cfg.Leaf && len(s.rule.Limits) > 0 {
		m.object(now, s, name.Key)
	}
	decided, _, err = m.CheckAwake(now, name, hits, deadline, id, &d)
	return d, decided, err
}

// CheckAwake is Check for a key that is in memory: it reads no disk. Awake is
// false, and nothing was done, if the key is not there. The decision is
// written to d, which is empty before.
func (m *Machine) CheckAwake(now limiter.Time, name Name, hits int64, deadline limiter.Time, id uint64, d *Decision) (decided, awake bool, err error) {
	s := m.checked // most checks follow one of the same namespace
	if s == nil || s.name != name.Namespace {
		s = m.spaces[name.Namespace]
	}
	switch {
	case s == nil || s.rule == nil:
		return true, true, ErrUnknownNamespace
	case !m.cfg.Leaf:
		return true, true, ErrNotLeaf
	case len(s.rule.Limits) == 0:
		d.Allowed = true
		return true, true, nil
	}
	m.checked = s
	o := s.objects[name.Key]
	if o == nil {
		return false, false, nil
	}
	m.idle.touch(o)
	for _, p := range o.pools {
		p.meter.offer(now, hits)
		if now.Sub(p.meter.since) >= demandWindow {
			m.measure(now, p)
		}
	}
	if m.decide(o, now, hits, d) && deadline > now && m.mayWait(o) {
		m.wait(now, o, waiter{id, hits, deadline})
		return false, true, nil
	}
	return true, true, nil
}

func (m *Machine) mayWait(o *object) bool {
	return !m.upper.stopping && !m.upper.fenced && m.waiting < maxWaiters && o.asking < maxAsking
}

// wait queues a check, and asks the parent for what it needs.
func (m *Machine) wait(now limiter.Time, o *object, w waiter) {
	o.waiters = append(o.waiters, w)
	m.waiting++
	o.asking += max(1, w.hits)
	for _, p := range o.pools {
		if !p.owner && p.told.Ask < p.demand(now).Ask {
			m.tell(p)
		}
	}
	m.arm(now, o)
	m.stirred = true
}

// measure ends a window of a pool's demand, and tells the parent if it moved
// beyond what the share covers.
func (m *Machine) measure(now limiter.Time, p *pool) {
	p.meter.roll(now, p.limit.Period)
	if !p.owner && moved(p.told.Now, p.meter.now) {
		m.tell(p)
	}
}

// decide takes hits from all of a key's limits, or says which one denies
// them, and whether waiting for a share may help.
func (m *Machine) decide(o *object, now limiter.Time, hits int64, d *Decision) (wait bool) {
	nearest := o.pools[0]
	for _, p := range o.pools {
		p.bucket.Settle(now)
		if reason, waits := p.deny(now, hits); reason != "" {
			p.describe(now, d)
			d.Reason, d.RetryAfter = reason, 0
			if after, ok := p.bucket.Wait(hits); ok && reason == ReasonLimit && p.usable(now) {
				d.RetryAfter = max(after, time.Nanosecond)
			}
			if !waits {
				return false
			}
			wait = true
		} else if p.bucket.Tokens() < nearest.bucket.Tokens() {
			nearest = p
		}
	}
	if wait {
		return true
	}
	for _, p := range o.pools {
		p.boundCredit(now)
		p.bucket.Spend(hits)
	}
	nearest.describe(now, d)
	d.Allowed = true
	return false
}

// usable says that what the bucket holds may be spent.
func (p *pool) usable(now limiter.Time) bool {
	return p.owner || p.held.number != 0 && !p.held.ended && now < p.held.expires
}

// deny says why hits cannot be taken, "" if they can, and whether a share
// that comes may change that.
func (p *pool) deny(now limiter.Time, hits int64) (reason Reason, waits bool) {
	switch {
	case hits > p.limit.Burst:
		return ReasonBurst, false
	case !p.usable(now):
		return ReasonShare, true
	case hits <= p.bucket.Tokens():
		return "", false
	case hits > p.bucket.Capacity():
		return ReasonLimit, !p.owner
	}
	return ReasonLimit, hits <= p.bucket.Tokens()+p.credit
}

// describe says in d what the pool's limit is, and what is left of it here.
func (p *pool) describe(now limiter.Time, d *Decision) {
	d.Limited, d.Scope, d.Limit, d.Remaining = true, p.limit.Scope, p.limit.Rate, 0
	if p.usable(now) {
		d.Remaining = p.bucket.Tokens()
	}
}

// decideAll decides the checks that wait, in the order of their coming, as
// far as that can be done now.
func (m *Machine) decideAll(o *object, now limiter.Time) {
	left := o.waiters[:0]
	for _, w := range o.waiters {
		var d Decision
		if m.decide(o, now, w.hits, &d) && now < w.deadline && !m.upper.stopping && !m.upper.fenced {
			left = append(left, w)
			continue
		}
		m.waiting--
		o.asking -= max(1, w.hits)
		m.out.Decided = append(m.out.Decided, Decided{w.id, d})
	}
	o.waiters = left
}

// tickObject does what is due for an object.
func (m *Machine) tickObject(now limiter.Time, o *object) {
	for _, p := range o.pools {
		h := &p.held
		if h.number != 0 && !h.ended && now >= h.expires {
			m.ended(now, p)
			m.tell(p)
		}
		if now >= h.renewAt && h.renewAt != 0 {
			h.renewAt = limiter.Never
			if m.unused(now, p) {
				h.keep = Keep{}
				m.giveBack(now, p)
			}
			m.tell(p)
		}
		expired := false
		for _, l := range p.lines {
			if now >= l.expires {
				if l.number != 0 {
					p.end(now, l)
				}
				l.demand, expired = Demand{}, true
			}
		}
		if expired {
			p.drop()
		}
		if expired || len(p.lines) > 0 && p.owner && now >= m.silent && m.silent != 0 {
			m.balance(now, p, nil)
			m.upward(now, p)
		}
		p.check()
	}
	if len(o.waiters) > 0 {
		m.decideAll(o, now)
	}
}

// unused says that nobody asks for a share any more.
func (m *Machine) unused(now limiter.Time, p *pool) bool {
	return p.held.number != 0 && len(p.object.waiters) == 0 && len(p.lines) == 0 && now.Sub(p.meter.last) >= idleAfter
}

// arm sets an object's timer to what is due next.
func (m *Machine) arm(now limiter.Time, o *object) {
	at := limiter.Never
	for _, p := range o.pools {
		if h := &p.held; !p.owner {
			if h.number != 0 && !h.ended {
				at = min(at, h.expires)
			}
			if h.renewAt != 0 {
				at = min(at, h.renewAt)
			}
		}
		for _, l := range p.lines {
			at = min(at, l.expires)
			if p.owner && m.silent > now {
				at = min(at, m.silent)
			}
		}
	}
	for _, w := range o.waiters {
		at = min(at, w.deadline)
	}
	m.timers.set(o, at)
}
