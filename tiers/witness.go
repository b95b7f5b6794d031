package tiers

import (
	"fmt"
	"slices"

	"github.com/tributary-io/tributary/limiter"
)

// This file is how the root learns whether its disk is its last. Another place
// asks its parent, which gives each session a number. The root numbers its
// own, and asks its children: it lends to none that has not written down of
// which session it borrows. So whoever was lent anything is a witness of it.

// bearWitness notes the newest session of the root. The next report says it,
// and leaves when it is durable.
func (m *Machine) bearWitness(a *Ack) {
	if w := (Witness{a.Parent, a.Root}); w.Number > m.meta.Witness.Number && w.Number <= maxNumber {
		m.meta.Witness = w
		m.write(metaKey, m.saved())
	}
}

// heardBy says that a child's disk knows of this session of the root. One that
// knows of a later session tells that this disk was set back.
func (m *Machine) heardBy(now limiter.Time, r *Report, a *Ack) bool {
	if m.cfg.Place != Root {
		return true
	}
	if r.Witness.Session != m.cfg.Session && r.Witness.Number >= m.meta.Number {
		m.setBack(now, r)
	}
	a.Root = m.meta.Number
	return r.Witness.Session == m.cfg.Session
}

// setBack is what the root does when it learns that a session ran that its
// disk does not know: what that lent is not known either. It takes a number
// above, which the children hear of.
func (m *Machine) setBack(now limiter.Time, r *Report) {
	known := m.cfg.Restored || m.meta.Number > m.prior.Number+1
	m.meta.Number = r.Witness.Number + 1
	if !known {
		m.lose(now)
	}
	m.write(metaKey, m.saved())
	switch {
	case !m.judged:
		m.judge(now, m.meta.Number)
	case !known:
		m.event(EventLost, m.cfg.Place, fmt.Sprintf("%s has heard of session %016x of this place, which ran on another disk: what it lent is not known", r.Child, r.Witness.Session))
		m.believe(now, false, false)
	}
}

// hearWitnesses judges the root's disk to be its last when all children have
// reported, and knew of no later session.
func (m *Machine) hearWitnesses(now limiter.Time) {
	if m.cfg.Place == Root && !m.judged && !slices.ContainsFunc(m.lower.order, func(c *child) bool { return !c.reported }) {
		m.judge(now, m.meta.Number)
	}
}
