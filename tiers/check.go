package tiers

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// Reason says why a check was denied.
type Reason string

// The reasons.
const (
	ReasonLimit Reason = "limit" // the limit is spent for now
	ReasonShare Reason = "share" // no share of it is here
	ReasonBurst Reason = "burst" // the limit never holds so many tokens
	ReasonSpent Reason = "spent" // a budget has too little left, and gains nothing
)

// A Decision answers a check. What it says of a limit is said of one: of those
// that deny the check, the one that lets it pass last; of those that allow it,
// the one with the least remaining. It does not hang on the order of the rules.
type Decision struct {
	Allowed    bool
	Limited    bool // the namespace has limits; without, nothing else is set
	Shadow     bool // it would have been denied, for Reason, but the rule only looks on
	Reason     Reason
	Scope      limiter.Scope
	Kind       limiter.Kind
	Limit      int64         // the rule's figure: tokens per period, or in all
	Remaining  int64         // what this place can admit now without asking
	RetryAfter time.Duration // all limits let it pass then, if nobody comes meanwhile; 0: never, or not known
	Reset      time.Duration // until the limit is whole again if nobody comes; 0: it is, or not known
	Permit     uint64        // of a concurrency: to be released; 0: none
	Session    uint64        // that the permit is of, if the decision was remembered; 0: this one
	Hold       time.Duration // how long the permit lives that is not renewed
}

// maxAsking bounds the tokens that the waiters of one key need together.
const maxAsking = limiter.MaxTokens

// A waiter is a check that waits for a share.
type waiter struct {
	id       uint64
	hits     int64
	deadline limiter.Time
	again    limiter.Time // it can be decided then, if nobody else comes; 0: not known
}

// Decided is the decision on a check that waited.
type Decided struct {
	ID       uint64
	Decision Decision
	Durably  bool // it may leave only when the writes are durable
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
// false, and nothing was done, if the key is not there, or lacks what is to be done with all. The decision is
// written to d, whatever was in it; an error writes none.
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
		*d = Decision{Allowed: true}
		return true, true, nil
	}
	m.checked = s
	o := s.objects[name.Key]
	if o == nil || o.swept != m.sweep.given { // what it lacks may have to be read
		return false, false, nil
	}
	m.idle.touch(o)
	for _, p := range o.pools {
		p.meter.offer(now, hits)
		if now.Sub(p.meter.since) >= demandWindow {
			m.measure(now, p)
		}
	}
	v := m.decide(o, now, hits, d, false)
	if !v.waits {
		return true, true, nil
	}
	if s.rule.Shadow && !v.written {
		m.wishFor(now, o, hits)
		d.Allowed, d.Shadow = true, true
		return true, true, nil
	}
	if v.written {
		deadline = max(deadline, now.Add(drawWait))
	}
	if deadline > max(now, v.soonest) && m.mayWait(o) {
		*d = Decision{}
		m.wait(now, o, waiter{id: id, hits: hits, deadline: deadline})
		return false, true, nil
	}
	if m.decide(o, now, hits, d, true).waits {
		m.wishFor(now, o, hits)
	}
	return true, true, nil
}

// drawWait is how long a check waits for its own place's disk, at most.
const drawWait = time.Second

// A verdict says what a check that was not decided on may wait for.
type verdict struct {
	waits   bool         // a share that comes may help
	written bool         // it lacks nothing but what is being written off a durable limit
	soonest limiter.Time // it cannot be allowed before
}

// wishFor asks for what a check lacked that did not wait: its client may come
// again.
func (m *Machine) wishFor(now limiter.Time, o *object, hits int64) {
	o.wish, o.wishUntil = max(1, hits), now.Add(wishFor)
	m.askFor(now, o)
}

// wishFor is how long a check that did not wait is thought to come again.
const wishFor = time.Second

// asks are the tokens that checks lack, all and the largest, and until when.
func (o *object) asks(now limiter.Time) (ask, single int64, until limiter.Time) {
	ask = min(o.asking, limiter.MaxTokens)
	for _, w := range o.waiters {
		until = max(until, w.deadline)
		single = max(single, w.hits, 1)
	}
	if o.wishUntil > now {
		ask, single, until = saturate(ask, o.wish), max(single, o.wish), max(until, o.wishUntil)
	}
	return ask, single, until
}

// askFor tells the parent what checks lack, if it does not know.
func (m *Machine) askFor(now limiter.Time, o *object) {
	for _, p := range o.pools {
		if !p.owner && p.lacks(now, p.demand(now)) {
			m.tell(p)
		}
	}
	m.stirred = true
}

func (m *Machine) mayWait(o *object) bool {
	return !m.upper.stopping && !m.upper.fenced && m.waiting < maxWaiters && o.asking < maxAsking
}

// wait queues a check, and asks the parent for what it needs.
func (m *Machine) wait(now limiter.Time, o *object, w waiter) {
	o.waiters = append(o.waiters, w)
	m.waiting++
	o.asking += max(1, w.hits)
	m.askFor(now, o)
	m.arm(now, o)
}

// measure ends a window of a pool's demand, and tells the parent if it moved
// beyond what the share covers.
func (m *Machine) measure(now limiter.Time, p *pool) {
	p.meter.roll(now, p.limit.Period)
	if !p.owner && moved(p.told.Now, p.meter.now) {
		m.tell(p)
	}
}

// decide takes hits from all of a key's limits, or says in d why it does not.
// Last says that the check does not wait: then a soft limit whose share is away
// lets it pass.
func (m *Machine) decide(o *object, now limiter.Time, hits int64, d *Decision, last bool) (v verdict) {
	*d = Decision{}
	if len(o.pools) == 0 { // its limits left the rules while it waited
		d.Allowed = o.space.rule != nil
		return v
	}
	var nearest *pool
	var least int64 // what nearest has
	denied, permit := false, false
	for _, p := range o.pools {
		if p.owner && p.limit.Kind != limiter.Rate {
			m.ready(now, p, hits)
		}
		p.bucket.Settle(now)
		permit = permit || p.limit.Kind == limiter.Concurrency
		if reason, _ := p.deny(now, hits); reason != "" {
			denied = true
		} else if left := p.whole(); nearest == nil || left < least || left == least && before(p.limit, nearest.limit) {
			nearest, least = p, left
		}
	}
	if denied {
		r := refuse(o.pools, now, hits, last)
		if r.by != nil {
			r.describe(now, d)
			if last || !r.waits {
				m.shadowed(o, d)
			}
			return r.verdict
		}
		nearest = nearestOf(o.pools, now) // soft limits let it pass
	}
	if permit && hits > 0 {
		m.serial++
		d.Permit = m.serial
	}
	for _, p := range o.pools {
		if p.spare != nil && !p.usable(now) {
			p.spare.Take(now, hits)
			p.spareAt = now
			continue
		}
		p.admit(now, hits, d.Permit)
		if hold := p.limit.Hold; hold > 0 && (d.Hold == 0 || hold < d.Hold) {
			d.Hold = hold
		}
		if p.low() {
			m.tell(p)
		}
	}
	nearest.describe(now, d)
	d.Allowed = true
	if d.Permit != 0 {
		o.join(d.Permit)
		m.arm(now, o)
	}
	if o.space.rule.Count && hits > 0 {
		m.use(now, o, hits)
	}
	return v
}

// shadowed lets a denied check pass whose rule only looks on.
func (m *Machine) shadowed(o *object, d *Decision) {
	if o.space.rule.Shadow {
		d.Allowed, d.Shadow = true, true
	}
}

// ready brings a limit that is owned here up to now.
func (m *Machine) ready(now limiter.Time, p *pool, hits int64) {
	m.turn(now, p)
	if p.limit.Kind == limiter.Concurrency {
		m.expirePermits(now, p)
	} else {
		m.draw(p, hits)
	}
}

// opens says that a soft limit whose share is away has hits to spare: a
// sixteenth of the limit, rounded up.
func (p *pool) opens(now limiter.Time, hits int64) bool {
	if !p.limit.Soft || p.owner || p.usable(now) || hits > p.limit.Burst {
		return false
	}
	if p.spare == nil {
		p.provide(now, limiter.MaxTokens)
	}
	p.spare.Settle(now)
	return hits <= p.spare.Tokens()
}

// provide makes a soft limit's provisional share: a sixteenth of the limit,
// rounded up, with as many tokens at most.
func (p *pool) provide(now limiter.Time, tokens int64) {
	part := func(n int64) int64 { return (n + 15) / 16 }
	s := p.limit.Whole()
	s = limiter.Share{Tokens: min(part(s.Tokens), tokens), Capacity: part(s.Capacity), Rate: part(s.Rate)}
	b := limiter.NewBucket(p.limit.Period, s, now)
	p.spare = &b
}

// low says that the lender should know that little is left of what does not
// refill here.
func (p *pool) low() bool {
	if p.owner || p.due || p.limit.Kind == limiter.Rate && !p.dry() {
		return false
	}
	left, of := p.bucket.Tokens(), p.bucket.Capacity()+p.permits.out
	return left*2 < of && left <= p.lowAt
}

// dry says that the share refills nothing: its tokens were lent as they are.
func (p *pool) dry() bool { return !p.owner && p.holding().Rate == 0 }

// usable says that what the bucket holds may be spent.
func (p *pool) usable(now limiter.Time) bool {
	return p.owner && !p.waits || !p.owner && p.held.number != 0 && !p.held.ended && now < p.held.expires
}

// decideAll decides the checks that wait, in the order of their coming, as
// far as that can be done now. One that finds a share which will have enough
// in time waits on.
func (m *Machine) decideAll(o *object, now limiter.Time) {
	left := o.waiters[:0]
	for _, w := range o.waiters {
		var d Decision
		v := m.decide(o, now, w.hits, &d, false)
		if w.again = 0; v.soonest > now {
			w.again = v.soonest
		}
		patient := o.space.rule != nil && (!o.space.rule.Shadow || v.written)
		if (v.waits || !d.Allowed && w.again > 0) && patient && max(now, w.again) < w.deadline && !m.upper.stopping && !m.upper.fenced {
			left = append(left, w)
			continue
		}
		if v.waits {
			m.decide(o, now, w.hits, &d, true)
		}
		m.waiting--
		o.asking -= max(1, w.hits)
		m.carriedOut(now, w.id, &d)
	}
	o.waiters = left
}

// tickObject does what is due for an object.
func (m *Machine) tickObject(now limiter.Time, o *object) {
	for _, p := range o.pools {
		h := &p.held
		m.turn(now, p)
		if h.number != 0 && !h.ended && now >= h.expires && !p.limit.Durable() {
			m.ended(now, p)
			m.tell(p)
		}
		m.expirePermits(now, p)
		if len(p.frozen) > 0 && p.thaw(now, 0) > 0 {
			p.credit = 0
			m.balance(now, p, nil)
			m.upward(now, p)
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
				if l.number != 0 && !p.keeps(l) {
					p.end(now, l)
				}
				expired = expired || l.number == 0 || !l.demand.none()
				l.demand = Demand{}
			}
		}
		if expired {
			p.drop(now)
		}
		if expired || len(p.lines) > 0 && p.owner && now >= m.quiet(p) && m.quiet(p) != 0 || p.meetAt != 0 && now >= p.meetAt {
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

// keeps says that a line outlives its lease: what was lent of a budget or
// quota is the child's until its session ends.
func (p *pool) keeps(l *line) bool {
	return p.limit.Durable() && l.session == l.child.session && (l.number == 0 || l.number > l.child.keepFrom) && !l.child.record.Forgotten
}

// arm sets an object's timer to what is due next.
func (m *Machine) arm(now limiter.Time, o *object) {
	at := limiter.Never
	for _, p := range o.pools {
		if h := &p.held; !p.owner {
			if h.number != 0 && !h.ended && (h.expires > now || !p.limit.Durable()) {
				at = min(at, h.expires)
			}
			if h.renewAt != 0 {
				at = min(at, h.renewAt)
			}
		}
		if p.permits.out > 0 {
			at = min(at, p.permits.next())
		}
		for _, f := range p.frozen {
			at = min(at, f.until)
		}
		if p.meetAt != 0 {
			at = min(at, p.meetAt)
		}
		for _, l := range p.lines {
			if l.expires > now || !p.keeps(l) {
				at = min(at, l.expires)
			}
			if p.owner && m.quiet(p) > now {
				at = min(at, m.quiet(p))
			}
		}
	}
	for _, w := range o.waiters {
		if at = min(at, w.deadline); w.again > 0 {
			at = min(at, w.again)
		}
	}
	m.timers.set(o, at)
}
