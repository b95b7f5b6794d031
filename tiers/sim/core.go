package sim

import (
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// This file is all that the simulation calls of the core beyond messages.

// start starts a process's runner.
func start(cfg tiers.Config, p *process, n *Node) (*place.Runner, error) {
	return place.Start(cfg, p, p, n.clock, n.unix)
}

// unix is what a node's wall clock shows.
func (n *Node) unix() int64 { return epoch + int64(n.world.now) + int64(n.wall) }

// epoch is when worlds begin, in Unix nanoseconds: before midnight of a month's last day.
const epoch = 1_790_000_000_000_000_000

// check decides a check; request may be "".
func (p *process) check(name tiers.Name, hits int64, wait time.Duration, request string, done func(tiers.Decision, error)) {
	if request != "" {
		p.runner.CheckID(name, hits, wait, request, done)
		return
	}
	p.runner.Check(name, hits, wait, done)
}

// add counts; request may be "".
func (p *process) add(name tiers.Name, delta int64, request string, done func(tiers.Total, error)) {
	add := place.Add{Name: name, Delta: delta, Request: request}
	p.runner.Add(1, func(int) place.Add { return add }, func(_ int, total tiers.Total, err error) { done(total, err) })
}

// release gives a permit back, or renews it. As the process' service does, it
// knows none of other sessions.
func (p *process) release(permit *heldPermit, name tiers.Name, renew bool, done func(bool, error)) {
	switch {
	case permit.session != p.session:
		done(false, nil)
	case renew:
		p.runner.Renew(name, permit.serial, done)
	default:
		p.runner.Release(name, permit.serial, done)
	}
}

// inspect looks at a key that is awake, without a trace. It reuses e.
func (p *process) inspect(name tiers.Name, e *tiers.Explanation) bool {
	return p.runner.Inspect(name, e)
}

// stats are the figures that it keeps as they change.
func (p *process) stats() tiers.Stats { return p.runner.Stats() }
