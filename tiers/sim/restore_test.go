package sim

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// TestRestoredOwnerKeepsItsLimit sets the owner of a limit back to a backup that says so, at any moment, after a crash
// or a clean stop, and also if its parent never hears of that: unlike an old disk that does not say so, it never lends
// anything twice. An operator's figure, which the backup has as well, is none any more.
func TestRestoredOwnerKeepsItsLimit(t *testing.T) {
	for _, scope := range []string{"global", "region", "country", "city"} {
		for name, limit := range map[string]limiter.LimitSpec{
			"budget": {Budget: new(int64(1000))}, "quota": {Quota: "1000/day"}, "rate": {Rate: "20/s", Burst: new(int64(300))},
		} {
			t.Run(scope+"/"+name, func(t *testing.T) {
				t.Parallel()
				limit.Scope = scope
				for seed := range uint64(12) {
					if err := restoreOnce(t, seed, limit); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			})
		}
	}
}

func restoreOnce(t *testing.T, seed uint64, limit limiter.LimitSpec) error {
	r := rules(t, limit)
	w := NewWorld(seed, r, calm)
	cities := tree(w)
	l := &r.Rule("api").Limits[0]
	owner := w.Node(cities[0].Place.Ancestor(int(l.Scope)))
	o := NewOracle(l)
	users := cities[:1]
	if owner != cities[0] {
		users = cities[:2]
	}
	if l.Scope == 0 {
		users = cities[:8]
	}
	each(w, 4*time.Minute, 20, func() {
		o.Check(users[w.rng.IntN(len(users))], user, 1+w.rng.Int64N(3), time.Duration(w.rng.Int64N(int64(300*time.Millisecond))))
	})
	some := func() { w.Run(time.Duration(w.rng.Int64N(int64(10 * time.Second)))) }
	some()
	for range 2 {
		backup := owner.disk.copied()
		some()
		if w.rng.IntN(2) == 0 && owner.Running() {
			owner.Stop()
			w.RunUntil(3*time.Second, func() bool { return !owner.Running() })
		}
		owner.Crash()
		owner.setDisk(maps.Clone(backup))
		owner.restored = true
		owner.Cut = w.rng.IntN(3) == 0 && owner.Place != tiers.Root
		owner.Start()
		some()
		owner.Cut = false
		w.Run(6 * time.Second)
		if l.Kind == limiter.Budget && owner.Running() {
			left := 1000 - o.Admitted
			if !owner.Leaf { // those below may still hold some
				left /= 2
			}
			owner.Runner().Figure(user, left, func(error) {})
			w.Run(time.Second) // the next backup has it
		}
	}
	w.Run(time.Minute)
	if o.Err() != nil {
		return o.Err()
	}
	if most := l.Burst; l.Durable() && o.Admitted > most {
		return fmt.Errorf("%d of %d were admitted", o.Admitted, most)
	}
	if o.Admitted == 0 {
		return fmt.Errorf("nothing was admitted")
	}
	return nil
}

// TestRootIsSetBack sets the root back to a copy of its disk that does not say
// so, made while an earlier session ran or when it had been stopped in good
// order, with nothing lent: its children tell, and it lends nothing twice.
func TestRootIsSetBack(t *testing.T) {
	for name, limit := range map[string]limiter.LimitSpec{
		"budget": {Budget: new(int64(1000))}, "quota": {Quota: "1000/day"}, "rate": {Rate: "10/s", Burst: new(int64(200))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit.Scope = "global"
			for seed := range uint64(24) {
				if err := setBackOnce(t, seed, limit); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

func setBackOnce(t *testing.T, seed uint64, limit limiter.LimitSpec) error {
	r := rules(t, limit)
	w := NewWorld(seed, r, calm)
	cities := tree(w)
	root := w.Node(tiers.Root)
	o := NewOracle(&r.Rule("api").Limits[0])
	each(w, 3*time.Minute, 20, func() {
		o.Check(cities[w.rng.IntN(8)], user, 1+w.rng.Int64N(3), time.Duration(w.rng.Int64N(int64(300*time.Millisecond))))
	})
	some := func() { w.Run(time.Second + time.Duration(w.rng.Int64N(int64(10*time.Second)))) }
	some()
	clean := w.rng.IntN(3) > 0
	if clean { // from below, so that nothing is lent
		for _, n := range slices.Backward(w.order) {
			n.Stop()
		}
	}
	backup := root.disk.copied()
	if is := backup["meta"].(*tiers.Meta).Clean; is != clean {
		return fmt.Errorf("the copy is clean: %v, expected %v", is, clean)
	}
	root.Crash() // else no later session runs
	eu, us := w.Node("eu"), w.Node("us")
	eu.Cut = w.rng.IntN(2) == 0 // it hears of none, and is the first to report then
	for _, n := range w.order {
		if !n.Running() {
			n.Start()
		}
	}
	some()
	eu.Cut, us.Cut = false, eu.Cut
	root.Crash()
	root.setDisk(backup)
	root.Start()
	w.Run(3 * time.Second)
	us.Cut = false
	w.Run(time.Minute)
	if o.Err() != nil {
		return o.Err()
	}
	if o.Admitted == 0 {
		return fmt.Errorf("nothing was admitted")
	}
	return nil
}

// TestLeasesOfRulesThatALostDiskKnew: rules that let owners lend for longer came
// and went between a disk and the older copy, or none, that its place starts on.
// Those that followed them tell, and what was lent for so long is not lent twice.
func TestLeasesOfRulesThatALostDiskKnew(t *testing.T) {
	limit := limiter.LimitSpec{Rate: "10/s", Burst: new(int64(20))}
	for _, owner := range []tiers.Place{tiers.Root, "eu"} {
		for _, lost := range []bool{false, true} {
			if owner == tiers.Root && lost {
				continue // it is a new world
			}
			t.Run(fmt.Sprintf("%s lost %v", owner, lost), func(t *testing.T) {
				limit.Scope = "global"
				if owner != tiers.Root {
					limit.Scope = "region"
				}
				leasing := func(lease string) *limiter.Rules {
					r, err := limiter.Compile(limiter.Spec{Lease: lease, Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: []limiter.LimitSpec{limit}}}})
					if err != nil {
						t.Fatal(err)
					}
					return r
				}
				short, long := leasing("1s"), leasing("30s")
				w := NewWorld(1, short, calm)
				w.Lease = 0
				cities := tree(w)
				o := NewOracle(&short.Rule("api").Limits[0])
				ask := func(n *Node, d time.Duration) {
					each(w, d, 40, func() { o.Check(n, user, 1, 0) })
					w.Run(d)
				}
				apply := func(r *limiter.Rules) {
					w.Node(tiers.Root).Runner().Apply(r, func(_ uint64, err error) {
						if err != nil {
							t.Error(err)
						}
					})
					w.Run(time.Second)
				}
				ask(cities[0], 2*time.Second)
				n := w.Node(owner)
				old := n.disk.copied()
				w.Node("eu.b").Cut = true // it never hears of them: of eu its parent tells
				apply(long)
				ask(cities[0], 2*time.Second)
				w.Node("eu.a").Cut = true // with what it was lent for 30 s
				apply(short)
				w.Node("eu.b").Cut = false
				n.Crash()
				if n.setDisk(old); lost {
					n.Wipe()
				}
				n.Start()
				n.Cut = owner != tiers.Root // for longer than its own rules' lease
				w.Run(3 * time.Second)
				n.Cut = false
				if w.Run(time.Second); owner == tiers.Root {
					apply(leasing("2s")) // what it says of its rules is older than what others follow
				}
				each(w, 20*time.Second, 40, func() { o.Check(cities[0], user, 1, 0) })
				ask(cities[3], 20*time.Second)
				if o.Err() != nil {
					t.Error(o.Err())
				}
				before := o.Admitted
				w.Node("eu.a").Cut = false
				w.Run(30 * time.Second)
				ask(cities[3], 10*time.Second)
				if o.Err() != nil || o.Admitted-before < 90 {
					t.Errorf("%d were admitted in 10 s: %v", o.Admitted-before, o.Err())
				}
			})
		}
	}
}
