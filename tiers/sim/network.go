package sim

import "github.com/tributary-io/tributary/tiers"

// Messages are how many left a place.
type Messages struct{ Reports, Acks, Recalls uint64 }

// Sum is how many there are of all kinds.
func (m Messages) Sum() uint64 { return m.Reports + m.Acks + m.Recalls }

// Sent is what left the node's place so far.
func (n *Node) Sent() Messages { return n.sent }

// A link joins a child to its parent; it is named by the child.

// cut says that nothing passes it in this direction.
func (n *Node) cut(up bool) bool { return n.Cut || up && n.mute || !up && n.deaf }

// carry brings a message over a child's link, late, twice or never.
func (w *World) carry(child *Node, up bool, deliver func()) {
	if child.cut(up) {
		w.hurt[Partition]++
		return
	}
	if w.chance(w.Faults.Loss) {
		w.hurt[Loss]++
		return
	}
	arrive := func() {
		if !child.cut(up) {
			deliver()
		}
	}
	if w.chance(w.Faults.Late) {
		w.hurt[Reordering]++
		w.After(w.between(lateBy), arrive)
	} else {
		w.After(w.between(w.Faults.Delay), arrive)
	}
	if w.chance(w.Faults.Duplicate) {
		w.hurt[Duplication]++
		w.After(w.between(4*w.Faults.Delay), arrive)
	}
}

// any is one of the processes that run for a place.
func (n *Node) any() *process {
	if n == nil {
		return nil
	}
	if len(n.twins) == 0 {
		if n.Running() {
			return n.proc
		}
		return nil
	}
	first := n.world.rng.IntN(1 + len(n.twins))
	for i := range 1 + len(n.twins) {
		at := (first + i) % (1 + len(n.twins))
		twin := n
		if at > 0 {
			twin = n.twins[at-1]
		}
		if twin.Running() {
			return twin.proc
		}
	}
	return nil
}

// Report implements place.Sender.
func (p *process) Report(r *tiers.Report) {
	if !p.effect() {
		return
	}
	child := p.node
	w := child.world
	child.sent.Reports++
	p.told, p.toldAt = r, child.clock()
	if w.laws != nil {
		w.laws.reports(p, r)
	}
	if w.Trace != nil {
		w.say(child, "reports %s", showReport(r))
	}
	if child.parent.any() == nil {
		var fail func()
		fail = func() {
			if p.ready(fail) {
				p.runner.Failed(r.Sequence)
			}
		}
		w.After(w.between(w.Faults.Delay), fail)
		return
	}
	w.carry(child, true, func() {
		if parent := child.parent.any(); parent != nil {
			parent.reported(p, r)
		}
	})
}

func (p *process) reported(from *process, r *tiers.Report) {
	if p.suspended() {
		p.node.world.at(p.node.asleep, func() { p.reported(from, r) })
		return
	}
	if p.dead {
		return
	}
	n, child := p.node, from.node
	w := n.world
	p.runner.Reported(r, func(a *tiers.Ack) {
		if !p.effect() {
			return
		}
		n.sent.Acks++
		if w.laws != nil {
			w.laws.acknowledges(n, r, a)
			w.laws.lends(n, a.Lines)
		}
		if w.Trace != nil {
			w.say(n, "acknowledges %s", showAck(child.Place, a))
		}
		w.carry(child, false, func() { from.acknowledged(a) })
	})
	w.touchedLines(n, r)
}

func (p *process) acknowledged(a *tiers.Ack) {
	if p.suspended() {
		p.node.world.at(p.node.asleep, func() { p.acknowledged(a) })
		return
	}
	if p.dead || p.runner == nil {
		return
	}
	if w := p.node.world; w.laws != nil {
		w.laws.answered(p, a)
	}
	p.runner.Acknowledged(a)
	if a.Sequence > p.heard { // else it had an answer already
		if p.heard = a.Sequence; len(a.Pairs) > 0 {
			p.handed = a
		}
	}
	p.node.world.touchedGrants(p.node, a)
}

// Recall implements place.Sender.
func (p *process) Recall(to tiers.Place, r *tiers.Recall) {
	if !p.effect() {
		return
	}
	w := p.node.world
	child := w.nodes[to]
	if child == nil {
		return
	}
	p.node.sent.Recalls++
	if w.laws != nil {
		w.laws.lends(p.node, r.Lines)
		w.laws.fits(p.node, "Recall", r.Size())
	}
	if w.Trace != nil {
		w.say(p.node, "recalls %s", showRecall(to, r))
	}
	w.carry(child, false, func() {
		child.recalled(r)
		for _, twin := range child.twins {
			twin.recalled(r)
		}
	})
}

func (n *Node) recalled(r *tiers.Recall) {
	p := n.proc
	if !n.Running() {
		return
	}
	if p.suspended() {
		n.world.at(n.asleep, func() { n.recalled(r) })
		return
	}
	p.runner.Recalled(r)
	n.world.touchedRecall(n, r)
}
