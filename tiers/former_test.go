package tiers

import (
	"fmt"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// TestQuotaOfTheFormatBeforeGoesOn: format 1 had the time zone in the IDs of
// quotas. What was spent of one stays spent, in the window that it is of.
func TestQuotaOfTheFormatBeforeGoesOn(t *testing.T) {
	for _, zone := range []string{"", "Etc/UTC", "Europe/Berlin"} {
		t.Run(zone, func(t *testing.T) {
			rules := oneLimit(t, limiter.LimitSpec{Scope: "global", Quota: "10/day", Zone: zone})
			l := &rules.Rule("api").Limits[0]
			former := l.FormerID
			if (former == 0) != (zone == "") {
				t.Fatalf("the ID was %x, and is %x", former, l.ID)
			}
			if former == 0 {
				former = l.ID
			}
			wall := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
			begin := l.Window.Begin(wall.Unix())
			disk := memory{
				metaKey:  &Meta{World: 7, Place: Root, Partitions: 1, Session: 1, Number: 1, Marks: 1, Lease: int64(DefaultLease), Leaf: true},
				rulesKey: &RulesRecord{Version: 1, Rules: rules},
				Key(fmt.Sprintf("window/api/%016x", former)): &WindowRecord{Begin: begin},
				savedKey(Name{"api", "a"}, former):           &SavedBucket{Tokens: 3, Burst: 10, Window: begin},
			}
			for session := uint64(2); session < 4; session++ {
				m, err := Start(1, Config{
					Place: Root, Partitions: 1, Leaf: true, Rules: rules, Session: session, NewWorld: 7, Wall: wall.UnixNano(),
					Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
				}, disk)
				if err != nil {
					t.Fatal(err)
				}
				m.Read(disk)
				d, _, err := m.Check(1, Name{"api", "a"}, 4, 1, 0)
				if err != nil || d.Allowed || d.Remaining != 3 {
					t.Errorf("4 of the 3 that are left: %+v %v", d, err)
				}
				out := m.Output(1)
				disk.apply(out.Writes)
				m.Committed(1, out.Commit)
				m.Close(1)
				disk.apply(m.Output(1).Writes)
				if _, there := disk[savedKey(Name{"api", "a"}, l.ID)]; !there || zone != "" && disk[savedKey(Name{"api", "a"}, former)] != nil {
					t.Error("what is left does not have the ID of today")
				}
			}
		})
	}
}
