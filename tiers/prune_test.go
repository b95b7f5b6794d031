package tiers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// pruner is a leaf that owns limits of all kinds, and its disk.
type pruner struct {
	*Machine
	t    *testing.T
	disk *ordered
	now  limiter.Time
	wall int64 // ahead of now
	most int   // records that a step touched
}

// pruneRules limit each key of a namespace, and remember ids for an hour.
func pruneRules(t *testing.T, but ...string) *limiter.Rules {
	t.Helper()
	spaces := map[string]limiter.NamespaceSpec{
		"quota":  {Limits: []limiter.LimitSpec{{Scope: "city", Quota: "3/minute"}}},
		"budget": {Limits: []limiter.LimitSpec{{Scope: "city", Budget: new(int64(3))}}},
		"rate":   {Limits: []limiter.LimitSpec{{Scope: "city", Rate: "60/h", Burst: new(int64(10))}}},
		"jobs":   {Limits: []limiter.LimitSpec{{Scope: "city", Concurrency: new(int64(2)), Hold: "1m"}}},
		"votes":  {Dedupe: "1h"},
	}
	for _, name := range but {
		delete(spaces, name)
	}
	r, err := limiter.Compile(limiter.Spec{Namespaces: spaces})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const pruneStep = 20

func newPruner(t *testing.T) *pruner {
	p := &pruner{t: t, disk: &ordered{records: memory{}}, wall: 1_790_000_000 * int64(time.Second)}
	p.start(1)
	return p
}

// start starts a session, as if its parent confirmed the disk.
func (p *pruner) start(session uint64) {
	p.t.Helper()
	m, err := Start(p.now, Config{
		Place: "eu.de.berlin", Partitions: 1, Leaf: true, Rules: pruneRules(p.t), Session: session, Wall: p.unix(), MaxStep: pruneStep,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, p.disk)
	if err != nil {
		p.t.Fatal(err)
	}
	p.Machine = m
	m.judge(p.now, m.prior.Number+1)
	m.meta.Number = m.prior.Number + 1
	m.write(metaKey, m.saved())
	p.step(func() {})
}

func (p *pruner) unix() int64 { return p.wall + int64(p.now) }

func (p *pruner) step(do func()) limiter.Time {
	p.t.Helper()
	p.SetWall(p.now, p.unix())
	p.disk.reads = 0
	do()
	out := p.Output(p.now)
	if out.Err != nil {
		p.t.Fatal(out.Err)
	}
	p.disk.apply(out.Writes)
	p.most = max(p.most, p.disk.reads, len(out.Writes))
	if out.Commit > 0 {
		p.step(func() { p.Committed(p.now, out.Commit) })
	}
	return out.Wake
}

// pass lets time go by; nobody answers reports.
func (p *pruner) pass(d time.Duration) {
	p.t.Helper()
	for end := p.now.Add(d); p.now < end; {
		wake := p.step(func() { p.Tick(p.now) })
		if r := p.upper.inFlight; r != nil { // each would wait for a second, and longer
			p.Failed(p.now, r.Sequence)
		}
		p.now = min(end, max(min(wake, p.prune.at), p.now.Add(time.Millisecond)))
	}
}

// check asks for one of a key, and says what its limit has left.
func (p *pruner) check(namespace, key string) (left int64) {
	p.t.Helper()
	var d Decision
	p.step(func() { d, _, _ = p.Check(p.now, Name{namespace, key}, 1, p.now.Add(time.Second), 1) })
	if !d.Limited { // it waited for the disk
		p.step(func() { d, _, _ = p.Check(p.now, Name{namespace, key}, 0, 0, 1) })
	}
	return d.Remaining
}

func (p *pruner) count(prefix string) (n int) {
	for k := range p.disk.records {
		if strings.HasPrefix(string(k), prefix) {
			n++
		}
	}
	return n
}

// TestEndedWindowsLeaveTheDisk: also of keys that nobody asks for again, some
// in each step; what is left of the open window stays.
func TestEndedWindowsLeaveTheDisk(t *testing.T) {
	const keys = 1000
	p := newPruner(t)
	p.pass(time.Second)
	for i := range keys {
		p.check("quota", fmt.Sprint(i))
	}
	p.check("budget", "a")
	if n := p.count("bucket/quota/"); n != keys {
		t.Fatalf("%d records of %d keys", n, keys)
	}
	p.pass(2 * time.Minute)
	p.check("quota", "new")
	p.most = 0
	p.pass(55 * time.Second)
	if n := p.count("bucket/quota/"); n > 1 {
		t.Errorf("%d records are left", n)
	}
	if p.most > 4*pruneStep {
		t.Errorf("a step touched %d records", p.most)
	}
	if n := p.count("bucket/budget/"); n != 1 {
		t.Error("a budget's figure is gone")
	}
	p.pass(time.Second)
	for range 4 {
		p.check("quota", "open")
	}
	p.prune.at = p.now // now, within the window
	p.pass(time.Second)
	p.start(2) // it crashed
	if left := p.check("quota", "open"); left > 0 {
		t.Errorf("%d are left of what was spent of the open window", left)
	}
	if left := p.check("quota", "7"); left != 2 {
		t.Errorf("%d of 3 are left after one of a new window", left)
	}
}

// TestSavedBucketsLeaveTheDiskWhenTheyAreFull: not before, and those of
// permits when all have ended.
func TestSavedBucketsLeaveTheDiskWhenTheyAreFull(t *testing.T) {
	p := newPruner(t)
	p.check("jobs", "a")
	for range 5 {
		p.check("rate", "a")
		p.check("rate", "b")
	}
	for done := false; !done; {
		p.step(func() { done = p.Close(p.now) })
	}
	if n := p.count("bucket/"); n != 3 || !p.meta.Clean {
		t.Fatalf("%d buckets are written down, clean: %v", n, p.meta.Clean)
	}
	p.start(2)
	p.pass(4 * time.Minute) // 4 of 5 are there again
	if n := p.count("bucket/rate/"); n != 2 {
		t.Fatalf("%d buckets that are not full are written down, want 2", n)
	}
	if n := p.count("bucket/jobs/"); n != 0 {
		t.Error("permits of the session before are remembered after their hold")
	}
	if left := p.check("rate", "a"); left != 8 {
		t.Errorf("%d are left, want 8", left)
	}
	p.pass(3 * time.Minute)
	if n := p.count("bucket/"); n != 0 {
		t.Errorf("%d buckets that are full are written down", n)
	}
	if left := p.check("rate", "b"); left != 9 {
		t.Errorf("%d are left, want 9", left)
	}
}

// TestWhatLeftTheRulesIsKeptForAWhile: it may come back, and finds what was
// there. What it could not find any more goes, but no figure of a budget.
func TestWhatLeftTheRulesIsKeptForAWhile(t *testing.T) {
	p := newPruner(t)
	p.check("budget", "a")
	for _, id := range []string{"x", "y"} { // in two slots
		p.step(func() {
			if _, err := p.AddID(p.now, Name{"votes", "a"}, 1, id); err != nil {
				t.Fatal(err)
			}
		})
		p.now = p.now.Add(time.Hour)
	}
	p.check("quota", "a")
	p.check("rate", "a")
	for done := false; !done; {
		p.step(func() { done = p.Close(p.now) })
	}
	p.start(2)
	p.step(func() { p.adopt(p.now, pruneRules(t, "quota", "budget", "rate", "votes"), 2) })
	p.prune.at = p.now.Add(goneFor - time.Minute)
	p.now = p.prune.at
	p.pass(30 * time.Second)
	if b, r, w := p.count("bucket/"), p.count("request/"), p.count("window/"); b != 3 || r != 2 || w != 2 {
		t.Fatalf("after a day %d buckets, %d requests and %d windows are left, want 3, 2 and 2", b, r, w)
	}
	p.now = p.now.Add(2 * time.Minute)
	p.pass(3 * time.Minute)
	if p.count("bucket/rate/") != 0 || p.count("request/") != 0 || p.count("window/votes/") != 0 {
		t.Error("what nobody would ask for again is left")
	}
	if p.count("bucket/quota/") != 1 || p.count("window/quota/") != 1 {
		t.Error("a window that may be open is gone")
	}
	p.now = p.now.Add(time.Duration(longestWindow) * time.Second)
	p.pass(3 * time.Minute)
	if p.count("bucket/quota/") != 0 || p.count("window/quota/") != 0 {
		t.Error("a window that has ended is left")
	}
	if p.count("bucket/budget/") != 1 {
		t.Error("a budget's figure is gone")
	}
}

// TestOldRequestsLeaveTheDisk: when no other request comes, too.
func TestOldRequestsLeaveTheDisk(t *testing.T) {
	p := newPruner(t)
	add := func(id string) (n uint64) {
		p.step(func() {
			total, err := p.AddID(p.now, Name{"votes", "a"}, 1, id)
			if err != nil {
				t.Fatal(err)
			}
			n = total.Added
		})
		return n
	}
	for i := range 100 {
		add(fmt.Sprint(i))
	}
	p.pass(5 * time.Minute)
	p.now = p.now.Add(55 * time.Minute)
	p.pass(3 * time.Minute)
	if n := p.count("request/"); n != 100 {
		t.Fatalf("%d of 100 requests are remembered within two windows", n)
	}
	if n := add("7"); n != 8 {
		t.Errorf("a retry was counted, or answered %d", n)
	}
	p.now = p.now.Add(time.Hour)
	p.pass(3 * time.Minute)
	if n := p.count("request/"); n != 0 {
		t.Errorf("%d requests are remembered after two windows", n)
	}
}

// TestForgettingGoesOnAfterACrash: what a forgotten place counted becomes its
// parent's own in several steps. At every instant each key's total is the
// same, and a crash amid them loses nothing.
func TestForgettingGoesOnAfterACrash(t *testing.T) {
	const keys = 50
	disk := memory{}
	begin := func(session uint64) *Machine {
		m := start(t, disk, Root, false, session)
		m.cfg.MaxStep = 8
		return m
	}
	m := begin(1)
	now := limiter.Time(0)
	for _, child := range []Place{"eu", "us"} {
		r := &Report{Child: child, Witness: witness(m), Session: 5, Number: 1, Sequence: 1, Hash: m.rules.Hash, To: 60}
		for i := range keys {
			r.Counts = append(r.Counts, Count{Name: Name{"votes", fmt.Sprintf("%03d", i)}, Pairs: []Pair{{5, Total{Added: uint64(i + 1), Removed: 2}}}})
		}
		m.Reported(now, r)
		disk.apply(m.Output(now).Writes)
	}
	now = now.Add(time.Hour)
	if err := m.Forget(now, "eu"); err != nil {
		t.Fatal(err)
	}
	var moved int
	var events []Event
	for steps := 0; ; steps++ {
		out := m.Output(now)
		disk.apply(out.Writes)
		events = append(events, out.Events...)
		if len(out.Writes) > 50 {
			t.Fatalf("%d writes in one step", len(out.Writes))
		}
		listed, _, err := m.List("votes", "", "", 2*keys)
		if err != nil || len(listed) != keys {
			t.Fatalf("%d keys are listed: %v", len(listed), err)
		}
		for i, l := range listed {
			if want := (Total{Added: 2 * uint64(i+1), Removed: 4}); l.Total != want {
				t.Fatalf("after %d steps %s is %+v, want %+v", steps, l.Key, l.Total, want)
			}
		}
		moved = 0
		for _, r := range disk {
			if c, ok := r.(*CountRecord); ok && c.Kept != (Total{}) {
				moved++
			}
		}
		if m.leaveAt() == limiter.Never {
			break
		}
		if steps == 3 {
			if moved == 0 || moved == keys {
				t.Fatalf("%d keys are kept after a few steps", moved)
			}
			m = begin(2)
			disk.apply(m.Output(now).Writes)
		}
		if steps > 4*keys {
			t.Fatal("it never ends")
		}
		now = now.Add(time.Millisecond)
		m.Tick(now)
	}
	if moved != keys || len(events) == 0 || events[len(events)-1].Kind != EventForgotten {
		t.Errorf("%d keys are kept, %v", moved, events)
	}
	if c := disk[childKey("eu")].(*ChildRecord); c.Leaving || !c.Forgotten {
		t.Errorf("%+v", c)
	}
	if _, left := disk[countKey(Name{"votes", "007"}, "eu")]; left {
		t.Error("a count of the forgotten place is left")
	}
}
