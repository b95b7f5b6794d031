package limiter

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Change is one thing that two Rules say differently.
type Change struct {
	Namespace string `json:"namespace,omitzero"` // empty: it stands at the top of the rules
	What      string `json:"what"`               // the field: "limit", "shadow", "weight eu.de"
	Old       string `json:"old,omitzero"`       // empty: it was not there
	New       string `json:"new,omitzero"`       // empty: it is gone
	Forgets   bool   `json:"forgets,omitzero"`   // what was spent of it is not known any more
}

// String is one line: "api: changed shadow false to true".
func (c Change) String() string {
	words := []string{"changed", c.What, c.Old, "to", c.New}
	switch {
	case c.Old == "":
		words = []string{"added", c.What, c.New}
	case c.New == "":
		words = []string{"removed", c.What, c.Old}
	}
	line := strings.Join(words, " ")
	if c.Namespace != "" {
		line = c.Namespace + ": " + line
	}
	if c.Forgets {
		line += " (forgets what was spent)"
	}
	return line
}

// Diff returns what has to be changed in before to make it say what after says,
// if after follows it ([Succeed]): nothing exactly when their hashes are equal
// then. Changes are sorted by namespace, those of the top first. A limit is the
// same when its ID is.
func Diff(before, after *Rules) []Change {
	var d differ
	after = Succeed(before, after)
	d.note("lease", FormatDuration(before.Lease), FormatDuration(after.Lease))
	d.note("fold_after", FormatDuration(before.FoldAfter), FormatDuration(after.FoldAfter))
	for _, name := range union(before.byName, after.byName) {
		d.namespace = name
		d.rule(before.Rule(name), after.Rule(name))
	}
	return d.changes
}

type differ struct {
	namespace string
	changes   []Change
}

// note notes a change, if it is one.
func (d *differ) note(what, before, after string) {
	if before != after {
		d.changes = append(d.changes, Change{Namespace: d.namespace, What: what, Old: before, New: after, Forgets: what == "limit" && after == ""})
	}
}

func (d *differ) rule(before, after *Rule) {
	nothing := &Rule{Wait: -1}
	if before == nil {
		d.note("namespace", "", after.Namespace)
		before = nothing
	}
	if after == nil {
		d.note("namespace", before.Namespace, "")
		after = nothing
	}
	for _, l := range before.Limits {
		now := ""
		if i := slices.IndexFunc(after.Limits, func(n Limit) bool { return n.ID == l.ID }); i >= 0 {
			now = after.Limits[i].String()
		}
		d.note("limit", l.String(), now)
	}
	for _, l := range after.Limits {
		if !slices.ContainsFunc(before.Limits, func(o Limit) bool { return o.ID == l.ID }) {
			d.note("limit", "", l.String())
		}
	}
	d.note("shadow", strconv.FormatBool(before.Shadow), strconv.FormatBool(after.Shadow))
	d.note("count", strconv.FormatBool(before.Count), strconv.FormatBool(after.Count))
	d.note("dedupe", FormatDuration(before.Dedupe), FormatDuration(after.Dedupe))
	d.note("wait", waitText(before), waitText(after))
	d.note("durability", before.durability(), after.durability())
	for _, place := range union(before.weights, after.weights) {
		d.note("weight "+place, weightText(before, place), weightText(after, place))
	}
}

func (r *Rule) durability() string {
	if r.Async {
		return "async"
	}
	return "sync"
}

func waitText(r *Rule) string {
	if r.Wait < 0 {
		return ""
	}
	return FormatDuration(r.Wait)
}

func weightText(r *Rule, place string) string {
	if w, ok := r.weights[place]; ok {
		return strconv.FormatInt(w, 10)
	}
	return ""
}

// union returns the keys of both, sorted.
func union[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}
