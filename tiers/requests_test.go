package tiers

import (
	"errors"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// remembering starts a leaf whose namespaces remember requests: votes are counted, jobs are one at a time, and of api
// three are left, which are counted as well.
func remembering(t *testing.T, disk memory, session uint64) *Machine {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {Dedupe: "1h"},
		"jobs":  {Dedupe: "1h", Limits: []limiter.LimitSpec{{Scope: "city", Concurrency: new(int64(1))}}},
		"api":   {Dedupe: "1h", Count: true, Limits: []limiter.LimitSpec{{Scope: "city", Rate: "1/h", Burst: new(int64(3))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(0, Config{
		Place: "eu.de.berlin", Partitions: 1, Leaf: true, Rules: rules, Session: session, NewWorld: 7,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, disk)
	if err != nil {
		t.Fatal(err)
	}
	m.judge(0, m.prior.Number+1) // as if its parent had confirmed it
	disk.apply(m.Writes())
	return m
}

// TestIDOfACheckThatWaitsIsTaken: another request is told so, and is neither carried out nor answered as the first.
func TestIDOfACheckThatWaitsIsTaken(t *testing.T) {
	disk := memory{}
	m := remembering(t, disk, 1)
	first, _, err := m.CheckID(0, Name{"jobs", "a"}, 1, 0, 1, "first")
	if err != nil || !first.Allowed {
		t.Fatalf("%+v, %v", first, err)
	}
	if _, decided, err := m.CheckID(0, Name{"jobs", "a"}, 1, limiter.Time(time.Minute), 2, "second"); decided || err != nil {
		t.Fatalf("the second was decided, %v", err)
	}
	for what, check := range map[string]struct {
		key  string
		hits int64
	}{"another key": {"b", 1}, "more hits": {"a", 2}} {
		if d, decided, err := m.CheckID(0, Name{"jobs", check.key}, check.hits, limiter.Time(time.Minute), 3, "second"); !errors.Is(err, ErrIDReused) {
			t.Errorf("%s under an id that waits: %+v, decided %v, %v", what, d, decided, err)
		}
	}
	if _, err := m.AddID(0, Name{"jobs", "a"}, 1, "second"); !errors.Is(err, ErrIDReused) {
		t.Errorf("an add under an id that waits: %v", err)
	}
	if _, decided, err := m.CheckID(0, Name{"jobs", "a"}, 1, 0, 4, "second"); decided || err != nil {
		t.Errorf("its retry was decided, %v", err)
	}
	if _, err := m.Release(0, Name{"jobs", "a"}, first.Permit); err != nil {
		t.Fatal(err)
	}
	out := m.Output(0)
	if len(out.Decided) != 2 || out.Decided[0].Decision != out.Decided[1].Decision || !out.Decided[0].Decision.Allowed {
		t.Errorf("the second and its retry were answered %+v", out.Decided)
	}
}

// TestRememberedPermitIsOfItsSession: after a restart, the retry of a check gets the permit that the check got, which
// ended with its session: none of the new one's.
func TestRememberedPermitIsOfItsSession(t *testing.T) {
	disk := memory{}
	m := remembering(t, disk, 1)
	first, _, err := m.CheckID(0, Name{"jobs", "a"}, 1, 0, 1, "x")
	if err != nil || !first.Allowed || first.Session != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	disk.apply(m.Output(0).Writes)
	again, _, err := m.CheckID(0, Name{"jobs", "a"}, 1, 0, 2, "x")
	if err != nil || again.Permit != first.Permit || again.Session != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
	m = remembering(t, disk, 2)
	again, _, err = m.CheckID(0, Name{"jobs", "a"}, 1, 0, 1, "x")
	if err != nil || !again.Allowed || again.Permit != first.Permit || again.Session != 1 {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

// TestRememberedCheckIsCounted: what a check with an id counts is in the commit that remembers it, for a retry does not
// count it.
func TestRememberedCheckIsCounted(t *testing.T) {
	disk := memory{}
	m := remembering(t, disk, 1)
	if d, _, err := m.CheckID(0, Name{"api", "a"}, 2, 0, 1, "x"); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	disk.apply(m.Output(0).Writes)
	m = remembering(t, disk, 2) // the first one crashed
	if d, _, err := m.CheckID(0, Name{"api", "a"}, 2, 0, 1, "x"); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	disk.apply(m.Output(0).Writes)
	if total, _, _, err := m.Get(limiter.Time(useEach), Name{"api", "a"}); err != nil || total != (Total{2, 0}) {
		t.Errorf("counted: %v, %v", total, err)
	}
}

func TestOnlyRulesThatSayRememberIDs(t *testing.T) {
	m := start(t, memory{}, "eu.de.berlin", true, 1)
	if _, err := m.AddID(0, Name{"votes", "a"}, 1, "x"); !errors.Is(err, ErrNoDedupe) {
		t.Errorf("add: %v", err)
	}
	if _, decided, err := m.CheckID(0, Name{"api", "a"}, 1, 0, 1, "x"); !decided || !errors.Is(err, ErrNoDedupe) {
		t.Errorf("check: %v", err)
	}
	if _, err := m.AddID(0, Name{"nowhere", "a"}, 1, "x"); !errors.Is(err, ErrUnknownNamespace) {
		t.Errorf("add: %v", err)
	}
}
