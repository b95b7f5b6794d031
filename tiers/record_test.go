package tiers

import (
	"cmp"
	"testing"

	"pgregory.net/rapid"
)

// drawSource draws the source of a count: a child, or the place itself.
func drawSource(t *rapid.T, label string) Place {
	if rapid.Bool().Draw(t, label+" is the place itself") {
		return ""
	}
	return drawPlace(t, label)
}

func TestCountKeysRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, source := drawName(t, "name"), drawSource(t, "source")
		if n, s := parseCountKey(countKey(name, source)); n != name || s != source {
			t.Fatalf("%q of %q became %q of %q", name, source, n, s)
		}
	})
}

// TestCountKeysSort: a List walks the store's order, so it has to be the
// order of keys in bytes, whatever their sources are.
func TestCountKeysSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawName(t, "a"), drawName(t, "b")
		b.Namespace = a.Namespace
		s, u := drawSource(t, "source of a"), drawSource(t, "source of b")
		want := cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(s, u))
		if got := cmp.Compare(countKey(a, s), countKey(b, u)); got != want {
			t.Fatalf("%q of %q and %q of %q: %d, want %d", a, s, b, u, got, want)
		}
	})
}

// TestRecordsOfOneKeyStandApart: no scan of one key's records meets another's.
func TestRecordsOfOneKeyStandApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawName(t, "a"), drawName(t, "b")
		disk := memory{countKey(b, drawSource(t, "source of b")): &CountRecord{}}
		met := false
		_ = disk.Scan(countKey(a, ""), "", func(Key, Record) bool { met = true; return true })
		if met != (a == b) {
			t.Fatalf("the scan of %q meets a record of %q: %v", a, b, met)
		}
	})
}
