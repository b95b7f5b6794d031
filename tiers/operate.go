package tiers

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file is what only an operator can say: what nobody is left to know.

// ErrJoined ends a session whose store belongs to another world from now on:
// the place starts again.
var ErrJoined = errors.New("the store belongs to another world now")

// ErrNothingWaits says that a figure is not wanted: the owner knows its own.
var ErrNothingWaits = errors.New("no budget or quota of the key waits for a figure")

// Forfeit ends what a child was lent and may not spend at present: of budgets
// and quotas, whose lines outlive their leases. What was out counts as spent.
// What it may still spend is forfeited when the lease ends. It returns how
// many lines that are.
func (m *Machine) Forfeit(now limiter.Time, place Place) (lines int, err error) {
	c := m.lower.children[place]
	if c == nil {
		return 0, ErrNoChild
	}
	lines = c.keepNone(m.lower.lines)
	m.look(now)
	m.event(EventForfeit, place, fmt.Sprintf("%d lines: what was out of them counts as spent", lines))
	return lines, nil
}

// Figure says how much is left of those of a key's budgets and quotas that
// this place owns and whose disk was lost: they wait for it, and lend nothing.
func (m *Machine) Figure(now limiter.Time, name Name, left int64) error {
	s := m.spaces[name.Namespace]
	if s == nil || s.rule == nil {
		return ErrUnknownNamespace
	}
	o := m.object(now, s, name.Key)
	waited := false
	for _, p := range o.pools {
		if m.turn(now, p); !p.owner || !p.waits {
			continue
		}
		waited, p.waits = true, false
		p.stock(now, max(0, min(left, p.limit.Burst)))
		m.save(p)
		m.settled(now, p)
	}
	if !waited {
		return ErrNothingWaits
	}
	return nil
}

// World is the world that the store is of; 0: not known yet.
func (m *Machine) World() uint64 { return m.meta.World }

// ErrServes refuses to take a store out of a world in which others count on
// it: they would be refused from then on.
var ErrServes = errors.New("its world counts on it")

// Join makes the store a part of another world: a root whose disk was lost
// began a new one, which the old one's places refuse. What the other world's
// owners lent is not known here, so this place's own limits begin as after a
// lost disk. The session ends when that is durable.
//
// A root that lost its disk has no places of its new world around it. One that
// has is most likely not the one that was meant, and wrecked by this: it is
// ErrServes, with who they are, unless it is forced.
func (m *Machine) Join(now limiter.Time, world uint64, force bool) error {
	if world == 0 || world == m.meta.World {
		return nil
	}
	if who := m.relatives(now); len(who) > 0 && !force {
		return fmt.Errorf("%w: %s", ErrServes, strings.Join(who, ", "))
	}
	m.event(EventWorld, m.cfg.Place, fmt.Sprintf("the store of world %016x belongs to world %016x from now on", m.meta.World, world))
	m.meta.World, m.meta.Witness = world, Witness{}
	if m.cfg.Place == Root {
		m.lose(now)
	}
	m.write(metaKey, m.saved())
	m.out.Exit = ErrJoined
	return nil
}

// relatives names the places that are of this one's world and deal with it: a
// parent that takes its reports, and children that it takes reports of. A few
// stand for all.
func (m *Machine) relatives(now limiter.Time) (who []string) {
	const most = 3
	ago := func(at limiter.Time) string { return now.Sub(at).Round(time.Millisecond).String() }
	if u := &m.upper; u.joined && u.refused == "" {
		who = append(who, fmt.Sprintf("%s took its report %s ago", m.cfg.Place.Parent(), ago(u.gotAt)))
	}
	more := 0
	for _, c := range m.lower.order {
		switch {
		case c.refused != "":
		case len(who) >= most:
			more++
		case c.reported:
			who = append(who, fmt.Sprintf("%s reported %s ago", c.place, ago(c.seenAt)))
		default:
			who = append(who, fmt.Sprintf("%s reported before this start", c.place))
		}
	}
	if more > 0 {
		who = append(who, fmt.Sprintf("and %d more", more))
	}
	return who
}
