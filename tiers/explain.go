package tiers

import (
	"slices"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// An Explanation says all that a place knows of a key's limits: why a check
// is denied, and what a checker has to look at.
type Explanation struct {
	Place   Place
	Session uint64
	Parent  uint64 // the parent's session; 0: none answered yet
	Now     limiter.Time
	Silent  limiter.Time  // an owner lends nothing before
	Judged  bool          // it is known whether the store is the place's last
	Refused string        // why the parent takes none of our reports
	Fenced  bool          // a newer session of the place runs
	Version uint64        // of the rules
	Rule    *limiter.Rule // nil: the namespace is not known here
	Limits  []LimitState
}

// Foreseen is how a check would be decided.
type Foreseen struct {
	Decision Decision
	Limit    int  // the one of the rule that the decision speaks of
	Waits    bool // it would wait for what may come first, as long as it may
}

// Explain is Inspect of any key whose namespace is known, and at a leaf it
// foresees a check of so many hits, which it does not carry out. A key that
// sleeps is woken, as by a check: awake says that it was not asleep.
func (m *Machine) Explain(now limiter.Time, name Name, hits int64, e *Explanation) (f Foreseen, awake bool, err error) {
	s := m.spaces[name.Namespace]
	if s == nil || s.rule == nil {
		return f, false, ErrUnknownNamespace
	}
	if len(s.rule.Limits) == 0 {
		*e = m.explain(now, s)
		f.Decision.Allowed = true
		return f, true, nil
	}
	awake = s.objects[name.Key] != nil
	o := m.object(now, s, name.Key)
	if m.Inspect(now, name, e); m.cfg.Leaf {
		f = m.foresee(o, now, hits)
	}
	return f, awake, nil
}

// foresee is decide on copies of the pools, for a check that does not wait.
func (m *Machine) foresee(o *object, now limiter.Time, hits int64) (f Foreseen) {
	d := &f.Decision
	if len(o.pools) == 0 { // its limits left the rules
		d.Allowed = true
		return f
	}
	pools := make([]*pool, len(o.pools))
	for i, p := range o.pools {
		pools[i] = p.foreseen(now, m.young())
	}
	r := refuse(pools, now, hits, !o.space.rule.Shadow) // a shadow denies at once
	if f.Waits = r.by != nil && r.waits; r.by != nil {
		r.describe(now, d)
		m.shadowed(o, d)
	} else {
		r.by = nearestOf(pools, now)
		r.by.describe(now, d)
		d.Allowed = true
	}
	f.Limit = slices.Index(pools, r.by)
	return f
}

// foreseen is a copy of the pool, as a check would find it now.
func (p *pool) foreseen(now limiter.Time, young bool) *pool {
	c := *p
	p = &c
	p.sum = nil // it is a part of none
	if p.spare != nil {
		spare := *p.spare
		p.spare = &spare
	}
	switch {
	case !p.owner || p.limit.Kind == limiter.Rate:
	case p.limit.Kind == limiter.Concurrency:
		for _, e := range p.permits.queue[p.permits.first:] {
			if got := p.permits.held[e.serial]; e.at <= now && got.until == e.at {
				p.free(now, got.hits)
			}
		}
	case p.limit.Kind == limiter.Quota && p.endsAt <= now: // the next window opens
		p.waits, p.vault, p.credit = false, vault{}, 0
		whole := limiter.Share{Tokens: p.limit.Burst, Capacity: p.limit.Burst}
		if young {
			p.credit, whole.Tokens = p.limit.Burst, 0
		}
		p.bucket = limiter.NewBucket(p.limit.Period, whole, now)
	default: // what is on disk comes in a moment
		p.bucket.Add(now, limiter.Share{Tokens: p.vault.rest + p.vault.coming})
		p.vault = vault{}
	}
	p.bucket.Settle(now)
	return p
}

// Inspect says in e what is known of a key that is awake, and reuses e. It
// changes nothing; false: the key is not awake, or lacks what is to be done
// with all that are.
func (m *Machine) Inspect(now limiter.Time, name Name, e *Explanation) bool {
	s := m.spaces[name.Namespace]
	if s == nil || s.objects[name.Key] == nil || s.objects[name.Key].swept != m.sweep.given {
		return false
	}
	limits := e.Limits
	*e = m.explain(now, s)
	pools := s.objects[name.Key].pools
	for len(limits) < len(pools) {
		limits = append(limits, LimitState{})
	}
	e.Limits = limits[:len(pools)]
	for i, p := range pools {
		p.inspect(now, &e.Limits[i])
		e.Limits[i].Quiet = m.quiet(p)
	}
	return true
}

// explain says what is true of all keys of a namespace.
func (m *Machine) explain(now limiter.Time, s *space) Explanation {
	return Explanation{
		Place: m.cfg.Place, Session: m.cfg.Session, Parent: m.upper.parent, Now: now, Silent: m.silent,
		Judged: m.judged, Refused: m.upper.refused, Fenced: m.upper.fenced, Version: m.version, Rule: s.rule,
	}
}

// inspect says in s what the pool is, and reuses s.
func (p *pool) inspect(now limiter.Time, s *LimitState) {
	bucket := p.bucket
	bucket.Settle(now)
	lines, demand := s.Lines[:0], p.told
	*s = LimitState{
		Limit: p.limit, Owner: p.owner, Holding: p.holding(), Bucket: bucket.Share(), Stored: p.vault.rest + p.vault.coming,
		Demand: demand, Pooled: p.pooled, Next: p.nextAt, Waiting: len(p.object.waiters), Waits: p.waits,
		Frozen: p.permits.out, Window: p.window, Spared: p.spareAt,
		Recall: p.recalled.keep, Recalls: p.recalled.count, Recalled: p.recalled.at,
	}
	for _, f := range p.frozen {
		s.Frozen += f.capacity
	}
	if h := &p.held; h.number != 0 {
		s.Held = &HeldState{h.lender, h.number, h.lent, h.returned, h.expires, h.keep, h.ended}
	}
	for _, l := range p.lines {
		if l.number != 0 {
			lines = append(lines, LineState{l.child.place, l.session, l.number, l.lent, l.returned, l.expires, l.demand, l.keep, l.called})
		}
	}
	s.Lines = lines
}

// LimitState is one limit of a key at one place.
type LimitState struct {
	Limit    *limiter.Limit
	Owner    bool
	Quiet    limiter.Time  // an owner lends nothing of it before
	Waits    bool          // an owner whose disk was lost waits for a figure
	Holding  limiter.Share // what the place has of the limit, lent out or not
	Bucket   limiter.Share // what of it is here
	Stored   int64         // tokens of a budget or quota that a leaf owns, and reads off its disk ahead
	Frozen   int64         // permits that are out, and those of lines that ended, which come back
	Held     *HeldState    // the line from the parent, if there is one
	Lines    []LineState   // to children
	Demand   Demand
	Pooled   bool         // too little to be divided: whole tokens are lent to single asks
	Next     limiter.Time // when the lender could have more; 0: not known; Never: not any more
	Waiting  int          // checks
	Window   int64        // of a quota: its begin, Unix seconds
	Spared   limiter.Time // of a soft limit: when its provisional share was spent from last; 0: never
	Recall   Keep         // the last one that came
	Recalls  uint64       // how many came
	Recalled limiter.Time // when the last one came
}

// HeldState is a line as the child sees it.
type HeldState struct {
	Lender, Line   uint64
	Lent, Returned limiter.Share
	Expires        limiter.Time
	Keep           Keep
	Ended          bool
}

// LineState is a line as the lender sees it.
type LineState struct {
	Child          Place
	Session, Line  uint64
	Lent, Returned limiter.Share
	Expires        limiter.Time
	Demand         Demand
	Keep           Keep
	Called         bool
}

// ChildState is what a place knows of one place below it.
type ChildState struct {
	Place     Place
	Session   uint64
	Number    uint64
	Reported  bool          // since this place's start
	Seen      time.Duration // how long ago it reported last, where Reported
	Lag       time.Duration // how old its watermark is; -1: it has none yet
	Behind    int           // places below it that its totals wait for
	Rules     uint64        // its version
	Refused   string        // why its reports are refused; "": they are not
	Lines     int           // that are lent to it
	Forgotten bool
}

// Children says what is known of the places below, sorted by name.
func (m *Machine) Children(now limiter.Time) []ChildState {
	all := make([]ChildState, 0, len(m.lower.children))
	for _, c := range m.lower.children { // sorted below
		state := ChildState{
			Place: c.place, Session: c.session, Number: c.record.Number, Reported: c.reported, Behind: c.behind,
			Rules: c.version, Refused: c.refused, Lines: c.lines, Forgotten: c.record.Forgotten, Lag: -1,
		}
		if c.known {
			state.Lag = max(0, now.Sub(c.through))
		}
		if c.reported {
			state.Seen = now.Sub(c.seenAt)
		}
		all = append(all, state)
	}
	slices.SortFunc(all, func(a, b ChildState) int { return strings.Compare(string(a.Place), string(b.Place)) })
	return all
}
