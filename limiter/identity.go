package limiter

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// This file says when a limit of other rules is the same limit: what was spent
// of it then stays spent. A namespace seldom has two limits of one kind and
// scope; one of such a kind stays the same whatever its figures become, and
// however they are written. Where it has several, each has an ordinal among
// them, which the root keeps when it takes other rules.

// alike names what limits have in common that only their ordinals tell apart.
func (l *Limit) alike() string {
	s := l.Scope.String() + " " + l.Kind.String()
	if l.Kind == Quota {
		s += " " + l.Window.Unit.String() + " UTC" // a quota may change its zone; the word is in the IDs of stores
	}
	return s
}

// identify gives each limit its ID. Ordinals are those that the spec says, by
// index, from 1 on; one that is 0 is the lowest that is free, in an order that
// does not depend on the file's.
func (r *Rule) identify(ordinals []int) error {
	taken := map[string]*[MaxLimits + 1]bool{}
	var free []int
	for i := range r.Limits {
		l, n := &r.Limits[i], ordinals[i]
		alike := l.alike()
		if taken[alike] == nil {
			taken[alike] = new([MaxLimits + 1]bool)
		}
		switch {
		case n == 0:
			free = append(free, i)
			continue
		case n < 0 || n > MaxLimits:
			return fmt.Errorf("ordinal %d of limit %d is out of range (1 to %d)", n, i, MaxLimits)
		case taken[alike][n]:
			return fmt.Errorf("ordinal %d of limit %d is another's, too", n, i)
		}
		taken[alike][n] = true
		l.setOrdinal(alike, n)
	}
	slices.SortStableFunc(free, func(a, b int) int { return r.Limits[a].compare(&r.Limits[b]) })
	for _, i := range free {
		l := &r.Limits[i]
		alike := l.alike()
		n := 1
		for n < MaxLimits && taken[alike][n] {
			n++
		}
		taken[alike][n] = true
		l.setOrdinal(alike, n)
	}
	return nil
}

// setOrdinal makes a limit the n-th of those alike.
func (l *Limit) setOrdinal(alike string, n int) {
	l.ID, l.FormerID = limitID(alike, n), 0
	if zone := l.Window.Zone; l.Kind == Quota && zone.String() != "UTC" {
		l.FormerID = limitID(fmt.Sprintf("%s %s %s %s", l.Scope, l.Kind, l.Window.Unit, zone), n)
	}
}

func limitID(alike string, ordinal int) uint64 {
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%s %d", alike, ordinal-1) // a hash.Hash never fails
	return hash.Sum64()
}

// compare orders limits by what they ask for.
func (l *Limit) compare(o *Limit) int {
	return cmp.Or(cmp.Compare(l.Written, o.Written), cmp.Compare(l.Rate, o.Rate), cmp.Compare(l.Burst, o.Burst), cmp.Compare(l.String(), o.String()))
}

// Succeed returns rules that say what after says, to follow before: each limit
// has the ordinal of the one that it continues. A limit continues one that is
// equal; else one whose rate is written in the same unit, or whose windows are
// of the same zone; else any that is left, in order. Ordinals in the spec of
// after do not count.
//
// Namespaces that say the same as before cost a comparison.
func Succeed(before, after *Rules) *Rules {
	named := map[string]NamespaceSpec{} // whose ordinals are not those of after
	parts := map[int]map[string]NamespaceSpec{}
	for _, name := range after.names {
		was, is, spec := before.Rule(name), after.Rule(name), after.spec.Namespaces[name]
		if was != nil && bytes.Equal(was.says, is.says) {
			continue
		}
		spec.Limits = slices.Clone(spec.Limits)
		stripped := false
		for i := range spec.Limits {
			stripped = stripped || spec.Limits[i].Ordinal != 0
			spec.Limits[i].Ordinal = 0
		}
		if stripped {
			is = recompiled(Spec{Namespaces: map[string]NamespaceSpec{name: spec}}).Rule(name)
		}
		if was != nil && is.number(spec.Limits, was) || stripped {
			named[name], parts[PartOf(name)] = spec, map[string]NamespaceSpec{}
		}
	}
	if len(named) == 0 {
		return after
	}
	for name, spec := range after.spec.Namespaces {
		if part := parts[PartOf(name)]; part != nil {
			part[name] = spec
		}
	}
	for name, spec := range named {
		parts[PartOf(name)][name] = spec
	}
	rules, err := after.With(after.spec, parts)
	return must(rules, err)
}

// number has a namespace's limits say their ordinals where the rule follows
// another, if it would give them others by itself.
func (r *Rule) number(specs []LimitSpec, was *Rule) bool {
	ordinals := r.continues(was)
	for i := range r.Limits {
		if limitID(r.Limits[i].alike(), ordinals[i]) != r.Limits[i].ID {
			for j := range specs { // where one says its ordinal, all do
				specs[j].Ordinal = ordinals[j]
			}
			return true
		}
	}
	return false
}

// recompiled compiles a spec that was compiled before, with other ordinals.
func recompiled(spec Spec) *Rules {
	rules, err := Compile(spec)
	return must(rules, err)
}

func must(rules *Rules, err error) *Rules {
	if err != nil {
		panic(fmt.Sprintf("limiter: rules that were compiled do not compile again: %v", err))
	}
	return rules
}

// continues returns the ordinal of each limit where the rule follows another.
func (r *Rule) continues(was *Rule) []int {
	ordinals := make([]int, len(r.Limits))
	left := slices.SortedFunc(slices.Values(was.Limits), func(a, b Limit) int { return a.compare(&b) })
	order := make([]int, len(r.Limits))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return r.Limits[a].compare(&r.Limits[b]) })
	for _, same := range []func(a, b *Limit) bool{
		(*Limit).Equal,
		func(a, b *Limit) bool { return a.Written == b.Written && a.Window.zone() == b.Window.zone() },
		func(_, _ *Limit) bool { return true },
	} {
		for _, i := range order {
			l := &r.Limits[i]
			at := slices.IndexFunc(left, func(o Limit) bool { return o.alike() == l.alike() && same(l, &o) })
			if ordinals[i] == 0 && at >= 0 {
				ordinals[i] = left[at].ordinal()
				left = slices.Delete(left, at, at+1)
			}
		}
	}
	// What is left over is new: it is none that was there. There are as many ordinals as a namespace may have limits.
	given := map[uint64]bool{}
	for _, i := range order {
		for n := 1; ordinals[i] == 0; n++ {
			if id := limitID(r.Limits[i].alike(), n); was.Limit(id) == nil && !given[id] {
				ordinals[i], given[id] = n, true
			}
		}
	}
	return ordinals
}

// ordinal is which of those alike a limit is.
func (l *Limit) ordinal() int {
	alike := l.alike()
	for n := 1; n <= MaxLimits; n++ {
		if limitID(alike, n) == l.ID {
			return n
		}
	}
	panic(fmt.Sprintf("limiter: %s has an ID that no ordinal gives", l))
}
