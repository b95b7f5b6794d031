package tiers

import "github.com/tributary-io/tributary/limiter"

// An Explanation says all that a place knows of a key's limits: why a check
// is denied, and what a checker has to look at.
type Explanation struct {
	Place   Place
	Session uint64
	Parent  uint64 // the parent's session; 0: none answered yet
	Now     limiter.Time
	Silent  limiter.Time  // an owner lends nothing before
	Version uint64        // of the rules
	Rule    *limiter.Rule // nil: the namespace is not known here
	Limits  []LimitState
}

// Inspect says in e what is known of a key that is awake, and reuses e. It
// changes nothing; false: the key is not awake.
func (m *Machine) Inspect(now limiter.Time, name Name, e *Explanation) bool {
	s := m.spaces[name.Namespace]
	if s == nil || s.objects[name.Key] == nil {
		return false
	}
	limits := e.Limits
	*e = Explanation{Place: m.cfg.Place, Session: m.cfg.Session, Parent: m.upper.parent, Now: now, Silent: m.silent, Version: m.version, Rule: s.rule}
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

// inspect says in s what the pool is, and reuses s.
func (p *pool) inspect(now limiter.Time, s *LimitState) {
	bucket := p.bucket
	bucket.Settle(now)
	lines, demand := s.Lines[:0], p.told
	*s = LimitState{Limit: p.limit, Owner: p.owner, Holding: p.holding(), Bucket: bucket.Share(), Demand: demand, Waiting: len(p.object.waiters), Waits: p.waits, Permits: len(p.permits.held), Frozen: p.permits.out, Window: p.window}
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
	Frozen   int64         // permits that are out, and those of lines that ended, which come back
	Held     *HeldState    // the line from the parent, if there is one
	Lines    []LineState   // to children
	Demand   Demand
	Waiting  int          // checks
	Permits  int          // of a concurrency
	Window   int64        // of a quota: its begin, Unix seconds
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
	Place    Place
	Session  uint64
	Number   uint64
	Reported bool         // since this place's start
	Seen     limiter.Time // when it reported last, if it did
	Through  limiter.Time // its watermark, where Known
	Known    bool
	Behind   int
	Rules    uint64 // its version
}
