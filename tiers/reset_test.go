package tiers

import (
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// TestResetFillsAllWhateverIsUnderWay resets a limit that one city has spent, after each message that follows: what
// comes back without its tokens while the reset goes down is filled as well.
func TestResetFillsAllWhateverIsUnderWay(t *testing.T) {
	for kind, spec := range map[string]limiter.LimitSpec{
		"budget": {Scope: "global", Budget: new(int64(10))},
		"quota":  {Scope: "global", Quota: "10/day"},
		"rate":   {Scope: "global", Rate: "1/d", Burst: new(int64(10))},
	} {
		rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: []limiter.LimitSpec{spec}}}})
		if err != nil {
			t.Fatal(err)
		}
		for events := range 40 {
			s := twoCities(t, rules)
			s.spend("berlin", 10, 1)
			for !strings.Contains(s.out.String(), "check 1: allowed") {
				s.event()
			}
			for range events {
				s.event()
			}
			s.step(s.node("global"), func(m *Machine) func() {
				if err := m.Reset(s.now, Name{"api", "a"}); err != nil {
					t.Fatal(err)
				}
				return nil
			})
			s.until(s.now.Add(100 * time.Millisecond))
			s.spend("munich", 10, 2)
			if s.until(s.now.Add(3 * time.Second)); !strings.Contains(s.out.String(), "check 2: allowed") {
				t.Errorf("%s, reset after %d events: 10 of 10 were not there:\n%s", kind, events, s.out.String())
			}
		}
	}
}

// spend checks api/a, and waits for a second.
func (s *script) spend(city string, hits int64, id uint64) {
	s.step(s.node(city), func(m *Machine) func() {
		if d, decided, err := m.Check(s.now, Name{"api", "a"}, hits, s.now.Add(2*time.Second), id); decided || err != nil {
			s.printf("check %d: %s%s", id, d, failure(err))
		}
		return nil
	})
}

// until lets everything happen until a time.
func (s *script) until(end limiter.Time) {
	for s.next() <= end {
		s.event()
	}
	s.now = end
}

// TestResetOfABudgetIsTheWholeAgain: no more of it, whatever waits, and no less, whatever a lowered limit has to get back.
func TestResetOfABudgetIsTheWholeAgain(t *testing.T) {
	budget := func(place Place, leaf bool) *Machine {
		rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
			"api": {Limits: []limiter.LimitSpec{{Scope: limiter.Scope(place.Depth()).String(), Budget: new(int64(10))}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := Start(0, Config{
			Place: place, Partitions: 1, Leaf: leaf, Rules: rules, Session: 1, NewWorld: 7,
			Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
		}, memory{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a := Name{"api", "a"}

	m := budget("eu.de.berlin", true) // not known yet to be the place's last, so that a check waits
	if d, decided, err := m.Check(0, a, 10, limiter.Never, 1); decided || err != nil {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := m.Reset(0, a); err != nil {
		t.Fatal(err)
	}
	spent := int64(0)
	for range 10 {
		out := m.Output(0)
		for _, d := range out.Decided {
			if d.Decision.Allowed {
				spent += 10
			}
		}
		m.Committed(0, out.Commit)
		if d, _, err := m.Check(0, a, 1, 0, 2); err == nil && d.Allowed {
			spent++
		}
	}
	if spent != 10 {
		t.Errorf("%d of 10 were spent after a reset", spent)
	}

	m = budget(Root, false)
	p := m.object(0, m.spaces["api"], "a").pools[0]
	p.bucket.Spend(10)
	p.debt = 3 // as if it had been 13
	if err := m.Reset(0, a); err != nil {
		t.Fatal(err)
	}
	if p.debt != 0 || p.bucket.Tokens() != 10 {
		t.Errorf("after a reset %d are there, and %d are owed", p.bucket.Tokens(), p.debt)
	}
}

// TestResetComesBeforeWhatWaits: a check that waits while the parent confirms
// the place spends of what the reset filled, and not of what was there before
// as well.
func TestResetComesBeforeWhatWaits(t *testing.T) {
	rules := oneLimit(t, limiter.LimitSpec{Scope: "city", Rate: "1/h", Burst: new(int64(1))})
	m, err := Start(1, Config{
		Place: "eu.de.berlin", Partitions: 1, Leaf: true, Rules: rules, Session: 1,
		Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, memory{})
	if err != nil {
		t.Fatal(err)
	}
	m.Read(memory{})
	name := Name{"api", "a"}
	if _, decided, err := m.Check(1, name, 1, limiter.Time(time.Minute), 7); decided || err != nil {
		t.Fatalf("a check of a place that nobody has confirmed: %v, %v", decided, err)
	}
	m.judge(2, 1)
	if err := m.Reset(2, name); err != nil {
		t.Fatal(err)
	}
	if d := m.Output(2).Decided; len(d) != 1 || !d[0].Decision.Allowed {
		t.Errorf("the check that waited: %+v", d)
	}
	if d, _, err := m.Check(3, name, 1, 3, 8); d.Allowed || err != nil {
		t.Errorf("another check of the one token that the reset filled: %+v, %v", d, err)
	}
}
