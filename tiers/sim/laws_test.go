package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// regressions are seeds that found a bug once.
var regressions = []struct {
	seed   uint64
	faults string
	found  string
}{}

// gaps are seeds that break a law in a way that is known and not repaired
// yet. TestLaws fails when one no longer does, so that it leaves this list.
var gaps = map[uint64]string{}

// TestLaws runs worlds drawn from the first seeds, with every fault.
// TRIBUTARY_SIM_SEEDS says how many instead, or which: "1000", "7-7".
func TestLaws(t *testing.T) {
	for _, r := range regressions {
		faults, err := ParseFaults(r.faults)
		if err != nil {
			t.Fatal(err)
		}
		if result := Run(Options{Seed: r.seed, Faults: faults}); result.Err != nil {
			t.Errorf("seed %d, which found %s before: %v", r.seed, r.found, result.Err)
		}
	}
	first, last := uint64(1), uint64(20)
	if testing.Short() {
		last = 5
	}
	if text := os.Getenv("TRIBUTARY_SIM_SEEDS"); text != "" {
		first, last = parseSeeds(t, text)
	}
	var all Summary
	started := time.Now()
	for seed := first; seed <= last; seed++ {
		result := Run(Options{Seed: seed, Faults: AllFaults})
		all.Add(&result)
		if gap, known := gaps[seed]; known {
			if result.Err == nil || law(result.Err) != gap {
				t.Errorf("seed %d no longer breaks %q (%v): take it off the gaps", seed, gap, result.Err)
			}
			continue
		}
		if result.Err != nil {
			var b strings.Builder
			Shrink(Options{Seed: seed, Faults: AllFaults}, &b)
			t.Errorf("seed %d: %v\n%s", seed, result.Err, b.String())
			if os.Getenv("TRIBUTARY_SIM_GO_ON") == "" {
				break
			}
		}
	}
	t.Logf("%s\n%.0f steps a second", &all, float64(all.Steps)/time.Since(started).Seconds())
}

func parseSeeds(t *testing.T, text string) (first, last uint64) {
	t.Helper()
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		from, to = "1", text
	}
	var err, err2 error
	first, err = strconv.ParseUint(from, 10, 64)
	last, err2 = strconv.ParseUint(to, 10, 64)
	if err != nil || err2 != nil {
		t.Fatalf("TRIBUTARY_SIM_SEEDS=%s is no number of seeds, nor a range such as 5-9", text)
	}
	return first, last
}

// A world is the same each time.
func TestSeedsDecideAll(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		var a, b tail
		a.lines, b.lines = 1000, 1000
		x := Run(Options{Seed: seed, Faults: AllFaults, For: 2 * time.Second, Trace: &a})
		y := Run(Options{Seed: seed, Faults: AllFaults, For: 2 * time.Second, Trace: &b})
		if x.Steps != y.Steps || a.String() != b.String() {
			t.Errorf("seed %d: %d steps, then %d", seed, x.Steps, y.Steps)
		}
	}
}
