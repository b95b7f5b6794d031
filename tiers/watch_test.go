package tiers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A river is a root, a country and its cities, whose messages take no time but may be lost.
type river struct {
	t        *testing.T
	now      limiter.Time
	cfg      Config // of all
	sessions uint64
	places   []Place // parents after their children
	machines map[Place]*Machine
	disks    map[Place]memory
	lost     func() bool // the next message is
	partial  int         // answers that left something out
	reports  map[Place]*Report
}

func newRiver(t *testing.T, cfg Config, cities ...Place) *river {
	v := &river{t: t, now: 1, cfg: cfg, places: append(cities, "eu", Root), machines: map[Place]*Machine{}, disks: map[Place]memory{}, reports: map[Place]*Report{}, lost: func() bool { return false }}
	for i := len(v.places) - 1; i >= 0; i-- {
		v.disks[v.places[i]] = memory{}
		v.start(v.places[i])
	}
	for range 10 { // each is known to its parent
		v.flow(time.Second)
	}
	return v
}

// start starts a place on its disk, a new session.
func (v *river) start(p Place) {
	v.t.Helper()
	cfg := v.cfg
	v.sessions++
	cfg.Place, cfg.Partitions, cfg.Leaf, cfg.Rules, cfg.Session, cfg.NewWorld = p, 1, p.Depth() == 2, someRules(v.t), v.sessions, 7
	cfg.Lease, cfg.Heartbeat, cfg.ReportInterval = DefaultLease, DefaultHeartbeat, DefaultReportInterval
	m, err := Start(v.now, cfg, v.disks[p])
	if err != nil {
		v.t.Fatal(err)
	}
	v.machines[p] = m
	v.disks[p].apply(m.Writes())
}

// flow lets time pass, and each place report once, if it wants to.
func (v *river) flow(d time.Duration) {
	v.t.Helper()
	v.now = v.now.Add(d)
	for _, p := range v.places {
		m := v.machines[p]
		m.Tick(v.now)
		v.output(p)
		r := v.reports[p]
		delete(v.reports, p)
		if r == nil || v.lost() {
			continue
		}
		if n := r.Size(); n > m.cfg.MaxMessage || len(r.Watch) > maxEntries {
			v.t.Fatalf("%s reports %d bytes, and %d keys to watch", p, n, len(r.Watch))
		}
		up := p.Parent()
		a := v.machines[up].Reported(v.now, r)
		v.output(up)
		if a == nil || v.lost() {
			continue
		}
		if n := a.Size(); n > m.cfg.MaxMessage || len(a.Views) > maxEntries {
			v.t.Fatalf("%s answers with %d bytes, and %d views", up, n, len(a.Views))
		}
		if a.Partial {
			v.partial++
		}
		m.Acknowledged(v.now, a)
	}
}

// output does what a place wants done, and keeps its report for the next flow.
func (v *river) output(p Place) {
	v.t.Helper()
	out := v.machines[p].Output(v.now)
	if out.Err != nil {
		v.t.Fatal(out.Err)
	}
	v.disks[p].apply(out.Writes)
	if out.Report != nil {
		v.reports[p] = out.Report
	}
}

func (v *river) get(p Place, key string) (views []View, watched bool) {
	v.t.Helper()
	_, views, watched, err := v.machines[p].Get(v.now, Name{"votes", key})
	if err != nil {
		v.t.Fatal(err)
	}
	return views, watched
}

func (v *river) add(p Place, key string) {
	v.t.Helper()
	if _, err := v.machines[p].Add(v.now, Name{"votes", key}, 1); err != nil {
		v.t.Fatal(err)
	}
}

// TestEachWatchedKeyIsSeen: a place watches 100,000 keys, of all of which it sees what the root has, also when that
// changes, and no message names more of them than others hold.
func TestEachWatchedKeyIsSeen(t *testing.T) {
	const city = Place("eu.berlin")
	v := newRiver(t, Config{MaxAwake: DefaultMaxAwake}, city, "eu.paris")
	key := func(i int) string { return fmt.Sprint("k", i) }
	v.add("eu.paris", key(maxWatched-1))
	see := func(what string, keys int, seen func(views []View) bool) {
		t.Helper()
		left := keys
		for round := 0; left > 0; round++ {
			if round > 5000 {
				t.Fatalf("%s: of %d keys, %d are not seen", what, keys, left)
			}
			v.flow(10 * time.Millisecond)
			for left > 0 {
				views, watched := v.get(city, key(maxWatched-left))
				if !watched {
					t.Fatalf("%s: key %d is not watched", what, maxWatched-left)
				}
				if !seen(views) {
					break
				}
				left--
			}
		}
	}
	for i := range maxWatched {
		v.get(city, key(i))
	}
	see("at first", maxWatched, func(views []View) bool { return len(views) == 2 })
	if views, _ := v.get(city, key(maxWatched-1)); views[1].Total.Added != 1 {
		t.Errorf("the last one shows %+v", views)
	}
	for i := maxWatched - 2000; i < maxWatched; i++ {
		v.add("eu.paris", key(i))
	}
	see("what changes", 2000, func(views []View) bool { return views[0].Total.Added > 0 && views[1].Total.Added > 0 })
}

// TestViewsAreNoOlderThanTheySay: everything that happened before the age of a view is in it, although not all that
// changed fits the answers, some are lost, and places start again.
func TestViewsAreNoOlderThanTheySay(t *testing.T) {
	const city, keys = Place("eu.berlin"), 60
	partial, shown := 0, 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 14))
		v := newRiver(t, Config{MaxAwake: DefaultMaxAwake, MaxMessage: 2 << 10}, city)
		if seed%2 == 1 {
			v.lost = func() bool { return rnd.IntN(4) == 0 }
		}
		key := func(i int) string { return fmt.Sprintf("%040d", i) }
		counted := map[string][]limiter.Time{} // when each was
		for step := range 600 {
			for range rnd.IntN(8) {
				k := key(rnd.IntN(keys))
				v.add(city, k)
				counted[k] = append(counted[k], v.now)
			}
			if rnd.IntN(100) == 0 {
				v.start([]Place{"eu", Root}[rnd.IntN(2)])
			}
			v.flow(time.Duration(rnd.Int64N(int64(200 * time.Millisecond))))
			for range 4 {
				k := key(rnd.IntN(keys))
				views, _ := v.get(city, k)
				for _, view := range views {
					if view.Age < 0 {
						continue
					}
					shown++
					var had uint64
					for _, at := range counted[k] {
						if at < v.now.Add(-view.Age) {
							had++
						}
					}
					if view.Total.Added < had || view.Total.Added > uint64(len(counted[k])) {
						t.Fatalf("seed %d, step %d: %s of %s is shown with %d, %s old; %d were counted, %d of them by then",
							seed, step, k, view.Place, view.Total.Added, view.Age, len(counted[k]), had)
					}
				}
			}
		}
		v.lost = func() bool { return false }
		for range 400 {
			v.flow(50 * time.Millisecond)
		}
		for i := range keys {
			views, watched := v.get(city, key(i))
			if !watched || len(views) != 2 || views[1].Total.Added != uint64(len(counted[key(i)])) || views[1].Age > 2*DefaultHeartbeat {
				t.Fatalf("seed %d: in the end key %d of %d counted shows %+v, watched %v", seed, i, len(counted[key(i)]), views, watched)
			}
		}
		partial += v.partial
	}
	if partial < 1000 || shown < 10_000 {
		t.Errorf("%d answers left something out, %d views were shown", partial, shown)
	}
}

// TestTooManyKeysAreWatchedInTurn: no more than there is room for, and none is left out for ever.
func TestTooManyKeysAreWatchedInTurn(t *testing.T) {
	const city, room, keys = Place("eu.berlin"), 10, 18
	v := newRiver(t, Config{MaxAwake: 5 * room / 2}, city)
	seen, refused := map[int]bool{}, 0
	for range 4000 {
		v.flow(20 * time.Millisecond)
		for i := range keys {
			switch views, watched := v.get(city, fmt.Sprint(i)); {
			case watched && len(views) == 2:
				seen[i] = true
			case !watched:
				refused++
				if len(views) > 1 {
					t.Fatalf("key %d is not watched, and shows %+v", i, views)
				}
			}
		}
		if n := v.machines[city].upper.wishes.len(); n > room {
			t.Fatalf("%d keys are watched", n)
		}
	}
	if len(seen) != keys || refused == 0 {
		t.Errorf("%d of %d keys were seen, %d answers said that one is not watched", len(seen), keys, refused)
	}
}

// TestCitiesShareWhatTheirParentWatches: one that watches many keys leaves room for one that watches few, and is told which
// of its own are not.
func TestCitiesShareWhatTheirParentWatches(t *testing.T) {
	const room = 20
	v := newRiver(t, Config{MaxAwake: 5 * room}, "eu.berlin", "eu.paris")
	v.machines["eu"].cfg.MaxAwake = 5 * room / 2
	ask := func(city Place, keys int) (watched int) {
		for i := range keys {
			if views, is := v.get(city, fmt.Sprint(city, i)); is && len(views) == 2 {
				watched++
			}
		}
		return watched
	}
	rounds := func(n int, few int) (most, least int) {
		for range n {
			v.flow(20 * time.Millisecond)
			most, least = ask("eu.berlin", 2*room), ask("eu.paris", few)
			if watched := v.machines["eu"].lower.watched; watched > room {
				t.Fatalf("the country watches %d keys for its cities", watched)
			}
		}
		return most, least
	}
	if most, _ := rounds(500, 0); most < room-2 {
		t.Errorf("the only city has %d of %d", most, room)
	}
	if _, least := rounds(1000, room/2-2); least != room/2-2 {
		t.Errorf("of %d keys of the second city %d are watched", room/2-2, least)
	}
}

// TestKeysOfACityThatLeftAreForgotten: neither a silent city nor one that was forgotten keeps its keys watched.
func TestKeysOfACityThatLeftAreForgotten(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		v := newRiver(t, Config{MaxAwake: DefaultMaxAwake}, "eu.berlin", "eu.paris")
		for i := range 1200 {
			v.get("eu.paris", fmt.Sprint(i))
		}
		for range 100 {
			v.flow(20 * time.Millisecond)
		}
		if n := v.machines["eu"].lower.watched; n != 1200 {
			t.Fatalf("%d keys are watched", n)
		}
		v.places = []Place{"eu.berlin", "eu", Root}
		for range 10 {
			v.flow(time.Second)
		}
		if forgotten {
			if err := v.machines["eu"].Forget(v.now, "eu.paris"); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			v.get("eu.berlin", "a")
			v.flow(time.Second)
		}
		for _, p := range []Place{"eu", Root} {
			if n := v.machines[p].lower.watched; n != 1 {
				t.Errorf("forgotten %v: %s watches %d keys for those below", forgotten, p, n)
			}
		}
	}
}
