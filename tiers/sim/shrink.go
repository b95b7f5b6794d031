package sim

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Shrink looks for a smaller world that fails like o: with fewer faults, a
// shorter time, fewer steps. It writes what it found, with the last lines of
// its trace, to out, and returns what to run to see it again.
func Shrink(o Options, out io.Writer) Options {
	o.Trace, o.Steps = nil, 0
	first := Run(o)
	if first.Err == nil {
		_, _ = fmt.Fprintf(out, "seed %d does not fail\n", o.Seed)
		return o
	}
	best, result := o, first
	try := func(smaller Options) bool {
		if r := Run(smaller); r.Err != nil && law(r.Err) == law(first.Err) {
			best, result = smaller, r
			return true
		}
		return false
	}
	for f := range numFaults {
		if best.Faults.Has(f) {
			smaller := best
			smaller.Faults = best.Faults.Without(f)
			try(smaller)
		}
	}
	// What fails at a step fails there however long the world was to go on;
	// what fails in the end does so in a shorter world too, or it does not.
	longest := min(result.Simulated, 60*time.Second)
	for shorter := time.Second; shorter < longest; shorter *= 2 {
		smaller := best
		smaller.For = shorter
		if try(smaller) {
			break
		}
	}
	last := &tail{lines: 60}
	traced := best
	traced.Trace = last
	result = Run(traced)
	_, _ = fmt.Fprintf(out, "seed %d fails: %v\n%d steps, %s simulated, %d places, %d tiers, faults %s\n", o.Seed, result.Err, result.Steps,
		result.Simulated.Round(time.Millisecond), result.Places, result.Depth+1, best.Faults)
	_, _ = fmt.Fprintf(out, "again: tributary sim --seed %d --faults %s", o.Seed, best.Faults)
	if best.For > 0 {
		_, _ = fmt.Fprintf(out, " --active %s", best.For)
	}
	_, _ = fmt.Fprintf(out, " --trace\n\nIts last steps (step, time, place):\n%s", last)
	return best
}

func law(err error) string {
	if v := (*ViolationError)(nil); errors.As(err, &v) {
		return v.Law
	}
	return err.Error()
}

// tail keeps the last lines that are written to it.
type tail struct {
	lines int
	kept  []string
}

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, string(b))
	if len(t.kept) > 2*t.lines {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-t.lines:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	return strings.Join(t.kept[max(0, len(t.kept)-t.lines):], "")
}
