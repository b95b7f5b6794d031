package tiers

import (
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// TestLeasesThatChildrenKnow: an owner that starts after a crash is silent for
// as long as a child may still be lent something by rules that its disk does not
// know, and fills nothing meanwhile, also where a key was asked for before it
// heard of that.
func TestLeasesThatChildrenKnow(t *testing.T) {
	w := newRootWorld(t)
	w.start(2) // after a crash
	w.report("eu", witness(w.m), 0)
	if rate, budget := w.report("eu", witness(w.m), 100); rate != 0 || budget != 0 {
		t.Fatalf("%d and %d were lent at once", rate, budget)
	}
	w.longest = time.Minute
	w.report("us", witness(w.m), 0)
	w.longest = 0
	for _, at := range []struct {
		after        time.Duration
		rate, budget int64
	}{{lenderLease(DefaultLease) + time.Second, 0, 0}, {lenderLease(time.Minute) - time.Second, 0, 0}, {lenderLease(time.Minute) + time.Second/2, 50, 100}} {
		w.now = 1 + limiter.Time(at.after)
		if rate, budget := w.report("eu", witness(w.m), 100); rate != at.rate || budget != at.budget {
			t.Errorf("%s after the start %d and %d were lent, expected %d and %d", at.after, rate, budget, at.rate, at.budget)
		}
	}
	if w.told(EventSilent) != 2 {
		t.Errorf("it did not say that it is silent, and then for longer: %+v", w.events)
	}
	// One that is heard of when something is lent already takes nothing back.
	w.longest = time.Hour
	w.report("us", witness(w.m), 0)
	w.now = w.now.Add(time.Second)
	if rate, _ := w.report("eu", witness(w.m), 100); rate == 0 {
		t.Error("an owner that lends falls silent")
	}
}

// TestHushedPermits: of a concurrency nothing is free before its owner's silence
// and one hold are over.
func TestHushedPermits(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"api": {Limits: []limiter.LimitSpec{{Scope: "global", Concurrency: new(int64(100)), Hold: "10s"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := &rootWorld{t: t, rules: rules, disk: memory{}, now: 1}
	w.start(1)
	w.start(2) // after a crash
	w.askOf("eu", "api", 100)
	w.longest = time.Minute
	w.report("us", witness(w.m), 0)
	until := lenderLease(time.Minute) + lenderLease(10*time.Second)
	for _, early := range []bool{true, false} {
		if w.now = 1 + limiter.Time(until+time.Second); early {
			w.now = 1 + limiter.Time(until-time.Second)
		}
		if got := w.askOf("eu", "api", 100); (got == 0) != early {
			t.Errorf("%s after the start %d permits were lent", w.now.Sub(1), got)
		}
	}
}

// TestLongLeaseIsForgotten: rules that let owners lend for an hour are remembered
// for as long as something may be lent by them, and no longer.
func TestLongLeaseIsForgotten(t *testing.T) {
	leasing := func(lease string) *limiter.Rules {
		rules, err := limiter.Compile(limiter.Spec{Lease: lease, Namespaces: map[string]limiter.NamespaceSpec{
			"api": {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "100/s", Burst: new(int64(100))}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	disk := memory{}
	now := limiter.Time(1)
	begin := func(session uint64) (m *Machine, step func()) {
		m, err := Start(now, Config{
			Place: Root, Partitions: 1, Rules: leasing("5s"), Session: session, NewWorld: 7,
			Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
		}, disk)
		if err != nil {
			t.Fatal(err)
		}
		m.Read(disk)
		step = func() {
			m.Tick(now)
			disk.apply(m.Output(now).Writes)
		}
		step()
		return m, step
	}
	expect := func(when string, want time.Duration) {
		t.Helper()
		if is := time.Duration(disk[metaKey].(*Meta).Lease); is != want {
			t.Errorf("%s the disk knows of a lease of %s, expected %s", when, is, want)
		}
	}
	m, step := begin(1)
	apply := func(lease string) {
		if _, err := m.Apply(now, leasing(lease)); err != nil {
			t.Fatal(err)
		}
		step()
	}
	apply("1h")
	expect("with rules of an hour", time.Hour)
	apply("5s")
	now = now.Add(time.Hour)
	step()
	expect("an hour after rules of 5 s", time.Hour)
	_, step = begin(2) // what the session before lent may run on
	expect("after a crash", time.Hour)
	now = now.Add(lenderLease(time.Hour) - 1)
	step()
	expect("nearly an hour and 2 % after the crash", time.Hour)
	now++
	step()
	expect("an hour and 2 % after the crash", 5*time.Second)
}
