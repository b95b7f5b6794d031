package tiers

import (
	"cmp"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file remembers holds that rules have shortened. Permits that were given by
// the longer one run on: what a line that ends had out, or an earlier session,
// comes back when those have ended.

// A LongHold is the hold of a concurrency by earlier rules.
type LongHold struct {
	Namespace string        `json:"namespace"`
	Limit     uint64        `json:"limit"` // limiter.Limit.ID
	Hold      time.Duration `json:"hold"`
}

const (
	// maxHolds is how many of them a root lets rules make: they take some MiB
	// then, on the disk and in answers.
	maxHolds = 30_000
	// maxHoldText is how long one is as JSON, at most.
	maxHoldText = limiter.MaxNamespace + 100
)

// longHold is one, and when no permit that was given by it can be out any more.
type longHold struct {
	hold  time.Duration
	until limiter.Time
}

// rememberHold notes that permits may be out by a longer hold than the rules
// have now. Those below follow the earlier rules for one lease more, at most.
func (m *Machine) rememberHold(now limiter.Time, of limitOf, hold time.Duration) {
	hold = max(hold, m.holds[of].hold)
	m.holds[of] = longHold{hold, now.Add(lenderLease(time.Duration(m.meta.Lease)) + lenderLease(hold))}
}

// hearHolds takes what the parent remembers, with its rules: a disk that is lost
// knew it.
func (m *Machine) hearHolds(now limiter.Time, holds []LongHold) {
	heard := map[limitOf]bool{}
	for _, h := range holds {
		if h.Hold <= 0 || h.Hold > limiter.MaxHold {
			continue
		}
		of := limitOf{h.Namespace, h.Limit}
		m.rememberHold(now, of, h.Hold)
		heard[of] = true
	}
	if len(heard) == 0 {
		return
	}
	m.forAll(now, taskHolds, func(_ limiter.Time, o *object) {
		for _, p := range o.pools {
			if of := (limitOf{o.name.Namespace, p.limit.ID}); heard[of] {
				p.runOn = max(p.runOn, m.holds[of].until)
				p.stayFrozen(p.runOn)
			}
		}
	})
}

// shortened remembers the holds of a namespace that other rules shorten, or that
// leave the rules.
func (m *Machine) shortened(now limiter.Time, was, is *limiter.Rule) {
	for _, l := range shorter(was, is) {
		m.rememberHold(now, limitOf{was.Namespace, l.ID}, l.Hold)
	}
}

// shorter are the limits whose holds another rule shortens, or does not have.
func shorter(was, is *limiter.Rule) (limits []*limiter.Limit) {
	for i := range was.Limits {
		if l := &was.Limits[i]; l.Kind == limiter.Concurrency {
			if left := is.Limit(l.ID); left == nil || left.Hold < l.Hold {
				limits = append(limits, l)
			}
		}
	}
	return limits
}

// holdsWith is how many holds are remembered once other rules are followed.
func (m *Machine) holdsWith(rules *limiter.Rules) int {
	n := len(m.holds)
	for _, name := range m.rules.Namespaces() {
		n += len(shorter(m.rules.Rule(name), rules.Rule(name)))
	}
	return n
}

// forgetHolds forgets those by which nothing is out any more.
func (m *Machine) forgetHolds(now limiter.Time) {
	before := len(m.holds)
	for of, h := range m.holds {
		if now >= h.until {
			delete(m.holds, of)
		}
	}
	if len(m.holds) < before {
		m.keepRules()
	}
}

// holdsEnd is when the next is forgotten.
func (m *Machine) holdsEnd() limiter.Time {
	at := limiter.Never
	for _, h := range m.holds {
		at = min(at, h.until)
	}
	return at
}

// longHolds are those to write down, in order.
func (m *Machine) longHolds() []LongHold {
	var all []LongHold
	for of, h := range m.holds {
		all = append(all, LongHold{of.namespace, of.id, h.hold})
	}
	slices.SortFunc(all, func(a, b LongHold) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Limit, b.Limit))
	})
	return all
}
