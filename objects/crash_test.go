package objects

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// crashRegressions are seeds that found something once.
var crashRegressions = []uint64{}

// TestCrashSeeds lets small stores live and crash, each as its seed says (crash_world_test.go), and compares what is
// there afterwards with what may be (crash_history_test.go). TRIBUTARY_OBJECTS_SEEDS=1-100000, or one seed, runs others
// than the first ones; a failure prints its seed, by which it comes again nearly always: time is simulated, so who goes
// first is left to the machine only where several go at the same nanosecond.
func TestCrashSeeds(t *testing.T) {
	first, last := seedRange(t, "TRIBUTARY_OBJECTS_SEEDS", 5000, 500, 100)
	for _, seed := range crashRegressions {
		runSeed(t, seed)
	}
	var next atomic.Uint64
	next.Store(first - 1)
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for seed := next.Add(1); seed <= last && !t.Failed(); seed = next.Add(1) {
				runSeed(t, seed)
			}
		})
	}
}

// runSeed reports a broken promise with a first line that the mutants' test reads.
func runSeed(t *testing.T, seed uint64) {
	t.Helper()
	w := newWorld(seed)
	if w.rough {
		w.run() // in real time: a Pebble that breaks down leaves goroutines behind
	} else {
		synctest.Test(t, func(*testing.T) { w.run() })
	}
	if v := w.broken; v != nil {
		t.Errorf("seed %d: %s: %s\n%s", seed, v.promise, v.text, w.story())
	}
}

// seedRange returns which seeds to run: those of the environment, or the first so many in CI, at a desk, or in a hurry.
func seedRange(t *testing.T, variable string, ci, desk, hurry uint64) (first, last uint64) {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		switch {
		case testing.Short():
			return 1, hurry
		case os.Getenv("CI") != "":
			return 1, ci
		}
		return 1, desk
	}
	a, b, ranged := strings.Cut(text, "-")
	if !ranged {
		b = a
	}
	first, err := strconv.ParseUint(a, 10, 64)
	if err == nil {
		last, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil || first == 0 || last < first {
		t.Fatalf("%s=%q is no range of seeds, such as 1-100000", variable, text)
	}
	return first, last
}
