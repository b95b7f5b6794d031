package tiers

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// someRules count votes and a, and limit api.
func someRules(t fataler) *limiter.Rules {
	t.Helper()
	burst := int64(100)
	r, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {}, "a": {}, "api": {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "10/s", Burst: &burst}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts a machine at time 0; what it wants written is durable.
func start(t fataler, disk memory, p Place, leaf bool, session uint64) *Machine {
	t.Helper()
	m, err := Start(0, Config{
		Place: p, Partitions: 1, Leaf: leaf, Rules: someRules(t), Session: session, NewWorld: 7,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, disk)
	if err != nil {
		t.Fatal(err)
	}
	disk.apply(m.Writes())
	return m
}

func TestStoreOfAnotherPlaceIsRefused(t *testing.T) {
	disk := memory{}
	start(t, disk, "eu.de.berlin", true, 1)
	for _, cfg := range []Config{
		{Place: "eu.de.munich", Partitions: 1},
		{Place: "eu.de.berlin", Partition: 1, Partitions: 2},
		{Place: "eu.de.berlin", Partitions: 2},
	} {
		cfg.Session, cfg.Rules = 2, someRules(t)
		_, err := Start(0, cfg, disk)
		want := fmt.Sprintf("belongs to eu.de.berlin, partition 0 of 1, not to %s, partition %d of %d", cfg.Place, cfg.Partition, cfg.Partitions)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one that says %s", err, want)
		}
	}
}

// broken is a store that cannot be read.
type broken struct{}

var errBroken = errors.New("the disk is gone")

func (broken) Get(Key) (Record, error)                       { return nil, errBroken }
func (broken) Scan(_, _ Key, _ func(Key, Record) bool) error { return errBroken }

func TestUnreadableStoreEndsTheMachine(t *testing.T) {
	if _, err := Start(0, Config{Place: "eu", Session: 1, Rules: someRules(t)}, broken{}); !errors.Is(err, errBroken) {
		t.Errorf("start: %v", err)
	}
	m := start(t, memory{}, "eu", false, 1)
	m.Output(0)
	m.Read(broken{})
	if _, _, err := m.List("votes", "", "", 1); !errors.Is(err, errBroken) {
		t.Errorf("list: %v", err)
	}
	if out := m.Output(0); !errors.Is(out.Err, errBroken) {
		t.Errorf("output: %v", out.Err)
	}
}

// TestIdleObjectsSleep: those unused the longest go, as long as there are too
// many, and come back as they were.
func TestIdleObjectsSleep(t *testing.T) {
	disk := memory{}
	m := start(t, disk, Root, false, 1)
	m.cfg.MaxAwake = 2
	var counts []Count
	for i := range 5 {
		counts = append(counts, Count{Name: Name{"votes", fmt.Sprint(i)}, Pairs: []Pair{{0, Total{uint64(i) + 1, 0}}}})
	}
	if a := m.Reported(0, &Report{Child: "eu", Session: 2, Number: 1, Sequence: 1, To: 5, Counts: counts}); a == nil || a.Acked != 5 {
		t.Fatalf("acknowledged: %+v", a)
	}
	disk.apply(m.Output(0).Writes)
	if s := m.Stats(0); s.Awake != 2 || m.spaces["votes"].objects["3"] == nil || m.spaces["votes"].objects["4"] == nil {
		t.Errorf("%d are awake: %v", s.Awake, m.spaces["votes"].objects)
	}
	if total, _, _, err := m.Get(0, Name{"votes", "0"}); err != nil || total.Added != 1 {
		t.Errorf("it woke with %v, %v", total, err)
	}
}

// TestSessionsUseDifferentNumbers: of two that say hello before either used
// its number, the first to use it has it, and the other asks again.
func TestSessionsUseDifferentNumbers(t *testing.T) {
	m := start(t, memory{}, Root, false, 1)
	for i, step := range []struct{ session, number, want uint64 }{
		{2, 0, 1}, {3, 0, 1}, {3, 1, 1}, {2, 1, 0}, {2, 0, 2}, {2, 2, 2}, {3, 1, 1},
	} {
		a := m.Reported(0, &Report{Child: "eu", Session: step.session, Number: step.number, Sequence: uint64(i + 1)})
		if a == nil || a.Number != step.want {
			t.Fatalf("report %d, %+v, is answered with %+v", i, step, a)
		}
	}
}

// TestPairsAreHandedOverUntilTheyAreTaken: a parent whose disk is full answers
// a report and takes no counts of it.
func TestPairsAreHandedOverUntilTheyAreTaken(t *testing.T) {
	disk := memory{}
	m := start(t, disk, "eu", true, 2)
	if _, err := m.Add(0, Name{"votes", "alice"}, 3); err != nil {
		t.Fatal(err)
	}
	disk.apply(m.Output(0).Writes)
	m = start(t, disk, "eu", true, 3) // the next session
	r := m.Output(0).Report
	m.Acknowledged(0, &Ack{World: 7, Session: 3, Sequence: r.Sequence, Parent: 9, Number: 2})
	for i, taken := range []bool{false, true} {
		now := limiter.Time(time.Duration(i+1) * time.Second)
		if r = m.Output(now).Report; r == nil || len(r.Counts) != 1 || !r.Counts[0].First || len(r.Counts[0].Pairs) != 1 {
			t.Fatalf("report %d: %+v", i, r)
		}
		a := &Ack{World: 7, Session: 3, Sequence: r.Sequence, Parent: 9, Number: 2}
		if taken {
			a.Acked = r.To
		}
		m.Acknowledged(now, a)
	}
	if _, err := m.Add(5e9, Name{"votes", "alice"}, 1); err != nil {
		t.Fatal(err)
	}
	if r = m.Output(5e9).Report; len(r.Counts) != 1 || r.Counts[0].First || len(r.Counts[0].Pairs) != 1 || r.Counts[0].Pairs[0].Session != 3 {
		t.Fatalf("report: %+v", r)
	}
}

// TestWhatIsHandedBackIsTold: what a parent knows of a place's other sessions is
// news to another session of the parent, which may not know of it.
func TestWhatIsHandedBackIsTold(t *testing.T) {
	disk := memory{}
	m := start(t, disk, "eu", true, 3)
	now := limiter.Time(0)
	report := func() *Report {
		now = now.Add(2 * time.Second)
		out := m.Output(now)
		disk.apply(out.Writes)
		if out.Report == nil {
			t.Fatal("nothing is reported")
		}
		return out.Report
	}
	answer := func(r *Report, parent uint64, back ...Count) {
		m.Acknowledged(now, &Ack{World: 7, Session: 3, Sequence: r.Sequence, Parent: parent, Number: 2, Acked: r.To, Pairs: back})
	}
	for range 2 { // the hello, and what the disk has
		answer(report(), 9)
	}
	if _, err := m.Add(now, Name{"votes", "alice"}, 1); err != nil {
		t.Fatal(err)
	}
	first := report()
	answer(first, 9, Count{Name: Name{"votes", "alice"}, Pairs: []Pair{{2, Total{Added: 5}}}})
	told := report()
	if told.From != first.To || told.To <= first.To || len(told.Counts) != 1 || len(told.Counts[0].Pairs) != 2 {
		t.Fatalf("after %+v: %+v", first, told)
	}
	if answer(told, 10); len(report().Counts) > 0 {
		t.Error("it is told once more")
	}
}

// TestRootHearsOfNewerRulesFarBelow: its disk was set back, its children's
// too, and a place below those follows newer rules. To apply the same rules
// once more makes them newer than those.
func TestRootHearsOfNewerRulesFarBelow(t *testing.T) {
	region, root := start(t, memory{}, "eu", false, 1), start(t, memory{}, Root, false, 2)
	region.upper.number = 1
	region.meta.World = root.meta.World
	region.Reported(0, &Report{Child: "eu.de", World: root.meta.World, Session: 3, Number: 1, Sequence: 1, Rules: 6, Hash: 1})
	report := region.Output(limiter.Time(time.Second)).Report
	if report == nil || report.Newest != 6 {
		t.Fatalf("the region reports %+v", report)
	}
	root.Reported(0, report)
	if version, err := root.Apply(0, root.rules); err != nil || version != 7 {
		t.Errorf("the root's rules have version %d, %v", version, err)
	}
}
