package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// A Node is a machine for one place: its disk and its clock outlive its
// processes.
type Node struct {
	Place tiers.Place
	Leaf  bool
	Cut   bool // its link to the parent is down

	world    *World
	parent   *Node // the first node of the parent's place
	twins    []*Node
	disk     disk
	proc     *process // nil: none runs
	drift    int64    // of its clock, in parts in a million
	offset   limiter.Time
	wall     time.Duration              // its wall clock is ahead by this much
	deaf     bool                       // nothing reaches it from its parent
	mute     bool                       // nothing of it reaches its parent
	asleep   limiter.Time               // the machine is suspended until then
	fuse     int                        // effects until it crashes; 0: it does not
	gone     bool                       // it is never to start again
	stopping bool                       // it was told to stop
	backup   map[tiers.Key]tiers.Record // an old copy of its disk
	rested   map[tiers.Key]tiers.Record // one that was made when its process had been stopped in good order
	restored bool                       // the next start is told that its disk is a backup's
	broken   error                      // why its last process stopped by itself
	events   []tiers.Event
	sent     Messages
	site     *site          // what the laws know of its place
	rules    *limiter.Rules // those that it follows
	before   *limiter.Rules // those before
	ruledAt  uint64         // the step in which they changed
	totals   []tiers.Total  // durable, by target
}

// clock is what a node's clock shows. It runs wrong by drift, from the
// world's beginning on.
func (n *Node) clock() limiter.Time { return n.shows(n.world.now) }

func (n *Node) shows(t limiter.Time) limiter.Time {
	return t + t/1000*limiter.Time(n.drift)/1000 + n.offset
}

// trueTime is when the node's clock will show at.
func (n *Node) trueTime(at limiter.Time) limiter.Time {
	if at == limiter.Never {
		return at
	}
	t := at - n.offset
	for range 4 { // each time the error shrinks to a hundredth
		t += at - n.shows(t)
	}
	for n.shows(t) < at {
		t++
	}
	for n.shows(t-1) >= at {
		t--
	}
	return t
}

// Start starts a process on the node's disk.
func (n *Node) Start() {
	w := n.world
	n.broken, n.fuse = nil, 0
	n.disk.open()
	if w.Faults.Rebase {
		n.offset = limiter.Time(w.rng.Int64N(int64(1000*time.Hour))) - w.now
		n.offset += max(0, -n.shows(w.now)) // no clock shows less than nothing
	}
	cfg := tiers.Config{
		Place: n.Place, Partitions: 1, Leaf: n.Leaf, Rules: w.Rules, Session: w.rng.Uint64() | 1, NewWorld: w.rng.Uint64() | 1,
		Lease: w.Lease, Heartbeat: tiers.DefaultHeartbeat, ReportInterval: tiers.DefaultReportInterval, MaxAwake: tiers.DefaultMaxAwake,
		FoldAfter: w.FoldAfter, Restored: n.restored,
	}
	if w.laws != nil {
		cfg.MaxMessage = w.laws.maxMessage(n)
		cfg.MaxAwake, cfg.MaxWalk = w.laws.maxAwake, min(w.laws.maxAwake, tiers.DefaultMaxWalk)
		cfg.MaxStep, cfg.PruneEach = 1, time.Second
	}
	p := &process{node: n, session: cfg.Session}
	n.proc = p
	if w.laws != nil {
		w.laws.starts(n)
	}
	n.disk.instant = true // Start waits for its commit
	runner, err := start(cfg, p, n)
	n.disk.instant = false
	if err != nil {
		panic(fmt.Sprintf("sim: %s does not start: %v", n.Place, err))
	}
	p.runner, n.restored = runner, false
	w.say(n, "starts as session %016x", cfg.Session)
	runner.Tick()
}

// Crash ends the process at this instant: what is not durable is lost.
func (n *Node) Crash() {
	if n.proc != nil {
		n.world.say(n, "crashes, %d commits wait", len(n.disk.pending)+len(n.disk.group))
		n.proc.dead = true
		n.proc = nil
	}
	n.disk.crash()
}

// Stop ends the process in good order, as far as it can within 3 s.
func (n *Node) Stop() {
	p := n.proc
	p.runner.Stop()
	n.world.RunUntil(3*time.Second, func() bool { return p.dead || p.runner.Stopped() })
	if !p.dead {
		n.close()
	}
}

// close ends a process that was told to stop.
func (n *Node) close() {
	p := n.proc
	n.disk.settle() // a commit follows those before it
	if p.dead {
		return
	}
	n.disk.instant = true
	p.closing = true
	if err := p.runner.Close(); err != nil {
		panic(fmt.Sprintf("sim: %s does not close: %v", n.Place, err))
	}
	n.disk.instant = false
	n.world.say(n, "is closed")
	p.dead = true
	if n.proc == p {
		n.proc = nil
	}
	n.disk.crash()
}

// Wipe loses the disk of a node that does not run.
func (n *Node) Wipe() { n.setDisk(map[tiers.Key]tiers.Record{}) }

// setDisk gives a node that does not run another disk.
func (n *Node) setDisk(records map[tiers.Key]tiers.Record) {
	before := n.disk.durable
	n.disk.durable = records
	n.disk.number++
	n.disk.other = true
	n.disk.lost = n.disk.lost || len(records) == 0
	if n.world.laws != nil {
		n.world.laws.setBack(n, before)
		n.world.laws.reopened(n)
	}
}

// Running says that a process runs.
func (n *Node) Running() bool { return n.proc != nil && n.proc.runner != nil && n.broken == nil }

// ready says that clients are served: the process runs, was not told to stop
// and not fenced, and its machine is awake.
func (n *Node) ready() bool {
	if !n.Running() || n.stopping || n.asleep > n.world.now {
		return false
	}
	fenced, _ := n.proc.runner.State()
	return !fenced
}

// Runner is the running process.
func (n *Node) Runner() *place.Runner { return n.proc.runner }

// Events are what the node's processes told the operator.
func (n *Node) Events() []tiers.Event { return n.events }

// A process is one run of a node's place: its store and its sender. When it
// crashes it may run on to the end of its step, as code does, but nothing
// that it does reaches anyone.
type process struct {
	node    *Node
	runner  *place.Runner
	session uint64
	dead    bool
	closing bool
	wake    uint64        // serial of the last wake-up asked for
	wakeAt  limiter.Time  // when that is to be, by the node's clock; 0: it was
	handed  *tiers.Ack    // the last one that handed pairs back
	heard   uint64        // the last report that was answered
	told    *tiers.Report // the last one that left
	toldAt  limiter.Time  // when, by the node's clock
}

var errDead = fmt.Errorf("%w: it crashed", place.ErrStopped)

// effect is called before each effect of a step; it says whether the process
// lives to have it.
func (p *process) effect() bool {
	n := p.node
	if n.fuse > 0 && !p.dead {
		if n.fuse--; n.fuse == 0 {
			n.Crash()
			n.world.restart(n)
		}
	}
	return !p.dead
}

// suspended says that the process's machine is: what happens to it, happens
// later.
func (p *process) suspended() bool { return !p.dead && p.node.asleep > p.node.world.now }

// ready says that something may happen to the process now; if its machine is
// suspended, later does then.
func (p *process) ready(later func()) bool {
	if p.suspended() {
		p.node.world.at(p.node.asleep, later)
		return false
	}
	return !p.dead && p.runner != nil
}

// Update implements place.Store.
func (p *process) Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	if p.dead {
		done(errDead)
		return
	}
	p.node.disk.update(p, step, done)
}

// Writable implements place.Store.
func (p *process) Writable() error {
	d, w := &p.node.disk, p.node.world
	if d.full {
		w.hurt[FullDisk]++
		d.refused = true
		return errFull
	}
	if d.refused {
		d.refused = false
		if w.laws != nil {
			w.laws.path(pathFull)
		}
	}
	return nil
}

var errFull = errors.New("the disk is full")

// Event implements place.Sender.
func (p *process) Event(e tiers.Event) {
	n := p.node
	if p.dead {
		return
	}
	n.world.say(n, "event %s %s %s", e.Kind, e.Place, e.Detail)
	if l := n.world.laws; l != nil {
		l.event(e)
		return
	}
	n.events = append(n.events, e)
}

// Wake implements place.Sender.
func (p *process) Wake(t limiter.Time) {
	if t == p.wakeAt && t > p.node.clock() {
		return // it will be woken then
	}
	p.wake++
	if p.wakeAt = t; t == limiter.Never || p.dead {
		return
	}
	n, wake := p.node, p.wake
	var tick func()
	tick = func() {
		if p.wake == wake && p.ready(tick) {
			n.world.woke, p.wakeAt = n, 0
			p.runner.Tick()
			n.world.touched(n, tiers.Name{})
		}
	}
	n.world.at(max(n.trueTime(t), n.world.now), tick)
}

// Broken implements place.Sender.
func (p *process) Broken(err error) {
	n := p.node
	if p.dead {
		return
	}
	n.broken = err
	n.world.say(n, "stops: %v", err)
	if n.world.restart != nil {
		n.world.restart(n)
	}
}
