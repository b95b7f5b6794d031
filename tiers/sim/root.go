package sim

import (
	"slices"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// This file is what the laws know of the root's disk. Nobody is above the root:
// what was lent to a child since a copy was made, its children tell.

// rootLaws are about the root's disk.
type rootLaws struct {
	number   uint64 // the highest of a session that ran
	believes bool   // the one that runs started on a clean disk that is an old one, and may believe it
	prior    uint64 // the number on that

	home  uint64 // the world whose root lent first
	other uint64 // one that a root whose disk was lost began, and whose limits it lent
}

// meta is what a node's disk says of itself.
func (n *Node) meta() *tiers.Meta {
	if m, _ := n.disk.durable["meta"].(*tiers.Meta); m != nil {
		return m
	}
	return &tiers.Meta{}
}

// rootStarts is called before a process of the root starts.
func (l *laws) rootStarts(n *Node) {
	if n.Place != tiers.Root {
		return
	}
	if n.Leaf && n.disk.lost && len(n.disk.durable) == 0 { // a new world, whose limits are whole
		l.takenForNew(n.site, n.session(), LostRoot)
	}
	clean := n.meta().Clean
	if clean {
		l.path(pathRootClean)
	}
	l.root.prior = n.meta().Number
	l.root.believes = clean && l.root.prior < l.root.number
	l.unwitnessed()
}

// unwitnessed excuses a root that starts on a clean disk that is an old one,
// where no child that this disk knows has heard of a later session on every
// disk of its own: nobody is left who could tell. Its limits are whole again.
func (l *laws) unwitnessed() {
	if !l.root.believes {
		return
	}
	root := l.sites[tiers.Root].nodes[0]
	for key, record := range root.disk.durable {
		place, is := strings.CutPrefix(string(key), "child/")
		s := l.sites[tiers.Place(place)]
		if c, _ := record.(*tiers.ChildRecord); !is || s == nil || c.Forgotten {
			continue
		}
		if !slices.ContainsFunc(s.nodes, func(n *Node) bool { return !n.gone && n.meta().Witness.Number <= l.root.prior }) {
			return
		}
	}
	l.root.believes = false
	l.takenForNew(root.site, root.session(), OldOwner)
}

// witnessed checks that who borrows from the root has written down of which
// session.
func (l *laws) witnessed(n *Node, a *tiers.Ack) {
	if n.site.parent != l.sites[tiers.Root] || !slices.ContainsFunc(a.Lines, func(g tiers.Grant) bool { return g.Line != 0 }) {
		return
	}
	l.checks++
	if w := n.meta().Witness; a.World == n.meta().World && w.Session != a.Parent && w.Number <= a.Root {
		l.broken("who borrows from the root is its witness", n, "session %016x lends, the disk knows of %016x, number %d", a.Parent, w.Session, w.Number)
	}
}

// lends is called before an answer or a Recall leaves. A root whose disk was
// lost is a new world's, until it is joined to the old one: what it lends until
// then comes on top of what the old one did.
func (l *laws) lends(n *Node, lines []tiers.Grant) {
	if n.Place != tiers.Root || !slices.ContainsFunc(lines, func(g tiers.Grant) bool { return g.Line != 0 }) {
		return
	}
	switch {
	case l.root.home == 0:
		l.root.home = n.meta().World
	case l.lendsNothingYet(n):
		l.root.other = n.meta().World
		l.takenForNew(n.site, n.session(), LostRoot)
	}
}

// lendsNothingYet says that a node is the root of another world than the first,
// which has lent nothing yet.
func (l *laws) lendsNothingYet(n *Node) bool {
	world := n.meta().World
	return n.Place == tiers.Root && !n.Leaf && world != l.root.home && world != l.root.other
}
