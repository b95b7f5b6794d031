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
// false, and nothing was done, if the key is not there. The decision is
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
	if !m.decide(o, now, hits, d, false) {
		return true, true, nil
	}
	if s.rule.Shadow && !o.drawing() {
		m.wishFor(now, o, hits)
		d.Allowed, d.Shadow = true, true
		return true, true, nil
	}
	if o.drawing() { // it lacks nothing but a write
		deadline = max(deadline, now.Add(drawWait))
	}
	if deadline > now.Add(d.RetryAfter) && m.mayWait(o) {
		*d = Decision{}
		m.wait(now, o, waiter{id: id, hits: hits, deadline: deadline})
		return false, true, nil
	}
	if m.decide(o, now, hits, d, true) {
		m.wishFor(now, o, hits)
	}
	return true, true, nil
}

// drawWait is how long a check waits for its own place's disk, at most.
const drawWait = time.Second

// drawing says that a part of a durable limit is being written off for o.
func (o *object) drawing() bool {
	for _, p := range o.pools {
		if p.vault.commit != 0 {
			return true
		}
	}
	return false
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

// decide takes hits from all of a key's limits, or says which one denies
// them, and whether waiting for a share may help. Last says that it
// does not wait: then a soft limit whose share is away lets it pass.
func (m *Machine) decide(o *object, now limiter.Time, hits int64, d *Decision, last bool) (wait bool) {
	*d = Decision{}
	if len(o.pools) == 0 { // its limits left the rules while it waited
		d.Allowed = o.space.rule != nil
		return false
	}
	nearest := o.pools[0]
	denied, permit := false, false
	for _, p := range o.pools {
		if p.owner && p.limit.Kind != limiter.Rate {
			m.ready(now, p, hits)
		}
		p.bucket.Settle(now)
		permit = permit || p.limit.Kind == limiter.Concurrency
		reason, waits := p.deny(now, hits)
		switch {
		case reason == "":
			if p.whole() < nearest.whole() {
				nearest = p
			}
		case last && p.opens(now, hits):
		default:
			if denied && waits {
				continue // what does not wait, or was first, is said
			}
			denied = true
			p.describe(now, d)
			d.Reason, d.RetryAfter = reason, p.retryAfter(now, hits, reason)
			if !waits {
				m.shadowed(o, d)
				return false
			}
			wait = true
		}
	}
	if denied {
		if last {
			m.shadowed(o, d)
		}
		return wait
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
	return false
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

// retryAfter is when hits could be admitted, if nobody else comes; 0: it is
// not known.
func (p *pool) retryAfter(now limiter.Time, hits int64, reason Reason) time.Duration {
	if reason == ReasonBurst || p.credit > 0 { // never, or when the parent has confirmed the place
		return 0
	}
	if p.nextAt > now && p.nextAt != limiter.Never && (reason == ReasonShare || p.dry()) {
		return p.nextAt.Sub(now)
	}
	if p.owner && p.limit.Kind == limiter.Quota && (p.vault.commit == 0 || hits > p.whole()) {
		return p.untilMore(now)
	}
	if after, ok := p.bucket.Wait(hits); ok && after > 0 && reason == ReasonLimit && p.usable(now) {
		return after
	}
	return 0
}

// usable says that what the bucket holds may be spent.
func (p *pool) usable(now limiter.Time) bool {
	return p.owner && !p.waits || !p.owner && p.held.number != 0 && !p.held.ended && now < p.held.expires
}

// deny says why hits cannot be taken, "" if they can, and whether a share
// that comes may change that.
func (p *pool) deny(now limiter.Time, hits int64) (reason Reason, waits bool) {
	switch {
	case hits > p.limit.Burst:
		return ReasonBurst, false
	case !p.usable(now) && p.nextAt > now: // there is none to be had, says the lender
		return ReasonLimit, p.nextAt != limiter.Never
	case !p.usable(now):
		return ReasonShare, !p.waits
	case hits <= p.bucket.Tokens():
		return "", false
	case p.nextAt == limiter.Never:
		return ReasonLimit, false
	case p.limit.Kind == limiter.Concurrency:
		return ReasonLimit, true // others may release theirs
	case hits > p.bucket.Capacity() || p.dry():
		return ReasonLimit, !p.owner
	}
	return ReasonLimit, hits <= p.whole()+p.credit
}

// describe says in d what the pool's limit is, and what is left of it here.
func (p *pool) describe(now limiter.Time, d *Decision) {
	d.Limited, d.Scope, d.Kind, d.Limit, d.Remaining, d.Reset = true, p.limit.Scope, p.limit.Kind, p.limit.Figure(), 0, 0
	switch {
	case p.usable(now):
		d.Remaining = p.whole()
		d.Reset, _ = p.bucket.Wait(p.bucket.Capacity())
	case p.spare != nil:
		d.Remaining = p.spare.Tokens()
	}
	if p.limit.Kind == limiter.Quota {
		d.Reset = p.untilNext(now)
	}
}

// untilNext is how long it takes until a quota that something is spent of is
// whole again; 0: it is, or not known.
func (p *pool) untilNext(now limiter.Time) time.Duration {
	switch {
	case p.owner && p.whole() < p.limit.Burst:
		return p.untilMore(now)
	case !p.owner && p.nextAt > now && p.nextAt != limiter.Never:
		return p.nextAt.Sub(now) // all is spent, says the owner
	}
	return 0
}

// decideAll decides the checks that wait, in the order of their coming, as
// far as that can be done now. One that finds a share which will have enough
// in time waits on.
func (m *Machine) decideAll(o *object, now limiter.Time) {
	left := o.waiters[:0]
	for _, w := range o.waiters {
		var d Decision
		waits := m.decide(o, now, w.hits, &d, false)
		if w.again = 0; d.RetryAfter > 0 {
			w.again = now.Add(d.RetryAfter)
		}
		patient := o.space.rule != nil && (!o.space.rule.Shadow || o.drawing())
		if (waits || !d.Allowed && w.again > 0) && patient && max(now, w.again) < w.deadline && !m.upper.stopping && !m.upper.fenced {
			left = append(left, w)
			continue
		}
		if waits {
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
	return p.limit.Durable() && l.session == l.child.session && !l.forfeit && !l.child.record.Forgotten
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
