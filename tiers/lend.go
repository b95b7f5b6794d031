package tiers

import (
	"cmp"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file lends what is too small to be divided: whole tokens, to single
// asks, while capacity and rate stay where they are. Asks that can be met in
// time come first, the earliest deadline before the others: serving those that
// are late anyway would waste tokens on them.

const (
	// leastPart is the least that a division may leave a child, in tokens: in
	// smaller heaps more of them lie idle than the asking costs, and each move
	// of a rate loses a part of one.
	leastPart = 40
	// leastAlone is the same for a child that asks alone: its checks are
	// decided there.
	leastAlone = 16
	// partGains is for how long what a part gains counts as its own.
	partGains = 5 * time.Second
	// enoughPart is where what was pooled is divided again.
	enoughPart = leastPart + leastPart/2
	// stockFor is for how long a leaf wants whole tokens at hand, as demand is
	// now: a few round trips.
	stockFor = time.Second
	// spareStock is the part of what is free that one line gets of that, so
	// that something is left for those that ask.
	spareStock = 4
	// askMargin is how long before its end an ask is given up: tokens that are
	// sent later come too late.
	askMargin = 2 * time.Millisecond
)

// tooSmall says that a division among n children would leave them little: of
// what they hold and gain in a few seconds.
func (p *pool) tooSmall(whole limiter.Share, n int) bool {
	least := int64(leastPart)
	switch {
	case n == 1:
		least = leastAlone
	case p.pooled:
		least = enoughPart
	}
	return n > 0 && (whole.Capacity+scaleDown(whole.Rate, int64(partGains), int64(p.limit.Period)))/int64(n) < least
}

// lendable is how many tokens a pool that does not refill may have lent out:
// an owner of a budget or quota keeps most, since what is out when a place
// crashes is lost. A concurrency that has more out than it may lends nothing,
// and leaves nobody what is free: what others have may all be in permits, which
// come back when they are released.
func (p *pool) lendable(lines []*line, claims []claim) int64 {
	if p.limit.Kind == limiter.Concurrency && p.excess().Capacity > 0 {
		return 0
	}
	all, asked, now := p.bucket.Tokens(), int64(0), int64(0)
	for i, l := range lines {
		all += l.out().Capacity
		asked = saturate(asked, claims[i].Ask)
		now = saturate(now, claims[i].Now)
	}
	all = max(0, all-p.debt-p.excess().Capacity)
	if p.owner && p.limit.Durable() {
		return min(all, max(asked, min(all/16, saturate(now, now))))
	}
	return all
}

// lendAsked meets asks with free tokens.
func (m *Machine) lendAsked(now limiter.Time, p *pool, lines []*line, claims []claim, asking *line, free, most int64) {
	var order []*line
	for _, l := range lines {
		if l.lacks() > 0 && l.asks(now) {
			order = append(order, l)
		}
	}
	slices.SortStableFunc(order, func(a, b *line) int { return cmp.Compare(a.until, b.until) })
	free = max(0, free)
	short := false
	for _, l := range order {
		part := min(l.lacks(), free)
		if m.lend(now, p, l, limiter.Share{Tokens: part, Capacity: part}) {
			if free -= part; l != asking {
				m.call(now, p, l)
			}
		}
		short = short || l.lacks() > 0
	}
	for _, l := range lines {
		most -= l.out().Capacity
	}
	if asking != nil && !asking.demand.none() && len(order) == 0 {
		stock := min(p.ahead(asking), free/spareStock)
		if len(lines) == 1 {
			stock = free
		}
		if stock = min(stock, most); stock > 0 {
			m.lend(now, p, asking, limiter.Share{Tokens: stock, Capacity: stock})
		}
	}
	if p.bucket.Settle(now); short && p.bucket.Share().Rate > 0 {
		if wait, ok := p.bucket.Wait(1); ok {
			p.meetAt = now.Add(max(wait, time.Millisecond))
		}
	}
	e := p.excess()
	lowered := p.debt > 0 || e.Capacity > p.bucket.Capacity()
	for i, l := range lines {
		keep, most := Keep{All: true}, int64(0)
		if l.asks(now) {
			most = l.demand.Ask
		}
		if lowered {
			most = min(most, claims[i].capacity)
		}
		if out := l.out(); out.Rate > 0 || (short || lowered) && out.Capacity > most {
			keep = Keep{Capacity: most}
		}
		changed := keep != l.keep && !keep.All
		if l.keep = keep; changed && l != asking {
			m.call(now, p, l)
		}
	}
}

// lacks says that what is asked for below is more than the place has and its
// parent knows: tokens where what it has refills nothing, else room for the
// largest check.
func (p *pool) lacks(now limiter.Time, d Demand) bool {
	told := p.told
	if now >= p.toldUntil {
		told = told.without()
	}
	if h := p.holding(); h.Rate > 0 {
		return d.Single > told.Single && d.Single > h.Capacity
	}
	have := p.bucket.Tokens() + p.permits.out
	for _, l := range p.lines {
		have += l.out().Capacity
	}
	return d.Ask-have > max(0, told.Ask-p.holding().Capacity)
}

// ahead is how many tokens a line lacks that may come before they are asked
// for.
func (p *pool) ahead(l *line) int64 {
	if l == nil {
		return 0
	}
	wanted := max(l.demand.Now, l.demand.Peak)
	if p.limit.Rate > 0 { // nobody is short of more than the limit gains
		wanted = min(wanted, p.limit.Rate)
	}
	return max(0, scaleDown(wanted, int64(stockFor), int64(p.limit.Period))-l.out().Capacity)
}

// asks says that what is lent to a line now comes in time for its ask.
func (l *line) asks(now limiter.Time) bool { return l.until >= now.Add(askMargin) }

// wants is what a line demands now: an ask that waits no longer is none.
func (l *line) wants(now limiter.Time) Demand {
	if l.until < now {
		return l.demand.without()
	}
	return l.demand
}

// lacks is how much of its ask a line has not.
func (l *line) lacks() int64 { return max(0, l.demand.Ask-l.out().Capacity) }

// wait says when more could be lent to a line: 0 if that is not known, or it
// lacks nothing; forever if it never can.
func (p *pool) wait(now limiter.Time, l *line) time.Duration {
	lacks := l.lacks()
	if p.waits || lacks == 0 && !p.limit.Durable() { // that all is spent is worth knowing without an ask
		return 0
	}
	var out int64
	for _, o := range p.lines {
		have := o.out()
		if out += have.Capacity; o != l && (have.Rate > 0 || have.Capacity > o.demand.Ask) {
			return 0 // it is being recalled, and may come at any time
		}
	}
	switch {
	case p.limit.Kind == limiter.Concurrency:
	case p.owner && p.limit.Durable():
		if p.bucket.Tokens() == 0 && out == 0 {
			return p.untilMore(now)
		}
	case p.owner || p.holding().Rate > 0:
		if wait, ok := p.bucket.Wait(min(lacks, max(1, l.demand.Single))); ok && p.pooled {
			return max(wait, 1)
		}
	case p.nextAt == limiter.Never:
		return forever
	case p.nextAt > now:
		return p.nextAt.Sub(now)
	}
	return 0
}

// untilMore is how long an owner's budget or quota that is spent stays so.
func (p *pool) untilMore(now limiter.Time) time.Duration {
	if p.limit.Kind == limiter.Quota {
		return max(1, p.endsAt.Sub(now))
	}
	return forever
}

// forever is a Grant's Wait of what will never be there.
const forever = time.Duration(1) << 62

// giveSpare returns whole tokens that nobody below asks for, to where others
// may.
func (m *Machine) giveSpare(now limiter.Time, p *pool) {
	if m.cfg.Leaf || !p.dry() || p.held.number == 0 || p.held.ended {
		return
	}
	var lack int64
	for _, l := range p.lines {
		if l.session == l.child.session {
			wanted := max(l.lacks(), p.ahead(l))
			if !p.pooled {
				wanted = max(wanted, l.demand.Now, l.demand.Peak)
			}
			lack = saturate(lack, wanted)
		}
	}
	p.bucket.Settle(now)
	if spare := p.bucket.Tokens() - lack; spare > 0 {
		p.giveUp(now, limiter.Share{Tokens: spare, Capacity: spare})
		m.tell(p)
		m.giveBack(now, p)
	}
}
