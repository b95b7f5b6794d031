package tiers

import (
	"math/bits"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

const (
	// demandWindow is how long offered tokens are gathered before they count
	// as a rate: long enough that a few checks are no flood, short enough
	// that a flood is seen before its senders give up.
	demandWindow = 250 * time.Millisecond
	// demandSpan is what windows are averaged over that differ by chance only.
	demandSpan = 2 * time.Second
	// peakFade is how long a peak takes to fade, by about two thirds.
	peakFade = 4 * time.Second
	// idleAfter is how long a share that nobody asks for is kept.
	idleAfter = 10 * time.Second
)

// plus sums the demands of two children.
func (d Demand) plus(o Demand) Demand {
	return Demand{saturate(d.Now, o.Now), saturate(d.Peak, o.Peak), saturate(d.Ask, o.Ask), max(d.Single, o.Single), max(d.Until, o.Until), saturate(d.Weight, o.Weight)}
}

func saturate(a, b int64) int64 { return min(a+b, limiter.MaxTokens) } // both ≤ MaxTokens: no overflow

// sane bounds what another place says.
func (d Demand) sane() Demand {
	bound := func(n int64) int64 { return max(0, min(n, limiter.MaxTokens)) }
	return Demand{bound(d.Now), bound(d.Peak), bound(d.Ask), min(bound(d.Single), bound(d.Ask)), max(0, min(d.Until, time.Hour)), bound(d.Weight)}
}

// none says that nothing is asked for.
func (d Demand) none() bool { return d == Demand{} }

// without is the demand when the checks that ask wait no longer.
func (d Demand) without() Demand {
	if d.Ask, d.Single, d.Until = 0, 0, 0; d.Now == 0 && d.Peak == 0 {
		return Demand{}
	}
	return d
}

// A meter estimates what is offered at a leaf. A window that differs from
// what was thought by more than chance explains is believed: the estimate
// rises to it at once, and falls half of the way. Others are averaged: of a
// few checks in a window, the most would always be too much.
type meter struct {
	since   limiter.Time // the window's begin
	offered int64        // in this window
	checks  int64        // in this window
	size    int64        // tokens of a check, about
	from    limiter.Time // the begin of what is averaged
	parts   int64        // the average, in parts of a token per period
	now     int64        // the same, in whole ones
	peak    int64
	last    limiter.Time // when something was last offered
}

// offer counts what one check asked for.
func (m *meter) offer(now limiter.Time, hits int64) {
	m.offered = saturate(m.offered, hits)
	m.checks++
	m.last = now
}

// roll ends a window that is over. It says whether it did.
func (m *meter) roll(now limiter.Time, period time.Duration) bool {
	elapsed := now.Sub(m.since)
	if elapsed < demandWindow {
		return false
	}
	switch parts := partsOf(m.offered, period, elapsed); {
	case elapsed >= demandSpan || !m.chance(scaleUp(m.now, int64(elapsed), int64(period))):
		if m.from = m.since; parts < m.parts { // half of the way down, for each window that passed
			parts += (m.parts - parts) >> min(elapsed/demandWindow, 63)
		}
		m.parts = parts
	default:
		span := int64(min(demandSpan, now.Sub(m.from)))
		if parts >= m.parts {
			m.parts += scaleDown(parts-m.parts, int64(elapsed), span)
		} else {
			m.parts -= scaleDown(m.parts-parts, int64(elapsed), span)
		}
	}
	m.now = (m.parts + part/2) / part // to the nearest: of many small demands, each rounded up, the sum is too much
	if m.parts > 0 {
		m.now = max(m.now, 1)
	}
	if elapsed >= peakFade {
		m.peak = 0
	} else {
		m.peak -= scaleUp(m.peak, int64(elapsed), int64(peakFade))
	}
	m.peak = max(m.peak, m.now, 0)
	if now.Sub(m.last) >= idleAfter {
		m.parts, m.now, m.peak = 0, 0, 0 // what is given back must not be asked for
	}
	m.since, m.offered, m.checks = now, 0, 0
	return true
}

// part is how finely a meter knows a demand, of a token.
const part = 256

// partsOf is what n tokens in so long are per period, in parts; at most
// MaxTokens.
func partsOf(n int64, period, elapsed time.Duration) int64 {
	high, low := bits.Mul64(uint64(n)*part, uint64(period)) // n < 2⁵³
	if high >= uint64(elapsed) {
		return limiter.MaxTokens * part
	}
	q, _ := bits.Div64(high, low, uint64(elapsed))
	return int64(min(q, limiter.MaxTokens*part))
}

// chance says that a window may have what it has where so much is expected:
// it is within three standard deviations, were the checks independent.
func (m *meter) chance(expected int64) bool {
	if m.checks > 0 {
		m.size = max(1, m.offered/m.checks)
	}
	off := max(m.offered-expected, expected-m.offered)
	return compareProducts(off, off, expected, 9*max(1, m.size)) <= 0
}

// scaleUp returns a·b/c, rounded up, at most MaxTokens; all are ≥ 0, c > 0.
func scaleUp(a, b, c int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	low, carry := bits.Add64(low, uint64(c-1), 0)
	high += carry
	if high >= uint64(c) {
		return limiter.MaxTokens
	}
	q, _ := bits.Div64(high, low, uint64(c))
	return int64(min(q, limiter.MaxTokens))
}

// scaleDown returns a·b/c, rounded down; all are ≥ 0, c > 0, and the result
// must fit.
func scaleDown(a, b, c int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(high, low, uint64(c))
	return int64(q)
}
