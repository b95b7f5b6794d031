package limiter

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketGainsExactly(t *testing.T) {
	for _, test := range []struct {
		name   string
		period time.Duration
		start  Share
		after  []time.Duration // readings, one after another
		want   int64
	}{
		{"one second of 1000/s", time.Second, Share{0, 2000, 1000}, []time.Duration{time.Second}, 1000},
		{"full stays full", time.Second, Share{2000, 2000, 1000}, []time.Duration{time.Hour}, 2000},
		{"fractions add up", time.Second, Share{0, 10, 3}, []time.Duration{333_333_333, 666_666_666, time.Second}, 3},
		{"5/m over 12 s", time.Minute, Share{0, 5, 5}, []time.Duration{12*time.Second - 1, 12 * time.Second}, 1},
		{"just before", time.Minute, Share{0, 5, 5}, []time.Duration{12*time.Second - 1}, 0},
		{"no rate", time.Second, Share{1, 5, 0}, []time.Duration{time.Hour}, 1},
		{"no capacity", time.Second, Share{0, 0, 1000}, []time.Duration{time.Hour}, 0},
		{"a century of the largest rate", time.Second, Share{0, MaxTokens, MaxRate}, []time.Duration{math.MaxInt64}, MaxTokens},
		{"a century of the largest daily rate", 24 * time.Hour, Share{0, MaxTokens, MaxRate * 86400}, []time.Duration{math.MaxInt64}, MaxTokens},
		{"a clock that runs backwards", time.Second, Share{0, 10, 10}, []time.Duration{time.Second / 2, time.Second / 4, time.Second / 2}, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := NewBucket(test.period, test.start, 0)
			for _, at := range test.after {
				b.Settle(Time(at))
			}
			if b.Tokens() != test.want {
				t.Errorf("%d tokens, want %d", b.Tokens(), test.want)
			}
		})
	}
}

func TestBucketSettlesFromANegativeTime(t *testing.T) {
	b := NewBucket(time.Second, Share{0, MaxTokens, 1}, math.MinInt64)
	b.Settle(math.MaxInt64)
	if want := int64(math.MaxUint64 / uint64(time.Second)); b.Tokens() != want {
		t.Errorf("%d tokens, want %d", b.Tokens(), want)
	}
}

func TestCuttingTooMuchPanics(t *testing.T) {
	for _, s := range []Share{{6, 6, 0}, {0, 11, 0}, {0, 0, 2}, {-1, 0, 0}, {0, -1, 0}, {0, 0, -1}} {
		b := NewBucket(time.Second, Share{5, 10, 1}, 0)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("cutting %+v off %+v is taken", s, b.Share())
				}
			}()
			b.Cut(0, s)
		}()
	}
}

// exact is the bucket in rational arithmetic.
type exact struct {
	tokens         *big.Rat
	capacity, rate int64
	period         time.Duration
	at             Time
}

func (e *exact) settle(now Time) {
	if now <= e.at {
		return
	}
	gained := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(e.rate), big.NewInt(int64(now-e.at))), big.NewInt(int64(e.period)))
	e.at = now
	e.tokens.Add(e.tokens, gained)
	if most := new(big.Rat).SetInt64(e.capacity); e.tokens.Cmp(most) > 0 {
		e.tokens = most
	}
}

func (e *exact) whole() int64 {
	return new(big.Int).Quo(e.tokens.Num(), e.tokens.Denom()).Int64()
}

// TestBucketIsExact compares a bucket with the same in rational numbers.
func TestBucketIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "period")
		capacity := rapid.Int64Range(0, MaxTokens).Draw(t, "capacity")
		rate := rapid.Int64Range(0, MaxRate*int64(period/time.Second)).Draw(t, "rate")
		if rapid.Bool().Draw(t, "small") {
			capacity, rate = capacity%100, rate%100
		}
		b := NewBucket(period, Share{0, capacity, rate}, 0)
		e := exact{tokens: new(big.Rat), capacity: capacity, rate: rate, period: period}
		now := Time(0)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*period)).Draw(t, "gap")))
			n := rapid.Int64Range(0, 20).Draw(t, "n")
			wait, ok := settled(b, now).Wait(n)
			e.settle(now)
			took := b.Take(now, n)
			if e.whole() >= n != took {
				t.Fatalf("take %d: %v, but there are %s", n, took, e.tokens)
			}
			if took {
				e.tokens.Sub(e.tokens, new(big.Rat).SetInt64(n))
			}
			if b.Tokens() != e.whole() {
				t.Fatalf("%d tokens, exactly %s", b.Tokens(), e.tokens)
			}
			if !took && ok {
				early, due := b, b
				if due.Settle(now.Add(wait)); due.Tokens() < n {
					t.Fatalf("%d tokens after waiting %s for %d", due.Tokens(), wait, n)
				}
				if early.Settle(now.Add(wait - 1)); early.Tokens() >= n {
					t.Fatalf("%s is longer than it takes to have %d", wait, n)
				}
			}
			if !took && !ok && n <= capacity && rate > 0 {
				t.Fatalf("waiting for %d of %d is said to be vain", n, capacity)
			}
		}
	})
}

// settled is a copy of b, settled.
func settled(b Bucket, now Time) *Bucket {
	b.Settle(now)
	return &b
}

// TestSharesAreConserved cuts and adds shares among buckets in any order:
// capacity and rate are kept, and tokens come from refill alone.
func TestSharesAreConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 4
		whole := Share{Capacity: rapid.Int64Range(0, 1000).Draw(t, "capacity"), Rate: rapid.Int64Range(0, 1000).Draw(t, "rate")}
		whole.Tokens = rapid.Int64Range(0, whole.Capacity).Draw(t, "tokens")
		one := NewBucket(time.Second, whole, 0) // nobody cuts it
		buckets := [n]Bucket{NewBucket(time.Second, whole, 0)}
		for i := 1; i < n; i++ {
			buckets[i] = NewBucket(time.Second, Share{}, 0)
		}
		var now Time
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap")))
			from, to := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
			buckets[from].Settle(now)
			have := buckets[from].Share()
			part := Share{Capacity: rapid.Int64Range(0, have.Capacity).Draw(t, "cut capacity"), Rate: rapid.Int64Range(0, have.Rate).Draw(t, "cut rate")}
			part.Tokens = rapid.Int64Range(0, min(have.Tokens, part.Capacity)).Draw(t, "cut tokens")
			buckets[from].Cut(now, part)
			buckets[to].Add(now, part)
			var sum Share
			for i := range buckets {
				buckets[i].Settle(now)
				s := buckets[i].Share()
				if s.Tokens < 0 || s.Tokens > s.Capacity || s.Rate < 0 {
					t.Fatalf("bucket %d is %+v", i, s)
				}
				sum = sum.Plus(s)
			}
			one.Settle(now)
			if sum.Capacity != whole.Capacity || sum.Rate != whole.Rate {
				t.Fatalf("%+v became %+v", whole, sum)
			}
			if sum.Tokens > one.Tokens() {
				t.Fatalf("%d tokens in the shares, %d in the one bucket", sum.Tokens, one.Tokens())
			}
		}
	})
}
