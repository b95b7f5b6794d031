package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// Faults says how often things go wrong, as probabilities in a message or a
// commit, and how fast things are.
type Faults struct {
	Loss, Duplicate float64
	Late            float64       // a message takes up to lateBy: later ones overtake it
	Delay           time.Duration // the most that a message takes; at least a tenth of it
	Sync            time.Duration // the most that a commit takes
	Drift           int64         // clocks run wrong by up to this many parts in a million
	Torn            bool          // a crash may leave the first of the commits that wait on the disk
	Rebase          bool          // each process's clock begins anywhere
}

// lateBy is the most that a message takes that is held up on its way.
const lateBy = 8 * time.Second

// A World runs places until told to stop.
type World struct {
	Faults    Faults
	Rules     *limiter.Rules
	Lease     time.Duration                    // in place of the rules'; 0: theirs
	longest   time.Duration                    // that the rules may say, where Lease is 0
	FoldAfter time.Duration                    // 0: as the rules say
	Trace     func(format string, args ...any) // may be nil

	rng       *rand.Rand
	now       limiter.Time // true time
	queue     queue
	serial    uint64
	nodes     map[tiers.Place]*Node // the first node of each place
	order     []*Node
	steps     uint64
	most      uint64 // steps; 0: as many as it takes
	still     int    // events since stillFrom
	woke      *Node  // the last that did
	stillFrom limiter.Time
	laws      *laws // may be nil
	hurt      [numFaults]uint64
	ended     bool // the laws were broken, or most is reached: no more events

	restart func(*Node) // what becomes of a node whose fuse burned out
}

// longestLease is the longest that any place may follow.
func (w *World) longestLease() time.Duration { return max(w.Lease, w.longest) }

// NewWorld returns an empty world.
func NewWorld(seed uint64, rules *limiter.Rules, f Faults) *World {
	return &World{
		Faults: f, Rules: rules, Lease: tiers.DefaultLease, rng: rand.New(rand.NewPCG(seed, 0)),
		now: limiter.Time(time.Hour), nodes: map[tiers.Place]*Node{},
	}
}

// Add makes a place and starts it.
func (w *World) Add(p tiers.Place, leaf bool) *Node {
	n := w.place(p, leaf)
	n.Start()
	return n
}

// place makes a place that does not run yet.
func (w *World) place(p tiers.Place, leaf bool) *Node {
	n := w.newNode(p, leaf)
	w.nodes[p] = n
	n.parent = w.nodes[p.Parent()]
	return n
}

func (w *World) newNode(p tiers.Place, leaf bool) *Node {
	n := &Node{Place: p, Leaf: leaf, world: w, drift: w.rng.Int64N(2*w.Faults.Drift+1) - w.Faults.Drift}
	n.disk = disk{node: n, durable: map[tiers.Key]tiers.Record{}}
	w.order = append(w.order, n)
	if w.laws != nil {
		w.laws.add(n)
	}
	return n
}

// Twin starts a second process of a node's place, on a copy of its disk.
func (w *World) Twin(n *Node) *Node {
	twin := w.newNode(n.Place, n.Leaf)
	twin.parent = n.parent
	twin.disk.durable = n.disk.copied()
	n.twins = append(n.twins, twin)
	if w.laws != nil {
		w.laws.reopened(twin)
		w.laws.ownsTwice(n.site)
		w.laws.path(pathTwin)
	}
	twin.Start()
	return twin
}

// Node returns a place's machine.
func (w *World) Node(p tiers.Place) *Node { return w.nodes[p] }

// Now is the true time.
func (w *World) Now() limiter.Time { return w.now }

// Steps is how many events there were.
func (w *World) Steps() uint64 { return w.steps }

// Run lets the world go on for d.
func (w *World) Run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && w.queue[0].at <= end && !w.ended {
		e := w.queue.pop()
		w.now = e.at
		w.steps++
		w.goesOn()
		e.do()
		if w.laws != nil {
			w.laws.step()
			w.ended = w.laws.err != nil
		}
		w.ended = w.ended || w.steps == w.most
	}
	if !w.ended {
		w.now = end
	}
}

// goesOn fails a world whose time stands still, or nearly.
func (w *World) goesOn() {
	const moment, most = time.Millisecond, 100_000
	switch w.still++; {
	case w.now >= w.stillFrom.Add(moment):
		w.still, w.stillFrom = 0, w.now
	case w.still <= most:
	case w.laws != nil:
		w.laws.broken("time goes on", w.woke, "more than %d events within %s: it wakes again and again", most, moment)
	default:
		panic(fmt.Sprintf("sim: time stands still: %s wakes again and again", w.woke.Place))
	}
}

// RunUntil lets the world go on until done says so, for at most d.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	for end := w.now.Add(d); w.now < end && !w.ended; {
		if done() {
			return true
		}
		w.Run(10 * time.Millisecond)
	}
	return done()
}

// After does something later.
func (w *World) After(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *World) at(t limiter.Time, do func()) {
	w.serial++
	w.queue.push(event{t, w.serial, do})
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between is a time from max/10 to max.
func (w *World) between(longest time.Duration) time.Duration {
	return longest/10 + time.Duration(w.rng.Int64N(int64(longest)*9/10+1))
}

// say writes a line of the trace.
func (w *World) say(n *Node, format string, args ...any) {
	if w.Trace == nil {
		return
	}
	where := "world"
	if n != nil {
		where = string(n.Place)
	}
	w.Trace("%8d %11s %-12s %s", w.steps, time.Duration(w.now-limiter.Time(time.Hour)).Round(time.Microsecond), where, fmt.Sprintf(format, args...))
}

// An event is something that happens at an instant; of one instant, in the
// order in which they were asked for.
type event struct {
	at     limiter.Time
	serial uint64
	do     func()
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.serial < o.serial
}

// queue is a heap of events, four children to a node: half as deep as one of
// two, and nothing is boxed as container/heap would.
type queue []event

func (q *queue) push(e event) {
	h := append(*q, e)
	*q = h
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

func (q *queue) pop() event {
	h := *q
	first := h[0]
	e := h[len(h)-1]
	h[len(h)-1] = event{}
	h = h[:len(h)-1]
	*q = h
	if len(h) == 0 {
		return first
	}
	i := 0
	for {
		least := i*4 + 1
		if least >= len(h) {
			break
		}
		for c := least + 1; c < min(i*4+5, len(h)); c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if !h[least].before(&e) {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = e
	return first
}
