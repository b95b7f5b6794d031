package sim

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// Options say which world to run.
type Options struct {
	Seed   uint64
	For    time.Duration // that faults and clients go on, simulated; 0: as the seed draws
	Steps  uint64        // the run ends after as many, without its last checks; 0: it does not
	Faults FaultSet
	Trace  io.Writer // a line for each thing that happens; may be nil

	also func(*World) string // one more law, of a test
}

// Result is what became of a world.
type Result struct {
	Seed      uint64
	Steps     uint64
	Simulated time.Duration
	Places    int
	Depth     int
	Checks    uint64 // laws looked at
	Decided   uint64 // checks decided
	Admitted  uint64 // of them
	Votes     uint64 // counted
	Injected  [numFaults]uint64
	Excepted  [numExceptions]uint64
	Paths     map[string]uint64
	Err       error // a *ViolationError, or a panic of the core as one
}

// Run runs the world of a seed to its end, or to the first breach of a law.
func Run(o Options) (r Result) {
	var s *scenario
	defer func() {
		problem := recover()
		if s != nil {
			r = s.result(o)
		}
		r.Seed = o.Seed
		if problem != nil {
			r.Err = &ViolationError{Law: "panic", Step: r.Steps, Place: "the core", Text: fmt.Sprintf("%v\n%s", problem, ours(debug.Stack()))}
		}
	}()
	s = newScenario(o)
	s.laws.also = o.also
	w := s.world
	w.most = o.Steps
	if o.Trace != nil {
		w.Trace = func(format string, args ...any) { _, _ = fmt.Fprintf(o.Trace, format+"\n", args...) }
	}
	s.play()
	return r
}

// ours are the lines of a stack that name this module.
func ours(stack []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(stack)) {
		if strings.Contains(line, "/tributary/") && strings.Contains(line, ".go:") && b.Len() < 1500 {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *scenario) result(o Options) Result {
	w, l := s.world, s.laws
	r := Result{
		Seed: o.Seed, Steps: w.steps, Simulated: w.now.Sub(limiter.Time(time.Hour)), Places: len(l.all), Depth: s.deepest,
		Checks: l.checks, Decided: l.decided, Admitted: l.admitted, Injected: w.hurt, Excepted: l.excepted, Paths: l.paths, Err: l.err,
	}
	for _, t := range s.counted {
		for _, site := range l.all[:min(1, len(l.all))] {
			r.Votes += site.counts[t.index].truth.Added
		}
	}
	return r
}

// play runs a world: with faults, then until it has settled, then to its end.
func (s *scenario) play() {
	w := s.world
	s.voting, s.checking = true, true
	s.chaos.begin()
	s.clients()
	w.Run(s.active)
	if w.ended {
		return
	}
	s.chaos.end()
	w.Run(s.settling())
	if w.ended {
		return
	}
	s.useful()
	s.lastVotes()
	s.exact()
	if s.laws.err != nil {
		return
	}
	s.checking = false
	w.Run(s.idling())
	s.returned()
}

// settling is how long a world may take after the faults: a report that was
// lost is sent again after 8 s at most, an owner that started is silent for
// the longest lease, and shares come down one tier after the other.
func (s *scenario) settling() time.Duration {
	settling := 9*time.Second + 2*s.world.longestLease() + time.Duration(s.deepest)*500*time.Millisecond
	if s.chaos.home != 0 { // its root is joined first, and what took that for its own
		settling += 8 * time.Second
	}
	return settling
}

// idling is how long shares that nobody asks for take to go back.
func (s *scenario) idling() time.Duration {
	var hold time.Duration // of what was lent when its line ended
	for _, o := range s.laws.oracles {
		hold = max(hold, o.limit.Hold)
	}
	if s.chaos.times > 0 {
		hold = max(hold, 6*time.Second)
	}
	return 12*time.Second + drifting(drifting(drifting(hold))) + time.Duration(1+s.deepest)*s.world.longestLease()
}

// useful is Law 3: a steady demand is met, or the limit used, to 95 %.
func (s *scenario) useful() {
	if s.steady == nil {
		return
	}
	w := s.world
	const span = 3 * time.Second
	var o *oracle
	for _, each := range s.laws.oracles {
		if each.target == s.steady {
			o = each
		}
	}
	if o == nil {
		return
	}
	offered, taken := o.offered, o.taken
	w.Run(span)
	if w.ended {
		return
	}
	offered, taken = o.offered-offered, o.taken-taken
	want := min(offered, o.limit.Rate*int64(span/time.Second)/int64(o.limit.Period/time.Second))
	s.laws.checks++
	if taken*100 < want*95 {
		s.laws.broken("demand is met", nil, "%s: %d were offered in %s, %d admitted, %d expected, at %d of %d leaves", s.steady.name, offered, span, taken, want, len(s.steadyAt), len(s.leaves))
	}
}

// lastVotes counts once more at each leaf, so that each learns what its
// other sessions counted.
func (s *scenario) lastVotes() {
	if s.laws.err != nil {
		return
	}
	s.voting = false
	for _, site := range s.laws.all {
		if n := site.live(); site.leaf && n != nil {
			for _, t := range s.counted {
				p := n.proc
				t.ask(1)
				p.add(t.name, 1, "", func(_ tiers.Total, err error) {
					switch {
					case err != nil:
						s.laws.broken("a healthy place counts", n, "%s: %v", t.name, err)
					default:
						s.laws.countedFor(n, p.session, t, 1)
					}
				})
			}
		}
	}
	s.world.Run(2*time.Second + time.Duration(s.deepest+1)*500*time.Millisecond)
}

// live is the node whose process goes on: the one that was not fenced.
func (s *site) live() *Node {
	for i := len(s.nodes) - 1; i >= 0; i-- {
		if n := s.nodes[i]; n.unfenced() {
			return n
		}
	}
	return nil
}

// unfenced says that a node's process runs, and goes on.
func (n *Node) unfenced() bool {
	if !n.Running() || n.gone {
		return false
	}
	fenced, _ := n.proc.runner.State()
	return !fenced
}

// unfenced counts the nodes whose processes go on.
func (s *site) unfenced() (count int) {
	for _, n := range s.nodes {
		if n.unfenced() {
			count++
		}
	}
	return count
}

// exact is the end of Law 1: what a leaf counted is at the leaf, and each
// parent has what its child has.
func (s *scenario) exact() {
	l := s.laws
	for _, at := range l.all {
		if both := at.unfenced(); both > 1 {
			l.broken("a place has one session in the end", nil, "%s has %d that run and were not fenced", at.place, both)
		}
		n := at.live()
		if n == nil {
			if !at.left {
				l.broken("every place runs in the end", nil, "%s does not", at.place)
			}
			continue
		}
		for _, t := range s.counted {
			c := &at.counts[t.index]
			have := n.totals[t.index]
			l.checks++
			l.keptAll(at, n, t)
			if at.parent == nil {
				if at.leaf && (!atMost(have, c.truth) || !atMost(less(c.truth, c.lost), have)) {
					l.broken("counts are exact in the end", n, "%s: has %+v, counted %+v", t.name, have, c.truth)
				}
				continue
			}
			parent := at.parent.live()
			if parent == nil {
				continue
			}
			above := recorded(parent.disk.durable[countKey(t.name, at.place)], false)
			if at.leaf && (!atMost(above, c.truth) || !atMost(less(c.truth, c.lost), above)) {
				l.broken("counts are exact in the end", parent, "%s of %s: has %+v, counted %+v, of which %+v may be lost", t.name, at.place, above, c.truth, c.lost)
			}
			// What a session of a twin, or of a disk that is lost, is heard to
			// have counted after a newer one was handed its pairs, the newer
			// does not learn.
			behind := c.ahead || at.leaf && (len(at.nodes) > 1 || n.disk.number > 0)
			if above != have && !(behind && atMost(have, above)) {
				l.broken("counts are exact in the end", parent, "%s of %s: has %+v, it has %+v (counted %+v, maybe lost %+v)", t.name, at.place, above, have, c.truth, c.lost)
			}
		}
	}
	for _, at := range l.all {
		if n := at.live(); at.leaf && n != nil {
			for _, t := range s.counted {
				if c := at.counts[t.index].session(n.session()); c.durable.Added < c.acked.Added+c.used {
					l.broken("what is admitted is counted", n, "%s: %d were admitted, %d added, %d counted", t.name, c.used, c.acked.Added, c.durable.Added)
				}
			}
		}
	}
	for _, t := range s.counted {
		if truth := l.all[0].counts[t.index].truth; !atMost(truth, t.asked) {
			l.broken("a request is counted once", nil, "%s: %+v were asked for, %+v counted", t.name, t.asked, truth)
		}
	}
}

// returned checks that nothing is left lent when nobody asks: every owner
// has its whole limit again.
func (s *scenario) returned() {
	l := s.laws
	for _, o := range l.oracles {
		if o.node != nil || l.err != nil || !o.exists {
			continue
		}
		n := o.owner.live()
		if n == nil {
			continue
		}
		e := l.inspected(n, o.target)
		if e == nil {
			continue
		}
		state := limitState(e, o.id)
		if state == nil {
			continue
		}
		for _, line := range state.Lines {
			if line.Lent.Minus(line.Returned).Capacity > 0 {
				l.broken("nothing is left lent to nobody", n, "%s %s: %+v of line %d to %s (session %016x), expires %s", o.target.name, &o.limit,
					line.Lent.Minus(line.Returned), line.Line, line.Child, line.Session, line.Expires.Sub(e.Now))
			}
		}
	}
}
