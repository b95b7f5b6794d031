package tiers

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

const (
	// firstTimeout is how long a report waits for its Ack before the next one
	// goes; it doubles each time, up to lastTimeout.
	firstTimeout = time.Second
	lastTimeout  = 8 * time.Second
	// firstRetry is the pause after a report that could not be sent.
	firstRetry = 25 * time.Millisecond
	lastRetry  = time.Second
	// lastPause is the longest pause that a parent is believed.
	lastPause = time.Second
)

// upper is the half that reports to a parent.
//
// One report is in flight at a time. It holds the changes after acked, in the
// order of their marks, as far as they fit: once its Ack came, the parent's
// disk has everything up to its To. The Ack's own word on that is what
// counts, so that a parent that lost its disk is sent everything again.
type upper struct {
	number   uint64 // of this session; 0: not known yet
	joined   bool   // a report other than a hello was acknowledged
	start    uint64 // no earlier session on this disk made a higher mark
	acked    uint64
	complete limiter.Time // all that happened before was in a report that the parent took
	whole    bool         // there was one, since the parent's disk was last found to lack some
	fenced   bool
	refused  string
	stopping bool
	said     bool // goodbye was acknowledged

	dirty    dirtyList
	handings uint64 // 1, and once more each time that earlier sessions' pairs have to be handed over again
	pass     *pass  // or else all changes after acked are in dirty
	lacks    int    // keys with changes that the parent lacks: see backlog.go
	told     uint64 // up to which mark it had them when the last session ended
	due      []*pool
	hurry    bool // something else has to be told
	watchAt  limiter.Time

	sequence uint64
	inFlight *Report
	builtAt  limiter.Time
	full     bool // inFlight holds all changes
	room     room // what is left of the report that is being built
	pools    []*pool
	firsts   []firstCount
	timeout  time.Duration
	failures int
	resumeAt limiter.Time // no report leaves before
	beatAt   limiter.Time // an empty one leaves then

	lender             // the parent's session
	left      []lender // those before it, the last one last
	old       uint64   // lines of the parent up to this one were left with it before it answered again
	stamp     limiter.Time
	stampAt   limiter.Time
	got       uint64       // the last report whose Ack came
	gotAt     limiter.Time // when it was built: what answers it counts from then
	rules     uint64       // the hash of the parent's
	collected *collection  // of the parent's rules, where they come in pieces; else nil
	above     []aboveMark  // the parent and its ancestors, as the last Ack said
	leased    limiter.Time // when all that the parent lent has ended; 0: when it answered last, nothing was held
	wishes    wishes       // keys whose totals above are watched
}

// A firstCount is one of the report that is in flight whose First is set, and
// the After and Upto of its entry.
type firstCount struct {
	count       *count
	after, upto uint64
}

// A lender is a session of the parent.
type lender struct {
	parent uint64 // the session
	lines  uint64 // the last line that it lent
}

// maxLeft is how many sessions of the parent are remembered. One suffices but
// where several processes of the parent run, and answer in turns.
const maxLeft = 16

// turn turns to another session of the parent. What this place held from a
// line that it left is gone, in part to the lender, in part to others: the line
// is never taken up again, though the lender, should it answer again, tells
// what it lent in all.
func (u *upper) turn(parent uint64) {
	if u.lines > 0 {
		u.left = append(u.left, u.lender)
		u.left = u.left[max(0, len(u.left)-maxLeft):]
	}
	u.lender, u.old = lender{parent: parent}, 0
	if i := slices.IndexFunc(u.left, func(l lender) bool { return l.parent == parent }); i >= 0 {
		u.lender = u.left[i]
		u.left, u.old = slices.Delete(u.left, i, i+1), u.lines
	}
}

// aboveMark is a Watermark by this place's clock.
type aboveMark struct {
	place   Place
	through limiter.Time
	known   bool
	behind  int
}

// mark is a as a Watermark at now.
func (a *aboveMark) mark(now limiter.Time) Watermark {
	w := Watermark{a.place, -1, a.behind}
	if a.known {
		w.Age = max(0, now.Sub(a.through))
	}
	return w
}

func newUpper(m *Machine) upper {
	return upper{handings: 1, start: m.meta.Marks, timeout: firstTimeout, hurry: true, resumeAt: m.began, beatAt: m.began, watchAt: limiter.Never}
}

// urgent says that something should be told without waiting for a heartbeat.
func (u *upper) urgent() bool {
	return u.hurry || u.dirty.first != nil || u.pass != nil || len(u.due) > 0 || !u.fenced && u.wishes.unsaid()
}

// ready says that a report should be built at now.
func (u *upper) ready(m *Machine, now limiter.Time) bool {
	return m.cfg.Place != Root && u.inFlight == nil && !u.said && now >= u.resumeAt &&
		(u.urgent() || now >= u.beatAt || now >= u.watchAt)
}

func (u *upper) wake(m *Machine) limiter.Time {
	switch {
	case m.cfg.Place == Root || u.said:
		return limiter.Never
	case u.inFlight != nil:
		return u.builtAt.Add(u.timeout)
	case u.urgent():
		return u.resumeAt
	}
	return max(u.resumeAt, min(u.beatAt, u.watchAt))
}

// tick gives up on a report whose Ack did not come in time.
func (u *upper) tick(m *Machine, now limiter.Time) {
	if u.inFlight != nil && now >= u.builtAt.Add(u.timeout) {
		u.timeout = min(2*u.timeout, lastTimeout)
		m.requeue()
		u.resumeAt = now
	}
}

// Failed says that a report could not be sent: nobody listens there.
func (m *Machine) Failed(now limiter.Time, sequence uint64) {
	u := &m.upper
	if u.inFlight == nil || u.inFlight.Sequence != sequence {
		return
	}
	m.requeue()
	u.resumeAt = now.Add(min(firstRetry<<min(u.failures, 10), lastRetry))
	u.failures++
}

// requeue takes a report as lost: what it said has to be said again.
func (m *Machine) requeue() {
	u := &m.upper
	for _, p := range u.pools {
		if !p.gone {
			m.tell(p)
		}
	}
	m.resay(u.inFlight)
	u.inFlight, u.pools, u.firsts = nil, nil, nil
	u.hurry = true
}

// tell puts a pool into the next report.
func (m *Machine) tell(p *pool) {
	if p.owner {
		return
	}
	p.due, m.stirred = true, true
	if !p.queued {
		p.queued = true
		m.upper.due = append(m.upper.due, p)
	}
}

// flush builds a report if one should leave.
func (m *Machine) flush(now limiter.Time) {
	u := &m.upper
	if !u.ready(m, now) {
		return
	}
	u.sequence++
	age, behind := m.watermark(now)
	r := &Report{
		Child: m.cfg.Place, World: m.meta.World, Rules: m.version, Hash: m.rules.Hash, Newest: m.newest,
		Session: m.cfg.Session, Number: u.number, Highest: m.meta.Number, Previous: m.prior.Session,
		Witness: m.meta.Witness, Longest: time.Duration(m.meta.Lease), Sequence: u.sequence, From: u.acked, To: u.acked, Got: u.got, Behind: behind,
		Parts: u.collected.held(),
	}
	if u.joined { // the parent knows this session; one that does not any more must not take it for the one before
		r.Previous = 0
	}
	if u.stamp != 0 {
		r.Echo, r.EchoOf = u.stamp.Add(now.Sub(u.stampAt)), u.parent
	}
	u.full = false
	if u.number == 0 {
		r.Folded = m.meta.Folded
	} else {
		u.room = m.roomFor(r.size() + listSize(m.meta.Folded))
		if !u.fenced { // what holds leases comes first, but however much that is, counts have their part
			m.fillLines(now, r, u.room/2)
			m.fillWatch(now, r, u.room/2)
		}
		m.fillCounts(now, r)
		r.Bye = u.stopping && u.full && len(u.due) == 0 && m.idleNow()
	}
	switch {
	case u.full || age < 0:
		r.Age = age
	case !u.whole:
		r.Age = -1
	default: // the parent has all that an earlier report held
		r.Age = max(age, now.Sub(u.complete))
	}
	u.inFlight, u.builtAt, u.hurry = r, now, false
	u.beatAt = now.Add(m.cfg.Heartbeat)
	m.out.Report = r
}

// fillCounts puts the changes after acked into r.
func (m *Machine) fillCounts(now limiter.Time, r *Report) {
	u := &m.upper
	if u.pass != nil {
		m.fillFromDisk(now, r)
		return
	}
	c := u.dirty.first
	for ; c != nil && len(r.Counts) < maxEntries && len(u.firsts) < maxFirsts && m.fillCount(r, c); c = c.next {
		r.To = c.mark
	}
	if c == nil {
		r.To, u.full = m.mark, true
	}
}

// fillCount puts a count into r, if it has room, or a part of it, if it is the
// first one. False: not all of it is told.
func (m *Machine) fillCount(r *Report, c *count) bool {
	u := &m.upper
	entry := Count{Name: c.object.name}
	if !m.cfg.Leaf {
		entry.Pairs = []Pair{{Total: c.total}}
		if own := &c.sources[0]; own.place == "" {
			entry.Kept = own.kept
		}
	} else if own := &c.sources[0]; c.handed == u.handings {
		entry.Pairs = m.ownPair(own)
	} else {
		entry.Pairs, entry.Folded, entry.First = own.pairs, own.folded, true
		m.cutPairs(c, &entry, len(r.Counts) == 0)
	}
	if !u.room.take(countSize(entry.Name, len(entry.Pairs)), 0) {
		return false
	}
	if entry.First {
		u.firsts = append(u.firsts, firstCount{c, entry.After, entry.Upto})
	}
	if entry.Folded != (Total{}) || entry.Kept != (Total{}) {
		r.Folded = m.meta.Folded
	}
	r.Counts = append(r.Counts, entry)
	return entry.Upto == 0
}

// ownPair is what this session counted of a source.
func (m *Machine) ownPair(s *source) []Pair {
	for _, p := range s.pairs {
		if p.Session == m.cfg.Session {
			return []Pair{p}
		}
	}
	return nil
}

// cutPairs leaves out of an entry the pairs that the parent has and handed
// back, and if it may be cut, those that have no room. The session's own is in
// all parts: it may have grown since.
func (m *Machine) cutPairs(c *count, entry *Count, cut bool) {
	if part := m.upper.partly(c); part.upto != 0 && part.parent == m.upper.parent {
		entry.After = part.upto
	}
	from, _ := slices.BinarySearchFunc(entry.Pairs, entry.After+1, func(p Pair, session uint64) int { return cmp.Compare(p.Session, session) })
	whole := entry.Pairs
	entry.Pairs = whole[from:]
	if fits := m.upper.room.pairs(entry.Name, 0); cut && fits > 1 && fits <= len(entry.Pairs) {
		entry.Pairs = entry.Pairs[:fits-1] // and the own
		entry.Upto = entry.Pairs[fits-2].Session
	}
	if len(entry.Pairs) == len(whole) {
		return
	}
	entry.Pairs = slices.DeleteFunc(slices.Clone(entry.Pairs), func(p Pair) bool { return p.Session == m.cfg.Session })
	entry.Pairs = append(entry.Pairs, m.ownPair(&c.sources[0])...)
}

// handedOver notes that the parent has the pairs of a count that a report said,
// and has handed back what it has beside.
func (m *Machine) handedOver(f firstCount) {
	c, u := f.count, &m.upper
	switch {
	case f.after != 0 && c.part != (partTold{f.after, u.parent, u.handings}):
		// The parts before went to another session of the parent, on whose disk they may not be.
		c.part = partTold{}
		m.changed(c, c.source(""))
	case f.upto != 0:
		c.part = partTold{f.upto, u.parent, u.handings}
	default:
		c.handed, c.part = u.handings, partTold{}
	}
}

// fillLines puts the pools that are due into r, as long as more than keep of
// its room is left.
func (m *Machine) fillLines(now limiter.Time, r *Report, keep room) {
	u := &m.upper
	n := 0
	for ; n < min(len(u.due), 2*maxEntries) && len(r.Lines) < maxEntries; n++ {
		p := u.due[n]
		if m.current(now, p.object); p.gone {
			continue
		}
		if !u.room.take(lineSize(p.object.name), keep) {
			break
		}
		p.due, p.queued = false, false
		p.giveSpent(now)
		p.lowAt = p.bucket.Tokens() / 2
		p.told = p.demand(now)
		p.toldUntil = now.Add(p.told.Until)
		if u.stopping {
			p.told = Demand{}
		}
		h := &p.held
		if h.number != 0 && !h.ended && p.told.none() && p.empty() {
			m.ended(now, p) // where something is demanded more may be under way
		}
		r.Lines = append(r.Lines, LineReport{
			Name: p.object.name, Limit: p.limit.ID, Lender: h.lender, Line: h.number,
			Returned: h.returned, Ended: h.ended, Demand: p.told, Resets: h.resets,
		})
		h.renewAt = limiter.Never
		u.pools = append(u.pools, p)
	}
	clear(u.due[:n])
	u.due = u.due[n:]
}

// Acknowledged takes the parent's answer to a report.
func (m *Machine) Acknowledged(now limiter.Time, a *Ack) {
	u := &m.upper
	r := u.inFlight
	if r == nil || a.Session != m.cfg.Session || a.Sequence != r.Sequence {
		return // late: the next report has asked for the same again
	}
	if a.World != 0 && m.meta.World != 0 && a.World != m.meta.World {
		a = &Ack{Refused: worldsDiffer(m.cfg.Place.Parent(), a.World, m.meta.World), Pause: lastRetry}
	}
	if a.Refused != "" {
		if u.refused != a.Refused {
			m.event(EventRefused, m.cfg.Place.Parent(), a.Refused)
		}
		if a.Fenced {
			u.fenced, m.out.Exit = true, fmt.Errorf("%w: %s", ErrEnded, a.Refused)
		}
		m.requeue()
		u.refused, u.resumeAt = a.Refused, now.Add(min(max(a.Pause, 0), lastPause))
		return
	}
	if a.Number == 0 { // nothing was taken: another session has our number
		m.requeue()
		m.number(now, 0)
		return
	}
	pools, firsts := u.pools, u.firsts
	u.inFlight, u.pools, u.firsts = nil, nil, nil
	if u.refused != "" {
		m.event(EventAccepted, m.cfg.Place.Parent(), "")
	}
	u.refused, u.failures, u.timeout = "", 0, firstTimeout
	// The pause counts from when the report was built: what the Ack took is part of it.
	u.got, u.gotAt = r.Sequence, u.builtAt
	u.resumeAt = u.builtAt.Add(min(max(a.Pause, 0), lastPause))
	if m.meta.World == 0 && a.World != 0 {
		m.meta.World = a.World
		m.write(metaKey, m.saved())
	}
	m.bearWitness(a)
	m.hearLease(now, a.Longest)
	if u.parent != a.Parent {
		// A parent that starts has forgotten its lines: ask for new ones, and
		// use the old ones until they end.
		u.turn(a.Parent)
		u.wishes.turn()
		m.retell(now)
		if u.pass != nil { // what it was told before may not be on its disk
			m.retellPass()
			u.unhand()
		}
	}
	u.stamp, u.stampAt = a.Stamp, now
	if a.Number != u.number {
		m.number(now, a.Number)
	} else if r.Number == a.Number { // the parent's disk has it: no other session will be given it
		m.judge(now, a.Number)
	}
	if a.Fenced && !u.fenced {
		u.fenced = true
		m.event(EventFenced, m.cfg.Place, "a newer session of this place runs elsewhere: this one takes no more requests, reports what it has, and exits")
		m.look(now)
	}
	m.progress(r, a)
	if u.full && u.acked >= r.To && r.Age >= 0 {
		u.complete, u.whole = u.builtAt.Add(-r.Age), true
	}
	m.adoptFolded(now, a.Folded)
	if u.acked >= r.To && !a.Full && !a.MorePairs { // else it took no counts, or this session sends the same once more
		for _, f := range firsts {
			m.handedOver(f)
		}
	}
	for _, back := range a.Pairs {
		m.handedBack(now, back)
	}
	for i, p := range pools { // in the order of r.Lines
		if m.current(now, p.object); p.gone {
			continue
		}
		p.toldOf = r.Lines[i].Demand.Single
		if said := r.Lines[i]; said.Ended && said.Line == p.held.number && said.Lender == p.held.lender {
			p.touch()
			p.held = held{} // the parent knows
		}
	}
	for _, g := range a.Lines {
		m.granted(now, g)
	}
	for i, p := range pools {
		if p.gone {
			continue
		}
		if a.MoreLines && !slices.ContainsFunc(a.Lines, r.Lines[i].answeredBy) {
			m.tell(p)
		}
		m.arm(now, p.object)
	}
	m.rulesOf(now, r, a)
	m.seen(r, a)
	if m.sums.settle(); m.sums.lines == 0 {
		u.leased = 0
	}
	u.said = u.said || r.Bye && len(u.due) == 0
	if u.fenced && u.dirty.first == nil && u.pass == nil {
		m.out.Exit = ErrFenced
	}
}

// answeredBy says that a grant is of the same limit.
func (l *LineReport) answeredBy(g Grant) bool { return g.Name == l.Name && g.Limit == l.Limit }

// number takes the session's number from the parent; 0 asks for a hello.
func (m *Machine) number(now limiter.Time, n uint64) {
	u := &m.upper
	u.number, u.hurry = n, true
	if n == 0 {
		return
	}
	if n > m.meta.Number {
		if n != m.prior.Number+1 && !m.cfg.Restored { // other sessions ran in between, not on this disk
			m.lose(now) // with the number: the next start takes that for its disk's
		}
		m.meta.Number = n
		m.write(metaKey, m.saved())
	}
	m.event(EventJoined, m.cfg.Place.Parent(), "")
	m.retell(now)
}

// retell asks for every share that is demanded and not held from the parent
// as it runs now.
func (m *Machine) retell(now limiter.Time) {
	m.forAll(now, taskRetell, func(_ limiter.Time, o *object) {
		for _, p := range o.pools {
			if !p.owner && (p.held.number != 0 || !p.told.none() || len(o.waiters) > 0) {
				m.tell(p)
			}
		}
	})
}

// progress drops what the parent's disk has from what is to be sent.
func (m *Machine) progress(r *Report, a *Ack) {
	u := &m.upper
	acked := min(a.Acked, m.mark) // no parent has what was never changed
	if !u.joined {
		acked = min(acked, u.start) // an old disk: the rest is another's history
	}
	switch {
	case r.Number == 0 || acked < r.From:
		if r.Number != 0 {
			m.event(EventRefill, m.cfg.Place.Parent(), "it lacks changes that it had acknowledged; sending them again")
		}
		m.lacksFrom(acked)
		u.acked, u.whole = acked, false
		u.unhand() // it lacks the earlier sessions' pairs as well
		m.beginPass()
	default:
		u.acked = acked
		for c := u.dirty.first; c != nil && c.mark <= acked; c = u.dirty.first {
			u.dirty.remove(c)
		}
		if u.pass == nil {
			u.lacks = u.dirty.length
		} else {
			m.passed(r, a)
		}
	}
	u.joined = u.joined || r.Number != 0
}

// unhand has the pairs of earlier sessions sent up once more, of all counts.
func (u *upper) unhand() { u.handings++ }

// handedBack takes what the parent knows of this place's other sessions.
func (m *Machine) handedBack(now limiter.Time, back Count) {
	c := m.counted(m.object(now, m.space(back.Name.Namespace), back.Name.Key))
	if !m.cfg.Leaf {
		if err := m.keep(c, back.Kept); err != nil {
			m.event(EventOverflow, m.cfg.Place, err.Error())
		}
		return
	}
	s := c.source("")
	back.Pairs = slices.DeleteFunc(slices.Clone(back.Pairs), func(p Pair) bool { return p.Session == m.cfg.Session })
	changed, moved, err := c.merge(s, m.meta.Folded, back)
	if err != nil {
		m.event(EventOverflow, m.cfg.Place, err.Error())
	}
	switch {
	case changed: // another session of the parent may not know of it
		c.handed = 0
		m.changed(c, s)
	case moved:
		m.record(c, s)
	}
}

// granted enters what the parent's ledger says of one line.
func (m *Machine) granted(now limiter.Time, g Grant) {
	s := m.spaces[g.Name.Namespace]
	if s == nil || s.rule == nil {
		return
	}
	o := m.object(now, s, g.Name.Key)
	i := slices.IndexFunc(o.pools, func(p *pool) bool { return p.limit.ID == g.Limit && !p.owner })
	if i < 0 {
		return
	}
	p := o.pools[i]
	p.touch()
	h := &p.held
	if g.Line == 0 { // nothing yet, or no longer
		if h.number != 0 && h.lender == m.upper.parent && !h.ended {
			m.ended(now, p)
			*h = held{}
		}
		m.heardWait(now, p, g.Wait)
		if !p.told.none() { // the demand is forgotten unless it is said again
			h.renewAt = m.upper.gotAt.Add(m.lease() / 3)
		}
		return
	}
	if h.ended && h.number == g.Line && h.lender == m.upper.parent {
		m.tell(p) // it ended while the report was under way: what comes on it is lost
		return
	}
	if h.number != g.Line || h.lender != m.upper.parent {
		if g.Line <= m.upper.old {
			m.tell(p) // or a lender that does not know holds it out for good
			return
		}
		m.upper.lines = max(m.upper.lines, g.Line)
		p.lose(now)
		*h = held{lender: m.upper.parent, number: g.Line, resets: g.Resets}
		if p.window != g.Window {
			p.window, p.spent = g.Window, 0
		}
	}
	more := g.Lent.Minus(h.lent)
	// What is held of a limit that was lowered may be more than it is now.
	whole := p.limit.Whole().Max(p.holding())
	if !more.Covers(limiter.Share{}) || more.Tokens > more.Capacity || !whole.Covers(limiter.Share{Capacity: p.holding().Capacity + more.Capacity, Rate: p.holding().Rate + more.Rate}) {
		// No honest ledger says so, or it did before the limit was lowered: the
		// line is told of again until it is given back.
		if h.renewAt == 0 || h.renewAt == limiter.Never {
			h.renewAt = m.upper.gotAt.Add(m.lease() / 3)
		}
		m.arm(now, o)
		return
	}
	if g.Resets > h.resets { // of what was lent before: what comes now is as the lender has it
		h.resets = g.Resets
		m.refill(now, p)
	}
	p.bucket.Add(now, more)
	if !more.IsZero() {
		p.lowAt = limiter.MaxTokens
	}
	h.lent = g.Lent
	m.heardWait(now, p, g.Wait)
	h.expires = max(h.expires, m.upper.gotAt.Add(g.Lease))
	m.upper.leased = max(m.upper.leased, h.expires)
	h.renewAt = m.upper.gotAt.Add(max(g.Lease/3, minRenewal))
	h.keep = g.Keep
	if m.upper.stopping {
		h.keep = Keep{}
	}
	m.settled(now, p)
}

// heardWait notes when the lender could have more, and lets children know
// that wait in vain.
func (m *Machine) heardWait(now limiter.Time, p *pool, wait time.Duration) {
	before := p.nextAt
	if p.next(m.upper.gotAt, wait); p.nextAt <= now || before > now || !p.limit.Durable() {
		return
	}
	for _, l := range p.lines {
		if l.lacks() > 0 && l.asks(now) {
			m.call(now, p, l)
		}
	}
}

// next notes when the lender could have more, as it says.
func (p *pool) next(builtAt limiter.Time, wait time.Duration) {
	p.nextFor = p.toldOf
	switch {
	case wait <= 0:
		p.nextAt = 0
	case wait >= forever:
		p.nextAt = limiter.Never
	default:
		p.nextAt = builtAt.Add(wait)
	}
}

// minRenewal keeps the renewals of short leases from flooding the parent.
const minRenewal = 20 * time.Millisecond

// settled acts on a change of what a pool holds, or may keep: what the parent
// wants back goes, waiting checks are decided from the rest, and children are
// lent more or asked to give back.
func (m *Machine) settled(now limiter.Time, p *pool) {
	m.giveBack(now, p)
	m.decideAll(p.object, now)
	m.balance(now, p, nil)
	p.check()
	m.arm(now, p.object)
}

// giveBack returns to the parent what it wants back and what is free of it.
func (m *Machine) giveBack(now limiter.Time, p *pool) {
	if e := p.excess(); !e.IsZero() && p.give(now, e) {
		m.tell(p)
	}
}

// ended says that nothing more is spent from the line that is held, nor lent.
func (m *Machine) ended(now limiter.Time, p *pool) {
	p.touch()
	p.held.ended = true
	p.lose(now)
}

// Recalled takes a parent's Recall.
func (m *Machine) Recalled(now limiter.Time, r *Recall) {
	u := &m.upper
	if r.Parent != u.parent || r.Session != m.cfg.Session || u.fenced {
		return
	}
	for _, g := range r.Lines {
		o := m.awakeObject(now, g.Name)
		if o == nil {
			continue
		}
		p := poolOf(o.pools, g.Limit)
		if p == nil || p.owner {
			continue
		}
		// The Ack of a report and its Recalls may overtake one another. Lines
		// are numbered as they are opened: an older one has ended.
		if r.Sequence != u.got || g.Line < p.held.number && p.held.lender == r.Parent {
			m.tell(p)
			continue
		}
		m.granted(now, g)
		if !g.Keep.All {
			p.recalled.keep, p.recalled.at = g.Keep, now
			p.recalled.count++
			m.tell(p)
		}
	}
}
