package sim

import (
	"fmt"
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
		cities[0].Runner().Get(alice, func(_ tiers.Total, v []tiers.View, _ error) { views = v })
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
	for seed := uint64(1); seed <= seeds; seed++ {
		if err := faulty(t, seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func faulty(t testing.TB, seed uint64) error {
	burst := int64(500)
	r := rules(t, limiter.LimitSpec{Scope: "global", Rate: "500/s", Burst: &burst}, limiter.LimitSpec{Scope: "city", Rate: "200/s"})
	w := NewWorld(seed, r, Faults{Delay: 5 * time.Millisecond, Sync: 3 * time.Millisecond, Drift: 4900})
	w.Faults.Loss, w.Faults.Duplicate = w.rng.Float64()*0.1, w.rng.Float64()*0.1
	cities := tree(w)
	o := NewOracle(&r.Rule("api").Limits[0])
	var votes Votes
	const active = 25 * time.Second
	for _, c := range cities {
		each(w, active, 20, func() { votes.Vote(c, alice) })
		each(w, active+15*time.Second, 100, func() { o.Check(c, user, 1+w.rng.Int64N(3), time.Duration(w.rng.Int64N(300))*time.Millisecond) })
	}
	each(w, active, 1, func() {
		n := w.order[w.rng.IntN(len(w.order))]
		switch {
		case w.chance(0.5):
			n.Cut = true
			w.After(time.Duration(w.rng.Int64N(int64(8*time.Second))), func() { n.Cut = false })
		case n.Running():
			n.Crash()
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
			root.Runner().Get(alice, func(total tiers.Total, _ []tiers.View, err error) {
				if err == nil && total.Added > votes.Sent[alice] {
					panic(fmt.Sprintf("seed %d: root shows %d of %d votes", seed, total.Added, votes.Sent[alice]))
				}
			})
		}
	})
	w.Run(active + 5*time.Second)
	w.Faults.Loss, w.Faults.Duplicate = 0, 0
	for _, n := range w.order {
		n.Cut = false
		if n.broken != nil {
			return fmt.Errorf("%s is broken: %w", n.Place, n.broken)
		}
	}
	w.Run(8 * time.Second) // the crashed owner's silence
	before := o.Admitted
	w.Run(2 * time.Second)
	if used := o.Admitted - before; used < 950 {
		return fmt.Errorf("after the faults %d of 1000 are used", used)
	}
	if o.Err() != nil {
		return o.Err()
	}
	if got := root.Total(alice).Added; got < votes.Acked[alice] || got > votes.Sent[alice] {
		return fmt.Errorf("root has %d, acknowledged %d, sent %d", got, votes.Acked[alice], votes.Sent[alice])
	}
	var sum uint64
	for _, c := range cities {
		sum += c.Total(alice).Added
	}
	if got := root.Total(alice).Added; got != sum {
		return fmt.Errorf("root has %d, the cities %d", got, sum)
	}
	return nil
}
