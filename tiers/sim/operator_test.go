package sim

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// pairs is how many pairs a node's disk has of alice from a source.
func pairs(n *Node, source tiers.Place) int {
	r, _ := n.disk.durable[countKey(alice, source)].(*tiers.CountRecord)
	if r == nil {
		return 0
	}
	return len(r.Pairs)
}

// TestSessionsAreFolded: a city that starts each day has not one pair for
// each start, and its parent's lost disk brings them not back either.
func TestSessionsAreFolded(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	w.FoldAfter = 2 * time.Second
	cities := tree(w)
	var v Votes
	for range 8 {
		vote(t, w, &v, cities[0], 3)
		w.Run(time.Second)
		cities[0].Crash()
		cities[0].Start()
	}
	vote(t, w, &v, cities[0], 1)
	w.Run(3 * time.Second)
	vote(t, w, &v, cities[0], 1)
	w.Run(time.Second)
	country := w.Node("eu.a")
	for _, n := range []*Node{w.Node(tiers.Root), country, cities[0]} {
		expect(t, n, 26)
	}
	if n := pairs(country, cities[0].Place); n > 5 {
		t.Errorf("the country has %d pairs of the city's 9 sessions", n)
	}
	country.Crash()
	country.Wipe()
	country.Start()
	w.Run(2 * time.Second)
	cities[0].Crash()
	cities[0].Start()
	vote(t, w, &v, cities[0], 1)
	w.Run(2 * time.Second)
	for _, n := range []*Node{w.Node(tiers.Root), country, cities[0]} {
		expect(t, n, 27)
	}
	if n := pairs(cities[0], ""); n > 5 {
		t.Errorf("the city has %d pairs of its 10 sessions", n)
	}
}

// TestFoldedSessionIsRefused: a process that was cut off for longer than its
// twin's parent remembers exits, and is not counted twice.
func TestFoldedSessionIsRefused(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	w.FoldAfter = 2 * time.Second
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 5)
	w.Run(time.Second)
	twin := w.Twin(cities[0])
	cities[0].Cut = true
	vote(t, w, &v, cities[0], 100) // on its disk only
	vote(t, w, &v, twin, 7)
	w.Run(5 * time.Second)
	vote(t, w, &v, twin, 1)
	w.Run(time.Second)
	cities[0].Cut = false
	w.Run(5 * time.Second)
	if !errors.Is(cities[0].broken, tiers.ErrEnded) {
		t.Errorf("the folded session goes on: %v", cities[0].broken)
	}
	expect(t, w.Node(tiers.Root), 13)
}

// TestSessionHeardOfFirstFromItsTwinIsNotFolded: a twin on a copy of a disk
// reports the pairs of the session that wrote it, before that one does.
func TestSessionHeardOfFirstFromItsTwinIsNotFolded(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	w.FoldAfter = 15 * time.Second
	cities := tree(w)
	var v Votes
	cities[0].Cut = true
	vote(t, w, &v, cities[0], 5)
	twin := w.Twin(cities[0])
	vote(t, w, &v, twin, 1)
	w.Run(time.Second)
	cities[0].Cut = false
	for range 4 {
		w.Run(10 * time.Second)
		vote(t, w, &v, cities[0], 1)
	}
	w.Run(time.Second)
	if !errors.Is(twin.broken, tiers.ErrFenced) || cities[0].broken != nil {
		t.Errorf("the newer session ended with %v, the older with %v", cities[0].broken, twin.broken)
	}
	expect(t, w.Node(tiers.Root), 10)
}

// TestForgottenPlaceIsKept: what it counted stays counted, also when its
// parent's disk is lost or set back, and it is refused if it comes back.
func TestForgottenPlaceIsKept(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 7)
	vote(t, w, &v, cities[1], 8)
	w.Run(time.Second)
	country, root := w.Node("eu.a"), w.Node(tiers.Root)
	forget := func() (err error) {
		country.Runner().Forget(cities[0].Place, func(e error) { err = e })
		w.Run(100 * time.Millisecond)
		return err
	}
	if err := forget(); !errors.Is(err, tiers.ErrReports) {
		t.Fatalf("a place that reports was forgotten: %v", err)
	}
	old := maps.Clone(country.disk.durable)
	cities[0].Crash()
	w.Run(5 * time.Second)
	if err := forget(); err != nil {
		t.Fatal(err)
	}
	w.Run(time.Second)
	expect(t, country, 15)
	expect(t, root, 15)

	cities[0].Start()
	w.Run(5 * time.Second)
	if !errors.Is(cities[0].broken, tiers.ErrEnded) {
		t.Errorf("the forgotten place goes on: %v", cities[0].broken)
	}
	expect(t, root, 15)

	for name, disk := range map[string]map[tiers.Key]tiers.Record{"lost": {}, "old": old} {
		country.Crash()
		country.setDisk(maps.Clone(disk))
		country.Start()
		w.Run(3 * time.Second)
		cities[0].Crash()
		cities[0].Start()
		w.Run(5 * time.Second)
		if !errors.Is(cities[0].broken, tiers.ErrEnded) {
			t.Errorf("%s: the forgotten place goes on: %v", name, cities[0].broken)
		}
		vote(t, w, &v, cities[1], 1)
		w.Run(2 * time.Second)
		if got, want := country.Total(alice).Added, v.Sent[alice]; got != want {
			t.Errorf("%s: the country has %d of %d", name, got, want)
		}
		if got, want := root.Total(alice).Added, v.Sent[alice]; got != want {
			t.Errorf("%s: the root has %d of %d", name, got, want)
		}
	}
}

// TestForfeitEndsABudgetsLine: it is out no longer, and spent.
func TestForfeitEndsABudgetsLine(t *testing.T) {
	r := rules(t, limiter.LimitSpec{Scope: "global", Budget: new(int64(100))})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	admitted := 0
	check := func(n *Node) {
		n.Runner().Check(user, 1, time.Second, func(d tiers.Decision, _ error) {
			if d.Allowed {
				admitted++
			}
		})
	}
	for range 20 {
		check(cities[0])
		w.Run(50 * time.Millisecond)
	}
	cities[0].Crash()
	cities[0].parent.Crash() // and its country: what they hold is the region's line now
	w.Run(10 * time.Second)
	lines := 0
	w.Node("eu").Runner().Forfeit("eu.a", func(n int, err error) { lines = n })
	w.Run(time.Second)
	if lines != 1 {
		t.Fatalf("%d lines were forfeited", lines)
	}
	for range 200 {
		check(cities[7])
		w.Run(50 * time.Millisecond)
	}
	w.Run(20 * time.Second)
	if admitted > 100 || admitted < 80 {
		t.Errorf("%d of 100 were admitted", admitted)
	}
}

// TestJoinedWorldsGoOn: a root that lost its disk is a new world, which the
// old one's places refuse until it is joined to theirs.
func TestJoinedWorldsGoOn(t *testing.T) {
	w := NewWorld(1, rules(t, limiter.LimitSpec{Scope: "global", Rate: "10/s", Burst: new(int64(10))}), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 7)
	w.Run(time.Second)
	root := w.Node(tiers.Root)
	world := root.disk.durable["meta"].(*tiers.Meta).World
	root.Crash()
	root.Wipe()
	root.Start()
	vote(t, w, &v, cities[0], 1)
	w.Run(2 * time.Second)
	expect(t, root, 0)
	root.Runner().Join(world, false, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	w.Run(100 * time.Millisecond)
	if !errors.Is(root.broken, tiers.ErrJoined) {
		t.Fatalf("the root goes on: %v", root.broken)
	}
	root.Crash()
	root.Start()
	w.Run(3 * time.Second)
	vote(t, w, &v, cities[0], 1)
	w.Run(time.Second)
	expect(t, root, 9)
	denied := false
	cities[0].Runner().Check(user, 1, 0, func(d tiers.Decision, _ error) { denied = !d.Allowed })
	w.Run(100 * time.Millisecond)
	if !denied {
		t.Error("a joined root lends at once what the lost one may have lent")
	}
	w.Run(6 * time.Second)
	allowed := false
	cities[0].Runner().Check(user, 1, 2*time.Second, func(d tiers.Decision, _ error) { allowed = d.Allowed })
	w.Run(3 * time.Second)
	if !allowed {
		t.Error("a joined root lends nothing")
	}
}

// TestFigureOfALostBudget: an owner whose disk was lost waits for what an
// operator says is left. A root that lost it is of a new world, and does so when
// it is joined to the old one.
func TestFigureOfALostBudget(t *testing.T) {
	for _, owner := range []tiers.Place{tiers.Root, "eu"} {
		t.Run(string(owner), func(t *testing.T) { figureOfALostBudget(t, owner) })
	}
}

func figureOfALostBudget(t *testing.T, owner tiers.Place) {
	scope := "global"
	if owner != tiers.Root {
		scope = "region"
	}
	w := NewWorld(1, rules(t, limiter.LimitSpec{Scope: scope, Budget: new(int64(100))}), calm)
	cities := tree(w)
	check := func(hits int64) (allowed bool) {
		cities[0].Runner().Check(user, hits, 2*time.Second, func(d tiers.Decision, _ error) { allowed = d.Allowed })
		w.Run(3 * time.Second)
		return allowed
	}
	if !check(60) {
		t.Fatal("a new budget is empty")
	}
	n := w.Node(owner)
	world := n.meta().World
	n.Crash()
	n.Wipe()
	n.Start()
	if owner == tiers.Root {
		n.Runner().Join(world, false, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		w.Run(100 * time.Millisecond)
		n.Crash()
		n.Start()
	}
	w.Run(10 * time.Second)
	if check(1) {
		t.Fatal("a budget whose disk was lost was lent")
	}
	var problem error
	n.Runner().Figure(user, 40, func(err error) { problem = err })
	w.Run(time.Second)
	if problem != nil {
		t.Fatal(problem)
	}
	if check(41) || !check(40) || check(1) {
		t.Error("not 40 are left")
	}
	n.Runner().Figure(user, 40, func(err error) { problem = err })
	w.Run(time.Second)
	if !errors.Is(problem, tiers.ErrNothingWaits) {
		t.Errorf("a second figure: %v", problem)
	}
}
