package study

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/sim"
)

// How fast things are in each cell: a message takes from a tenth of delay up
// to delay from a place to its parent, or back; a commit as much of commit.
const (
	delay  = 20 * time.Millisecond
	commit = time.Millisecond
)

// joining is how long a world runs before its first check, so that its
// places know each other.
const joining = 3 * time.Second

// A Result is what came out of a cell.
type Result struct {
	Cell
	Tributary Outcome
	One       Outcome // one bucket, without distance
	Static    Outcome // equal static shares
	Broadcast Outcome // hits told later, what remains broadcast
	Broken    error   // Tributary admitted beyond what the simulation's oracle allows
}

// Measure runs a cell.
func Measure(c Cell) Result {
	rules := c.Limit.rules()
	limit := &rules.Rule(key.Namespace).Limits[0]
	perSecond := float64(limit.Rate) / limit.Period.Seconds()
	d := newDemand(&c, perSecond, rand.New(rand.NewPCG(c.Seed, 1)))
	r := Result{Cell: c}
	r.Tributary, r.Broken = tributary(&c, d, rules)
	for _, way := range []struct {
		outcome *Outcome
		build   func(*world) func(check)
	}{{&r.One, oneBucket}, {&r.Static, staticShares}, {&r.Broadcast, broadcasts}} {
		m := newMeter(&c, d, limit)
		w := &world{World: sim.NewWorld(c.Seed, rules, sim.Faults{}), meter: m, rng: rand.New(rand.NewPCG(c.Seed, 2))}
		w.began = w.Now()
		w.offer(way.build(w))
		*way.outcome = m.outcome()
		way.outcome.Messages = float64(w.messages) / (m.end - m.begin).Seconds()
		way.outcome.Busiest = float64(w.owner) / (m.end - m.begin).Seconds()
	}
	return r
}

// A world is one in which a cell's demand is offered.
type world struct {
	*sim.World
	meter           *meter
	began           limiter.Time // the first check could come
	rng             *rand.Rand
	messages, owner uint64 // sent while it was measured; of them by the owner
}

// since is the time from the first check.
func (w *world) since() time.Duration { return w.Now().Sub(w.began) }

// offer lets the demand come, each check to take.
func (w *world) offer(take func(check)) {
	checks := w.meter.demand.checks
	var next func()
	next = func() {
		c := checks[0]
		checks = checks[1:]
		if len(checks) > 0 {
			w.After(checks[0].at-w.since(), next)
		}
		take(c)
	}
	w.After(checks[0].at, next)
	w.Run(w.meter.end)
}

// tributary runs the places of a tree.
func tributary(c *Cell, d *demand, rules *limiter.Rules) (Outcome, error) {
	limit := &rules.Rule(key.Namespace).Limits[0]
	m := newMeter(c, d, limit)
	w := &world{World: sim.NewWorld(c.Seed, rules, sim.Faults{Delay: delay, Sync: commit}), meter: m}
	var places, leaves []*sim.Node
	index := map[*sim.Node]int{}
	c.Tree.grow(func(p tiers.Place, leaf bool) {
		n := w.Add(p, leaf)
		places = append(places, n)
		if leaf {
			index[n] = len(leaves)
			leaves = append(leaves, n)
		}
	})
	w.Run(joining)
	w.began = w.Now()
	oracle := sim.NewOracle(limit)
	oracle.Watch = func(n *sim.Node, hits int64) { m.admit(w.since(), index[n], hits) }
	before := make([]uint64, len(places))
	w.After(m.begin, func() {
		for i, n := range places {
			before[i] = n.Sent().Sum()
		}
	})
	w.offer(func(k check) { oracle.Check(leaves[k.leaf], key, c.Limit.Hits, c.Limit.Wait) })
	o := m.outcome()
	for i, n := range places {
		sent := float64(n.Sent().Sum()-before[i]) / (m.end - m.begin).Seconds()
		o.Messages += sent
		o.Busiest = max(o.Busiest, sent)
	}
	if oracle.Err() != nil {
		return o, fmt.Errorf("%s: %w", c, oracle.Err())
	}
	return o, nil
}
