package tiers

import (
	"math/bits"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file keeps sums over the keys that are awake, for metrics. Summing when
// a figure is asked for would stop the place for as long as it takes to visit
// every key. So a pool says before it changes what it holds or has lent
// (touch), and at the end of the step the difference goes into the sums.

// maxSums is of how many limits a place keeps a sum each. Limits beyond that
// share one, so that what reads the sums is bounded, however many namespaces
// the rules have.
const maxSums = 1000

// A Wide is a sum of whole numbers that 64 bits may not hold: High·2⁶⁴ + Low.
type Wide struct{ High, Low uint64 }

// add adds n, which may be negative.
func (w *Wide) add(n int64) {
	low, carry := bits.Add64(w.Low, uint64(n), 0)
	w.Low, w.High = low, w.High+uint64(n>>63)+carry // with n's sign extended to 128 bits
}

// A ShareSum sums shares of many keys. Rates are per day, whatever the period
// of the limit: all periods divide one.
type ShareSum struct{ Capacity, RatePerDay Wide }

func (s *ShareSum) add(capacity, ratePerDay int64) {
	s.Capacity.add(capacity)
	s.RatePerDay.add(ratePerDay)
}

const day = 24 * time.Hour

// perDay is the rate of a share of a limit, in tokens per day: at most
// limiter.MaxRate times 86,400, so it fits.
func perDay(l *limiter.Limit, rate int64) int64 { return rate * int64(day/l.Period) }

// poolSums are those of a machine.
type poolSums struct {
	own     []*limitSum // of limits with keys awake, at most maxSums
	rest    PoolStats   // of all other limits
	lines   int         // that are held from the parent
	changed []changedPool
}

// limitSum is the sum of one limit of one namespace, over the keys that are
// awake.
type limitSum struct {
	sums  *poolSums
	space *space
	limit *limiter.Limit // as the last pool has it that came
	keys  int
	at    int        // in sums.own; -1: it is a part of the rest
	to    *PoolStats // its own, or the rest
}

// PoolStats sums one limit's shares over the keys that are awake.
type PoolStats struct {
	Namespace string
	Limit     *limiter.Limit // nil: of all limits beyond the first maxSums
	Keys      int            // that are awake
	Here      ShareSum       // what the place holds and has not lent
	Lent      ShareSum       // to children
}

// figures are what a pool adds to the sums.
type figures struct {
	hereCapacity, hereRate, lentCapacity, lentRate int64 // rates per day
	lines                                          int
}

type changedPool struct {
	pool   *pool
	before figures
}

func (p *pool) figures() (f figures) {
	var out limiter.Share
	for _, l := range p.lines {
		out = out.Plus(l.out())
	}
	here := p.holding().Minus(out)
	f = figures{
		hereCapacity: here.Capacity, hereRate: perDay(p.limit, here.Rate),
		lentCapacity: out.Capacity, lentRate: perDay(p.limit, out.Rate),
	}
	if p.held.number != 0 && !p.held.ended {
		f.lines = 1
	}
	return f
}

// touch is called before a pool changes its limit, what it holds, or what it
// has lent.
func (p *pool) touch() {
	if p.sum != nil && !p.touched {
		p.touched = true
		p.sum.sums.changed = append(p.sum.sums.changed, changedPool{p, p.figures()})
	}
}

// enter takes a pool that is new.
func (s *poolSums) enter(p *pool) {
	space := p.object.space
	sum := space.sums[p.limit.ID]
	if sum == nil {
		sum = &limitSum{sums: s, space: space, at: -1, to: &s.rest}
		if len(s.own) < maxSums {
			sum.at, sum.to = len(s.own), &PoolStats{Namespace: space.name}
			s.own = append(s.own, sum)
		}
		if space.sums == nil {
			space.sums = map[uint64]*limitSum{}
		}
		space.sums[p.limit.ID] = sum
	}
	sum.limit = p.limit
	sum.keys++
	sum.to.Keys++
	p.sum, p.touched = sum, true
	s.changed = append(s.changed, changedPool{pool: p})
}

// leave drops a pool whose key falls asleep, or whose limit left the rules.
func (s *poolSums) leave(p *pool) {
	s.settle()
	sum := p.sum
	sum.count(figures{}, p.figures())
	p.sum = nil
	sum.to.Keys--
	if sum.keys--; sum.keys > 0 {
		return
	}
	delete(sum.space.sums, p.limit.ID)
	if sum.at >= 0 {
		last := s.own[len(s.own)-1]
		s.own[sum.at], last.at = last, sum.at
		s.own = s.own[:len(s.own)-1]
	}
}

// settle enters what changed.
func (s *poolSums) settle() {
	for _, c := range s.changed {
		c.pool.sum.count(c.pool.figures(), c.before)
		c.pool.touched = false
	}
	clear(s.changed)
	s.changed = s.changed[:0]
}

// count replaces what a pool had added.
func (s *limitSum) count(now, before figures) {
	s.to.Here.add(now.hereCapacity-before.hereCapacity, now.hereRate-before.hereRate)
	s.to.Lent.add(now.lentCapacity-before.lentCapacity, now.lentRate-before.lentRate)
	s.sums.lines += now.lines - before.lines
}

// stats are the sums, one of each limit with keys awake, and in the end that
// of the rest, if there is any.
func (s *poolSums) stats() []PoolStats {
	s.settle()
	all := make([]PoolStats, 0, len(s.own)+1)
	for _, sum := range s.own {
		stats := *sum.to
		if stats.Limit = sum.space.rule.Limit(sum.limit.ID); stats.Limit == nil {
			stats.Limit = sum.limit // it left the rules, and its last keys are about to learn it
		}
		all = append(all, stats)
	}
	if s.rest.Keys > 0 {
		all = append(all, s.rest)
	}
	return all
}
