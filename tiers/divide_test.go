package tiers

import (
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// drawAmount draws a quantity: nothing, few, many, or as many as there can be.
func drawAmount(t *rapid.T, label string) int64 {
	most := rapid.SampledFrom([]int64{0, 1, 20, 1000, limiter.MaxTokens}).Draw(t, label+" at most")
	return rapid.Int64Range(0, most).Draw(t, label)
}

func drawDemand(t *rapid.T) Demand {
	ask := drawAmount(t, "ask")
	return Demand{Now: drawAmount(t, "now"), Peak: drawAmount(t, "peak"), Ask: ask, Single: rapid.Int64Range(0, ask).Draw(t, "single")}
}

func drawClaims(t *rapid.T) []claim {
	claims := make([]claim, rapid.IntRange(0, 12).Draw(t, "claims"))
	for i := range claims {
		claims[i].Demand = drawDemand(t)
	}
	return claims
}

func sums(claims []claim) (rate, capacity int64) {
	for _, c := range claims {
		rate += c.rate
		capacity += c.capacity
	}
	return rate, capacity
}

// TestDivideGivesAllOrNothing: all of rate and capacity is given away if
// anybody demands anything, nothing otherwise, and nobody gets less than
// nothing.
func TestDivideGivesAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, capacity, claims := drawAmount(t, "rate"), drawAmount(t, "capacity"), drawClaims(t)
		divide(rate, capacity, claims)
		demanded := slices.ContainsFunc(claims, func(c claim) bool { return !c.none() })
		for _, c := range claims {
			if c.base < 0 || c.rate < c.base || c.capacity < 0 {
				t.Fatalf("claim %+v", c)
			}
			if c.none() && (c.rate != 0 || c.capacity != 0) {
				t.Fatalf("claim %+v demands nothing", c)
			}
		}
		if !demanded {
			rate, capacity = 0, 0
		}
		if r, c := sums(claims); r != rate || c != capacity {
			t.Fatalf("%d of rate %d, %d of capacity %d are given away", r, rate, c, capacity)
		}
	})
}

// TestDivideMeetsAsks: a waiting check gets the capacity that it needs, if
// those that need less leave as much.
func TestDivideMeetsAsks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, capacity, claims := drawAmount(t, "rate"), drawAmount(t, "capacity"), drawClaims(t)
		divide(rate, capacity, claims)
		bySize := slices.Clone(claims)
		slices.SortStableFunc(bySize, func(a, b claim) int { return int(min(1, max(-1, a.Single-b.Single))) })
		left := capacity
		for _, c := range bySize {
			if c.Single > left {
				break
			}
			left -= c.Single
			if c.capacity < c.Single {
				t.Fatalf("claim %+v is not met, though %d of %d were left", c, left+c.Single, capacity)
			}
		}
	})
}

// TestDivideStarvesNobody: where nothing refills, what is asked for in sum is
// shared, however much one claim asks for.
func TestDivideStarvesNobody(t *testing.T) {
	claims := []claim{{Demand: Demand{Ask: 500, Single: 2}}, {Demand: Demand{Ask: 500, Single: 3}}, {Demand: Demand{Ask: 10, Single: 1}}}
	divide(0, 500, claims)
	for i, want := range []int64{245, 245, 10} {
		if c := claims[i].capacity; c < want-2 || c > want+2 {
			t.Errorf("claim %d of %+v has %d, want %d", i, claims[i].Demand, c, want)
		}
	}
}

// TestDivideLosesNoRate: whoever has a rate has a capacity for what it
// brings, if there is any.
func TestDivideLosesNoRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, capacity, claims := drawAmount(t, "rate"), drawAmount(t, "capacity"), drawClaims(t)
		divide(rate, capacity, claims)
		for _, c := range claims {
			if capacity > 0 && c.capacity == 0 && c.rate > 0 {
				t.Fatalf("claim %+v has nowhere to put its rate", c)
			}
		}
	})
}

func TestDivideGivesALoneClaimAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, capacity, claims := drawAmount(t, "rate"), drawAmount(t, "capacity"), drawClaims(t)
		for i := range claims {
			claims[i].Demand = Demand{}
		}
		lone := claim{Demand: drawDemand(t)}
		lone.Now = max(1, lone.Now)
		at := rapid.IntRange(0, len(claims)).Draw(t, "at")
		claims = slices.Insert(claims, at, lone)
		divide(rate, capacity, claims)
		if c := claims[at]; c.rate != rate || c.capacity != capacity {
			t.Fatalf("%+v of rate %d, capacity %d", c, rate, capacity)
		}
	})
}

// TestDivideMeetsTodayFirst: what is offered now is met, max-min fairly,
// before any peak is.
func TestDivideMeetsTodayFirst(t *testing.T) {
	claims := []claim{{Demand: Demand{Now: 10, Peak: 1000}}, {Demand: Demand{Now: 90, Peak: 90}}, {Demand: Demand{Now: 500, Peak: 500}}}
	divide(300, 300, claims)
	for i, want := range []int64{10, 90, 200} {
		if claims[i].rate != want {
			t.Errorf("claim %d: %+v, want %d", i, claims[i], want)
		}
	}
}

// TestDivideLendsRoomToThoseInNeed: who has rate enough gets a quarter of its
// part of the capacity while others have not; else capacity goes by rate.
func TestDivideLendsRoomToThoseInNeed(t *testing.T) {
	for _, test := range []struct {
		rate int64
		want [3]int64
	}{{300, [3]int64{12, 88, 800}}, {600, [3]int64{15, 135, 750}}} {
		claims := []claim{{Demand: Demand{Now: 10, Peak: 10}}, {Demand: Demand{Now: 90, Peak: 90}}, {Demand: Demand{Now: 500, Peak: 500}}}
		divide(test.rate, 900, claims)
		for i, want := range test.want {
			if c := claims[i].capacity; c < want-8 || c > want+8 {
				t.Errorf("at a rate of %d, claim %d has room for %d, want %d", test.rate, i, c, want)
			}
		}
	}
}

// TestDivideHoldsTheLargest: a thousand claims of the largest demands and the
// largest limit fit.
func TestDivideHoldsTheLargest(t *testing.T) {
	claims := make([]claim, maxChildren)
	for i := range claims {
		claims[i].Demand = Demand{Now: limiter.MaxTokens, Peak: limiter.MaxTokens, Ask: limiter.MaxTokens / maxChildren}
	}
	divide(limiter.MaxTokens, limiter.MaxTokens, claims)
	if r, c := sums(claims); r != limiter.MaxTokens || c != limiter.MaxTokens {
		t.Fatalf("rate %d, capacity %d", r, c)
	}
	for i := range claims {
		const fair = limiter.MaxTokens / maxChildren
		if c := claims[i]; c.rate < fair || c.rate > fair+1 || c.capacity < fair || c.capacity > fair+1 {
			t.Fatalf("claim %d: %+v is no fair part", i, c)
		}
	}
}

// TestFillIsFair: nobody gets more than it wants, all is given away if the
// wants take it, and nobody who got less than it wants has less, for its
// weight, than another has, but for roundings.
func TestFillIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := drawAmount(t, "whole")
		wants := make([]int64, rapid.IntRange(0, 20).Draw(t, "claims"))
		wanted := new(big.Int)
		for i := range wants {
			wants[i] = drawAmount(t, "want")
			wanted.Add(wanted, big.NewInt(wants[i]))
		}
		weights := make([]int64, len(wants))
		for i := range weights {
			weights[i] = rapid.Int64Range(1, 5).Draw(t, "weight")
		}
		given := fill(whole, wants, weights)
		var sum int64
		for i, n := range given {
			if n < 0 || n > wants[i] {
				t.Fatalf("%d of %d wanted", n, wants[i])
			}
			sum += n
		}
		want := whole
		if wanted.Cmp(big.NewInt(whole)) < 0 {
			want = wanted.Int64()
		}
		if sum != want {
			t.Fatalf("%d of %d are given, %s wanted", sum, whole, wanted)
		}
		for i, n := range given {
			for j, other := range given {
				// other/weights[j] ≤ n/weights[i], but for a rounding of each
				if n < wants[i] && new(big.Rat).SetFrac64(other, weights[j]).Cmp(new(big.Rat).Add(new(big.Rat).SetFrac64(n, weights[i]), new(big.Rat).SetInt64(int64(len(wants))))) > 0 {
					t.Fatalf("one of weight %d has %d of the %d that it wants, another of weight %d has %d", weights[i], n, wants[i], weights[j], other)
				}
			}
		}
	})
}

// TestProportionIsExact compares with rational numbers: every part is its
// weight's, within one unit, and together they are the whole.
func TestProportionIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := drawAmount(t, "whole")
		weights := make([]int64, rapid.IntRange(0, 20).Draw(t, "claims"))
		var total int64
		for i := range weights {
			weights[i] = drawAmount(t, "weight")
			total += weights[i]
		}
		var sum int64
		for i, n := range proportion(whole, weights) {
			sum += n
			if total == 0 {
				continue
			}
			exact := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(whole), big.NewInt(weights[i])), big.NewInt(total))
			off := exact.Sub(exact, new(big.Rat).SetInt64(n))
			if n < 0 || off.Abs(off).Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("%d of %d by %d of %d", n, whole, weights[i], total)
			}
		}
		if total == 0 {
			whole = 0
		}
		if sum != whole {
			t.Fatalf("%d of %d are given", sum, whole)
		}
	})
}

// TestScaling compares both with big integers.
func TestScaling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64Min(0).Draw(t, "a"), rapid.Int64Min(0).Draw(t, "b")
		c := rapid.Int64Min(1).Draw(t, "c")
		product := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
		down, rest := new(big.Int).QuoRem(product, big.NewInt(c), new(big.Int))
		up := new(big.Int).Set(down)
		if rest.Sign() > 0 {
			up.Add(up, big.NewInt(1))
		}
		most := big.NewInt(limiter.MaxTokens)
		if up.Cmp(most) > 0 {
			up = most
		}
		if got := scaleUp(a, b, c); got != up.Int64() {
			t.Fatalf("%d·%d/%d, rounded up, is %d, not %d", a, b, c, up, got)
		}
		if b <= c { // the result fits
			if got := scaleDown(a, b, c); got != down.Int64() {
				t.Fatalf("%d·%d/%d, rounded down, is %d, not %d", a, b, c, down, got)
			}
		}
	})
}
