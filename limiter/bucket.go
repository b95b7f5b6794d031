package limiter

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// Time is a reading of a monotonic clock, in nanoseconds since any fixed
// instant. Only readings of one clock can be compared.
type Time int64

// Never is later than every reading.
const Never = Time(math.MaxInt64)

// Add returns the instant d after t; it saturates at Never.
func (t Time) Add(d time.Duration) Time {
	sum := t + Time(d)
	if d > 0 && sum < t {
		return Never
	}
	return sum
}

// Sub returns the time from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// MaxTokens is the largest capacity and the largest count of a rate. It is
// the largest integer that JSON numbers carry exactly in every reader.
const MaxTokens = 1<<53 - 1

// A Share is a part of a bucket, or a running total of such parts: what a
// parent cuts off, lends and takes back. All three are whole numbers, so
// that what is lent plus what is kept is exactly what was there.
type Share struct {
	Tokens   int64 // tokens in it now
	Capacity int64 // the most tokens that it can hold
	Rate     int64 // tokens that it gains in each period of its limit
}

// Plus returns the sum of two shares.
func (s Share) Plus(o Share) Share {
	return Share{s.Tokens + o.Tokens, s.Capacity + o.Capacity, s.Rate + o.Rate}
}

// Minus returns what is left of s without o.
func (s Share) Minus(o Share) Share {
	return Share{s.Tokens - o.Tokens, s.Capacity - o.Capacity, s.Rate - o.Rate}
}

// Max returns the larger of the two in each part.
func (s Share) Max(o Share) Share {
	return Share{max(s.Tokens, o.Tokens), max(s.Capacity, o.Capacity), max(s.Rate, o.Rate)}
}

// Min returns the smaller of the two in each part.
func (s Share) Min(o Share) Share {
	return Share{min(s.Tokens, o.Tokens), min(s.Capacity, o.Capacity), min(s.Rate, o.Rate)}
}

// IsZero says that there is nothing in s.
func (s Share) IsZero() bool { return s == Share{} }

// Covers says that s is at least o in each part.
func (s Share) Covers(o Share) bool {
	return s.Tokens >= o.Tokens && s.Capacity >= o.Capacity && s.Rate >= o.Rate
}

// A Bucket is a token bucket: it gains rate tokens in each period, evenly,
// and never holds more than its capacity. The zero Bucket is empty and stays
// so.
//
// Tokens are kept as whole ones and a fraction in units of 1/period
// nanoseconds, so that rate·elapsed is added exactly: the product of any
// rate up to MaxTokens per period and any gap up to 2⁶³ ns is taken in 128
// bits, and what does not fit the capacity is dropped.
type Bucket struct {
	capacity int64
	rate     int64  // tokens per period
	tokens   int64  // whole tokens, 0 ≤ tokens ≤ capacity
	fraction uint64 // of one more token, in 1/period; 0 where tokens == capacity
	period   uint64 // nanoseconds, > 0 where rate > 0
	at       Time   // when tokens was right
}

// NewBucket returns a bucket that is s at now. The rate of s is per period.
func NewBucket(period time.Duration, s Share, now Time) Bucket {
	if period <= 0 || s.Tokens < 0 || s.Rate < 0 || s.Tokens > s.Capacity {
		panic(fmt.Sprintf("limiter: %+v each %s is no bucket", s, period))
	}
	return Bucket{capacity: s.Capacity, rate: s.Rate, tokens: s.Tokens, period: uint64(period), at: now}
}

// Settle adds what the bucket gained until now. A reading earlier than the
// last one adds nothing and does not set the bucket back.
func (b *Bucket) Settle(now Time) {
	if now <= b.at {
		return
	}
	elapsed := uint64(now - b.at) // now > at, so the difference fits uint64 whatever their signs
	b.at = now
	if b.tokens >= b.capacity || b.rate == 0 {
		return
	}
	high, low := bits.Mul64(uint64(b.rate), elapsed)
	low, carry := bits.Add64(low, b.fraction, 0)
	high += carry // high ≤ 2⁶³ before: no overflow
	var gained uint64
	switch {
	case high == 0:
		gained = low / b.period
		b.fraction = low - gained*b.period
	case high < b.period:
		gained, b.fraction = bits.Div64(high, low, b.period)
	default: // 2⁶⁴ tokens and more
		gained = math.MaxUint64
	}
	if gained >= uint64(b.capacity-b.tokens) {
		b.tokens, b.fraction = b.capacity, 0
		return
	}
	b.tokens += int64(gained)
}

// Take settles the bucket and takes n tokens if there are as many.
func (b *Bucket) Take(now Time, n int64) bool {
	b.Settle(now)
	if n > b.tokens {
		return false
	}
	b.tokens -= n
	return true
}

// Spend takes n tokens of a bucket that was settled and holds as many.
func (b *Bucket) Spend(n int64) {
	if n > b.tokens {
		panic(fmt.Sprintf("limiter: cannot spend %d of %d tokens", n, b.tokens))
	}
	b.tokens -= n
}

// Share returns what the bucket is, as of when it was last settled.
func (b *Bucket) Share() Share { return Share{b.tokens, b.capacity, b.rate} }

// Tokens returns the whole tokens in it, as of when it was last settled.
func (b *Bucket) Tokens() int64 { return b.tokens }

// Capacity returns the most tokens that it can hold.
func (b *Bucket) Capacity() int64 { return b.capacity }

// Add settles the bucket and adds s to it. Tokens beyond the capacity are
// lost.
func (b *Bucket) Add(now Time, s Share) {
	b.Settle(now)
	b.capacity += s.Capacity
	b.rate += s.Rate
	b.tokens += s.Tokens
	b.trim()
}

// Cut settles the bucket and takes s off it. Cutting more than it holds
// would make tokens out of nothing: it panics. Tokens that the rest cannot
// hold are lost.
func (b *Bucket) Cut(now Time, s Share) {
	b.Settle(now)
	if !b.Share().Covers(s) || s.Tokens < 0 || s.Capacity < 0 || s.Rate < 0 {
		panic(fmt.Sprintf("limiter: cannot cut %+v off %+v", s, b.Share()))
	}
	b.capacity -= s.Capacity
	b.rate -= s.Rate
	b.tokens -= s.Tokens
	b.trim()
}

func (b *Bucket) trim() {
	if b.tokens >= b.capacity {
		b.tokens, b.fraction = b.capacity, 0
	}
}

// Until returns when n tokens will be there, if nobody takes any, which may be
// past: no later than the last settling if they are there. Ok is false if they
// never will be.
func (b *Bucket) Until(n int64) (at Time, ok bool) {
	wait, ok := b.Wait(n)
	return b.at.Add(wait), ok
}

// Wait returns how long after the last settling n tokens will be there, if
// nobody takes any: 0 if they are there, and ok is false if they never will
// be.
func (b *Bucket) Wait(n int64) (wait time.Duration, ok bool) {
	if n <= b.tokens {
		return 0, true
	}
	if n > b.capacity || b.rate == 0 {
		return 0, false
	}
	// (n−tokens)·period − fraction parts are missing; rate parts come each nanosecond.
	high, low := bits.Mul64(uint64(n-b.tokens), b.period)
	low, borrow := bits.Sub64(low, b.fraction, 0)
	high -= borrow
	low, carry := bits.Add64(low, uint64(b.rate-1), 0) // round up
	high += carry
	if high >= uint64(b.rate) {
		return math.MaxInt64, true
	}
	nanos, _ := bits.Div64(high, low, uint64(b.rate))
	return time.Duration(min(nanos, math.MaxInt64)), true
}
