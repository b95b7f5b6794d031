package tiers

import (
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// TestCheckWaitsForWhatAYoungCityMayHave: until its parent has said that it is the only one, a new city spends nothing of
// its own limits; but a check does not have to wait for the hours that they take to fill.
func TestCheckWaitsForWhatAYoungCityMayHave(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"api": {Limits: []limiter.LimitSpec{{Scope: "city", Rate: "1/h", Burst: new(int64(3))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(0, Config{
		Place: "eu.de.berlin", Partitions: 1, Leaf: true, Rules: rules, Session: 1, NewWorld: 7,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, memory{})
	if err != nil {
		t.Fatal(err)
	}
	if d, decided, err := m.Check(0, Name{"api", "a"}, 2, limiter.Time(250*time.Millisecond), 1); decided || err != nil {
		t.Fatalf("it does not wait: %+v, %v", d, err)
	}
	m.judge(0, 1)
	if out := m.Output(0); len(out.Decided) != 1 || !out.Decided[0].Decision.Allowed {
		t.Errorf("%+v", out.Decided)
	}
}
