package tiers

import (
	"fmt"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file lets rules flow. They are applied at the root, which numbers their
// versions; a child that reports by others is sent the parent's, keeps them on
// its disk, and until it follows them nothing is lent to it. A place that never
// heard of the root's follows those that it was started with, as version 0. What
// a disk has holds, whatever rules its place is started with: only Apply changes
// the rules of a world.

// startRules takes the rules that the disk has, and returns those that the last
// session followed; nil: none are known. Those of the start are for a disk
// without any: at the root they are a new world's first, elsewhere they hold
// until the root's come.
func (m *Machine) startRules() (before *limiter.Rules, err error) {
	r, err := m.reader.Get(rulesKey)
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	m.rules = m.cfg.Rules
	if kept, _ := r.(*RulesRecord); kept != nil {
		before, m.version = kept.Rules, kept.Version
		for _, h := range kept.Holds {
			m.holds[limitOf{h.Namespace, h.Limit}] = longHold{hold: h.Hold} // until when is known when the longest lease is
		}
	}
	switch {
	case m.version > 0:
		m.rules = before
		return before, nil
	case m.cfg.Place == Root:
		m.version = 1
	case before != nil: // no root was heard of, and the place was started with other rules, or with these
		for _, name := range before.Namespaces() {
			m.shortened(m.began, before.Rule(name), m.rules.Rule(name))
		}
	}
	m.keepRules()
	return before, nil
}

func (m *Machine) keepRules() {
	m.write(rulesKey, &RulesRecord{Version: m.version, Rules: m.rules, Holds: m.longHolds()})
}

// lease is how long an owner lends.
func (m *Machine) lease() time.Duration {
	if m.cfg.Lease > 0 {
		return m.cfg.Lease
	}
	return m.rules.Lease
}

// followLease notes how long an owner lends from now on. What was lent for
// longer before is out until that has ended.
func (m *Machine) followLease(now limiter.Time) int64 {
	lease := int64(m.lease())
	m.longEnds = limiter.Never
	if lease < m.meta.Lease {
		m.longEnds = now.Add(lenderLease(time.Duration(m.meta.Lease)))
	}
	m.meta.Lease = max(m.meta.Lease, lease)
	return m.meta.Lease
}

// Rules returns the rules that this place follows, and their version; 0: they
// are not the root's.
func (m *Machine) Rules() (*limiter.Rules, uint64) { return m.rules, m.version }

// Apply makes rules the world's, at its root, under the next version.
func (m *Machine) Apply(now limiter.Time, rules *limiter.Rules) (version uint64, err error) {
	if m.cfg.Place != Root {
		return 0, ErrNotRoot
	}
	rules = limiter.Succeed(m.rules, rules)
	if m.holdsWith(rules) > maxHolds {
		return m.version, ErrManyHolds
	}
	if rules.Hash != m.rules.Hash || m.newest > m.version {
		if m.crowded() {
			return 0, ErrRulesCome
		}
		m.adopt(now, rules, max(m.version, m.newest)+1)
	}
	return m.version, nil
}

// ApplyIf is Apply where the world's rules are of a version, and nobody has
// changed them meanwhile. Otherwise it is ErrVersion, and the version is theirs.
func (m *Machine) ApplyIf(now limiter.Time, expected uint64, rules *limiter.Rules) (version uint64, err error) {
	if m.cfg.Place == Root && m.version != expected {
		return m.version, ErrVersion
	}
	return m.Apply(now, rules)
}

// rulesFor puts into an answer what a child has to know of the rules. False:
// it does not follow ours, and nothing is lent to it.
func (m *Machine) rulesFor(c *child, r *Report, a *Ack) bool {
	a.Version, a.Hash = m.version, m.rules.Hash
	m.newest = max(m.newest, r.Rules, r.Newest)
	c.version = r.Rules
	same := r.Hash == m.rules.Hash
	if c.rules != r.Hash && !same {
		switch {
		case r.Rules > m.version:
			m.event(EventRulesDiffer, r.Child, fmt.Sprintf("it follows version %d of the rules, newer than version %d here: nothing is lent to it until the root applies newer ones", r.Rules, m.version))
		case m.version == 0:
			m.event(EventRulesDiffer, r.Child, "neither place has heard of the root's rules yet: nothing is lent")
		}
	}
	c.rules = r.Hash
	if (!same || len(m.holds) > 0 && r.Rules < m.version) && m.version > 0 && r.Rules <= m.version {
		m.tellRules(r, a)
	}
	return same
}

// rulesOf takes the parent's rules from its answer to a report.
func (m *Machine) rulesOf(now limiter.Time, r *Report, a *Ack) {
	if m.crowded() { // the next answer says it again
		return
	}
	told := a.Rules
	if a.Parts == nil {
		m.upper.collected = nil
	} else if told = m.collect(r, a); told == nil { // not whole yet: neither the rules nor their version are followed
		m.upper.rules = a.Hash
		return
	}
	if told != nil && told.Version > m.version {
		m.hearHolds(now, told.Holds)
	}
	switch {
	case told != nil && told.Rules != nil && told.Version >= m.version && told.Rules.Hash != m.rules.Hash:
		m.adopt(now, told.Rules, told.Version)
		m.event(EventRules, m.cfg.Place.Parent(), fmt.Sprintf("version %d", m.version))
	case a.Hash == m.rules.Hash && a.Version > m.version:
		m.version = a.Version
		m.keepRules()
	case a.Hash != m.rules.Hash && m.upper.rules != a.Hash && a.Version < m.version:
		m.event(EventRulesDiffer, m.cfg.Place.Parent(), fmt.Sprintf("this place follows version %d of the rules, its parent only version %d: waiting for newer ones", m.version, a.Version))
	}
	m.upper.rules = a.Hash
}

// adopt follows other rules from now on. A limit that stays is the same
// bucket with other figures; one that is gone is forgotten, and if it comes
// back its owner lends it only when what it lent before has ended.
func (m *Machine) adopt(now limiter.Time, rules *limiter.Rules, version uint64) {
	old, again := m.rules, m.newest > m.version
	m.rules, m.version, m.prune.ruled = rules, version, now
	if before := m.meta.Lease; m.followLease(now) != before {
		m.write(metaKey, m.saved())
	}
	m.hearLease(now, m.lease())
	for _, name := range old.Namespaces() {
		was, is := old.Rule(name), rules.Rule(name)
		m.shortened(now, was, is)
		s := m.spaces[name]
		if is == nil {
			s.rule, s.weight = nil, 0
		}
	}
	m.keepRules()
	m.changeAllFigures(now, now.Add(lenderLease(time.Duration(m.meta.Lease))), old)
	for _, name := range rules.Namespaces() {
		s := m.space(name)
		s.rule = rules.Rule(name)
		if m.cfg.Leaf {
			s.weight = s.rule.Weight(string(m.cfg.Place))
		}
	}
	m.forAll(now, taskRules, func(at limiter.Time, o *object) { m.refit(at, o, rules.Rule(o.name.Namespace), again) })
}

// refit gives an awake object the pools that a rule asks for. Again says
// that this root was set back to a time before it applied such rules.
func (m *Machine) refit(now limiter.Time, o *object, rule *limiter.Rule, again bool) {
	m.countUse(o)
	before := o.pools
	o.pools = nil
	if rule != nil {
		for i := range rule.Limits {
			l := &rule.Limits[i]
			if p := poolOf(before, l.ID); p != nil {
				m.resize(now, p, l, again)
				o.pools = append(o.pools, p)
			} else if p := m.newPool(now, o, l); p != nil {
				o.pools = append(o.pools, p)
				m.sums.enter(p)
			}
		}
	}
	for _, p := range before {
		if poolOf(o.pools, p.limit.ID) == nil {
			p.leave()
			m.sums.leave(p)
		}
	}
	for _, p := range o.pools {
		if !p.owner && (p.held.number != 0 || !p.told.none()) {
			m.tell(p)
		}
		p.check()
	}
}

// resize gives a pool's limit other figures. Capacity that is more comes empty,
// and fills by the rate: what was spent by the figures before stays spent,
// however often they change. A budget or quota gains what was added to its
// figure, and of a concurrency nothing is spent: what is more is free, unless
// permits of before may be of it. What is less is taken away as it comes back.
func (m *Machine) resize(now limiter.Time, p *pool, l *limiter.Limit, again bool) {
	m.turn(now, p) // a window that opens now has the figure before, as others had
	before := p.limit.Whole()
	p.touch()
	p.limit, p.runOn = l, m.holds[limitOf{p.object.name.Namespace, l.ID}].until
	if p.spare != nil {
		p.spare.Settle(now)
		p.provide(now, p.spare.Tokens())
	}
	if !p.owner {
		return
	}
	if p.limit.Durable() { // what is spent stays spent
		m.restock(now, p, l.Burst-before.Capacity)
	}
	more := l.Whole().Minus(p.own).Max(limiter.Share{})
	more.Tokens = 0
	if l.Kind == limiter.Concurrency {
		// An earlier session may have followed these rules, and given permits by them.
		ended := max(m.began, m.quiet(p)).Add(lenderLease(l.Hold))
		if !m.intact {
			p.stayFrozen(ended)
		}
		if again || now < m.quiet(p) || !m.intact && now < max(ended, p.runOn) {
			p.freeze(more.Capacity, ended)
			p.own.Capacity, more.Capacity = p.own.Capacity+more.Capacity, 0
		}
		more.Tokens = more.Capacity
	}
	p.bucket.Add(now, more)
	p.own.Capacity += more.Capacity
	p.own.Rate += more.Rate
	if p.promised != nil {
		reshape(now, p.promised, l)
	}
	if p.credit = min(p.credit, l.Burst); p.credit > 0 && l.Durable() { // nothing is spent
		p.credit = l.Burst
	}
	m.shrink(now, p)
}

// restock adds to what is left of a durable limit at its owner, or takes off.
func (m *Machine) restock(now limiter.Time, p *pool, diff int64) {
	if p.waits || p.credit > 0 || diff == 0 {
		return
	}
	if diff > 0 {
		paid := min(diff, p.debt)
		p.debt -= paid
		diff -= paid
		p.bucket.Add(now, limiter.Share{Capacity: diff})
		p.own.Capacity += diff
		p.stock(now, diff)
	} else {
		less := min(-diff, p.vault.rest)
		p.vault.rest -= less
		coming := min(-diff-less, p.vault.coming) // its commit may end after this
		p.vault.coming -= coming
		less += coming
		p.bucket.Settle(now)
		here := min(-diff-less, p.bucket.Tokens())
		p.bucket.Spend(here)
		p.debt += -diff - less - here
	}
	m.save(p)
}

// shrink takes away from an owner's bucket what its limit was lowered by.
func (m *Machine) shrink(now limiter.Time, p *pool) {
	e := p.excess()
	if e.IsZero() {
		return
	}
	p.bucket.Settle(now)
	have := p.bucket.Share()
	cut := limiter.Share{Capacity: min(e.Capacity, have.Capacity), Rate: min(e.Rate, have.Rate)}
	if p.limit.Kind == limiter.Concurrency {
		cut.Tokens = cut.Capacity
	}
	p.touch()
	p.bucket.Cut(now, cut)
	p.own = p.own.Minus(limiter.Share{Capacity: cut.Capacity, Rate: cut.Rate})
}

func poolOf(pools []*pool, id uint64) *pool {
	for _, p := range pools {
		if p.limit.ID == id {
			return p
		}
	}
	return nil
}

// A limitOf names a limit of a namespace.
type limitOf struct {
	namespace string
	id        uint64
}

// quiet is until when an owner lends nothing of a limit, nor fills it.
func (m *Machine) quiet(p *pool) limiter.Time {
	return m.quietOf(limitOf{p.object.name.Namespace, p.limit.ID})
}

func (m *Machine) quietOf(of limitOf) limiter.Time {
	if a := m.asleep[of]; a != nil {
		return max(m.silent, a.quiet)
	}
	return m.silent
}
