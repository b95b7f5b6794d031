package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// An oracle is one limit of one key at its owner, as Law 2 has it: the one
// bucket that everything admitted below the owner must fit, in true time.
//
// A rate is a bucket of its capacity and of 1.01 times its rate, for clocks
// that drift; a quota is a bucket for each window, a budget one that never
// refills, a concurrency one whose tokens are out from a check until its
// permit is released, or has not been renewed for a hold by its place's
// clock. It is one bucket that lives through all changes of the rules. A figure
// that is raised holds at once, and what a rate's bucket holds more comes empty;
// one that is lowered holds a lease later (at a leaf that owns it, at once).
//
// A soft limit is held to capacity + rate·t, and a sixteenth of that, rounded
// up, for each session of a leaf that was cut off when it admitted: it had no
// line from its parent that it could use.
type oracle struct {
	owner  *site
	node   *Node // of a limit that a leaf owns: nobody fences owners, so each process' disk is one
	target *target
	id     uint64
	limit  limiter.Limit // in force; the larger figures while a lowered one is under way
	exists bool          // the owner's rules have it
	goneAt limiter.Time  // when they had it last, if not

	next    limiter.Limit // the figures from lowerAt on
	lowerAt limiter.Time  // 0: none are under way

	bucket limiter.Bucket // of a rate
	extra  int64          // of a budget whose owner was set back: what it lends again

	windows []windowSpent // of a quota, the last few
	seen    map[*Node]windowSeen
	newest  int64       // of them
	spent   int64       // of a budget
	permits []permitOut // of a concurrency
	out     int64
	ended   map[permitID]bool // permits whose hold was over

	spare map[uint64]*limiter.Bucket // of a soft limit, by session
	net   map[uint64]int64           // admitted less refunded, by session

	// unheard is what a reset lets pass beside the bucket: what children had
	// when it came they may spend before they hear of it, and are filled then.
	// Of a rate it is all known once the last lease of then is over: what was
	// taken since (sinceReset) may have been of it, and is in the bucket again.
	unheard      int64
	unheardUntil limiter.Time
	sinceReset   int64
	resetBy      uint64 // the owner's session that was last reset

	again      int64        // how often an owner that took itself for new lends the whole beside what is out
	againUntil limiter.Time // when that has ended

	offered, taken int64
}

type windowSpent struct {
	begin, spent, extra, unheard int64
	unsure                       []unsure // of what was spent
}

// An unsure check was decided in a step that took a share of the next window:
// it spent of that one, or of the one before.
type unsure struct{ before, hits int64 }

// over is what was spent of a budget beyond what it allows.
func (o *oracle) over() int64 { return o.spent - o.limit.Burst - o.extra - o.unheard }

// over is what was spent of a window beyond what it allows.
func (w *windowSpent) over(o *oracle) int64 { return w.spent - o.limit.Burst - w.extra - w.unheard }

// A windowSeen is what a leaf knew of a quota's window when a check was decided.
type windowSeen struct {
	window, before int64  // after the step, and before it
	step           uint64 // that saw it
}

// A permitOut is a permit that nobody gave back yet.
type permitOut struct {
	permitID
	hits  int64
	until limiter.Time // true time
}

type permitID struct {
	node    *Node
	session uint64
	serial  uint64
}

// charges are the oracles that a check of a key at a leaf is charged to,
// one for each limit of the rule.
type charges struct {
	rules   *limiter.Rules
	node    *Node
	rule    *limiter.Rule
	oracles []*oracle
}

// drifting is 1 % more, rounded up.
func drifting(d time.Duration) time.Duration { return d + d/100 + 1 }

// ownedAt is the place that owns a limit of a key that is asked for at a leaf.
func (s *site) ownedAt(l *limiter.Limit) *site {
	for s.depth > int(l.Scope) {
		s = s.parent
	}
	return s
}

// charge finds the oracles of a key at a leaf, by the rules it follows now.
func (l *laws) charge(n *Node, t *target) *charges {
	c := &n.site.charges[t.index]
	if c.rules == n.rules && c.node == n {
		return c
	}
	*c = charges{rules: n.rules, node: n, oracles: c.oracles[:0]}
	if n.rules == nil {
		return c
	}
	if c.rule = n.rules.Rule(t.name.Namespace); c.rule == nil {
		return c
	}
	for i := range c.rule.Limits {
		c.oracles = append(c.oracles, l.oracle(n, t, &c.rule.Limits[i]))
	}
	return c
}

// oracle finds or makes the oracle of a limit.
func (l *laws) oracle(leaf *Node, t *target, limit *limiter.Limit) *oracle {
	owner, node := leaf.site.ownedAt(limit), (*Node)(nil)
	if owner == leaf.site {
		node = leaf
	}
	for _, o := range l.oracles {
		if o.id == limit.ID && o.owner == owner && o.node == node && o.target == t {
			return o
		}
	}
	o := &oracle{owner: owner, node: node, target: t, id: limit.ID, exists: true, limit: *limit}
	// The owner may follow other rules than the leaf.
	at := node
	if at == nil {
		at = owner.nodes[0]
	}
	if at.rules != nil {
		if theirs := ruleLimit(at.rules, t, limit.ID); theirs != nil {
			o.limit = *theirs
		}
	}
	o.fill(l.world.now)
	l.oracles = append(l.oracles, o)
	return o
}

func ruleLimit(rules *limiter.Rules, t *target, id uint64) *limiter.Limit {
	if rules == nil {
		return nil
	}
	return rules.Rule(t.name.Namespace).Limit(id)
}

// faster is a limit as a share whose rate is per 100 periods and 1 % above.
func faster(l *limiter.Limit) limiter.Share {
	s := l.Whole()
	if s.Rate > 0 {
		s.Rate = s.Rate*101 + 99
	}
	return s
}

func (o *oracle) fill(now limiter.Time) {
	o.bucket = limiter.NewBucket(o.limit.Period*100, faster(&o.limit), now)
	o.spent, o.spare = 0, nil
}

// follow takes the rules that an owner follows from now on.
func (l *laws) follow(n *Node) {
	for _, o := range l.oracles {
		o.followSpare(l.world.now, n.session(), ruleLimit(n.rules, o.target, o.id))
		if o.owner != n.site || o.node != nil && o.node != n {
			continue
		}
		limit := ruleLimit(n.rules, o.target, o.id)
		switch {
		case limit == nil:
			if o.exists {
				o.goneAt = l.world.now
			}
			o.exists = false
		default: // one that was gone and is there again is the same: its old lines may be in use
			if !o.exists {
				l.path(pathRetired)
			}
			o.exists = true
			o.become(l.world, limit)
		}
	}
}

// gains is what a limit refills between two instants, by a rate in tokens per
// 100 of its periods.
func gains(l *limiter.Limit, rate int64, from, to limiter.Time) int64 {
	b := limiter.NewBucket(l.Period*100, limiter.Share{Capacity: limiter.MaxTokens, Rate: rate}, from)
	b.Settle(to)
	return b.Tokens()
}

// become takes figures that were changed.
func (o *oracle) become(w *World, limit *limiter.Limit) {
	o.settle(w.now)
	before := o.limit
	o.limit.Burst, o.limit.Rate = max(before.Burst, limit.Burst), max(before.Rate, limit.Rate)
	o.limit.Hold, o.limit.Soft = max(before.Hold, limit.Hold), limit.Soft
	if o.limit.Burst > before.Burst || o.limit.Rate > before.Rate {
		was, is := faster(&before), faster(&o.limit)
		o.bucket.Add(w.now, limiter.Share{Capacity: is.Capacity - was.Capacity, Rate: is.Rate - was.Rate})
	}
	o.lowerAt = 0
	if o.limit.Burst != limit.Burst || o.limit.Rate != limit.Rate || o.limit.Hold != limit.Hold {
		o.next, o.lowerAt = *limit, w.now+1 // what the same step decided before is charged when it ends
		if o.node == nil {
			o.lowerAt = w.now.Add(drifting(drifting(drifting(w.longestLease()))))
		}
		o.settle(w.now)
	}
}

// settle brings the oracle up to now.
func (o *oracle) settle(now limiter.Time) {
	if o.lowerAt != 0 && now >= o.lowerAt {
		is := faster(&o.next)
		have := o.bucket.Share()
		o.bucket.Cut(o.lowerAt, limiter.Share{Capacity: have.Capacity - is.Capacity, Rate: have.Rate - is.Rate}) // a part of a token stays
		o.limit, o.lowerAt = o.next, 0
	}
	o.bucket.Settle(now)
	if now > o.againUntil {
		o.again = 0
	}
	if now > o.unheardUntil && o.unheard > 0 {
		o.bucket.Add(now, limiter.Share{Tokens: min(o.unheard, o.sinceReset)})
		o.unheard = 0
	}
}

// spend charges an admitted check. It returns what was admitted too much.
func (o *oracle) spend(l *laws, s *spending) (over int64, of string) {
	now, hits, window := l.world.now, s.hits, s.window
	o.settle(now)
	o.taken += hits
	if o.net == nil {
		o.net = map[uint64]int64{}
	}
	o.net[s.session] += hits
	if s.limit.Soft && s.cutOff && o.spendSpare(now, s) {
		return 0, ""
	}
	switch o.limit.Kind {
	case limiter.Quota:
		if window == 0 {
			return 0, "" // the key fell asleep at once: nobody can tell any more
		}
		w := o.window(window)
		w.spent += hits
		if s.before != window {
			w.unsure = append(w.unsure, unsure{s.before, hits})
		}
		for w.over(o) > 0 && len(w.unsure) > 0 {
			last := w.unsure[len(w.unsure)-1]
			w.unsure, w.spent = w.unsure[:len(w.unsure)-1], w.spent-last.hits
			w = o.window(last.before)
			w.spent += last.hits
		}
		return w.over(o), "the window's quota"
	case limiter.Budget:
		o.spent += hits
		return o.over(), "the budget"
	case limiter.Concurrency:
		if o.expire(l, now); s.beside || o.again > 0 { // of whose part it is nobody can tell
			s.beside = true
			return 0, ""
		}
		return o.out + hits - o.limit.Burst, "the permits"
	}
	if o.unheard > 0 {
		o.sinceReset += hits
	}
	if o.bucket.Take(now, hits) {
		return 0, ""
	}
	if o.unheard >= hits-o.bucket.Tokens() {
		o.unheard -= hits - o.bucket.Tokens()
		o.sinceReset -= hits - o.bucket.Tokens()
		o.bucket.Spend(o.bucket.Tokens())
		return 0, ""
	}
	return hits - o.bucket.Tokens() - o.unheard, "the one bucket"
}

// spendSpare charges what a leaf that was cut off admitted to what a soft limit
// allows it: a sixteenth of the limit, rounded up.
func (o *oracle) spendSpare(now limiter.Time, s *spending) bool {
	o.followSpare(now, s.session, s.limit)
	spare := o.spare[s.session]
	if spare == nil {
		b := limiter.NewBucket(s.limit.Period*100, spareOf(s.limit), now)
		spare = &b
		if o.spare == nil {
			o.spare = map[uint64]*limiter.Bucket{}
		}
		o.spare[s.session] = spare
	}
	return spare.Take(now, s.hits)
}

func spareOf(limit *limiter.Limit) limiter.Share {
	part := *limit
	part.Burst, part.Rate = (part.Burst+15)/16, (part.Rate+15)/16
	return faster(&part)
}

// followSpare takes the figures of a limit that a leaf follows now, for what
// the limit allows it while it is cut off. What is more comes empty.
func (o *oracle) followSpare(now limiter.Time, session uint64, limit *limiter.Limit) {
	spare := o.spare[session]
	if spare == nil {
		return
	}
	if limit == nil || !limit.Soft {
		delete(o.spare, session) // it is forgotten, and begins anew
		return
	}
	spare.Settle(now)
	whole := spareOf(limit)
	more := whole.Minus(spare.Share()).Max(limiter.Share{})
	more.Tokens = 0
	spare.Add(now, more)
	have := spare.Share()
	spare.Cut(now, limiter.Share{Capacity: have.Capacity - whole.Capacity, Rate: have.Rate - whole.Rate})
}

// sees notes which windows a leaf knows after a step.
func (l *laws) sees(n *Node, t *target, e *tiers.Explanation) {
	for _, o := range l.charge(n, t).oracles {
		if at := limitState(e, o.id); o.limit.Kind == limiter.Quota && at != nil {
			o.see(n, at.Window, l.world.steps)
		}
	}
}

// see notes which window a leaf knows after a step, and returns which it knew
// before.
func (o *oracle) see(n *Node, window int64, step uint64) (before int64) {
	if window == 0 {
		return 0
	}
	if o.seen == nil {
		o.seen = map[*Node]windowSeen{}
	}
	is := o.seen[n]
	if is.step != step {
		is = windowSeen{window: window, before: is.window, step: step}
		if is.before == 0 {
			is.before = window
		}
		o.seen[n] = is
	}
	return is.before
}

// window finds or makes what was spent of a quota's window.
func (o *oracle) window(begin int64) *windowSpent {
	o.newest = max(o.newest, begin)
	for i := range o.windows {
		if o.windows[i].begin == begin {
			return &o.windows[i]
		}
	}
	o.windows = append(o.windows, windowSpent{begin: begin})
	return &o.windows[len(o.windows)-1]
}

// expire drops the permits whose hold is over.
func (o *oracle) expire(l *laws, now limiter.Time) {
	left := o.permits[:0]
	o.out = 0
	for _, p := range o.permits {
		if now < p.until {
			left = append(left, p)
			o.out += p.hits
		} else {
			l.path(pathExpired)
			if o.ended == nil {
				o.ended = map[permitID]bool{}
			}
			o.ended[p.permitID] = true
		}
	}
	o.permits = left
}

// offered notes a check that a client asks for.
func (l *laws) offered(n *Node, t *target, hits int64) {
	for _, o := range l.charge(n, t).oracles {
		o.offered += hits
	}
}

// A spending is what one admitted check takes of one limit.
type spending struct {
	oracle  *oracle
	node    *Node
	session uint64
	target  *target
	hits    int64
	window  int64 // of a quota, as the leaf knows it; 0: it is not known
	before  int64 // the same, before the step that decided the check
	cutOff  bool  // the leaf held no line of it that it could use, and took from its provisional share
	permit  uint64
	hold    time.Duration  // of the permit
	beside  bool           // it may be of what an owner had lent before, that does not know of it
	limit   *limiter.Limit // as the leaf follows it
}

// decidedCheck is called when a check is decided, at the instant of its
// spending. It is charged when the event under way ends: what the same step
// refunded or released is told later, and comes first.
func (l *laws) decidedCheck(n *Node, t *target, hits int64, d *tiers.Decision) {
	l.decided++
	if l.world.Trace != nil {
		l.world.say(n, "decides %d hits of %s: allowed %v %s %s, %d remain, retry after %s", hits, t.name, d.Allowed, d.Reason, d.Scope, d.Remaining, d.RetryAfter)
	}
	if !d.Allowed || d.Shadow || hits == 0 {
		return
	}
	l.admitted++
	c := l.charge(n, t)
	if t.counted && c.rule != nil && c.rule.Count {
		l.path(pathCountedChecks)
		t.ask(hits)
		n.site.counts[t.index].session(n.session()).used += uint64(hits)
	}
	if len(c.oracles) == 0 {
		return
	}
	l.checks++
	state := l.inspected(n, t)
	for i, o := range c.oracles {
		if n.ruledAt == l.world.steps && ruleLimit(n.before, t, o.id) == nil && (o.limit.Kind != limiter.Concurrency || d.Permit == 0) {
			continue // the step may have decided it before it took the rules, which did not have this limit
		}
		s := spending{oracle: o, node: n, session: n.session(), target: t, hits: hits, limit: &c.rule.Limits[i]}
		if o.limit.Kind == limiter.Concurrency {
			s.permit, s.hold = d.Permit, s.limit.Hold
			if before := ruleLimit(n.before, t, o.id); n.ruledAt == l.world.steps && before != nil && shortestHold(c.rule) != d.Hold {
				s.hold = before.Hold // the step decided it before it took the rules
			}
			if s.beside = o.outlives(s.hold); s.beside {
				l.excepted[OldOwner]++
			}
		}
		if state != nil {
			if at := limitState(state, o.id); at != nil {
				s.window = at.Window
				s.before = o.see(n, at.Window, l.world.steps)
				s.cutOff = cutOff(at, state.Now)
			}
		}
		l.spendings = append(l.spendings, s)
	}
}

// outlives says that a permit lives longer than its owner thinks, which was set
// back to a disk with rules of a shorter hold.
func (o *oracle) outlives(hold time.Duration) bool {
	owner := o.owner.live()
	if o.node != nil || owner == nil || owner.disk.number == 0 {
		return false
	}
	limit := ruleLimit(owner.rules, o.target, o.id)
	return limit != nil && limit.Hold < hold
}

// shortestHold is how long a permit of all of a rule's limits lives.
func shortestHold(r *limiter.Rule) (hold time.Duration) {
	for i := range r.Limits {
		if l := &r.Limits[i]; l.Hold > 0 && (hold == 0 || l.Hold < hold) {
			hold = l.Hold
		}
	}
	return hold
}

// cutOff says that a leaf spent from its provisional share now, and had no line
// that it could use: one of a check a moment before, at the same instant, may
// have come since.
func cutOff(at *tiers.LimitState, now limiter.Time) bool {
	h := at.Held
	return at.Spared != 0 && at.Spared == now && (h == nil || h.Ended || now >= h.Expires)
}

// spend charges a check that was admitted.
func (l *laws) spend(s *spending) {
	o := s.oracle
	switch over, of := o.spend(l, s); {
	case over > 0 && o.owner.twice:
		l.excepted[TwoOwners]++
		o.fill(l.world.now)
		o.windows = nil // its permits are out, however many
	case over > 0:
		l.broken("limits hold", s.node, "%d hits of %s admitted, %d beyond %s of %s (owner %s)", s.hits, s.target.name, over, of, s.limit, o.owner.place)
	}
	if s.permit != 0 && !(s.limit.Soft && s.cutOff) {
		if s.beside {
			s.hits = 0
		}
		o.permits = append(o.permits, permitOut{permitID{s.node, s.session, s.permit}, s.hits, s.node.trueTime(s.node.clock().Add(s.hold))})
		o.out += s.hits
	}
}

func limitState(e *tiers.Explanation, id uint64) *tiers.LimitState {
	for i := range e.Limits {
		if e.Limits[i].Limit.ID == id {
			return &e.Limits[i]
		}
	}
	return nil
}

// takenForNew is called when a place that lost a disk is given the first number
// on another one: its parent never heard of it, was set back or lost its own
// disk. It lends all of its limits once more, as one that is new. What it had
// lent may be spent still.
func (l *laws) takenForNew(s *site, session uint64, e Exception) {
	for _, o := range l.oracles {
		if o.owner != s {
			continue
		}
		l.excepted[e]++
		o.settle(l.world.now)
		outEnds := l.world.now.Add(time.Duration(l.deepest()+1) * drifting(drifting(drifting(l.world.longestLease()))))
		o.again, o.againUntil = o.again+1, max(o.againUntil, outEnds)
		switch o.limit.Kind {
		case limiter.Quota:
			for _, seen := range o.seen { // of which nothing may be spent yet
				o.window(seen.window)
			}
			for i := range o.windows {
				o.windows[i].extra += o.limit.Burst + max(0, o.windows[i].over(o))
			}
		case limiter.Budget:
			o.extra += o.limit.Burst + max(0, o.over()) // nor does it know what was spent beyond a figure since lowered
		case limiter.Concurrency:
			if s.leaf {
				o.permits = slices.DeleteFunc(o.permits, func(p permitOut) bool { return p.session != session && !s.runs(p.session) })
			} else {
				for i := range o.permits {
					o.permits[i].hits = 0 // they are out still, and the owner does not know
				}
			}
			o.expire(l, l.world.now)
		default:
			o.bucket = limiter.NewBucket(o.limit.Period*100, faster(&o.limit), l.world.now)
			o.unheard, o.sinceReset = o.unheard+o.limit.Burst+gains(&o.limit, faster(&o.limit).Rate, l.world.now, outEnds), 0
			o.unheardUntil = max(o.unheardUntil, outEnds)
		}
	}
}

// ownsTwice is called when a second process of a place starts. Nobody fences
// owners from one another: each lends all of a limit that the place owns, if it
// is no leaf. Limits that it borrows are checked as ever.
func (l *laws) ownsTwice(s *site) {
	s.twice = s.twice || !s.leaf
}

// runs says that a process of the site is of a session: there may be a twin.
func (s *site) runs(session uint64) bool {
	return slices.ContainsFunc(s.nodes, func(n *Node) bool { return n.Running() && n.session() == session })
}

// knewLongerHolds excuses a place that starts on another disk, by rules with a
// shorter hold than those that the disk before knew: until it hears of them, it
// takes permits of before to end with the shorter.
func (l *laws) knewLongerHolds(n *Node) {
	for _, o := range l.oracles {
		if limit := ruleLimit(n.rules, o.target, o.id); o.node == nil && o.owner == n.site && limit != nil && limit.Hold < o.limit.Hold {
			l.excepted[OldOwner]++
			for i := range o.permits {
				o.permits[i].hits = 0
			}
		}
		if limit := ruleLimit(n.rules, o.target, o.id); o.node == n && limit != nil && limit.Kind == limiter.Concurrency {
			ends := n.trueTime(n.clock().Add(limit.Hold))
			for i := range o.permits {
				if p := &o.permits[i]; p.until > ends {
					p.until = ends
					l.excepted[OldOwner]++
				}
			}
		}
	}
}

// clockSetBack is called when a wall clock was set back.
func (l *laws) clockSetBack(n *Node) {
	for _, o := range l.oracles {
		if n.site.lost() && o.owner == n.site && (o.node == nil || o.node == n) {
			l.opensAgain(n, o)
		}
	}
}

// opensAgain excuses the windows that are to come by the wall clock, and were
// open on the disk that was lost.
func (l *laws) opensAgain(n *Node, o *oracle) {
	for i := range o.windows {
		if w := &o.windows[i]; w.spent > 0 && w.begin > n.unix()/int64(time.Second) {
			l.excepted[OldOwner]++
			w.extra += w.spent
		}
	}
}

// setBack is called when an owner has another disk than before. What a
// budget or quota lent since an old copy is lent again: Law 2's exception.
func (l *laws) setBack(n *Node, before map[tiers.Key]tiers.Record) {
	for _, o := range l.oracles {
		if o.owner != n.site || o.node != nil && o.node != n || !o.limit.Durable() {
			continue
		}
		spent := func(records map[tiers.Key]tiers.Record) (tokens, window int64) {
			key := tiers.Key(fmt.Sprintf("bucket/%s/%s\x00%016x", o.target.name.Namespace, o.target.name.Key, o.id))
			if b, _ := records[key].(*tiers.SavedBucket); b != nil {
				return b.Burst - b.Tokens, b.Window
			}
			return 0, 0
		}
		was, window := spent(before)
		is, old := spent(n.disk.durable)
		if n.site.lost() && len(n.disk.durable) > 0 { // what was lent from the disk that was lost is not on the one before
			was, window = max(was, o.limit.Burst), max(window, old, o.newest)
		}
		if len(n.disk.durable) == 0 {
			l.opensAgain(n, o)
		}
		if len(n.disk.durable) == 0 || was <= is && old == window {
			continue // a lost disk is known to be lost: nothing is lent
		}
		l.excepted[OldOwner]++
		if o.limit.Kind != limiter.Quota {
			o.extra = max(o.extra+was-is, o.spent-is) // nor does it know what was spent beyond a figure since lowered
			continue
		}
		o.window(window)
		for i := range o.windows {
			switch w := &o.windows[i]; {
			case w.begin == old && old == window:
				w.extra += was - is
			case w.begin == window:
				w.extra += was
			case w.begin >= old: // it is not known to be over any more
				w.extra += o.limit.Burst
			}
		}
	}
}
