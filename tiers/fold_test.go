package tiers

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFoldingLosesNothing: two stores count the same sessions. Whatever of
// them is folded when, what either has is never more than was counted, never
// goes back, and is all of it once the two have told each other, since the
// leaf knew each session that it told.
func TestFoldingLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaf, parent := &count{object: &object{}}, &count{object: &object{}}
		var leafList, parentList []uint64
		truth := map[uint64]uint64{}
		session := uint64(1)
		exchange := func() {
			// The leaf's first report of the key: its list goes with it.
			l, p := leaf.source(""), parent.source("eu")
			parentList = union(parentList, leafList)
			if _, _, err := parent.merge(p, parentList, Count{Pairs: l.pairs, Folded: l.folded}); err != nil {
				t.Fatal(err)
			}
			leafList = union(leafList, parentList)
			if _, _, err := leaf.merge(l, leafList, Count{Pairs: p.pairs, Folded: p.folded}); err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"count": func(t *rapid.T) {
				truth[session] += uint64(rapid.IntRange(1, 9).Draw(t, "n"))
				if _, _, err := leaf.merge(leaf.source(""), leafList, Count{Pairs: []Pair{{session, Total{Added: truth[session]}}}}); err != nil {
					t.Fatal(err)
				}
			},
			"start": func(*rapid.T) { session++ },
			"fold": func(t *rapid.T) {
				if session > 1 {
					parentList = union(parentList, []uint64{rapid.Uint64Range(1, session-1).Draw(t, "ended")})
				}
			},
			"exchange": func(*rapid.T) { exchange() },
			"": func(t *rapid.T) {
				var all uint64
				for _, n := range truth {
					all += n
				}
				for name, c := range map[string]*count{"leaf": leaf, "parent": parent} {
					var sum Total
					for i := range c.sources {
						sum, _ = sum.plus(c.sources[i].total())
					}
					if sum != c.total || c.total.Added > all {
						t.Fatalf("the %s has %v, its sources %v, counted were %d", name, c.total, sum, all)
					}
				}
			},
		})
		exchange()
		if leaf.total != parent.total {
			t.Fatalf("in the end the leaf has %v, the parent %v", leaf.total, parent.total)
		}
		var all uint64
		for _, n := range truth {
			all += n
		}
		if leaf.total.Added != all {
			t.Fatalf("in the end they have %v, counted were %d", leaf.total, all)
		}
	})
}

func TestUnion(t *testing.T) {
	list := []uint64{2, 5}
	if got := union(list, []uint64{5, 2, 2}); !slices.Equal(got, list) {
		t.Errorf("%v", got)
	}
	if got := union(list, []uint64{9, 1, 9}); !slices.Equal(got, []uint64{1, 2, 5, 9}) || !slices.Equal(list, []uint64{2, 5}) {
		t.Errorf("%v, and the old one is %v", got, list)
	}
}
