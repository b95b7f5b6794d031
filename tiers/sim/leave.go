package sim

import "github.com/tributary-io/tributary/tiers"

// kept is what a place counted that left, as its parent had it then.
type kept struct {
	node   *Node // of the parent, whose disk was this one
	disk   int
	totals []tiers.Total // by target
}

// leaves ends all processes of a place and of those below it, for good. What
// their disks hold and no parent's does is lost.
func (l *laws) leaves(s *site) {
	s.left = true
	for _, n := range s.nodes {
		n.Crash()
		n.gone = true
	}
	for _, below := range s.below {
		l.leaves(below)
	}
	if s.leaf {
		l.mayLose(s)
	}
}

// countsOf is what a node's disk has of a place below it.
func (l *laws) countsOf(n *Node, child *site) []tiers.Total {
	totals := make([]tiers.Total, len(l.targets))
	for i, t := range l.targets {
		totals[i] = recorded(n.disk.durable[countKey(t.name, child.place)], false)
	}
	return totals
}

// forgotten is called when a place's parent has forgotten it.
func (l *laws) forgotten(parent *Node, disk int, had []tiers.Total) {
	l.path(pathForgotten)
	parent.site.kept = append(parent.site.kept, kept{parent, disk, had})
}

// keptAll checks that what forgotten places had counted is still at their
// parent, unless its disk is another since.
func (l *laws) keptAll(s *site, n *Node, t *target) {
	var want tiers.Total
	for _, k := range s.kept {
		if k.node == n && k.disk == n.disk.number {
			want = sum(want, k.totals[t.index])
		}
	}
	l.checks++
	if have := recorded(n.disk.durable[countKey(t.name, "")], true); !s.leaf && !atMost(want, have) {
		l.broken("what a forgotten place counted is kept", n, "%s: %+v, of %+v", t.name, have, want)
	}
}
