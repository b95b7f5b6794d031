package tiers

import (
	"errors"
	"maps"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

func drawPairs(t *rapid.T, label string) []Pair {
	bySession := map[uint64]Pair{}
	for range rapid.IntRange(0, 4).Draw(t, label) {
		most := rapid.SampledFrom([]uint64{3, 1 << 40, math.MaxUint64 / 3, math.MaxUint64}).Draw(t, "at most")
		p := Pair{rapid.Uint64Range(0, 4).Draw(t, "session"), Total{rapid.Uint64Range(0, most).Draw(t, "added"), rapid.Uint64Range(0, most).Draw(t, "removed")}}
		bySession[p.Session] = p
	}
	pairs := make([]Pair, 0, len(bySession))
	for _, session := range slices.Sorted(maps.Keys(bySession)) {
		pairs = append(pairs, bySession[session])
	}
	return pairs
}

// largest merges pairs by the definition: for each session, the larger of
// each figure.
func largest(lists ...[]Pair) []Pair {
	bySession := map[uint64]Pair{}
	for _, p := range slices.Concat(lists...) {
		old := bySession[p.Session]
		bySession[p.Session] = Pair{p.Session, Total{max(old.Added, p.Added), max(old.Removed, p.Removed)}}
	}
	var pairs []Pair
	for _, session := range slices.Sorted(maps.Keys(bySession)) {
		pairs = append(pairs, bySession[session])
	}
	return pairs
}

// sum is the sum of pairs, and whether it fits.
func sum(pairs ...[]Pair) (Total, bool) {
	added, removed := new(big.Int), new(big.Int)
	for _, p := range slices.Concat(pairs...) {
		added.Add(added, new(big.Int).SetUint64(p.Added))
		removed.Add(removed, new(big.Int).SetUint64(p.Removed))
	}
	return Total{added.Uint64(), removed.Uint64()}, added.IsUint64() && removed.IsUint64()
}

// TestMergeKeepsTheLargest merges what two children say, in any order, twice:
// each source has the largest of each session, and the total is their sum;
// what would not fit is refused and changes nothing.
func TestMergeKeepsTheLargest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &count{object: &object{name: Name{"votes", "alice"}}}
		model := map[Place][]Pair{}
		for range rapid.IntRange(1, 12).Draw(t, "merges") {
			from := rapid.SampledFrom([]Place{"eu.de", "eu.fr"}).Draw(t, "from")
			told := drawPairs(t, "pairs")
			s := c.source(from)
			before, total := slices.Clone(s.pairs), c.total
			next := maps.Clone(model)
			next[from] = largest(model[from], told)
			want, fits := sum(next["eu.de"], next["eu.fr"])
			changed, moved, err := c.merge(s, nil, Count{Pairs: told})
			if moved || fits != (err == nil) {
				t.Fatalf("merging %v: %v, but the sum fits: %v", told, err, fits)
			}
			if err != nil {
				if changed || !slices.Equal(s.pairs, before) || c.total != total {
					t.Fatalf("a refused merge left %v, %v of %v, %v", s.pairs, c.total, before, total)
				}
				continue
			}
			model = next
			if !slices.Equal(s.pairs, model[from]) || c.total != want || changed == slices.Equal(before, s.pairs) {
				t.Fatalf("merging %v into %v: %v, total %v, changed %v; want %v, %v", told, before, s.pairs, c.total, changed, model[from], want)
			}
			if again, _, err := c.merge(s, nil, Count{Pairs: told}); again || err != nil || c.total != want {
				t.Fatalf("merging %v twice: %v, %v, total %v", told, again, err, c.total)
			}
		}
	})
}

// TestMergeIsCommutative: reports that come late, or in another order, end in
// the same.
func TestMergeIsCommutative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := [][]Pair{drawPairs(t, "a"), drawPairs(t, "b"), drawPairs(t, "c")}
		for i := range lists { // a quarter each: they fit in any order
			for j := range lists[i] {
				lists[i][j].Added, lists[i][j].Removed = lists[i][j].Added/16, lists[i][j].Removed/16
			}
		}
		merged := func(order []int) ([]Pair, Total) {
			c := &count{object: &object{}}
			for _, i := range order {
				if _, _, err := c.merge(c.source("eu"), nil, Count{Pairs: lists[i]}); err != nil {
					t.Fatal(err)
				}
			}
			return c.sources[0].pairs, c.total
		}
		pairs, total := merged([]int{0, 1, 2})
		for _, order := range [][]int{{2, 1, 0}, {1, 2, 0}, {0, 2, 1, 2, 0}} {
			if p, sum := merged(order); !slices.Equal(p, pairs) || sum != total {
				t.Fatalf("in the order %v: %v, %v; want %v, %v", order, p, sum, pairs, total)
			}
		}
	})
}

// TestWrittenPairsDoNotChange: a record that was written is not touched by
// what is merged later.
func TestWrittenPairsDoNotChange(t *testing.T) {
	c := &count{object: &object{}}
	s := c.source("eu")
	if _, _, err := c.merge(s, nil, Count{Pairs: []Pair{{1, Total{1, 0}}, {3, Total{1, 0}}}}); err != nil {
		t.Fatal(err)
	}
	written := s.pairs
	if _, _, err := c.merge(s, nil, Count{Pairs: []Pair{{1, Total{5, 0}}, {2, Total{1, 0}}}}); err != nil {
		t.Fatal(err)
	}
	if want := []Pair{{1, Total{1, 0}}, {3, Total{1, 0}}}; !slices.Equal(written, want) {
		t.Fatalf("%v, want %v", written, want)
	}
}

// TestAddKeepsTotalsExact: what would take a total past 2⁵³−1 is refused, and
// nothing is counted.
func TestAddKeepsTotalsExact(t *testing.T) {
	m := start(t, memory{}, "eu.de.berlin", true, 1)
	alice := Name{"votes", "alice"}
	for _, step := range []struct {
		delta int64
		err   error
		want  Total
	}{
		{limiter.MaxTokens - 1, nil, Total{limiter.MaxTokens - 1, 0}},
		{2, ErrTotalRange, Total{}},
		{0, nil, Total{limiter.MaxTokens - 1, 0}},
		{1, nil, Total{limiter.MaxTokens, 0}},
		{1, ErrTotalRange, Total{}},
		{math.MaxInt64, ErrTotalRange, Total{}},
		{math.MinInt64, ErrTotalRange, Total{}},
		{-limiter.MaxTokens, nil, Total{limiter.MaxTokens, limiter.MaxTokens}},
		{-1, ErrTotalRange, Total{}},
	} {
		got, err := m.Add(0, alice, step.delta)
		if !errors.Is(err, step.err) || got != step.want {
			t.Fatalf("add %d: %v, %v; want %v, %v", step.delta, got, err, step.want, step.err)
		}
	}
	for name, want := range map[Name]error{{"nobody", "x"}: ErrUnknownNamespace, {"api", "x"}: ErrLimited} {
		if _, err := m.Add(0, name, 1); !errors.Is(err, want) {
			t.Errorf("add to %s: %v", name, err)
		}
	}
}

// TestListWalksKeysInByteOrder compares pages of a List with a sorted map.
func TestListWalksKeysInByteOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := memory{}
		model := map[string]Total{}
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			name, from := drawName(t, "name"), drawPlace(t, "source")
			k := countKey(name, from)
			if disk[k] != nil {
				continue
			}
			n := Total{rapid.Uint64Range(1, 9).Draw(t, "added"), 0}
			disk[k] = &CountRecord{Pairs: []Pair{{0, n}}}
			if name.Namespace == "a" {
				model[name.Key], _ = model[name.Key].plus(n)
			}
		}
		prefix := rapid.SampledFrom([]string{"", "a", "a/", "."}).Draw(t, "prefix")
		var want []Listed
		for _, key := range slices.Sorted(maps.Keys(model)) {
			if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
				want = append(want, Listed{key, model[key]})
			}
		}
		m := start(t, disk, "eu.de", false, 1)
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		var got []Listed
		for after, more := "", true; more; {
			var page []Listed
			var err error
			if page, more, err = m.List("a", prefix, after, limit); err != nil || len(page) > limit || more && len(page) < limit {
				t.Fatalf("a page of %d, more %v: %v", len(page), more, err)
			}
			if got = append(got, page...); more {
				after = page[len(page)-1].Key
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
