package tiers

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// TestMeter walks through one key's life, in a limit per second.
func TestMeter(t *testing.T) {
	var m meter
	for _, step := range []struct {
		at        time.Duration
		offer     int64 // before the window is looked at
		rolled    bool
		now, peak int64
	}{
		{100 * time.Millisecond, 50, false, 0, 0},     // a few checks are no flood yet
		{249 * time.Millisecond, 0, false, 0, 0},      // still in the window
		{250 * time.Millisecond, 50, true, 400, 400},  // it rises at the window's end
		{500 * time.Millisecond, 200, true, 800, 800}, // and again
		{750 * time.Millisecond, 0, true, 400, 750},   // falls by halves; the peak fades by a sixteenth
		{1000 * time.Millisecond, 0, true, 200, 703},  // a quarter second of four, rounded up
		{1250 * time.Millisecond, 25, true, 150, 659}, // 100/s: between
		{1750 * time.Millisecond, 0, true, 38, 576},   // two windows: half of a half
		{2000 * time.Millisecond, 12, true, 41, 540},  // 48/s, of few checks: it could be chance, and is averaged
		{5749 * time.Millisecond, 0, true, 0, 33},     // a long silence: less than 4 s, the peak is all but gone
		{5999 * time.Millisecond, 3, true, 12, 30},    // 12/s
		{9999 * time.Millisecond, 0, true, 0, 0},      // 4 s and more: it is what is offered
		{10000 * time.Millisecond, 40, false, 0, 0},   // it moves only at a window's end
		{10249 * time.Millisecond, 0, true, 160, 160}, //
		{19999 * time.Millisecond, 0, true, 0, 0},     //
		{20000 * time.Millisecond, 9, false, 0, 0},    //
		{29998 * time.Millisecond, 0, true, 1, 1},     // one check in ten seconds is something
		{30248 * time.Millisecond, 0, true, 0, 0},     // nothing for longer is nothing
	} {
		now := limiter.Time(step.at)
		for range step.offer {
			m.offer(now, 1)
		}
		if rolled := m.roll(now, time.Second); rolled != step.rolled || m.now != step.now || m.peak != step.peak {
			t.Errorf("at %s: rolled %v, now %d, peak %d; want %v, %d, %d", step.at, rolled, m.now, m.peak, step.rolled, step.now, step.peak)
		}
	}
}

// TestMeterStaysInBounds: a meter rises to no more than was offered, falls to
// nothing, and its peak is never below it.
func TestMeterStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		period := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 24 * time.Hour}).Draw(t, "period")
		var m meter
		var now limiter.Time
		var highest int64
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(6*time.Second)).Draw(t, "gap")))
			m.offer(now, drawAmount(t, "hits"))
			elapsed, offered, before := now.Sub(m.since), m.offered, m.now
			if !m.roll(now, period) {
				if m.now != before {
					t.Fatalf("it moved in a window")
				}
				continue
			}
			rate := scaleUp(offered, int64(period), int64(elapsed))
			highest = max(highest, rate)
			if m.now < min(before, rate-1) || m.now > max(before, rate) || m.peak < m.now || m.peak > highest || m.peak > limiter.MaxTokens {
				t.Fatalf("now %d, peak %d after %d, offered %d, at most %d", m.now, m.peak, before, rate, highest)
			}
			expected := scaleUp(before, int64(elapsed), int64(period))
			if unlikely := compareProducts(offered-expected, offered-expected, expected, 9*offered) > 0; unlikely && offered > expected && m.now != rate && m.now != rate-1 {
				t.Fatalf("it rose to %d, not to %d", m.now, rate)
			}
		}
		for range 64 {
			now = now.Add(time.Second)
			m.roll(now, period)
		}
		if m.now != 0 {
			t.Fatalf("%d are offered by nobody", m.now)
		}
	})
}

// TestMeterOfFewChecks: what a few checks a window come to is the mean, not
// the most of any window; and a change that chance does not explain is seen
// within two windows.
func TestMeterOfFewChecks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var m meter
	var now limiter.Time
	run := func(perSecond float64, d time.Duration, each func()) {
		for end := now.Add(d); now < end; {
			now = now.Add(time.Duration(rng.ExpFloat64() / perSecond * float64(time.Second)))
			m.offer(now, 1)
			if m.roll(now, time.Second) {
				each()
			}
		}
	}
	var sum, n int64
	run(8, 100*time.Second, func() { sum, n = sum+m.now, n+1 })
	if mean := float64(sum) / float64(n); mean < 7 || mean > 9.5 {
		t.Errorf("8 checks a second count as %.1f", mean)
	}
	run(200, 500*time.Millisecond, func() {})
	if m.now < 150 {
		t.Errorf("a crowd of 200 a second counts as %d after half a second", m.now)
	}
	run(8, 2*time.Second, func() {})
	if m.now > 20 {
		t.Errorf("a crowd that left counts as %d after two seconds", m.now)
	}
}

func TestDemandsOfOthersAreBounded(t *testing.T) {
	for _, test := range []struct{ said, taken Demand }{
		{Demand{Now: 1, Peak: 2, Ask: 3, Single: 2}, Demand{Now: 1, Peak: 2, Ask: 3, Single: 2}},
		{Demand{Now: 1, Peak: 2, Ask: 3, Single: 4}, Demand{Now: 1, Peak: 2, Ask: 3, Single: 3}},
		{Demand{Now: -1, Peak: -1 << 63, Ask: -1, Until: -1, Weight: -1}, Demand{}},
		{Demand{Now: 1<<63 - 1, Peak: limiter.MaxTokens + 1, Ask: limiter.MaxTokens}, Demand{Now: limiter.MaxTokens, Peak: limiter.MaxTokens, Ask: limiter.MaxTokens}},
	} {
		d := test.said.sane()
		if d != test.taken {
			t.Errorf("%+v is taken as %+v", test.said, d)
		}
		if sum := d.plus(Demand{Now: limiter.MaxTokens, Peak: limiter.MaxTokens, Ask: limiter.MaxTokens, Single: limiter.MaxTokens}); sum != (Demand{Now: limiter.MaxTokens, Peak: limiter.MaxTokens, Ask: limiter.MaxTokens, Single: limiter.MaxTokens}) {
			t.Errorf("the sum is %+v", sum)
		}
	}
}

func TestSmallMovesOfDemandAreNotTold(t *testing.T) {
	for _, test := range []struct {
		told, now int64
		moved     bool
	}{
		{0, 0, false},
		{0, 1, true},
		{100, 112, false},
		{100, 113, true},
		{100, 75, false},
		{100, 74, true},
		{1, 0, true},
		{limiter.MaxTokens, 0, true},
		{0, limiter.MaxTokens, true},
	} {
		if got := moved(test.told, test.now); got != test.moved {
			t.Errorf("from %d to %d: %v", test.told, test.now, got)
		}
	}
}
