package tiers

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// A lone is a place that is root and leaf at once, so that it owns limits of
// every scope, with rules that change. Its oracles are buckets that live
// through all that happens to it.
type lone struct {
	t        fataler
	disk     memory
	m        *Machine
	now      limiter.Time
	session  uint64
	awake    int
	rules    *limiter.Rules
	oracles  map[string]*limiter.Bucket // by key
	admitted int
}

var loneKeys = []string{"a", "b", "c"}

// oneLimit compiles rules with a limit; without one, its namespace is counted.
func oneLimit(t fataler, limits ...limiter.LimitSpec) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: limits}, "other": {}}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func newLone(t fataler, awake int, limit limiter.LimitSpec) *lone {
	t.Helper()
	w := &lone{t: t, disk: memory{}, now: 1, awake: awake, rules: oneLimit(t, limit), oracles: map[string]*limiter.Bucket{}}
	l := &w.rules.Rule("api").Limits[0]
	for _, key := range loneKeys {
		b := limiter.NewBucket(l.Period, l.Whole(), w.now)
		w.oracles[key] = &b
	}
	w.start()
	return w
}

func (w *lone) start() {
	w.t.Helper()
	w.session++
	m, err := Start(w.now, Config{
		Place: Root, Partitions: 1, Leaf: true, Rules: w.rules, Session: w.session, NewWorld: 7,
		Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: w.awake,
	}, w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	m.Read(w.disk)
	w.end()
}

func (w *lone) end() { w.disk.apply(w.m.Output(w.now).Writes) }

// stop ends the place in good order, and starts it again.
func (w *lone) stop() {
	w.t.Helper()
	w.m.Stop(w.now)
	w.end()
	w.m.Close(w.now)
	w.end()
	w.start()
}

func (w *lone) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.m.Tick(w.now)
	w.end()
}

// apply changes the limit; without one, it leaves the rules.
func (w *lone) apply(limits ...limiter.LimitSpec) {
	w.t.Helper()
	w.rules = oneLimit(w.t, limits...)
	if _, err := w.m.Apply(w.now, w.rules); err != nil {
		w.t.Fatal(err)
	}
	w.end()
	for i := range limits {
		l := &w.rules.Rule("api").Limits[i]
		for _, b := range w.oracles {
			reshape(w.now, settledAt(b, w.now), l)
		}
	}
}

func settledAt(b *limiter.Bucket, now limiter.Time) *limiter.Bucket {
	b.Settle(now)
	return b
}

// check asks for hits of a key, and holds what is admitted against the oracle.
func (w *lone) check(key string, hits int64) (allowed bool) {
	w.t.Helper()
	w.m.Tick(w.now)
	d, _, err := w.m.Check(w.now, Name{"api", key}, hits, w.now, 0)
	w.end()
	if err != nil {
		w.t.Fatal(err)
	}
	if !d.Limited || !d.Allowed {
		return d.Allowed
	}
	w.admitted++
	if b := w.oracles[key]; !b.Take(w.now, hits) {
		w.t.Fatal(fmt.Sprintf("%d hits of %s are admitted, and the one bucket has %d of %d tokens", hits, key, b.Tokens(), b.Capacity()))
	}
	return true
}

// TestRaisedCapacityComesEmpty lowers and raises a limit in every way in which
// an owner may meet it: the key is in memory or not, the place is stopped in
// between, the limit leaves the rules, its burst follows its rate.
func TestRaisedCapacityComesEmpty(t *testing.T) {
	rate := func(rate string, burst int64) limiter.LimitSpec {
		return limiter.LimitSpec{Scope: "global", Rate: rate, Burst: &burst}
	}
	high, low := rate("1/h", 100), rate("1/h", 10)
	followed := func(n int) limiter.LimitSpec { return limiter.LimitSpec{Scope: "global", Rate: fmt.Sprintf("%d/s", n)} }
	for _, test := range []struct {
		name string
		do   func(w *lone)
		left int64 // at most, of a key that was spent to its end and of one that was not asked for
		idle int64
	}{
		{"down and up", func(w *lone) { w.apply(low); w.apply(high) }, 0, 10},
		{"up and down and up", func(w *lone) { w.apply(rate("1/h", 1000)); w.apply(high); w.apply(rate("1/h", 500)) }, 0, 100},
		{"the rate as well", func(w *lone) { w.apply(rate("1/d", 10)); w.apply(rate("100/d", 100)) }, 0, 10},
		{"another spelling", func(w *lone) { w.apply(rate("24/d", 10)); w.apply(high) }, 0, 10},
		{"a stop in between", func(w *lone) { w.apply(low); w.stop(); w.apply(high) }, 0, 10},
		{"a stop after it", func(w *lone) { w.apply(low); w.apply(high); w.stop() }, 0, 10},
		{"gone and back", func(w *lone) { w.apply(); w.pass(10 * time.Second); w.apply(high) }, 0, 0},
		{"gone, stopped, and back", func(w *lone) { w.apply(); w.pass(10 * time.Second); w.stop(); w.apply(high) }, 0, 0},
		{"gone, stopped twice, and back with more", func(w *lone) { w.apply(); w.pass(10 * time.Second); w.stop(); w.stop(); w.apply(rate("1/h", 1000)) }, 0, 0},
		{"a burst that follows its rate", func(w *lone) { w.apply(followed(1)); w.apply(followed(1000)) }, 0, 1},
	} {
		for _, awake := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s, %d in memory", test.name, awake), func(t *testing.T) {
				w := newLone(t, awake, high)
				for w.check("a", 10) {
				}
				if w.admitted != 10 {
					t.Fatalf("%d times 10 of 100 are admitted", w.admitted)
				}
				test.do(w)
				for _, want := range []struct {
					key  string
					most int64
				}{{"a", test.left}, {"b", test.idle}} {
					var got int64
					for w.check(want.key, 1) {
						got++
					}
					if got != want.most {
						t.Errorf("%d hits of %s are admitted, %d are left", got, want.key, want.most)
					}
				}
			})
		}
	}
}

// TestRulesThatAreTakenBackGiveNothing applies rules that lack thousands of
// limits, and takes that back at once: what was spent of any of them is spent.
func TestRulesThatAreTakenBackGiveNothing(t *testing.T) {
	const namespaces = 3 * maxLeftLimits
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	name := func(i int) Name { return Name{fmt.Sprintf("n%d", i), "a"} }
	for i := range namespaces {
		spec.Namespaces[name(i).Namespace] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1/h", Burst: new(int64(5))}}}
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	w := &lone{t: t, disk: memory{}, now: 1, awake: DefaultMaxAwake, rules: rules}
	w.start()
	admitted := func() (n int) {
		for i := range namespaces {
			d, _, err := w.m.Check(w.now, name(i), 5, w.now, 0)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				n++
			}
		}
		w.end()
		return n
	}
	if n := admitted(); n != namespaces {
		t.Fatalf("%d of %d checks of what is whole are admitted", n, namespaces)
	}
	for _, rules := range []*limiter.Rules{oneLimit(t), rules} {
		if _, err := w.m.Apply(w.now, rules); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
	}
	if n := admitted(); n != 0 {
		t.Errorf("%d limits that left the rules for a second are whole again", n)
	}
}

// TestOneBucketLivesThroughAllRules does anything in any order.
func TestOneBucketLivesThroughAllRules(t *testing.T) {
	limit := rapid.Custom(func(t *rapid.T) limiter.LimitSpec {
		l := limiter.LimitSpec{Scope: "global", Rate: rapid.SampledFrom([]string{"1/s", "60/m", "7/s", "500/s", "30/m", "1/h", "100000/h"}).Draw(t, "rate")}
		if rapid.Bool().Draw(t, "with a burst") {
			l.Burst = new(rapid.SampledFrom([]int64{1, 5, 100, 1000}).Draw(t, "burst"))
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		w := newLone(t, rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "in memory"), limit.Draw(t, "first"))
		t.Repeat(map[string]func(*rapid.T){
			"check": func(t *rapid.T) {
				w.check(rapid.SampledFrom(loneKeys).Draw(t, "key"), rapid.SampledFrom([]int64{1, 1, 3, 90}).Draw(t, "hits"))
			},
			"drain": func(t *rapid.T) {
				key := rapid.SampledFrom(loneKeys).Draw(t, "key")
				for range 20 {
					w.check(key, 5)
				}
			},
			"pass": func(t *rapid.T) {
				w.pass(time.Duration(rapid.Int64Range(1, int64(3*time.Second)).Draw(t, "ns")))
			},
			"pass long":  func(*rapid.T) { w.pass(time.Hour) },
			"apply":      func(t *rapid.T) { w.apply(limit.Draw(t, "limit")) },
			"take away":  func(*rapid.T) { w.apply() },
			"stop":       func(*rapid.T) { w.stop() },
			"crash":      func(*rapid.T) { w.start() },
			"touch some": func(t *rapid.T) { w.check(rapid.SampledFrom(loneKeys).Draw(t, "key"), 0) },
		})
	})
}

// TestPermitsStayOutOverAStopAndOtherRules: what was out when the place stopped
// is out of the lowered limit, too, until its hold is over.
func TestPermitsStayOutOverAStopAndOtherRules(t *testing.T) {
	of := func(n int64) limiter.LimitSpec {
		return limiter.LimitSpec{Scope: "global", Concurrency: &n, Hold: "10s"}
	}
	for _, test := range []struct {
		name string
		do   func(w *lone)
	}{
		{"stopped, then lowered", func(w *lone) { w.stop(); w.apply(of(20)) }},
		{"lowered, then stopped", func(w *lone) { w.apply(of(20)); w.stop() }},
		{"stopped, asked, and lowered", func(w *lone) { w.stop(); w.take("a", 0); w.apply(of(20)) }},
		{"lowered, stopped, raised, lowered", func(w *lone) { w.apply(of(20)); w.stop(); w.apply(of(30)); w.apply(of(20)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newLone(t, 100, of(40))
			if !w.take("a", 15) {
				t.Fatal("15 of 40 are denied")
			}
			test.do(w)
			if w.take("a", 6) {
				t.Error("15 of 20 permits are out, and 6 more are given")
			}
			if !w.take("a", 5) {
				t.Error("15 of 20 permits are out, and 5 more are denied")
			}
			w.pass(30 * time.Second)
			if !w.take("a", 20) {
				t.Error("all permits have ended, and 20 of 20 are denied")
			}
		})
	}
}

// take asks for permits.
func (w *lone) take(key string, hits int64) (allowed bool) {
	w.t.Helper()
	d, _, err := w.m.Check(w.now, Name{"api", key}, hits, w.now, 0)
	w.end()
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Allowed
}

// TestBucketThatWasFullIsFullWhenItIsAskedFirst starts a new place below the
// root, whose parent confirms it after a time that is no whole number of
// tokens. Before, a part of a token was taken for a whole one that the bucket
// has no room for.
func TestBucketThatWasFullIsFullWhenItIsAskedFirst(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	for _, limit := range []limiter.LimitSpec{
		{Scope: "city", Rate: "1/h", Burst: n(1)},
		{Scope: "city", Rate: "7/s", Burst: n(3)},
		{Scope: "city", Rate: "1000000/s", Burst: n(1)},
		{Scope: "city", Quota: "3/month"},
		{Scope: "city", Budget: n(3)},
		{Scope: "city", Concurrency: n(3)},
	} {
		for _, asked := range []string{"before the parent confirms it", "while the parent confirms it", "after that"} {
			rules := oneLimit(t, limit)
			l := &rules.Rule("api").Limits[0]
			t.Run(fmt.Sprintf("%s, asked %s", l, asked), func(t *testing.T) {
				disk, now := memory{}, limiter.Time(1)
				m, err := Start(now, Config{
					Place: "eu.de.berlin", Partitions: 1, Leaf: true, Rules: rules, Session: 1,
					Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
				}, disk)
				if err != nil {
					t.Fatal(err)
				}
				m.Read(disk)
				allowed := 0
				step := func() { // with its commit
					out := m.Output(now)
					disk.apply(out.Writes)
					for _, d := range out.Decided {
						if d.Decision.Allowed {
							allowed++
						}
					}
					if out.Commit > 0 {
						m.Committed(now, out.Commit)
					}
				}
				check := func(hits int64) {
					d, decided, err := m.Check(now, Name{"api", "a"}, hits, now.Add(time.Minute), 1)
					if err != nil {
						t.Fatal(err)
					}
					if decided && d.Allowed {
						allowed++
					}
					step()
					step()
				}
				now = now.Add(time.Microsecond + 7)
				switch asked {
				case "before the parent confirms it":
					check(l.Burst)
					now = now.Add(1234567 * time.Nanosecond)
					m.judge(now, 1)
				case "while the parent confirms it":
					check(0) // it is in memory now
					allowed = 0
					now = now.Add(1234567 * time.Nanosecond)
					m.judge(now, 1)
					check(l.Burst)
				default:
					m.judge(now, 1)
					now = now.Add(1234567 * time.Nanosecond)
					check(l.Burst)
				}
				step()
				step()
				if allowed == 0 {
					t.Errorf("the bucket was full, and a check of all %d is not allowed", l.Burst)
				}
			})
		}
	}
}
