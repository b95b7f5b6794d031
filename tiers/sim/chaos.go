package sim

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// chaos is what goes wrong in a world. Each fault has a rate of its own,
// drawn from the seed, and is often absent.
type chaos struct {
	*scenario
	set   FaultSet
	rand  *rand.Rand
	mean  [numFaults]time.Duration // between two of a fault; 0: it is absent
	over  bool
	twin  int
	join  int
	left  int          // places that left, each with all below it
	home  uint64       // the world that was there first; 0: nobody knows it yet
	now   limiter.Spec // the rules as they were last applied
	times int          // that they were
}

func newChaos(s *scenario, set FaultSet, r *rand.Rand) *chaos {
	c := &chaos{scenario: s, set: set, rand: r}
	w := s.world
	f := &w.Faults
	for fault := range NewRoot {
		// Drawn whether the set has it or not, so that the others stay.
		absent, mean := r.IntN(2) == 0, time.Duration(float64(500*time.Millisecond)*(1+40*r.Float64()*r.Float64()))
		if !absent && set.Has(fault) {
			c.mean[fault] = mean
		}
	}
	if set.Has(NewRoot) && s.seed%4 == 1 { // seldom: until it is joined nothing reaches it
		c.mean[NewRoot] = 10 * time.Second
	}
	probability := func(of Fault, most float64) float64 {
		p := r.Float64() * most
		if c.mean[of] == 0 {
			return 0
		}
		return p
	}
	f.Loss, f.Duplicate, f.Late = probability(Loss, 0.2), probability(Duplication, 0.2), probability(Reordering, 0.03)
	f.Torn, f.Rebase = true, true
	if set.Has(Drift) {
		f.Drift = 4900
		w.hurt[Drift]++
	}
	w.restart = c.restart
	return c
}

// begin lets the faults loose.
func (c *chaos) begin() {
	w := c.world
	if c.mean[Delay] > 0 {
		w.Faults.Delay = 400 * time.Millisecond
		w.hurt[Delay]++
	}
	for fault := range numFaults {
		if do := faultDone[fault]; do != nil && c.mean[fault] > 0 {
			c.again(fault, do)
		}
	}
	if c.copies() {
		var copies func()
		copies = func() {
			if n := c.node(); n.Running() {
				n.backup = n.disk.copied()
			}
			c.after(2*time.Second, copies)
		}
		copies()
	}
}

// copies says that disks are copied in this world.
func (c *chaos) copies() bool { return c.mean[OldDisk] > 0 || c.mean[RootDisk] > 0 }

// setBack gives a node an old copy of its disk, if there is one.
func (c *chaos) setBack(n *Node) bool {
	old := n.backup
	if n.rested != nil && (old == nil || c.rand.IntN(2) == 0) {
		old = n.rested
	}
	return old != nil && c.another(n, maps.Clone(old))
}

func (c *chaos) again(f Fault, do func(*chaos) bool) {
	c.after(c.mean[f], func() {
		if do(c) {
			c.world.hurt[f]++
		}
		c.again(f, do)
	})
}

// after does something later, unless the chaos is over by then.
func (c *chaos) after(mean time.Duration, do func()) {
	c.world.After(time.Duration(float64(mean)*c.rand.ExpFloat64()), func() {
		if !c.over {
			do()
		}
	})
}

// node is any.
func (c *chaos) node() *Node { return c.world.order[c.rand.IntN(len(c.world.order))] }

func (c *chaos) upTo(longest time.Duration) time.Duration {
	return time.Duration(c.rand.Int64N(int64(longest)))
}

// forA makes a thing so for a while.
func (c *chaos) forA(longest time.Duration, begin, end func()) bool {
	begin()
	c.after(c.upTo(longest), end)
	return true
}

// maxJoins is how many places join a world, at most, and maxLeaves how many
// leave, each with all below it.
const (
	maxJoins  = 5
	maxLeaves = 3
)

var faultDone = [numFaults]func(*chaos) bool{
	Partition: func(c *chaos) bool {
		n := c.node()
		c.world.say(n, "is cut off")
		return c.forA(8*time.Second, func() { n.Cut = true }, func() { n.Cut = false })
	},
	OneWay: func(c *chaos) bool {
		n := c.node()
		if c.rand.IntN(2) == 0 {
			c.world.say(n, "is mute")
			return c.forA(8*time.Second, func() { n.mute = true }, func() { n.mute = false })
		}
		c.world.say(n, "is deaf")
		return c.forA(8*time.Second, func() { n.deaf = true }, func() { n.deaf = false })
	},
	Crash: func(c *chaos) bool {
		n := c.node()
		if !n.Running() {
			return false
		}
		n.fuse = 1 + c.rand.IntN(12)
		return true
	},
	Stop: func(c *chaos) bool {
		n := c.node()
		if n.Place == tiers.Root && c.rand.IntN(2) == 0 {
			return n.ready() && c.maintain(n)
		}
		return n.ready() && c.stop(n, func() { c.start(n, time.Second) })
	},
	SlowDisk: func(c *chaos) bool {
		n := c.node()
		return c.forA(5*time.Second, func() { n.disk.slow = 2 * time.Second }, func() { n.disk.slow = 0 })
	},
	FullDisk: func(c *chaos) bool {
		n := c.node()
		return c.forA(5*time.Second, func() { n.disk.full = true }, func() { n.disk.full = false })
	},
	BusyDisk: func(c *chaos) bool {
		n := c.node()
		return c.forA(5*time.Second, func() { n.disk.busy = 0.3 }, func() { n.disk.busy = 0 })
	},
	FailingDisk: func(c *chaos) bool {
		n := c.node()
		return c.forA(5*time.Second, func() { n.disk.failing = 0.1 }, func() { n.disk.failing = 0 })
	},
	LostDisk: func(c *chaos) bool {
		n := c.node()
		return n.Place != tiers.Root && c.another(n, map[tiers.Key]tiers.Record{})
	},
	OldDisk: func(c *chaos) bool {
		n := c.node()
		return n.Place != tiers.Root && c.setBack(n)
	},
	RootDisk: func(c *chaos) bool {
		return c.setBack(c.world.order[0])
	},
	NewRoot: func(c *chaos) bool {
		root := c.world.order[0]
		if c.home == 0 {
			if c.home = root.meta().World; c.home == 0 {
				return false
			}
			c.world.After(c.upTo(5*time.Second), c.joinWorlds)
		}
		return c.another(root, map[tiers.Key]tiers.Record{})
	},
	Twin: func(c *chaos) bool {
		n := c.node()
		if c.twin == 2 || n.Place == tiers.Root || !n.Running() || n != c.world.nodes[n.Place] {
			return false
		}
		c.twin++
		c.world.say(n, "gets a twin")
		c.world.Twin(n)
		return true
	},
	Join: func(c *chaos) bool {
		if c.join == maxJoins || len(c.interior) == 0 {
			return false
		}
		c.join++
		parent := c.interior[c.rand.IntN(len(c.interior))]
		if parent.site.left {
			return false
		}
		n := c.add(c.below(parent), parent.Place.Depth()+1 >= c.deepest || c.rand.IntN(2) == 0)
		c.world.say(n, "joins")
		n.Start()
		if !n.Leaf {
			c.add(c.below(n), true).Start()
		}
		return true
	},
	Leave: func(c *chaos) bool {
		n := c.node()
		if c.left == maxLeaves || n.Place == tiers.Root || n.site.left || slices.ContainsFunc(c.steadyAt, func(at *Node) bool { return at.site.under(n.site) }) {
			return false
		}
		c.left++
		c.world.say(n, "leaves for good")
		c.laws.leaves(n.site)
		for up := n.site.parent; up != nil; up = up.parent {
			c.laws.mayBeBehind(up)
		}
		c.forget(n.site)
		return true
	},
	WallClock: func(c *chaos) bool {
		n := c.node()
		n.wall += time.Duration(float64(pick(c.rand, time.Second, time.Minute, 5*time.Minute, 25*time.Hour)) * c.rand.NormFloat64())
		c.world.say(n, "wall clock is ahead by %s", n.wall)
		c.world.laws.clockSetBack(n)
		return true
	},
	Rules: func(c *chaos) bool {
		root := c.world.order[0]
		if !root.ready() {
			return false
		}
		spec, changed := c.changed()
		rules := c.compile(spec)
		root.proc.runner.Apply(rules, func(version uint64, err error) {
			if err == nil {
				c.world.say(root, "follows version %d of the rules: %s is %s", version, changed, showNamespace(spec, changed))
			}
		})
		return true
	},
	Suspend: func(c *chaos) bool {
		n := c.node()
		if !n.Running() {
			return false
		}
		n.asleep = c.world.now.Add(c.upTo(10 * time.Second))
		c.world.say(n, "is suspended for %s", n.asleep.Sub(c.world.now))
		return true
	},
}

// forget has a place that left forgotten by its parent, as soon as that can
// be, and again by a parent that has another disk since. A parent that does not
// know it may hear of it yet, from a report that is late.
func (c *chaos) forget(s *site) {
	const again = 4 * time.Second // some heartbeats
	var by *Node
	var disk int
	var asked *process // that has not answered yet: its disk may be slow
	var try func()
	try = func() {
		if s.parent.left {
			return
		}
		c.world.After(again, try)
		parent := s.parent.live()
		if parent == nil || !parent.ready() || parent.proc == asked || parent == by && parent.disk.number == disk {
			return
		}
		asked = parent.proc
		had := c.laws.countsOf(parent, s)
		on := parent.disk.number
		parent.proc.runner.Forget(s.place, func(err error) {
			asked = nil
			if err != nil {
				return // it reported a moment ago, or is not known
			}
			c.world.say(parent, "has forgotten %s", s.place)
			c.laws.forgotten(parent, on, had)
			by, disk = parent, on
		})
	}
	c.world.After(again, try)
}

// joinWorlds is what an operator does when places refuse one another: those of
// another world than the first are joined to that.
func (c *chaos) joinWorlds() {
	for _, n := range c.world.order {
		if n.ready() && n.meta().World != 0 && n.meta().World != c.home {
			n.proc.runner.Join(c.home, true, func(error) {}) // by force: new children may have come to it meanwhile
		}
	}
	c.figures()
	again := time.Second
	if !c.over {
		again = c.upTo(10 * time.Second)
	}
	c.world.After(again, c.joinWorlds)
}

// figures tells owners whose disk was lost what is left of their budgets and
// quotas, as soon as nobody spends of what the lost disk lent.
func (c *chaos) figures() {
	for _, o := range c.laws.oracles {
		n := o.owner.live()
		if !o.limit.Durable() || o.owner.leaf || o.owner.twice || n == nil || !n.ready() {
			continue
		}
		e := c.laws.inspected(n, o.target)
		if e == nil || !e.Judged || e.Now < e.Silent {
			continue
		}
		left, waits := int64(limiter.MaxTokens), false
		for i := range e.Limits {
			if s := &e.Limits[i]; s.Waits && len(s.Lines) == 0 {
				waits, left = true, min(left, c.laws.left(o.owner, o.target, s))
			}
		}
		if waits {
			n.proc.runner.Figure(o.target.name, left, func(err error) {
				if err == nil {
					c.laws.path(pathFigure)
					c.world.say(n, "is told that %d of %s are left", left, o.target.name)
				}
			})
		}
	}
}

// left is what is left of a budget, or of the window of a quota that is open.
func (l *laws) left(owner *site, t *target, s *tiers.LimitState) int64 {
	for _, o := range l.oracles {
		if o.owner == owner && o.target == t && o.id == s.Limit.ID {
			spent := o.spent
			if o.limit.Kind == limiter.Quota {
				spent = o.window(s.Window).spent
			}
			return max(0, s.Limit.Burst-spent)
		}
	}
	return s.Limit.Burst
}

// stop ends a node's process in good order, then does something.
func (c *chaos) stop(n *Node, then func()) bool {
	p, since := n.proc, c.world.now
	n.stopping = true
	c.world.say(n, "is told to stop")
	p.runner.Stop()
	var wait func()
	wait = func() {
		switch {
		case p.dead:
			n.stopping = false
		case n.asleep > c.world.now:
			c.world.at(n.asleep, wait)
		case p.runner.Stopped() || c.world.now.Sub(since) > 3*time.Second:
			n.stopping = false
			if n.broken == nil {
				n.close()
				if c.copies() {
					n.rested = n.disk.copied()
				}
			}
			then()
		default:
			c.world.After(20*time.Millisecond, wait)
		}
	}
	wait()
	return true
}

// maintain stops what borrows from the root, then the root: nothing is lent,
// and its disk says so.
func (c *chaos) maintain(root *Node) bool {
	var children []*Node
	for _, s := range root.site.below {
		for _, n := range s.nodes {
			if n.ready() {
				children = append(children, n)
				c.stop(n, func() {
					if c.over {
						c.start(n, time.Second)
					}
				})
			}
		}
	}
	c.world.After(3500*time.Millisecond, func() {
		if root.ready() && !c.over {
			c.stop(root, func() { c.start(root, time.Second) })
		}
		c.world.After(500*time.Millisecond, func() {
			for _, n := range children {
				c.start(n, time.Second)
			}
		})
	})
	return true
}

// start starts a node within a time, if nobody did before.
func (c *chaos) start(n *Node, within time.Duration) {
	c.world.After(c.upTo(within), func() {
		if !n.Running() && !n.gone {
			n.Crash()
			n.Start()
		}
	})
}

// restart is what becomes of a process that died, or stopped by itself.
func (c *chaos) restart(n *Node) {
	if errors.Is(n.broken, tiers.ErrFenced) {
		if !slices.ContainsFunc(n.site.nodes, func(o *Node) bool { return o != n && !o.gone }) {
			c.start(n, 2*time.Second) // a late message of a session that is gone fenced it: an operator finds no other
			return
		}
		n.gone = true // its twin goes on; its parent, which has it all, may have lost its disk since
		c.laws.unread(n.site)
		c.laws.path(pathFencedExit)
		return
	}
	if errors.Is(n.broken, tiers.ErrEnded) { // what it counted last is on its disk only, which an operator keeps
		n.gone = true
		c.laws.unread(n.site)
		c.laws.path(pathEndedExit)
		// A parent that was set back may have fenced the other one for this one: an operator finds none that runs.
		if fenced := slices.IndexFunc(n.site.nodes, func(o *Node) bool { return errors.Is(o.broken, tiers.ErrFenced) }); fenced >= 0 && !n.site.left &&
			!slices.ContainsFunc(n.site.nodes, func(o *Node) bool { return !o.gone }) {
			n.site.nodes[fenced].gone = false
			c.start(n.site.nodes[fenced], 2*time.Second)
		}
		return
	}
	c.start(n, 2*time.Second)
}

// another kills a node and gives it another disk.
func (c *chaos) another(n *Node, records map[tiers.Key]tiers.Record) bool {
	if n.gone {
		return false
	}
	n.Crash()
	c.world.say(n, "gets another disk, of %d records", len(records))
	n.setDisk(records)
	c.start(n, 2*time.Second)
	return true
}

// end stops the faults: links are whole, disks healthy, every place runs.
func (c *chaos) end() {
	c.over = true
	w := c.world
	if c.times > 0 {
		c.mendRules()
	}
	f := &w.Faults
	f.Loss, f.Duplicate, f.Late = 0, 0, 0
	f.Delay, f.Sync = min(f.Delay, 5*time.Millisecond), min(f.Sync, 3*time.Millisecond)
	w.say(nil, "the faults are over")
	for _, n := range w.order {
		n.Cut, n.mute, n.deaf, n.fuse, n.asleep = false, false, false, 0, min(n.asleep, w.now)
		n.disk.slow, n.disk.full, n.disk.busy, n.disk.failing = 0, false, 0, 0
	}
	for _, n := range w.order {
		if !n.gone && !n.stopping && !n.Running() {
			n.Crash()
			n.Start()
		}
	}
}

// mendRules is what an operator does of a root that was set back and follows
// older rules than a place below, once the root has heard of that.
func (c *chaos) mendRules() {
	w := c.world
	var look func()
	look = func() {
		root := w.order[0]
		if root.ready() {
			_, version := root.proc.runner.Rules()
			if slices.ContainsFunc(w.order, func(n *Node) bool { return n.ready() && n.version() > version }) {
				root.proc.runner.Apply(c.compile(c.now), func(uint64, error) {})
			}
		}
		w.After(time.Second, look)
	}
	w.After(time.Second, look)
}

func (n *Node) version() uint64 {
	_, version := n.proc.runner.Rules()
	return version
}

// changed are the rules of the scenario with one namespace as it never was:
// other figures, gone, or there again as at first; and now and then with
// another lease. What is steady stays. It returns which one changed as well.
func (c *chaos) changed() (spec limiter.Spec, name string) {
	names := slices.Sorted(maps.Keys(c.spec.Namespaces))
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "api") })
	name = names[c.rand.IntN(len(names))]
	if c.times == 0 {
		c.now = c.spec
	}
	c.now.Namespaces = maps.Clone(c.now.Namespaces) // rules that were compiled keep theirs
	if c.laws.small {
		padRules(c.now.Namespaces, 1+c.times%2)
	}
	if c.times++; c.times%3 == 0 && c.spec.Lease != "" {
		c.now.Lease = []string{"1s", "5s", "2s", "3s"}[c.times/3%4]
	}
	if _, there := c.now.Namespaces[name]; there && c.rand.IntN(4) == 0 {
		delete(c.now.Namespaces, name)
	} else {
		ns := c.spec.Namespaces[name]
		ns.Limits = slices.Clone(ns.Limits)
		for i := range ns.Limits {
			l := &ns.Limits[i]
			scale := pick(c.rand, 0.1, 0.5, 1, 1, 2, 5)
			times := func(n *int64) *int64 {
				if n == nil {
					return nil
				}
				return new(max(1, int64(float64(*n)*scale)))
			}
			l.Burst, l.Budget, l.Concurrency = times(l.Burst), times(l.Budget), times(l.Concurrency)
			if l.Concurrency != nil {
				l.Hold = []string{"1s", "6s", "2s", l.Hold}[(c.times+i)%4]
			}
			if l.Budget == nil && (c.times+i)%5 == 0 {
				l.Mode = map[string]string{"": "soft", "soft": ""}[l.Mode]
			}
			for _, text := range []*string{&l.Rate, &l.Quota} {
				figure, per, found := strings.Cut(*text, "/")
				if n, err := strconv.ParseInt(figure, 10, 64); found && err == nil {
					*text = strconv.FormatInt(*times(&n), 10) + "/" + per
				}
			}
			if n, err := strconv.ParseInt(strings.TrimSuffix(l.Rate, "/s"), 10, 64); err == nil && c.times%7 == 3 { // the same, in another spelling
				l.Rate = strconv.FormatInt(n*60, 10) + "/m"
			}
			if c.times%5 == 2 { // it follows the rate
				l.Burst = nil
			}
		}
		if n := len(ns.Limits); n > 1 && c.times%4 == 1 { // one of them leaves
			ns.Limits = slices.Delete(ns.Limits, c.times/4%n, c.times/4%n+1)
		}
		ns.Shadow = ns.Shadow != (c.times%6 == 5)
		c.now.Namespaces[name] = ns
	}
	return c.now, name
}
