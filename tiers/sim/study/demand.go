package study

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A phase is a span of demand that does not change.
type phase struct {
	begin, end time.Duration
	rates      []float64 // tokens a second, by leaf
}

// A demand is what clients ask for in a cell: the same for each way to keep
// the limit.
type demand struct {
	phases []phase
	checks []check // in order
	city   int     // where all, or the crowd, is
	end    time.Duration
}

type check struct {
	at   time.Duration
	leaf int
}

// newDemand draws a cell's demand. A leaf's checks come evenly, each anywhere
// in a slot of its own: what is measured is the limit, not the luck of the
// draw.
func newDemand(c *Cell, limit float64, r *rand.Rand) *demand {
	n := c.Tree.Leaves()
	d := &demand{city: n / 3, end: c.warmUp() + c.window()}
	d.phases = c.phases(c.Load*limit, d.city, d.end, r)
	for leaf := range n {
		sum, slot := 0.0, 0.0 // checks so far, in which slot the next one is
		next := r.Float64()
		for _, p := range d.phases {
			perSecond := p.rates[leaf] / float64(c.Limit.Hits)
			upTo := sum + perSecond*(p.end-p.begin).Seconds()
			for ; next < upTo; slot, next = slot+1, slot+1+r.Float64() {
				at := p.begin + time.Duration((next-sum)/perSecond*float64(time.Second))
				d.checks = append(d.checks, check{at, leaf})
			}
			sum = upTo
		}
	}
	slices.SortStableFunc(d.checks, func(a, b check) int { return int(a.at - b.at) })
	return d
}

// phases says how much is asked for where and when.
func (c *Cell) phases(total float64, city int, end time.Duration, r *rand.Rand) []phase {
	n := c.Tree.Leaves()
	weighted := func(weight func(leaf int) float64) []float64 {
		rates, sum := make([]float64, n), 0.0
		for i := range rates {
			rates[i] = weight(i)
			sum += rates[i]
		}
		for i := range rates {
			rates[i] *= total / sum
		}
		return rates
	}
	even := weighted(func(int) float64 { return 1 })
	switch c.Shape {
	case Zipf:
		ranks := r.Perm(n)
		return []phase{{0, end, weighted(func(leaf int) float64 { return 1 / float64(ranks[leaf]+1) })}}
	case OneCity:
		rates := make([]float64, n)
		rates[city] = total
		return []phase{{0, end, rates}}
	case Crowd:
		crowded := slices.Clone(even)
		crowded[city] *= crowdTimes
		begin := c.crowd()
		return []phase{{0, begin, even}, {begin, begin + c.Limit.Crowd, crowded}, {begin + c.Limit.Crowd, end, even}}
	case Sun:
		var phases []phase
		for hot, begin := 0, time.Duration(0); begin < end; hot, begin = (hot+1)%sunGroups, begin+sunStays {
			phases = append(phases, phase{begin, min(begin+sunStays, end), weighted(func(leaf int) float64 {
				if leaf*sunGroups/n == hot {
					return sunTimes
				}
				return 1
			})})
		}
		return phases
	}
	return []phase{{0, end, even}}
}

// offered is how many tokens are asked for in a span.
func (d *demand) offered(hits int64, begin, end time.Duration) (sum int64) {
	for _, c := range d.checks {
		if c.at >= begin && c.at < end {
			sum += hits
		}
	}
	return sum
}

// due is what each leaf should be given in a span: a max-min fair part of the
// limit, of so many tokens a second.
func (d *demand) due(limit float64, begin, end time.Duration) []float64 {
	sum := make([]float64, len(d.phases[0].rates))
	for _, p := range d.phases {
		if span := min(p.end, end) - max(p.begin, begin); span > 0 {
			for i, rate := range maxMin(limit, p.rates) {
				sum[i] += rate * span.Seconds()
			}
		}
	}
	return sum
}

// maxMin gives each want as much of whole as it asks for, or as much as
// anybody gets.
func maxMin(whole float64, wants []float64) []float64 {
	given, order := make([]float64, len(wants)), make([]int, len(wants))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case wants[a] < wants[b]:
			return -1
		case wants[a] > wants[b]:
			return 1
		}
		return 0
	})
	for n, i := range order {
		given[i] = min(wants[i], whole/float64(len(order)-n))
		whole -= given[i]
	}
	return given
}
