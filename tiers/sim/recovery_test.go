package sim

import (
	"maps"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// These are stories that broke a law once, and that seeds reach seldom.

var bob = tiers.Name{Namespace: "votes", Key: "bob"}

// An owner that stopped cleanly starts while its own parent is away. What it
// finds on its disk must not come on top of what it has gained and lent since.
func TestCreditDoesNotComeOnTopOfWhatWasLent(t *testing.T) {
	burst := int64(1000)
	r := rules(t, limiter.LimitSpec{Scope: "country", Rate: "10/s", Burst: &burst})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	w.Run(time.Second)
	o := NewOracle(&r.Rule("api").Limits[0])
	country := w.Node("eu.a")
	for _, n := range []*Node{cities[0], cities[1], country} {
		n.Stop()
	}
	country.Cut = true
	for _, n := range []*Node{country, cities[0], cities[1]} {
		n.Start()
	}
	w.Run(4900 * time.Millisecond)
	each(w, 120*time.Second, 2, func() { o.Check(cities[0], user, 1, 500*time.Millisecond) })
	w.Run(120 * time.Second)
	o.Check(cities[0], user, 900, time.Second)
	w.Run(14 * time.Second)
	country.Cut = false
	w.Run(9 * time.Second)
	for range 20 {
		o.Check(cities[1], user, 50, time.Second)
		w.Run(100 * time.Millisecond)
	}
	if o.Err() != nil {
		t.Fatal(o.Err())
	}
}

// An owner's first session is never heard of above, and its disk is lost: the
// next one is taken for the first.
func TestSessionThatNobodyHeardOfLendsNothing(t *testing.T) {
	burst := int64(1000)
	r := rules(t, limiter.LimitSpec{Scope: "country", Rate: "100/s", Burst: &burst})
	w := NewWorld(1, r, calm)
	w.Add(tiers.Root, false)
	w.Add("eu", false)
	w.Run(time.Second)
	country := w.Add("eu.a", false)
	for i := 0; ; i++ {
		w.Run(50 * time.Microsecond)
		if m, _ := country.disk.visible["meta"].(*tiers.Meta); m != nil && m.Number == 1 {
			break
		}
		if i > 1000000 {
			t.Fatal("no number")
		}
	}
	country.Cut = true
	x, y := w.Add("eu.a.x", true), w.Add("eu.a.y", true)
	o := NewOracle(&r.Rule("api").Limits[0])
	w.Run(6 * time.Second)
	each(w, 20*time.Second, 4, func() { o.Check(x, user, 1, 500*time.Millisecond) })
	w.Run(20 * time.Second)
	country.Crash()
	country.Wipe()
	country.Cut = false
	x.Cut = true
	country.Start()
	w.Run(500 * time.Millisecond)
	o.Check(x, user, 700, 0)
	o.Check(y, user, 700, time.Second)
	w.Run(1500 * time.Millisecond)
	if o.Err() != nil {
		t.Fatal(o.Err())
	}
}

func voteFor(t *testing.T, w *World, v *Votes, n *Node, name tiers.Name, votes int) {
	t.Helper()
	for range votes {
		v.Vote(n, name)
	}
	w.Run(time.Second)
}

// A leaf is set back to a copy whose marks are low, and then its parent to one
// that does not know the leaf's newest session.
func TestOldMarkVouchesForNoNewSession(t *testing.T) {
	w := NewWorld(1, rules(t), calm)
	cities := tree(w)
	var v Votes
	voteFor(t, w, &v, cities[0], alice, 5)
	copied := maps.Clone(cities[0].disk.durable)
	meta := *copied["meta"].(*tiers.Meta)
	meta.Marks = 5
	copied["meta"] = &meta
	voteFor(t, w, &v, cities[0], alice, 20)
	country := w.Node("eu.a")
	theirs := maps.Clone(country.disk.durable)
	cities[0].Crash()
	cities[0].disk.durable = copied
	cities[0].Start()
	voteFor(t, w, &v, cities[0], bob, 4)
	country.Crash()
	country.disk.durable = theirs
	country.Start()
	w.Run(10 * time.Second)
	voteFor(t, w, &v, cities[0], alice, 1)
	w.Run(10 * time.Second)
	if country.Total(bob).Added != 4 {
		t.Fatal("the country lacks what its city has")
	}
}

// An owner that lost its disk starts with a file that has a shorter lease than
// the root's rules, by which it had lent.
func TestSilenceLastsAsLongAsTheRootsLease(t *testing.T) {
	burst := int64(1000)
	leased := func(lease string) *limiter.Rules {
		r, err := limiter.Compile(limiter.Spec{Lease: lease, Namespaces: map[string]limiter.NamespaceSpec{"votes": {}, "api": {Limits: []limiter.LimitSpec{{Scope: "country", Rate: "100/s", Burst: &burst}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	w := NewWorld(1, leased("60s"), calm)
	w.Lease = 0
	w.Add(tiers.Root, false)
	w.Add("eu", false)
	country := w.Add("eu.a", false)
	x, y := w.Add("eu.a.x", true), w.Add("eu.a.y", true)
	o := NewOracle(&w.Rules.Rule("api").Limits[0])
	w.Run(2 * time.Second)
	each(w, 20*time.Second, 4, func() { o.Check(x, user, 1, 500*time.Millisecond) })
	w.Run(20 * time.Second)
	w.Rules = leased("5s")
	x.Cut = true
	country.Crash()
	country.Wipe()
	country.Start()
	w.Run(18 * time.Second)
	o.Check(x, user, 700, 0)
	o.Check(y, user, 700, time.Second)
	w.Run(1500 * time.Millisecond)
	if o.Err() != nil {
		t.Fatal(o.Err())
	}
}

// A city hears of a reset with the answer that lends it more: what comes then
// was spent by another city since, and is not filled again.
func TestResetFillsNothingTwice(t *testing.T) {
	burst := int64(100)
	r := rules(t, limiter.LimitSpec{Scope: "country", Rate: "1/h", Burst: &burst})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	x, y, country := cities[0], cities[1], w.Node("eu.a")
	admitted := int64(0)
	check := func(n *Node, hits int64) {
		n.proc.check(user, hits, 200*time.Millisecond, "", func(d tiers.Decision, err error) {
			if err == nil && d.Allowed {
				admitted += hits
			}
		})
		w.Run(300 * time.Millisecond)
	}
	w.Run(time.Second)
	check(y, 5)
	check(x, 60)
	y.Cut = true
	held := y.proc.inspectedShare(t, user)
	country.Runner().Reset(user, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	w.Run(100 * time.Millisecond)
	admitted = 0
	for hits := burst; hits > 0; hits /= 2 {
		check(x, hits)
	}
	x.Stop()
	y.Cut = false
	for range 3 {
		for hits := burst; hits > 0; hits /= 2 {
			check(y, hits)
		}
	}
	if admitted > burst+held {
		t.Fatalf("%d were admitted since a reset of %d, of which the city that did not hear held %d", admitted, burst, held)
	}
}

// inspectedShare is the capacity that a process holds of a key's first limit.
func (p *process) inspectedShare(t *testing.T, name tiers.Name) int64 {
	t.Helper()
	var e tiers.Explanation
	if !p.inspect(name, &e) {
		t.Fatal("it is asleep")
	}
	return e.Limits[0].Holding.Capacity
}

// A check takes a permit of two limits. The line of one ends: its capacity
// comes back one hold later, so the permit must not live on by the other.
func TestPermitEndsWithTheFirstOfItsLines(t *testing.T) {
	one := int64(1)
	r := rules(t, limiter.LimitSpec{Scope: "global", Concurrency: &one, Hold: "2s"}, limiter.LimitSpec{Scope: "city", Concurrency: &one, Hold: "2s"})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	w.Run(time.Second)
	var permit uint64
	cities[0].proc.check(user, 1, time.Second, "", func(d tiers.Decision, err error) { permit = d.Permit })
	w.Run(time.Second)
	if permit == 0 {
		t.Fatal("no permit")
	}
	alive := true
	each(w, 30*time.Second, 4, func() {
		if alive {
			cities[0].Runner().Renew(user, permit, func(renewed bool, err error) { alive = renewed })
		}
	})
	cities[0].Cut = true
	w.Run(7 * time.Second)
	cities[0].Cut = false
	w.Run(5 * time.Second)
	admitted := false
	cities[7].proc.check(user, 1, time.Second, "", func(d tiers.Decision, err error) { admitted = d.Allowed })
	w.Run(2 * time.Second)
	if admitted && alive {
		t.Fatal("two permits of one are out")
	}
	if !admitted {
		t.Fatal("the permit never came back")
	}
}

// A concurrency is lowered while one city has more permits out than it may then
// have in all. Another, which asks all the time, keeps nothing of what is released
// there until those are.
func TestLoweredConcurrencyWaitsForItsPermits(t *testing.T) {
	ten, one := int64(10), int64(1)
	limit := limiter.LimitSpec{Scope: "global", Concurrency: &ten, Hold: "60s"}
	w := NewWorld(1, rules(t, limit), calm)
	cities := tree(w)
	w.Run(time.Second)
	held := map[*Node][]uint64{}
	take := func(city *Node, wait time.Duration) {
		city.proc.check(user, 1, wait, "", func(d tiers.Decision, err error) {
			if d.Allowed {
				held[city] = append(held[city], d.Permit)
			}
		})
	}
	release := func(city *Node) {
		for _, permit := range held[city] {
			city.Runner().Release(user, permit, func(bool, error) {})
		}
		held[city] = nil
	}
	here, there := cities[0], cities[7]
	for range 6 {
		take(here, time.Second)
	}
	for range 3 {
		take(there, time.Second)
	}
	if w.Run(time.Second); len(held[here]) != 6 || len(held[there]) != 3 {
		t.Fatalf("%d and %d permits are held", len(held[here]), len(held[there]))
	}
	limit.Concurrency = &one
	w.Node(tiers.Root).Runner().Apply(rules(t, limit), func(uint64, error) {})
	ask := func() {
		each(w, 5*time.Second, 100, func() { take(there, 250*time.Millisecond) })
		w.Run(6 * time.Second)
	}
	ask() // the new figure binds within a lease
	release(there)
	if ask(); len(held[there]) > 0 {
		t.Errorf("%d permits were given while 6 of 1 were out", len(held[there]))
	}
	release(here)
	if ask(); len(held[there]) != 1 {
		t.Errorf("%d permits were given when all of 1 were released", len(held[there]))
	}
}

// A city that owns a quota lost its disk, and dies between the commit of the
// number that says so and the answer that confirms it: its window stays lost.
func TestLostWindowIsLostForTheNextSession(t *testing.T) {
	r := rules(t, limiter.LimitSpec{Scope: "city", Quota: "3/day"})
	w := NewWorld(1, r, calm)
	cities := tree(w)
	city := cities[0]
	check := func() (allowed bool) {
		city.Runner().Check(user, 3, 0, func(d tiers.Decision, _ error) { allowed = d.Allowed })
		w.Run(time.Second)
		return allowed
	}
	check() // its first part is read off the disk ahead
	if !check() {
		t.Fatal("a new quota is spent")
	}
	city.Crash()
	city.Wipe()
	city.Start()
	for i := 0; ; i++ {
		w.Run(50 * time.Microsecond)
		if m, _ := city.disk.durable["meta"].(*tiers.Meta); m != nil && m.Number == 2 {
			break
		}
		if i > 1000000 {
			t.Fatal("no number")
		}
	}
	city.Crash()
	city.Start()
	w.Run(5 * time.Second)
	if first, second := check(), check(); first || second {
		t.Error("the window's quota was spent twice")
	}
}
