package tiers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// lower is the half that children report to.
type lower struct {
	children map[Place]*child
	order    []*child // by place
	lines    uint64   // the last line's number
	lastAt   limiter.Time
	calls    map[*child]*call
	recalled []*child // who has an entry in calls, in the order of the first

	// strangers are places that were refused before they were known, and why:
	// each is told of once, as long as they are few.
	strangers map[Place]string

	room room // what is left of the answer that is being built

	watched int      // keys that children watch, each by each
	swept   int      // the child whose keys were looked at last, which may have gone silent
	left    []*child // who left, and still has some
}

// A call is a Recall that is being built, and what is left of it.
type call struct {
	recall *Recall
	room   room
}

const maxStrangers = 64

// child is what a parent knows of one place below it.
type child struct {
	place    Place
	record   *ChildRecord
	session  uint64 // the newest
	sequence uint64 // of its last report
	rules    uint64 // the hash of those that it follows
	version  uint64 // their version
	refused  string

	reported bool // in this session of ours
	seenAt   limiter.Time
	through  limiter.Time
	known    bool // through is
	behind   int

	unheard []unheardLine  // what Recalls said and it may not have heard
	ended   []endedSession // that wait for being folded, the longest known first
	watch   watching

	lines    int    // that are lent to it, of all its sessions
	kept     int    // of them, those of budgets and quotas that outlive their leases
	keepFrom uint64 // which are numbered after this one
}

// opens counts a line that something is lent on from now on, and closes one
// that it no longer is.
func (c *child) opens(l *line) {
	c.lines++
	if l.durable {
		c.kept++
	}
}

func (c *child) closes(l *line) {
	if l.number == 0 {
		return
	}
	c.lines--
	if l.durable && l.number > c.keepFrom {
		c.kept--
	}
}

// keepNone has none of the lines so far outlive its lease, and says how many
// would have.
func (c *child) keepNone(last uint64) (lines int) {
	lines, c.kept, c.keepFrom = c.kept, 0, last
	return lines
}

func (m *Machine) startLower() error {
	m.lower = lower{children: map[Place]*child{}, calls: map[*child]*call{}, strangers: map[Place]string{}, lastAt: m.began - limiter.Time(time.Minute)}
	return m.reader.Scan(childPrefix, "", func(k Key, r Record) bool {
		c := m.addChild(Place(k[len(childPrefix):]), r.(*ChildRecord))
		if c.seenAt = m.began; c.record.Leaving {
			m.leaves(m.began, c)
		}
		return true
	})
}

func (m *Machine) addChild(place Place, r *ChildRecord) *child {
	c := &child{place: place, record: r, watch: watching{by: map[Name]*watcher{}}}
	for _, s := range r.Sessions {
		if s.Number == r.Number {
			c.session = s.Session
		}
	}
	for _, e := range r.Ended {
		c.ended = append(c.ended, endedSession{e.Session, m.began - limiter.Time(max(0, e.For))})
	}
	m.lower.children[place] = c
	if r.Forgotten {
		return c
	}
	i, _ := slices.BinarySearchFunc(m.lower.order, place, func(c *child, p Place) int { return strings.Compare(string(c.place), string(p)) })
	m.lower.order = slices.Insert(m.lower.order, i, c)
	return c
}

func worldsDiffer(parent Place, its, ours uint64) string {
	return fmt.Sprintf("the parent %s is of world %016x, this store of world %016x: they must not be summed; use another --prefix, or another data folder, or where %s lost its disk: tributary join %016x --at %s", parent, its, ours, parent, ours, parent)
}

// Reported takes a child's report and returns the answer, to be sent when
// the writes are durable; nil: no answer, the report is not for this place
// or came too late.
func (m *Machine) Reported(now limiter.Time, r *Report) *Ack {
	if r.Child.Parent() != m.cfg.Place || r.Session == 0 {
		return nil
	}
	a := &Ack{World: m.meta.World, Session: r.Session, Sequence: r.Sequence, Parent: m.cfg.Session, Longest: time.Duration(m.meta.Lease), Stamp: now}
	c := m.lower.children[r.Child]
	if a.Refused, a.Fenced = m.refuse(r, c); a.Refused != "" {
		news := m.noteRefusal(r.Child, c, a.Refused)
		if a.Pause = lastRetry; m.meta.World == 0 {
			a.Pause = 4 * firstRetry
		} else if news {
			m.event(EventChildRefuse, r.Child, a.Refused)
		}
		return a
	}
	if c == nil {
		c = m.addChild(r.Child, &ChildRecord{})
	}
	c.refused = ""
	m.hearLease(now, r.Longest)
	heard := m.heardBy(now, r, a)
	m.toldFolded(now, c, r.Folded)
	m.lower.room = m.answerRoom(a)
	if r.Number == 0 {
		m.hello(c, r, a)
	}
	follows := m.rulesFor(c, r, a) && heard
	if r.Number == 0 {
		return a
	}
	progress, known := m.session(now, c, r)
	if !known {
		return a // Number is 0: its number is taken, it must ask for another
	}
	m.foldEnded(now, c, r.Session)
	if r.Session == c.session {
		if r.Sequence <= c.sequence {
			return nil
		}
		c.sequence = r.Sequence
	}
	a.Number, a.Fenced = r.Number, r.Session != c.session

	m.mergeCounts(now, c, r, a)
	if r.From <= progress.Acked && r.To > progress.Acked && !a.MorePairs && (r.Rest == 0 || r.Rest == m.cfg.Session) {
		progress.Acked = r.To
		m.saveProgress(now, c, progress)
	}
	a.Acked = progress.Acked
	if r.Session == c.session {
		m.heard(now, c, r)
	}
	m.ledger(now, c, r, a, follows)
	if !a.Fenced {
		m.watches(now, c, r)
		m.viewsFor(now, c, r, a)
	}
	a.Pause = m.pause(now, r, a)
	return a
}

// refuse says why a report cannot be taken, if so, and whether none of the
// session ever will be.
func (m *Machine) refuse(r *Report, c *child) (why string, ends bool) {
	switch {
	case m.meta.World == 0:
		return "this place has not heard from its own parent yet", false
	case r.World != 0 && r.World != m.meta.World:
		return worldsDiffer(m.cfg.Place, m.meta.World, r.World), false
	case max(r.Number, r.Highest, r.Witness.Number) > maxNumber:
		return fmt.Sprintf("session number %d is too high to be true; at most %d is allowed", max(r.Number, r.Highest, r.Witness.Number), uint64(maxNumber)), false
	case listed(m.meta.Folded, r.Child.mark64()):
		return fmt.Sprintf("%s was forgotten here, and its counts are kept: start it under another name", r.Child), true
	case c != nil && listed(c.record.Folded, r.Session):
		return fmt.Sprintf("session %016x of %s ended long ago here, and its counts are folded: what it counted since is not taken", r.Session, r.Child), true
	case len(r.Folded) > 2*maxFolded:
		return fmt.Sprintf("%d folded sessions cannot be true; at most %d are allowed", len(r.Folded), 2*maxFolded), false
	case c == nil && len(m.lower.order) >= maxChildren:
		return fmt.Sprintf("%s has %d children already; no more are allowed", m.cfg.Place, maxChildren), false
	}
	return "", false
}

// noteRefusal notes why a child is refused, and says whether that is news.
func (m *Machine) noteRefusal(place Place, c *child, why string) bool {
	before := m.lower.strangers[place]
	if c != nil {
		before, c.refused = c.refused, why
	} else {
		if len(m.lower.strangers) >= maxStrangers {
			clear(m.lower.strangers)
		}
		m.lower.strangers[place] = why
	}
	return why != before
}

// hello gives a session its number, and tells how far the changes on its
// disk are known here.
func (m *Machine) hello(c *child, r *Report, a *Ack) {
	a.Acked = c.progress(r.Previous).Acked
	if known := c.progress(r.Session); known.Session != 0 {
		a.Acked = known.Acked
	}
	a.Pause, a.Folded = 0, c.record.Folded
	m.lower.room.take(listSize(a.Folded), 0)
	// The first to use it has it; another that was given the same is told to
	// ask again. One that this place cannot know to be new is not the first:
	// 1 says that there was none before.
	a.Number = max(c.record.Number, r.Highest) + 1
	if m.meta.Lost > 0 {
		a.Number = max(a.Number, 2)
	}
}

// progress returns what is known of a session's changes, zero if nothing is.
func (c *child) progress(session uint64) ChildSession {
	for _, s := range c.record.Sessions {
		if s.Session == session && session != 0 {
			return s
		}
	}
	return ChildSession{}
}

// session finds the progress of a report's session. The first report that
// uses a number makes its session the newest, and fences the older ones.
func (m *Machine) session(now limiter.Time, c *child, r *Report) (ChildSession, bool) {
	s := c.progress(r.Session)
	if s.Session != 0 && s.Number == r.Number {
		return s, true
	}
	if s.Session == 0 && r.Number == c.record.Number {
		return s, false // another session used this number first
	}
	if s.Session == 0 {
		// What this disk had before is known as far as the session before it
		// was: the report says so by its From.
		s = ChildSession{Session: r.Session}
		if r.From <= c.progress(r.Previous).Acked {
			s.Acked = r.From
		}
	}
	s.Number = r.Number
	if r.Number > c.record.Number {
		c.session, c.sequence = r.Session, 0
		c.keepNone(m.lower.lines)
		c.record = c.record.with(func(record *ChildRecord) { record.Number = r.Number })
		m.event(EventChild, c.place, fmt.Sprintf("session %016x, number %d", r.Session, r.Number))
		m.look(now) // its older sessions' lines of budgets and quotas had no end as long as theirs was the newest
	}
	m.saveProgress(now, c, s)
	return s, true
}

func (m *Machine) saveProgress(now limiter.Time, c *child, s ChildSession) {
	sessions := slices.DeleteFunc(slices.Clone(c.record.Sessions), func(o ChildSession) bool { return o.Session == s.Session })
	sessions = append(sessions, s)
	slices.SortFunc(sessions, func(a, b ChildSession) int { return cmp.Compare(a.Number, b.Number) })
	if n := len(sessions) - maxSessions; n > 0 {
		sessions = slices.Delete(sessions, 0, n)
	}
	c.record = c.record.with(func(r *ChildRecord) { r.Sessions = sessions })
	m.saveChild(now, c)
}

// mergeCounts takes the totals of a report, and hands back what is known of
// the child's other sessions.
func (m *Machine) mergeCounts(now limiter.Time, c *child, r *Report, a *Ack) {
	keep := max(0, m.lower.room-room(listSize(c.record.Folded))) / 2 // for lines
	for _, entry := range r.Counts {
		n := m.counted(m.object(now, m.space(entry.Name.Namespace), entry.Name.Key))
		s := n.source(c.place)
		changed, moved, err := n.merge(s, c.record.Folded, entry)
		if err != nil {
			m.event(EventOverflow, c.place, err.Error())
		}
		switch {
		case changed:
			m.changed(n, s)
		case moved:
			m.record(n, s)
		}
		c.noteEnded(now, s.pairs)
		back := Count{Name: entry.Name}
		if entry.First {
			if back.Pairs = unknown(s.pairs, &entry, r.Session); entry.Folded != s.folded {
				back.Folded = s.folded
			}
		}
		if entry.Kept != s.kept {
			back.Kept = s.kept
		}
		if len(back.Pairs) > 0 || back.Folded != (Total{}) || back.Kept != (Total{}) {
			m.handBack(c, back, a, keep)
		}
	}
}

// handBack puts into an answer what is known of a count beside what was told,
// as far as it has room.
func (m *Machine) handBack(c *child, back Count, a *Ack, keep room) {
	left := &m.lower.room
	if a.Folded == nil && !left.take(listSize(c.record.Folded), keep) {
		a.MorePairs = true
		return
	}
	a.Folded = c.record.Folded
	if fits := left.pairs(back.Name, keep); fits < len(back.Pairs) {
		a.MorePairs = true
		back.Pairs = back.Pairs[:fits]
	}
	if left.take(countSize(back.Name, len(back.Pairs)), keep) {
		a.Pairs = append(a.Pairs, back)
	} else {
		a.MorePairs = true
	}
}

// unknown returns the pairs that the one who told does not know, of those that
// it told of.
func unknown(have []Pair, told *Count, session uint64) []Pair {
	known := make(map[Pair]bool, len(told.Pairs))
	for _, p := range told.Pairs {
		known[p] = true
	}
	var others []Pair
	for _, p := range have {
		if p.Session > told.After && (told.Upto == 0 || p.Session <= told.Upto) && p.Session != session && !known[p] {
			others = append(others, p)
		}
	}
	return others
}

// heard notes that a child is there, and how far its totals are complete.
func (m *Machine) heard(now limiter.Time, c *child, r *Report) {
	c.reported, c.seenAt, c.behind = true, now, max(0, min(r.Behind, 1<<30))
	m.hearWitnesses(now)
	if r.EchoOf == m.cfg.Session && r.Age >= 0 {
		// The report was built at Echo or later by our clock.
		through := max(0, min(r.Echo, now)) - limiter.Time(min(r.Age, maxAge))
		if !c.known || through > c.through {
			c.through, c.known = through, true
		}
	}
}

// pause says how long a child should wait before its next report: not at all
// when nobody else reports, else so long that all children together cost at
// most about half a core.
func (m *Machine) pause(now limiter.Time, r *Report, a *Ack) time.Duration {
	const perReport, perEntry = 100 * time.Microsecond, 2 * time.Microsecond
	gap := now.Sub(m.lower.lastAt)
	m.lower.lastAt = now
	if gap >= m.cfg.ReportInterval {
		return 0
	}
	cost := perReport + perEntry*time.Duration(len(r.Counts)+len(r.Lines)+len(r.Watch)+len(a.Views))
	return min(max(m.cfg.ReportInterval, 2*cost*time.Duration(len(m.lower.order))), time.Second)
}

// ledger takes what a report says of lines, divides anew, and puts what the
// child may hold into the answer.
func (m *Machine) ledger(now limiter.Time, c *child, r *Report, a *Ack, follows bool) {
	for _, l := range r.Lines {
		o, p := m.pool(now, l.Name, l.Limit)
		if p == nil || p.owner && p.limit.Scope != limiter.Scope(m.cfg.Place.Depth()) {
			continue
		}
		n := p.line(c, r.Session)
		named := l.Line == n.number && l.Lender == m.cfg.Session
		if n.number != 0 && named {
			n.unaware = l.Resets < n.resets
			p.takeBack(now, n, l.Returned)
			if l.Ended {
				p.end(now, n)
			}
		}
		left := n.number != 0 && !named && n.said != 0 && n.said <= r.Got
		if left && p.limit.Durable() {
			p.end(now, n)
			left = false
		}
		switch {
		case a.Fenced, !follows: // returns are taken, nothing is lent or renewed
			if !a.Fenced && !named && !left {
				n.repeat(p) // the answer that lent it never came, and this one does not say it
			}
			m.balance(now, p, nil)
		case left: // another process of this place has answered since, and lent: ours ends with its lease
			n.demand = Demand{}
			m.balance(now, p, nil)
		default:
			n.demand, n.called = l.Demand.sane(), false
			n.until = now.Add(n.demand.Until)
			lease := m.leaseOf(now, p, n)
			if n.number == 0 { // how long a demand is remembered on which nothing is lent
				lease = max(lease, m.lease())
			}
			n.expires = max(n.expires, now.Add(lenderLease(lease)))
			if !m.lower.room.take(grantSize(l.Name), 0) { // the child reports it again, or a Recall tells it
				a.MoreLines = true
				m.balance(now, p, nil)
				break
			}
			m.balance(now, p, n)
			// A line that the report did not name, and the child has not left, is
			// one that was opened just now, or in a message that never came.
			a.Lines = append(a.Lines, m.grant(now, p, n))
			n.said = r.Sequence
		}
		m.upward(now, p)
		p.drop(now)
		p.check()
		m.arm(now, o)
	}
	if a.Fenced || !follows {
		return
	}
	keep := m.lower.room / 2 // for views
	n := min(len(c.unheard), 2*maxEntries)
	for _, u := range c.unheard[:n] { // the others next time
		m.work++
		m.current(now, u.pool.object)
		u.line.recalled = !u.pool.gone && u.line.number != 0 && u.line.session == c.session && (u.line.said == 0 || r.Got < u.line.said)
		if !u.line.recalled {
			continue
		}
		c.unheard = append(c.unheard, u)
		if u.line.said != r.Sequence && len(a.Lines) < 2*maxEntries && m.lower.room.take(grantSize(u.pool.object.name), keep) {
			a.Lines = append(a.Lines, m.grant(now, u.pool, u.line))
			u.line.said = r.Sequence
			m.arm(now, u.pool.object)
		}
	}
	clear(c.unheard[:n])
	c.unheard = c.unheard[n:]
}

// An unheardLine is one of which a Recall told, or an Ack that may not have come.
// What it said is lent, and of a budget would be for good: so the Acks repeat it
// until one has come.
type unheardLine struct {
	pool *pool
	line *line
}

// repeat has a line told in the next Acks, until one has come.
func (l *line) repeat(p *pool) {
	if l.said = 0; !l.recalled && l.number != 0 {
		l.recalled = true
		l.child.unheard = append(l.child.unheard, unheardLine{p, l})
	}
}

// grant is what the ledger says of a line. It answers the child's last report:
// its lease counts from there, however late it is said.
func (m *Machine) grant(now limiter.Time, p *pool, l *line) Grant {
	heard := l.child.seenAt
	g := Grant{Name: p.object.name, Limit: p.limit.ID, Line: l.number, Lent: l.lent, Lease: childLease(l.expires.Sub(heard)), Keep: l.keep, Wait: p.wait(now, l), Window: p.window, Resets: l.resets}
	if g.Wait > 0 && g.Wait < forever {
		g.Wait += now.Sub(heard)
	}
	return g
}

// leaseOf is how long a line may be lent, from when its child was last heard.
func (m *Machine) leaseOf(now limiter.Time, p *pool, l *line) time.Duration {
	lease := p.lease(l.child.seenAt, m.lease())
	if p.limit.Kind == limiter.Quota && p.owner {
		lease = max(0, min(lease, m.untilEnd(now, m.calendarOf(now, p.object.space, p.limit))))
	}
	return lease
}

// pool finds the pool of a limit by its id, or nil.
func (m *Machine) pool(now limiter.Time, n Name, limit uint64) (*object, *pool) {
	s := m.spaces[n.Namespace]
	if s == nil || s.rule.Limit(limit) == nil {
		return nil, nil
	}
	o := m.object(now, s, n.Key)
	return o, poolOf(o.pools, limit)
}

// balance divides what a pool holds among the children's sessions that
// demand it, lends what is free to those that lack it, and calls back what
// others have too much. The answer to asking's report is under way; the others
// are told in a Recall.
func (m *Machine) balance(now limiter.Time, p *pool, asking *line) {
	m.turn(now, p)
	p.meetAt = 0
	if p.owner {
		m.shrink(now, p)
	}
	// One that the parent has not confirmed yet may be started again as new.
	if len(p.lines) == 0 || p.owner && (now < m.quiet(p) || !m.judged) {
		return
	}
	p.bucket.Settle(now)
	tokens := p.bucket.Tokens()
	defer func() {
		if p.owner && p.limit.Durable() && p.bucket.Tokens() != tokens {
			m.save(p)
		}
	}()
	whole := p.holding()
	if e := p.excess(); !e.IsZero() {
		whole = whole.Minus(e)
	}
	var lines []*line
	var claims []claim
	children := 0
	for _, l := range p.lines {
		if l.session == l.child.session {
			children++
		}
		if l.session == l.child.session && !(l.number == 0 && l.demand.none()) {
			lines = append(lines, l)
			claims = append(claims, claim{Demand: l.wants(now)})
		} else { // of a session that is gone: it comes back when its lease ends
			whole = whole.Minus(l.out())
		}
	}
	if p.holding().Rate == 0 {
		whole.Capacity = p.lendable(lines, claims)
	}
	divide(max(0, whole.Rate), max(0, whole.Capacity), claims)

	free := p.bucket.Share()
	e := p.excess()
	free.Capacity, free.Rate = max(0, free.Capacity-e.Capacity), max(0, free.Rate-e.Rate)
	if p.holding().Rate == 0 {
		free.Capacity = min(free.Capacity, free.Tokens)
	}
	if p.pooled = p.tooSmall(whole.Max(limiter.Share{}), children); p.pooled {
		m.lendAsked(now, p, lines, claims, asking, min(free.Tokens, free.Capacity), whole.Capacity)
		return
	}
	missing := limiter.Share{Capacity: e.Capacity - p.bucket.Capacity(), Rate: e.Rate - p.bucket.Share().Rate}
	missing = missing.Max(limiter.Share{})
	for i, l := range lines {
		need := needs(l, &claims[i])
		missing.Capacity += need.Capacity
		missing.Rate += need.Rate
	}
	short := missing.Capacity > free.Capacity || missing.Rate > free.Rate || p.debt > 0
	for i, l := range lines {
		keep := Keep{All: true}
		if out := l.out(); short && (out.Capacity > claims[i].capacity || out.Rate > claims[i].rate) {
			keep = Keep{Capacity: claims[i].capacity, Rate: claims[i].rate}
		}
		changed := keep != l.keep && !keep.All
		l.keep = keep
		lent := limiter.Share{}
		if l == asking || !short && !needs(l, &claims[i]).IsZero() {
			lent = m.raise(now, p, l, &claims[i], free)
			free = free.Minus(lent)
		}
		if l != asking && (changed || !l.called && !keep.All || !lent.IsZero()) {
			m.call(now, p, l)
		}
	}
}

// roomMoves is how much of its capacity a child lacks that goes short before
// any is moved.
const roomMoves = 4

// needs is what a child lacks of what meets its demand.
func needs(l *line, c *claim) limiter.Share {
	out := l.out()
	need := limiter.Share{Rate: max(0, c.base-out.Rate)}
	if need.Rate <= out.Rate/32 {
		need.Rate = 0 // not worth moving
	}
	if c.least > out.Capacity || c.short() && c.capacity-out.Capacity > c.capacity/roomMoves {
		need.Capacity = max(0, c.capacity-out.Capacity)
	}
	if need.Rate > 0 {
		need.Capacity = max(need.Capacity, min(1, c.capacity-out.Capacity))
	}
	return need
}

// raise lends a child what it lacks of its part, as far as it is free, and
// says what that is.
func (m *Machine) raise(now limiter.Time, p *pool, l *line, c *claim, free limiter.Share) limiter.Share {
	out := l.out()
	more := limiter.Share{
		Capacity: max(0, min(free.Capacity, c.capacity-out.Capacity)),
		Rate:     max(0, min(free.Rate, c.rate-out.Rate)),
	}
	more.Tokens = min(p.bucket.Tokens(), more.Capacity)
	if p.holding().Rate == 0 {
		more.Capacity = more.Tokens
	}
	if !m.lend(now, p, l, more) {
		return limiter.Share{}
	}
	return more
}

// lend lends a child more, if its line, its rules and the lease allow it. Only
// a report makes the lease of a line longer.
func (m *Machine) lend(now limiter.Time, p *pool, l *line, more limiter.Share) bool {
	if m.lower.lines == 1<<63 || l.lent.Tokens > maxLent || l.lent.Capacity > maxLent || l.lent.Rate > maxLent {
		return false
	}
	expires := l.expires
	if l.number == 0 { // until then the demand is remembered
		expires = l.child.seenAt.Add(lenderLease(m.leaseOf(now, p, l)))
	}
	if more.Capacity == 0 && more.Rate == 0 || l.child.rules != m.rules.Hash || expires.Sub(now) < 2*minRenewal {
		return false
	}
	if l.number == 0 {
		m.lower.lines++
		l.number, l.expires = m.lower.lines, expires
		l.child.opens(l)
	}
	p.lend(now, l, more)
	return true
}

// call puts a line into a Recall for its child.
func (m *Machine) call(now limiter.Time, p *pool, l *line) {
	if l.session != l.child.session {
		return // it is told when it reports
	}
	l.called = l.called || !l.keep.All
	l.repeat(p)
	size := grantSize(p.object.name)
	c := m.lower.calls[l.child]
	if c != nil && (len(c.recall.Lines) >= maxEntries || !c.room.take(size, 0)) {
		m.sendCalls()
		c = nil
	}
	if c == nil {
		r := &Recall{Parent: m.cfg.Session, Session: l.session, Sequence: l.child.sequence}
		c = &call{r, m.roomFor(r.size() + size)}
		m.lower.calls[l.child] = c
		m.lower.recalled = append(m.lower.recalled, l.child)
	}
	c.recall.Lines = append(c.recall.Lines, m.grant(now, p, l))
}

// sendCalls hands the Recalls out.
func (m *Machine) sendCalls() {
	for _, c := range m.lower.recalled {
		m.out.Recalls = append(m.out.Recalls, ChildRecall{c.place, m.lower.calls[c].recall})
		delete(m.lower.calls, c)
	}
	m.lower.recalled = m.lower.recalled[:0]
}

// upward gives back what the parent waits for, and tells it of demand that
// changed.
func (m *Machine) upward(now limiter.Time, p *pool) {
	if p.owner {
		return
	}
	m.giveBack(now, p)
	m.giveSpare(now, p)
	d := p.demand(now)
	if p.low() || p.lacks(now, d) || moved(p.told.Now, d.Now) || p.told.none() && !d.none() {
		m.tell(p)
	}
}

// moved says that a demand changed enough to be told at once.
func moved(told, now int64) bool {
	diff := now - told
	return diff > told/8 || -diff > told/4
}
