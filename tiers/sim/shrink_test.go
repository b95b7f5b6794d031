package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A law that only a crash breaks is found to need nothing but crashes, and
// little time.
func TestShrinkFindsTheSmallestWorld(t *testing.T) {
	crashed := Options{Seed: 28, For: 4 * time.Second, Faults: 1<<Loss | 1<<Crash | 1<<Stop, also: func(w *World) string {
		if w.hurt[Crash] > 0 {
			return fmt.Sprintf("%s: somebody crashed", w.laws.targets[0].name)
		}
		return ""
	}}
	for Run(crashed).Err == nil { // a world that has crashes
		crashed.Seed++
	}
	first := Run(crashed)
	var b strings.Builder
	small := Shrink(crashed, &b)
	if small.Faults != 1<<Crash {
		t.Errorf("faults are %s", small.Faults)
	}
	if r := Run(small); r.Err == nil || small.For > crashed.For || r.Simulated > small.For {
		t.Errorf("it fails after %s of %s active, before after %s: %v", r.Simulated, small.For, first.Simulated, r.Err)
	}
	for _, want := range []string{
		fmt.Sprintf("seed %d fails: a test's law", crashed.Seed), fmt.Sprintf("again: tributary sim --seed %d --faults crash", crashed.Seed),
		"What happened to votes/k0", "Its last steps", "BREACH of a test's law",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &b)
		}
	}
}

func TestShrinkOfAWorldThatKeepsTheLaws(t *testing.T) {
	var b strings.Builder
	Shrink(Options{Seed: 1, For: time.Second}, &b)
	if want := "seed 1 does not fail\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestLongLinesAreNarrowed(t *testing.T) {
	line := strings.Repeat("a", 300) + "key" + strings.Repeat("b", 300)
	if got, want := narrow(line, 300), strings.Repeat("a", 70)+" … key"+strings.Repeat("b", 167)+" …\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
