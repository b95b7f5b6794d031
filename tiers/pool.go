package tiers

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A pool is one limit of one key at one place: a bucket, what of it was
// borrowed from the parent (at the owner: nothing, the limit is its own),
// and what of it was lent to children.
//
// Invariant: the bucket's capacity and rate, plus what all lines have out,
// are exactly what the place holds.
type pool struct {
	object  *object
	limit   *limiter.Limit
	owner   bool
	own     limiter.Share // at the owner: capacity and rate in force, lent out or not; above the limit while a lowered one comes back
	gone    bool          // it is none of its key any more: its limit left the rules, or the key left memory
	sum     *limitSum     // that it is a part of
	touched bool          // since the sums were settled
	debt    int64         // of a durable limit that was lowered: tokens that are to vanish as they come back
	bucket  limiter.Bucket
	// While it is not known whether the store is to be believed: what the
	// bucket of a rate is if it is, and what is in any other bucket too.
	promised *limiter.Bucket
	credit   int64

	held      held
	meter     meter        // at a leaf
	told      Demand       // as the last report said
	toldUntil limiter.Time // the ask in it can be met before then
	due       bool         // it has to be in the next report
	queued    bool         // it stands in the machine's list of due pools
	lowAt     int64        // the lender is told when so little is left of what does not refill here
	nextAt    limiter.Time // when the lender could have more; 0: not known; Never: not any more
	nextFor   int64        // for a check of so many at most
	toldOf    int64        // the largest check that the lender knew of when it spoke last

	recalled struct {
		keep  Keep
		count uint64
		at    limiter.Time
	} // the recalls that came

	lines  []*line      // sorted by child, then by session
	pooled bool         // too small to be divided: whole tokens are lent to single asks
	meetAt limiter.Time // an ask that was not met can be then; 0: none waits for that

	spent   int64           // at a leaf: what was admitted and not refunded, of this window
	spare   *limiter.Bucket // of a soft limit, at a leaf: what is spent while no share can be
	spareAt limiter.Time    // when it was last
	window  int64           // of a quota: its begin, Unix seconds
	endsAt  limiter.Time    // at its owner: when the window ends, as its wall clock runs now
	vault   vault           // of a durable limit, at the leaf that owns it
	waits   bool            // of a durable limit: what was lent is not known, and an operator has to say
	permits permits         // of a concurrency, at a leaf
	frozen  []frozen        // of a concurrency: what ended lines had out
	runOn   limiter.Time    // until when permits may be out by a hold that was longer
}

// held is the line from the parent, as its child sees it.
type held struct {
	lender   uint64 // the parent's session
	number   uint64 // 0: none
	lent     limiter.Share
	returned limiter.Share
	expires  limiter.Time
	renewAt  limiter.Time
	keep     Keep
	ended    bool   // nothing is spent from it; the parent is still to be told
	resets   uint64 // how often it was reset
}

// A line is what was lent to one session of one child.
type line struct {
	child    *child
	session  uint64
	number   uint64 // 0: nothing was lent yet, but it is demanded
	lent     limiter.Share
	returned limiter.Share
	expires  limiter.Time // by the parent's clock, later than by the child's
	demand   Demand
	keep     Keep
	until    limiter.Time // its ask can be met before then
	called   bool         // it was asked to give back, and has not reported since
	recalled bool         // it is among its child's unheard ones
	said     uint64       // the report whose Ack said the same as the last Recall; 0: none
	resets   uint64       // how often it was reset: a running total
	durable  bool         // it is of a budget or quota
	unaware  bool         // the child had not heard of the last reset when it reported
}

// maxLent ends a line before its running totals could overflow.
const maxLent = 1 << 61

func (l *line) out() limiter.Share { return l.lent.Minus(l.returned) }

// holding is what the place has of the limit, lent out or not.
func (p *pool) holding() limiter.Share {
	if p.owner {
		return p.own
	}
	if p.held.number == 0 || p.held.ended {
		return limiter.Share{}
	}
	return p.held.lent.Minus(p.held.returned)
}

// empty says that the place holds nothing, lent out or not.
func (p *pool) empty() bool {
	h := p.holding()
	return h.Capacity == 0 && h.Rate == 0
}

// check panics if the ledger does not balance: lending on from there would
// break Law 2.
func (p *pool) check() {
	sum := p.bucket.Share()
	for _, l := range p.lines {
		sum = sum.Plus(l.out())
	}
	for _, f := range p.frozen {
		sum.Capacity += f.capacity
	}
	sum.Capacity += p.permits.out
	if h := p.holding(); sum.Capacity != h.Capacity || sum.Rate != h.Rate {
		panic(fmt.Sprintf("tiers: ledger of %s (%s) does not balance: holds %+v, has %+v", p.object.name, p.limit, h, sum))
	}
}

// line finds or makes the line of a child's session.
func (p *pool) line(c *child, session uint64) *line {
	i, found := slices.BinarySearchFunc(p.lines, c.place, func(l *line, place Place) int {
		return cmp.Or(cmp.Compare(l.child.place, place), cmp.Compare(l.session, session))
	})
	if !found {
		p.lines = slices.Insert(p.lines, i, &line{child: c, session: session, durable: p.limit.Durable(), keep: Keep{All: true}})
	}
	return p.lines[i]
}

// unconfirmed says that the pool has more if its store is to be believed.
func (p *pool) unconfirmed() bool { return p.promised != nil || p.credit > 0 }

// promises is how many tokens there would be, spendable or not, if the store
// is to be believed.
func (p *pool) promises(now limiter.Time) int64 {
	if p.promised != nil {
		p.promised.Settle(now)
		return p.promised.Tokens()
	}
	return p.whole() + p.credit
}

// settleCredit ends the credit: it is due, or it is not. Nothing is lent yet.
func (p *pool) settleCredit(now limiter.Time, due bool) {
	switch {
	case !due || !p.owner:
	case p.promised != nil:
		p.bucket = *p.promised
		p.bucket.Settle(now)
	case p.limit.Kind == limiter.Concurrency:
		p.thaw(now, p.credit)
	case p.limit.Durable():
		p.stock(now, p.credit)
	}
	if !due && p.owner && p.credit > 0 && p.limit.Durable() {
		p.waits = true
	}
	p.promised, p.credit = nil, 0
}

// lend cuts s off the bucket and adds it to the line.
func (p *pool) lend(now limiter.Time, l *line, s limiter.Share) {
	p.touch()
	p.bucket.Cut(now, s)
	l.lent = l.lent.Plus(s)
}

// takeBack enters a child's running totals of what it returned. Where the child
// has not heard of a reset yet, what it returned is filled as the rest was.
func (p *pool) takeBack(now limiter.Time, l *line, returned limiter.Share) {
	// A child cannot return more than it was lent, but for tokens: it may
	// have gained some.
	returned.Capacity = min(returned.Capacity, l.lent.Capacity)
	returned.Rate = min(returned.Rate, l.lent.Rate)
	returned = returned.Max(l.returned)
	got := returned.Minus(l.returned)
	p.touch()
	l.returned = returned
	// Tokens travel with the capacity that holds them: more would let the
	// sum of tokens pass the sum of capacities while they are under way.
	got.Tokens = min(got.Tokens, got.Capacity)
	if l.unaware {
		got.Tokens = got.Capacity
	}
	paid := min(p.debt, got.Tokens)
	p.debt -= paid
	got.Tokens -= paid
	p.bucket.Add(now, got)
}

// end closes a line: what is still out comes back with no tokens in it.
func (p *pool) end(now limiter.Time, l *line) {
	p.touch()
	out := l.out()
	out.Tokens = 0
	if p.limit.Kind == limiter.Concurrency {
		p.freeze(out.Capacity, now.Add(lenderLease(p.limit.Hold)))
	} else {
		p.bucket.Add(now, out)
	}
	l.close()
}

// close makes the next share a new line, which starts at zero.
func (l *line) close() {
	l.child.closes(l)
	l.number, l.lent, l.returned = 0, limiter.Share{}, limiter.Share{}
	l.keep, l.called = Keep{All: true}, false
}

// leave is called when the limit left the rules, or the key left memory. A report
// that is under way may still have the pool. It is not told again: the key may be
// in memory once more, with other pools, and a line of those be taken for left.
func (p *pool) leave() {
	p.due, p.gone = false, true
	for _, l := range p.lines {
		l.child.closes(l)
	}
}

// drop removes the lines that nothing is lent on and nothing was demanded for
// a lease: who asked so lately may ask again.
func (p *pool) drop(now limiter.Time) {
	p.lines = slices.DeleteFunc(p.lines, func(l *line) bool {
		return l.number == 0 && (l.demand.none() && now >= l.expires || l.session != l.child.session || l.child.record.Forgotten)
	})
}

// lose forgets the line from the parent and everything cut from it. The
// children's leases have ended, or are covered by what the parent still
// counts as lent on the line that is lost.
func (p *pool) lose(now limiter.Time) {
	p.touch()
	p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{}, now)
	p.permits, p.frozen, p.nextAt = permits{}, nil, 0
	for _, l := range p.lines {
		l.close()
	}
	p.drop(now)
}

// give returns to the parent what the bucket holds of s, with its part of
// the tokens.
func (p *pool) give(now limiter.Time, s limiter.Share) (gave bool) {
	p.bucket.Settle(now)
	have := p.bucket.Share()
	s.Capacity = max(0, min(s.Capacity, have.Capacity))
	s.Rate = max(0, min(s.Rate, have.Rate))
	if s.Capacity == 0 && s.Rate == 0 {
		return false
	}
	s.Tokens = 0
	if p.limit.Kind == limiter.Concurrency { // what is out stays
		s.Capacity = min(s.Capacity, have.Tokens)
		s.Tokens = s.Capacity
	} else if s.Capacity > 0 {
		s.Tokens = scaleDown(have.Tokens, s.Capacity, have.Capacity)
	}
	if s.IsZero() {
		return false
	}
	p.giveUp(now, s)
	return true
}

// giveUp cuts s off the bucket and notes it as returned to the parent.
func (p *pool) giveUp(now limiter.Time, s limiter.Share) {
	p.touch()
	p.bucket.Cut(now, s)
	p.held.returned = p.held.returned.Plus(s)
}

// giveSpent returns what can hold no tokens any more: where nothing refills,
// capacity whose tokens are spent.
func (p *pool) giveSpent(now limiter.Time) {
	if h := p.holding(); p.owner || p.held.number == 0 || p.held.ended || h.Rate > 0 || p.limit.Kind == limiter.Concurrency {
		return
	}
	p.bucket.Settle(now)
	if s := (limiter.Share{Capacity: p.bucket.Capacity() - p.bucket.Tokens()}); s.Capacity > 0 && p.bucket.Share().Rate == 0 {
		p.giveUp(now, s)
	}
}

// excess is what the place holds beyond what its parent lets it keep.
func (p *pool) excess() limiter.Share {
	if p.owner {
		return p.own.Minus(limiter.Share{Capacity: p.limit.Burst, Rate: p.limit.Rate}).Max(limiter.Share{})
	}
	if p.held.keep.All || p.held.number == 0 || p.held.ended {
		return limiter.Share{}
	}
	h := p.holding()
	return limiter.Share{Capacity: max(0, h.Capacity-p.held.keep.Capacity), Rate: max(0, h.Rate-p.held.keep.Rate)}
}

// demand is what is asked for at and below the place.
func (p *pool) demand(now limiter.Time) Demand {
	p.meter.roll(now, p.limit.Period)
	ask, single, until := p.object.asks(now)
	d := Demand{Now: p.meter.now, Peak: p.meter.peak, Ask: ask, Single: single, Until: max(0, until.Sub(now))}
	if d.none() {
		d.Until = 0
	} else {
		d.Weight = p.object.space.weight
	}
	if d.Ask > 0 {
		d.Ask, d.Single = saturate(d.Ask, p.permits.out), saturate(d.Single, p.permits.out) // what is out is no answer to it
	}
	var others int64 // what children have beyond what they ask for
	lacks := false
	for _, l := range p.lines {
		if l.session == l.child.session {
			below := l.demand
			below.Until = max(0, l.until.Sub(now))
			if below.Ask == 0 || below.Until == 0 {
				below = below.without()
			}
			d = d.plus(below)
			others = saturate(others, max(0, l.out().Capacity-below.Ask))
			lacks = lacks || below.Ask > l.out().Capacity
		}
	}
	if lacks && p.dry() {
		d.Ask = saturate(d.Ask, others) // what others have is no answer to it
	}
	d.Ask, d.Single = min(d.Ask, p.limit.Burst), min(d.Single, p.limit.Burst)
	if d.Now == 0 && d.Peak == 0 && d.Ask == 0 {
		return Demand{}
	}
	return d
}

// lease is how long a line may be lent from now on: at the owner as
// configured, below it what is left of the place's own, less 2 %, so that
// with the 2 % that the lender adds on its side it still ends first. An owner
// of a budget or quota that was lowered below what is spent and out renews
// nothing until enough of it has come back.
func (p *pool) lease(now limiter.Time, configured time.Duration) time.Duration {
	switch {
	case p.owner && p.debt > 0:
		return 0
	case p.owner:
		return configured
	}
	if p.held.number == 0 || p.held.ended {
		return 0
	}
	return max(0, p.held.expires.Sub(now)/100*98)
}

// lenderLease is the lender's side of a lease: 2 % longer, which covers
// clocks that drift apart by 1 %.
func lenderLease(d time.Duration) time.Duration { return d/100*102 + d%100*102/100 }

// childLease is the child's side of what the lender's is.
func childLease(d time.Duration) time.Duration { return max(0, d/102*100) }
