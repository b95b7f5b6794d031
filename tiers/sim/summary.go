package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Summary adds up what many worlds did.
type Summary struct {
	Seeds, Steps, Checks, Decided, Admitted, Votes uint64
	Simulated                                      float64 // seconds
	Places                                         uint64
	Injected                                       [numFaults]uint64
	Excepted                                       [numExceptions]uint64
	Paths                                          map[string]uint64
}

// Add takes a world in.
func (s *Summary) Add(r *Result) {
	s.Seeds++
	s.Steps += r.Steps
	s.Checks += r.Checks
	s.Decided += r.Decided
	s.Admitted += r.Admitted
	s.Votes += r.Votes
	s.Simulated += r.Simulated.Seconds()
	s.Places += uint64(r.Places)
	for i, n := range r.Injected {
		s.Injected[i] += n
	}
	for i, n := range r.Excepted {
		s.Excepted[i] += n
	}
	if s.Paths == nil {
		s.Paths = map[string]uint64{}
	}
	for path, n := range r.Paths {
		s.Paths[path] += n
	}
}

// Missing names the faults of a set that were never injected, and the paths
// that were never taken.
func (s *Summary) Missing(set FaultSet) (missing []string) {
	for f := range numFaults {
		if set.Has(f) && s.Injected[f] == 0 {
			missing = append(missing, "fault "+f.String())
		}
	}
	for _, path := range Paths() {
		if s.Paths[path] == 0 {
			missing = append(missing, "path "+path)
		}
	}
	return missing
}

// String is the summary for people: what was done, and how often each fault,
// exception and path was met.
func (s *Summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d worlds of %d places, %d steps, %.0f s simulated; %d votes, %d checks decided, %d admitted; the laws were looked at %d times\n",
		s.Seeds, s.Places, s.Steps, s.Simulated, s.Votes, s.Decided, s.Admitted, s.Checks)
	table(&b, "faults injected", faultNames[:], s.FaultCounts())
	table(&b, "exceptions met", exceptionNames[:], s.ExceptionCounts())
	names := Paths()
	for _, path := range slices.Sorted(maps.Keys(s.Paths)) {
		if !slices.Contains(names, path) {
			names = append(names, path)
		}
	}
	table(&b, "recovery paths taken", names, s.Paths)
	return strings.TrimSuffix(b.String(), "\n")
}

// table writes counts by name, three to a line.
func table(b *strings.Builder, title string, names []string, counts map[string]uint64) {
	const columns = 3
	fmt.Fprintf(b, "\n%s\n", title)
	rows := (len(names) + columns - 1) / columns
	for row := range rows {
		var line strings.Builder
		for at := row; at < len(names); at += rows {
			fmt.Fprintf(&line, "  %-39s %8d", names[at], counts[names[at]])
		}
		b.WriteString(line.String() + "\n")
	}
}

// FaultCounts are how often each fault was injected, by name.
func (s *Summary) FaultCounts() map[string]uint64 {
	m := make(map[string]uint64, numFaults)
	for f := range numFaults {
		m[f.String()] = s.Injected[f]
	}
	return m
}

// ExceptionCounts are how often each exception was met, by name.
func (s *Summary) ExceptionCounts() map[string]uint64 {
	m := make(map[string]uint64, numExceptions)
	for e := range numExceptions {
		m[e.String()] = s.Excepted[e]
	}
	return m
}
