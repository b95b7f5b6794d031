package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// Faults says how often things go wrong, as probabilities in a message or an
// event, and how fast things are.
type Faults struct {
	Loss, Duplicate float64
	Delay           time.Duration // the most that a message takes; at least a tenth of it
	Sync            time.Duration // the most that a commit takes
	Drift           int64         // clocks run wrong by up to this many parts in a million
}

// A World runs places until told to stop.
type World struct {
	Faults Faults
	Rules  *limiter.Rules
	Trace  func(format string, args ...any) // may be nil

	rng    *rand.Rand
	now    limiter.Time // true time
	queue  events
	serial uint64
	nodes  map[tiers.Place]*Node
	order  []*Node
	steps  uint64
	still  int // events since time last moved
}

// NewWorld returns an empty world.
func NewWorld(seed uint64, rules *limiter.Rules, f Faults) *World {
	return &World{Faults: f, Rules: rules, rng: rand.New(rand.NewPCG(seed, 0)), now: limiter.Time(time.Hour), nodes: map[tiers.Place]*Node{}}
}

// A Node is one place's machine: its disk outlives its processes.
type Node struct {
	Place tiers.Place
	Leaf  bool
	Cut   bool // its link to the parent is down

	world  *World
	disk   disk
	runner *place.Runner // nil: no process runs
	life   int           // which process
	drift  int64
	wake   uint64 // serial of the last wake-up asked for
	broken error
	events []tiers.Event
}

// Add makes a place and starts it.
func (w *World) Add(p tiers.Place, leaf bool) *Node {
	n := &Node{Place: p, Leaf: leaf, world: w, drift: w.rng.Int64N(2*w.Faults.Drift+1) - w.Faults.Drift}
	n.disk.world, n.disk.durable = w, map[tiers.Key]tiers.Record{}
	w.nodes[p] = n
	w.order = append(w.order, n)
	n.Start()
	return n
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
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		if w.still++; e.at > w.now {
			w.now, w.still = e.at, 0
		} else if w.still > 100_000 {
			panic("sim: time stands still: some place wakes again and again")
		}
		w.steps++
		e.do()
	}
	w.now = end
}

// RunUntil lets the world go on until done says so, for at most d.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	for end := w.now.Add(d); w.now < end; {
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
	heap.Push(&w.queue, event{t, w.serial, do})
}

// chance is true with probability p.
func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between is a time from max/10 to max.
func (w *World) between(longest time.Duration) time.Duration {
	return longest/10 + time.Duration(w.rng.Int64N(int64(longest)*9/10+1))
}

// clock is what a node's clock shows. It runs wrong by drift, from the
// world's beginning on.
func (n *Node) clock() limiter.Time { return n.shows(n.world.now) }

func (n *Node) shows(t limiter.Time) limiter.Time { return t + t/1000*limiter.Time(n.drift)/1000 }

// trueTime is when the node's clock will show at.
func (n *Node) trueTime(at limiter.Time) limiter.Time {
	t := at - at/1000*limiter.Time(n.drift)/1000
	for n.shows(t) < at {
		t += max(1, at-n.shows(t))
	}
	return t
}

// Start starts a process on the node's disk.
func (n *Node) Start() {
	n.life++
	n.broken = nil
	n.disk.open()
	w := n.world
	cfg := tiers.Config{
		Place: n.Place, Partitions: 1, Leaf: n.Leaf, Rules: w.Rules, Session: w.rng.Uint64() | 1, NewWorld: w.rng.Uint64() | 1,
		Lease: tiers.DefaultLease, Heartbeat: tiers.DefaultHeartbeat, ReportInterval: tiers.DefaultReportInterval, MaxAwake: tiers.DefaultMaxAwake,
	}
	n.disk.instant = true // Start waits for its commit
	runner, err := place.Start(cfg, &n.disk, &sender{n, n.life}, n.clock)
	n.disk.instant = false
	if err != nil {
		panic(fmt.Sprintf("sim: %s does not start: %v", n.Place, err))
	}
	n.runner = runner
	runner.Tick()
}

// Crash ends the process at this instant: what is not durable is lost.
func (n *Node) Crash() {
	n.life++
	n.runner = nil
	n.disk.crash()
}

// Stop ends the process in good order.
func (n *Node) Stop() {
	r, life := n.runner, n.life
	r.Stop()
	n.world.RunUntil(3*time.Second, func() bool { return n.life != life || r.Stopped() })
	if n.life != life {
		return
	}
	n.disk.instant = true
	if err := r.Close(); err != nil {
		panic(fmt.Sprintf("sim: %s does not close: %v", n.Place, err))
	}
	n.disk.instant = false
	n.life++
	n.runner = nil
	n.disk.crash()
}

// Wipe loses the disk of a node that does not run.
func (n *Node) Wipe() { n.disk.durable = map[tiers.Key]tiers.Record{} }

// Running says that a process runs.
func (n *Node) Running() bool { return n.runner != nil && n.broken == nil }

// Runner is the running process.
func (n *Node) Runner() *place.Runner { return n.runner }

// Events are what the node's processes told the operator.
func (n *Node) Events() []tiers.Event { return n.events }

// sender is the network as one process sees it.
type sender struct {
	node *Node
	life int
}

func (s *sender) alive() bool { return s.node.life == s.life && s.node.runner != nil }

// carry brings a message to a node, late, twice or never.
func (w *World) carry(cut func() bool, deliver func()) {
	if cut() || w.chance(w.Faults.Loss) {
		return
	}
	arrive := func() {
		if !cut() {
			deliver()
		}
	}
	w.After(w.between(w.Faults.Delay), arrive)
	if w.chance(w.Faults.Duplicate) {
		w.After(w.between(4*w.Faults.Delay), arrive)
	}
}

func (s *sender) Report(r *tiers.Report) {
	w, child := s.node.world, s.node
	parent := w.nodes[child.Place.Parent()]
	cut := func() bool { return child.Cut }
	if parent == nil || parent.runner == nil {
		w.After(w.between(w.Faults.Delay), func() {
			if s.alive() {
				child.runner.Failed(r.Sequence)
			}
		})
		return
	}
	w.carry(cut, func() {
		if parent.runner == nil {
			return
		}
		life := parent.life
		parent.runner.Reported(r, func(a *tiers.Ack) {
			if parent.life != life {
				return
			}
			w.carry(cut, func() {
				if s.alive() {
					child.runner.Acknowledged(a)
				}
			})
		})
	})
}

func (s *sender) Recall(p tiers.Place, r *tiers.Recall) {
	w, child := s.node.world, s.node.world.nodes[p]
	w.carry(func() bool { return child.Cut }, func() {
		if child.runner != nil {
			child.runner.Recalled(r)
		}
	})
}

func (s *sender) Event(e tiers.Event) {
	s.node.events = append(s.node.events, e)
	if t := s.node.world.Trace; t != nil {
		t("%12s %s: %s %s %s", time.Duration(s.node.world.now), s.node.Place, e.Kind, e.Place, e.Detail)
	}
}

func (s *sender) Wake(t limiter.Time) {
	n := s.node
	n.wake++
	if t == limiter.Never {
		return
	}
	wake := n.wake
	n.world.at(max(n.trueTime(t), n.world.now), func() {
		if s.alive() && n.wake == wake {
			n.runner.Tick()
		}
	})
}

func (s *sender) Broken(err error) { s.node.broken = err }

type event struct {
	at     limiter.Time
	serial uint64
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
