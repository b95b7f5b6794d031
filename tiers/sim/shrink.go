package sim

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxShrinkSteps bounds what looking for a smaller world may take, in steps
// of all that are tried.
const maxShrinkSteps = 30_000_000

// Shrink looks for a smaller world that fails like o: with fewer faults, then
// of a shorter time. A world ends at the step that breaks a law, so that its
// steps are the shortest prefix that fails. It writes what it found, with the
// end of its trace, to out, and returns what to run to see it again.
func Shrink(o Options, out io.Writer) Options {
	o.Trace, o.Steps = nil, 0
	first := Run(o)
	if first.Err == nil {
		_, _ = fmt.Fprintf(out, "seed %d does not fail\n", o.Seed)
		return o
	}
	best, result, left := o, first, uint64(maxShrinkSteps)
	try := func(smaller Options) bool {
		if left == 0 {
			return false
		}
		r := Run(smaller)
		left -= min(left, r.Steps)
		if r.Err != nil && law(r.Err) == law(first.Err) {
			best, result = smaller, r
			return true
		}
		return false
	}
	for again := true; again; { // what is needed with one fault may not be without it
		again = false
		for f := range numFaults {
			if best.Faults.Has(f) {
				smaller := best
				smaller.Faults = best.Faults.Without(f)
				again = try(smaller) || again
			}
		}
	}
	shorten(&best, &result, try)
	var about string
	if v := (*ViolationError)(nil); errors.As(result.Err, &v) {
		about = v.Key
	}
	last := &excerpt{about: about, all: tail{lines: 20}, key: tail{lines: 40}}
	traced := best
	traced.Trace = last
	result = Run(traced)
	_, _ = fmt.Fprintf(out, "seed %d fails: %v\nat step %d, after %s simulated, %d places, %d tiers, faults %s\n", o.Seed, result.Err, result.Steps,
		result.Simulated.Round(time.Millisecond), result.Places, result.Depth+1, best.Faults)
	_, _ = fmt.Fprintf(out, "again: tributary sim --seed %d --faults %s", o.Seed, best.Faults)
	if best.For > 0 {
		_, _ = fmt.Fprintf(out, " --active %s", best.For)
	}
	_, _ = fmt.Fprintf(out, " --trace\n%s", last)
	return best
}

// shorten looks for the shortest time with faults and clients after which the
// world fails. What fails at a step fails there however long the world was to
// go on; what fails in the end does so in a shorter world too, or it does not.
func shorten(best *Options, result *Result, try func(Options) bool) {
	at := func(d time.Duration) bool {
		smaller := *best
		smaller.For = d
		return try(smaller)
	}
	longest := min(result.Simulated, 60*time.Second)
	shortest := time.Duration(0) // it does not fail
	for d := time.Second; d < longest; d *= 2 {
		if at(d) {
			longest = d
			break
		}
		shortest = d
	}
	for best.For > 0 && longest-shortest > max(100*time.Millisecond, longest/8) {
		if middle := (shortest + longest) / 2; at(middle) {
			longest = middle
		} else {
			shortest = middle
		}
	}
}

func law(err error) string {
	if v := (*ViolationError)(nil); errors.As(err, &v) {
		return v.Law
	}
	return err.Error()
}

// An excerpt keeps of a trace its last lines, and the last about one key.
type excerpt struct {
	about    string
	all, key tail
}

func (e *excerpt) Write(b []byte) (int, error) {
	if at := strings.Index(string(b), e.about); e.about != "" && at >= 0 {
		_, _ = e.key.Write([]byte(narrow(string(b), at)))
	}
	return e.all.Write([]byte(narrow(string(b), 0)))
}

// narrow shows of a long line its head and what stands at one place in it.
func narrow(line string, at int) string {
	const head, most = 70, 240
	if line = strings.TrimSuffix(line, "\n"); len(line) > most {
		if at < head {
			line = line[:most] + " …"
		} else if rest := line[at:]; len(rest) > most-head {
			line = line[:head] + " … " + rest[:most-head] + " …"
		} else {
			line = line[:head] + " … " + rest
		}
	}
	return line + "\n"
}

func (e *excerpt) String() string {
	var b strings.Builder
	if e.about != "" {
		fmt.Fprintf(&b, "\nWhat happened to %s (step, time, place):\n%s", e.about, &e.key)
	}
	fmt.Fprintf(&b, "\nIts last steps (step, time, place):\n%s", &e.all)
	return b.String()
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
