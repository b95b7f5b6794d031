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
