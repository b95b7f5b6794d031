package tiers

import (
	"cmp"
	"math/bits"
	"slices"
)

// A claim is one child's part in a division: what it demands, and what the
// division makes of that.
type claim struct {
	Demand
	least    int64 // capacity that its asks need
	base     int64 // rate that meets its demand, as far as it can be met
	rate     int64 // rate in all, with its part of what nobody demands
	capacity int64
}

// short says that its demand is not nearly met.
func (c claim) short() bool { return c.Now-c.Now/8 > c.base }

// idlePart is what part of its share of the capacity a claim gets that has
// rate enough, where others have not: what it holds would only lie there.
const idlePart = 4

// divide splits rate and capacity among claims and sets their results. Rate
// goes by max-min fairness first to what is offered now, then to recent
// peaks; the rest goes in proportion to the peaks. Capacity goes first to
// where the largest check waits of each claim, as long as it lasts, the
// smallest first, since no part of it is of use; then, where nothing refills,
// by max-min fairness to all that is asked. The rest goes in proportion to
// the rate, or to the peaks where there is no rate. Everything is given away
// if anybody demands anything, to the last unit, and nothing otherwise.
//
// Max-min fairness by progressive filling: Bertsekas and Gallager, Data
// Networks, section 6.5.2.
func divide(rate, capacity int64, claims []claim) {
	var demanded bool
	whole := rate
	now, peaks, weights, parts := make([]int64, len(claims)), make([]int64, len(claims)), make([]int64, len(claims)), make([]int64, len(claims))
	for i := range claims {
		c := &claims[i]
		c.least, c.base, c.rate, c.capacity = 0, 0, 0, 0
		parts[i] = max(1, c.Weight)
		now[i] = c.Now
		peaks[i] = max(0, c.Peak-c.Now)
		if !c.none() {
			demanded = true
			weights[i] = max(1, c.Peak, c.Now)
		}
	}
	if !demanded {
		return
	}
	for i, n := range fill(rate, now, parts) {
		claims[i].base = n
		rate -= n
	}
	for i, n := range fill(rate, peaks, parts) {
		claims[i].rate = claims[i].base + n
		rate -= n
	}
	for i, n := range proportion(rate, weights) {
		claims[i].rate += n
	}

	// Where some go short, those that do not have little use for room.
	short := slices.ContainsFunc(claims, claim.short)
	order := make([]int, len(claims))
	for i := range order {
		order[i] = i
		if c := &claims[i]; whole > 0 {
			if weights[i] = c.rate; short && !c.short() {
				weights[i] = (c.rate + idlePart - 1) / idlePart
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(claims[a].Single, claims[b].Single) })
	for _, i := range order {
		c := &claims[i]
		if c.least = c.Single; c.Single <= capacity {
			c.capacity = c.Single
			capacity -= c.Single
		}
	}
	if whole == 0 {
		for i := range claims {
			claims[i].least = claims[i].Ask
			now[i] = max(0, claims[i].Ask-claims[i].capacity)
		}
		for i, n := range fill(capacity, now, parts) {
			claims[i].capacity += n
			capacity -= n
		}
	}
	for i, n := range proportion(capacity, weights) {
		claims[i].capacity += n
	}
	// A rate without capacity is lost: it goes to who can hold what it brings.
	if best := slices.IndexFunc(claims, func(c claim) bool { return c.capacity > 0 }); best >= 0 {
		for i := range claims {
			if c := &claims[i]; c.capacity == 0 {
				claims[best].rate += c.rate
				c.rate, c.base = 0, 0
			}
		}
	}
}

// fill gives each want as much of whole as it asks for, or as much as
// anybody gets for each unit of weight, rounded down. Weights are at least 1.
func fill(whole int64, wants, weights []int64) []int64 {
	given := make([]int64, len(wants))
	order := make([]int, len(wants))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareProducts(wants[a], weights[b], wants[b], weights[a]) })
	var left int64 // at most maxChildren weights of MaxTokens: it fits
	for _, w := range weights {
		left += w
	}
	for _, i := range order {
		given[i] = min(wants[i], scaleDown(whole, weights[i], left))
		whole -= given[i]
		left -= weights[i]
	}
	return given
}

// proportion splits all of whole by weight, exactly: each part is rounded so
// that the parts before it, taken together, are right to the unit.
func proportion(whole int64, weights []int64) []int64 {
	given := make([]int64, len(weights))
	var sum int64
	for _, w := range weights {
		sum += w // maxChildren weights of at most MaxTokens = 2⁵³ fit: see maxChildren
	}
	if sum == 0 || whole == 0 {
		return given
	}
	var before, done int64
	for i, w := range weights {
		before += w
		upTo := scaleDown(whole, before, sum)
		given[i], done = upTo-done, upTo
	}
	return given
}

// compareProducts compares a·b with c·d; all are ≥ 0.
func compareProducts(a, b, c, d int64) int {
	high, low := bits.Mul64(uint64(a), uint64(b))
	high2, low2 := bits.Mul64(uint64(c), uint64(d))
	return cmp.Or(cmp.Compare(high, high2), cmp.Compare(low, low2))
}
