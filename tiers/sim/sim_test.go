package sim

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

func rules(t testing.TB, limits ...limiter.LimitSpec) *limiter.Rules {
	t.Helper()
	r, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"votes": {}, "api": {Limits: limits}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	alice = tiers.Name{Namespace: "votes", Key: "alice"}
	user  = tiers.Name{Namespace: "api", Key: "user"}
)

// tree is a root, 2 regions, 4 countries and 8 cities.
func tree(w *World) (cities []*Node) {
	w.Add(tiers.Root, false)
	for _, region := range []tiers.Place{"eu", "us"} {
		w.Add(region, false)
		for _, country := range []tiers.Place{"a", "b"} {
			w.Add(region+"."+country, false)
			for _, city := range []tiers.Place{"x", "y"} {
				cities = append(cities, w.Add(region+"."+country+"."+city, true))
			}
		}
	}
	return cities
}

var calm = Faults{Delay: time.Millisecond, Sync: time.Millisecond}

// each calls do at a rate per second, for d, at times the seed decides.
func each(w *World, d time.Duration, perSecond int64, do func()) {
	end := w.now.Add(d)
	var next func()
	next = func() {
		if w.now < end {
			do()
			w.After(time.Duration(float64(time.Second)/float64(perSecond)*w.rng.ExpFloat64()), next)
		}
	}
	next()
}

func TestVotesReachTheRoot(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var votes Votes
	for _, c := range cities {
		each(w, 5*time.Second, 100, func() { votes.Vote(c, alice) })
	}
	w.Run(5*time.Second + 200*time.Millisecond)
	root := w.Node(tiers.Root).Total(alice)
	if root.Added != votes.Sent[alice] || root.Added == 0 {
		t.Fatalf("root has %d of %d", root.Added, votes.Sent[alice])
	}
	var views []tiers.View
	get := func() {
		cities[0].Runner().Get(alice, func(_ tiers.Total, v []tiers.View, _ bool, _ error) { views = v })
		w.Run(500 * time.Millisecond)
	}
	get()
	w.Run(time.Second)
	get()
	if len(views) != 3 || views[2].Place != tiers.Root || views[2].Total != root || views[2].Age < 0 || views[2].Behind != 0 {
		t.Fatalf("views: %+v", views)
	}
}

func TestLimitIsUsedAndKept(t *testing.T) {
	spec := limiter.LimitSpec{Scope: "global", Rate: "1000/s", Burst: new(int64)}
	*spec.Burst = 2000
	for _, test := range []struct {
		name   string
		cities int
		rate   int64
	}{{"all", 8, 400}, {"one", 1, 3000}, {"two", 2, 1000}} {
		t.Run(test.name, func(t *testing.T) {
			r := rules(t, spec)
			w := NewWorld(1, r, calm)
			cities := tree(w)
			o := NewOracle(&r.Rule("api").Limits[0])
			for _, c := range cities[:test.cities] {
				each(w, 12*time.Second, test.rate, func() { o.Check(c, user, 1, 250*time.Millisecond) })
			}
			w.Run(2 * time.Second)
			before := o.Admitted
			w.Run(10 * time.Second)
			used := float64(o.Admitted-before) / 10_000
			t.Logf("offered %d, admitted %d, used %.3f of the rate, denied %v, steps %d", o.Offered, o.Admitted, used, o.Denied, w.Steps())
			if o.Err() != nil {
				t.Fatal(o.Err())
			}
			if used < 0.95 {
				t.Fatalf("%.3f of the rate is used", used)
			}
		})
	}
}

// TestLawsHoldUnderFaults runs worlds in which messages are lost, doubled
// and late, links are cut and processes killed at any instant.
func TestLawsHoldUnderFaults(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	if more := os.Getenv("TRIBUTARY_SIM_SEEDS"); more != "" {
		var err error
		if seeds, err = strconv.ParseUint(more, 10, 64); err != nil {
			t.Fatalf("TRIBUTARY_SIM_SEEDS=%s is no number of seeds", more)
		}
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		if err := faulty(t, seed); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

func faulty(t testing.TB, seed uint64) error {
	w := NewWorld(seed, nil, Faults{Sync: 3 * time.Millisecond, Drift: 4900})
	burst, rate := int64(500), []int64{50, 500}[w.rng.IntN(2)]
	r := rules(t, limiter.LimitSpec{Scope: "global", Rate: fmt.Sprintf("%d/s", rate), Burst: &burst}, limiter.LimitSpec{Scope: "city", Rate: "200/s"})
	w.Rules = r
	w.Faults.Loss, w.Faults.Duplicate = w.rng.Float64()*0.1, w.rng.Float64()*0.1
	w.Faults.Delay = []time.Duration{time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond, 400 * time.Millisecond}[w.rng.IntN(4)]
	cities := tree(w)
	global := NewOracle(&r.Rule("api").Limits[0])
	var own []*Oracle
	var votes Votes
	const active = 25 * time.Second
	for _, c := range cities {
		o := NewOracle(&r.Rule("api").Limits[1])
		own = append(own, o)
		each(w, active, 20, func() { votes.Vote(c, alice) })
		each(w, active+15*time.Second, 100, func() {
			Check(c, user, 1+w.rng.Int64N(3), time.Duration(w.rng.Int64N(300))*time.Millisecond, global, o)
		})
	}
	each(w, active, 1, func() {
		n := w.order[w.rng.IntN(len(w.order))]
		switch {
		case w.chance(0.5):
			n.Cut = true
			w.After(time.Duration(w.rng.Int64N(int64(8*time.Second))), func() { n.Cut = false })
		case n.Running():
			n.Crash()
			if !n.Leaf && n.Place != tiers.Root && w.chance(0.3) {
				n.Wipe()
			}
			w.After(time.Duration(w.rng.Int64N(int64(2*time.Second))), func() {
				if !n.Running() {
					n.Start()
				}
			})
		}
	})
	root := w.Node(tiers.Root)
	each(w, active, 10, func() {
		if root.Running() {
			root.Runner().Get(alice, func(total tiers.Total, _ []tiers.View, _ bool, err error) {
				if err == nil && total.Added > votes.Sent[alice] {
					panic(fmt.Sprintf("seed %d: root shows %d of %d votes", seed, total.Added, votes.Sent[alice]))
				}
			})
		}
	})
	w.Run(active + 5*time.Second)
	w.Faults.Loss, w.Faults.Duplicate, w.Faults.Delay = 0, 0, min(w.Faults.Delay, 5*time.Millisecond)
	for _, n := range w.order {
		n.Cut = false
		if n.broken != nil {
			return fmt.Errorf("%s is broken: %w", n.Place, n.broken)
		}
	}
	w.Run(8 * time.Second) // the crashed owner's silence
	before := global.Admitted
	w.Run(2 * time.Second)
	if used := global.Admitted - before; used < 2*rate*95/100 {
		return fmt.Errorf("after the faults %d of %d are used", used, 2*rate)
	}
	for _, o := range append(own, global) {
		if o.Err() != nil {
			return o.Err()
		}
	}
	got := root.Total(alice).Added
	if got < votes.Acked[alice] || got > votes.Sent[alice] {
		return fmt.Errorf("root has %d, acknowledged %d, sent %d", got, votes.Acked[alice], votes.Sent[alice])
	}
	var sum uint64
	for _, c := range cities {
		sum += c.Total(alice).Added
	}
	if got != sum {
		return fmt.Errorf("root has %d, the cities %d", got, sum)
	}
	return nil
}

// vote casts n votes at a node and waits for the answers.
func vote(t *testing.T, w *World, v *Votes, n *Node, votes int) {
	t.Helper()
	for range votes {
		v.Vote(n, alice)
	}
	if !w.RunUntil(time.Second, func() bool { return v.Acked[alice] == v.Sent[alice] }) {
		t.Fatalf("%d of %d votes are answered", v.Acked[alice], v.Sent[alice])
	}
}

func expect(t *testing.T, n *Node, want uint64) {
	t.Helper()
	if got := n.Total(alice).Added; got != want {
		t.Fatalf("%s has %d votes, want %d", n.Place, got, want)
	}
}

// TestLostDiskOfACity: what a city had reported stays counted, and comes
// back to it with the first vote after.
func TestLostDiskOfACity(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 7)
	w.Run(time.Second)
	cities[0].Crash()
	cities[0].Wipe()
	cities[0].Start()
	expect(t, cities[0], 0)
	vote(t, w, &v, cities[0], 3)
	w.Run(time.Second)
	expect(t, w.Node(tiers.Root), 10)
	expect(t, cities[0], 10)
}

// TestOldDiskOfACity: a city set back to an old copy of its disk counts on in
// a new replica.
func TestOldDiskOfACity(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 5)
	w.Run(time.Second)
	copied := maps.Clone(cities[0].disk.durable)
	vote(t, w, &v, cities[0], 20)
	w.Run(time.Second)
	cities[0].Crash()
	cities[0].disk.durable = copied
	cities[0].Start()
	expect(t, cities[0], 5)
	vote(t, w, &v, cities[0], 4)
	w.Run(time.Second)
	expect(t, w.Node(tiers.Root), 29)
	expect(t, cities[0], 29)
}

// TestTwins: two processes that both believe they are the same city: the
// older is fenced and exits, and nothing is lost or counted twice.
func TestTwins(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 5)
	w.Run(time.Second)
	twin := w.Twin(cities[0])
	vote(t, w, &v, cities[0], 6)
	vote(t, w, &v, twin, 7)
	w.Run(3 * time.Second)
	if !errors.Is(cities[0].broken, tiers.ErrFenced) {
		t.Errorf("the older twin goes on: %v", cities[0].broken)
	}
	expect(t, w.Node(tiers.Root), 18)
	expect(t, twin, 18)
}

// TestLostDiskOfACountry: it is filled again by its cities, and the tiers
// above do not go back meanwhile.
func TestLostDiskOfACountry(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 7)
	vote(t, w, &v, cities[1], 8)
	w.Run(time.Second)
	country := w.Node("eu.a")
	country.Crash()
	country.Wipe()
	country.Start()
	expect(t, w.Node(tiers.Root), 15)
	vote(t, w, &v, cities[1], 1)
	w.Run(2 * time.Second)
	expect(t, country, 16)
	expect(t, w.Node(tiers.Root), 16)
}

// TestGoodStopReturnsShares: after it another city has the whole limit at
// once, and a root that was stopped so is not silent when it starts.
func TestGoodStopReturnsShares(t *testing.T) {
	burst := int64(100)
	r := rules(t, limiter.LimitSpec{Scope: "global", Rate: "1/h", Burst: &burst})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	o := NewOracle(&r.Rule("api").Limits[0])
	spend := func(n *Node, hits, want int64) {
		t.Helper()
		before := o.Admitted
		o.Check(n, user, hits, time.Second)
		w.Run(2 * time.Second)
		if got := o.Admitted - before; got != want {
			t.Fatalf("%s admitted %d of %d", n.Place, got, want)
		}
	}
	spend(cities[0], 30, 30)
	cities[0].Stop()
	spend(cities[7], 60, 60)
	for i := len(w.order) - 1; i >= 0; i-- {
		if n := w.order[i]; n.Running() {
			n.Stop()
		}
	}
	for _, n := range w.order {
		n.Start()
	}
	w.Run(time.Second)
	spend(cities[3], 11, 0)
	spend(cities[3], 10, 10)
	if o.Err() != nil {
		t.Fatal(o.Err())
	}
}

// TestWorldsAreNotSummed: a place that belongs to another world is refused.
func TestWorldsAreNotSummed(t *testing.T) {
	w, other := NewWorld(1, rules(t), calm), NewWorld(2, rules(t), calm)
	cities, theirs := tree(w), tree(other)
	var v, u Votes
	vote(t, w, &v, cities[0], 3)
	vote(t, other, &u, theirs[0], 100)
	w.Run(time.Second)
	other.Run(time.Second)
	cities[0].Crash()
	cities[0].disk.durable = theirs[0].disk.durable
	cities[0].Start()
	w.Run(3 * time.Second)
	expect(t, w.Node(tiers.Root), 3)
	refused := slices.ContainsFunc(cities[0].Events(), func(e tiers.Event) bool { return e.Kind == tiers.EventRefused })
	if !refused {
		t.Error("the city was not refused")
	}
}

// TestOldDiskWithLowMarks: what an old disk counts anew is reported, although
// the parent has higher marks of the history that was set back.
func TestOldDiskWithLowMarks(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	vote(t, w, &v, cities[0], 5)
	w.Run(time.Second)
	copied := maps.Clone(cities[0].disk.durable)
	meta := *copied["meta"].(*tiers.Meta)
	meta.Marks = 5 // as if no more had been reserved
	copied["meta"] = &meta
	vote(t, w, &v, cities[0], 20)
	w.Run(time.Second)
	cities[0].Crash()
	cities[0].disk.durable = copied
	cities[0].Start()
	vote(t, w, &v, cities[0], 4)
	w.Run(time.Second)
	expect(t, w.Node(tiers.Root), 29)
}

// TestLostDiskOfAnOwner: a country that owns a limit and lost its disk lends
// nothing while what it lent before may be spent still, and starts empty.
func TestLostDiskOfAnOwner(t *testing.T) {
	burst := int64(100)
	r := rules(t, limiter.LimitSpec{Scope: "country", Rate: "50/s", Burst: &burst})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	o := NewOracle(&r.Rule("api").Limits[0])
	each(w, 20*time.Second, 100, func() { o.Check(cities[0], user, 1, 0) })
	w.Run(2 * time.Second)
	cities[0].Cut = true // it goes on with its share until the lease ends
	country := w.Node("eu.a")
	country.Crash()
	country.Wipe()
	country.Start()
	each(w, 18*time.Second, 100, func() { o.Check(cities[1], user, 1, 0) })
	before := o.Admitted
	w.Run(18 * time.Second)
	if o.Err() != nil {
		t.Fatal(o.Err())
	}
	if used := o.Admitted - before; used < 400 {
		t.Errorf("%d were admitted in 18 s", used)
	}
}

// TestLastTokensOfABudget: what one city does not use another one can, soon;
// and when all is spent, that is what a denial says, then and later.
func TestLastTokensOfABudget(t *testing.T) {
	for _, budget := range []int64{5, 30, 1000} {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			r := rules(t, limiter.LimitSpec{Scope: "global", Budget: &budget})
			w := NewWorld(1, r, calm)
			cities := tree(w)
			o := NewOracle(&r.Rule("api").Limits[0])
			w.Run(time.Second)
			// Some begin and stop, then another goes on.
			for _, c := range cities[:3] {
				each(w, time.Second, max(3, budget/6), func() { o.Check(c, user, 1, 250*time.Millisecond) })
			}
			w.Run(time.Second)
			far := cities[7]
			each(w, 3*time.Second, max(20, budget), func() { o.Check(far, user, 1, 250*time.Millisecond) })
			w.Run(3 * time.Second)
			if o.Admitted != budget {
				t.Errorf("%d of %d are admitted within 3 s", o.Admitted, budget)
			}
			for range 5 {
				before := maps.Clone(o.Denied)
				o.Check(far, user, 1, 0)
				o.Check(cities[0], user, 1, 250*time.Millisecond) // it has to ask first
				w.Run(100 * time.Millisecond)
				o.Check(cities[0], user, 1, 0)
				w.Run(2 * time.Second)
				if got := o.Denied[tiers.ReasonSpent] - before[tiers.ReasonSpent]; got != 3 {
					t.Errorf("%d of 3 denials say that the budget is spent: %v, before %v", got, o.Denied, before)
				}
			}
		})
	}
}
