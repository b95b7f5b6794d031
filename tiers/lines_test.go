package tiers

import (
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// Lines are numbered by each session of a lender from 1 on, so that a number
// alone names none. These let numbers collide, which a world's chaos seldom
// does.

// lent is what an answer lends of its only line.
func lent(t *testing.T, a *Ack) Grant {
	t.Helper()
	if a == nil || len(a.Lines) != 1 || a.Lines[0].Line == 0 {
		t.Fatalf("nothing is lent: %+v", a)
	}
	return a.Lines[0]
}

// startRoot starts a root with rules of its own, as session 2.
func startRoot(t *testing.T, rules *limiter.Rules, disk memory) *Machine {
	t.Helper()
	m, err := Start(0, Config{
		Place: Root, Partitions: 1, Rules: rules, Session: 2, NewWorld: 7,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, disk)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestReturnToAnEarlierLender: a child reports what it returned to the
// session that ran here before, of a line whose number is one of ours too.
func TestReturnToAnEarlierLender(t *testing.T) {
	m := start(t, memory{}, Root, false, 2)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	report := func(sequence uint64, l LineReport) *Ack {
		l.Name, l.Limit, l.Demand = user, limit, Demand{Ask: 10, Until: time.Second, Weight: 1}
		return m.Reported(0, &Report{Child: "eu", Witness: witness(m), Session: 5, Number: 1, Sequence: sequence, Hash: m.rules.Hash, Rules: m.version, Lines: []LineReport{l}})
	}
	line := lent(t, report(1, LineReport{}))
	for i, of := range []LineReport{
		{Lender: 1, Line: line.Line, Returned: line.Lent},
		{Lender: 1, Line: line.Line, Returned: line.Lent, Ended: true},
	} {
		if again := lent(t, report(uint64(i+2), of)); again.Line != line.Line {
			t.Errorf("%+v ended line %d", of, line.Line)
		}
		if l := m.spaces["api"].objects["user"].pools[0].lines[0]; l.out() != line.Lent {
			t.Errorf("of %+v, %+v is out after %+v", line.Lent, l.out(), of)
		}
	}
}

// TestKeyThatSleptIsToldOnce: a key leaves memory while a report that says
// nothing of its demand is under way, and that report is lost. The key is in
// memory again and is lent something: what was reported before does not say that
// it left the line.
func TestKeyThatSleptIsToldOnce(t *testing.T) {
	m, r := joinedCity(t)
	m.Acknowledged(2, answer(m, r))
	r = m.Output(2).Report
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	now := limiter.Time(time.Hour)
	was := m.object(now, m.spaces["api"], user.Key)
	m.tell(was.pools[0]) // it has no demand to tell of
	m.Acknowledged(now, answer(m, r))
	if r = m.Output(now).Report; r == nil || len(r.Lines) != 1 {
		t.Fatalf("the report is %+v", r)
	}
	m.cfg.MaxAwake = 1
	m.object(now, m.spaces["a"], "other")
	if m.Output(now); !was.asleep {
		t.Fatal("the key is in memory")
	}
	m.cfg.MaxAwake = DefaultMaxAwake
	p := m.object(now, m.spaces["api"], user.Key).pools[0]
	m.Failed(now, r.Sequence)
	m.granted(now, Grant{Name: user, Limit: limit, Line: 1, Lent: limiter.Share{Tokens: 10, Capacity: 10, Rate: 1}, Lease: DefaultLease})
	m.tell(p)
	now = now.Add(time.Minute)
	r = m.Output(now).Report
	if r == nil || len(r.Lines) != 1 || r.Lines[0].Line != 1 {
		t.Errorf("the report of line 1 is %+v", r)
	}
}

// TestLineOfANewLender: a parent that started again lends on a line with the
// number of the one that is held. It is another line: what was held is void,
// and what is lent is there from the first token. Where the one before answers
// again, its lines of then are left: some of what it lent on them in all was
// returned, and is with others.
func TestLineOfANewLender(t *testing.T) {
	m, r := joinedCity(t)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	now := limiter.Time(2)
	for i, step := range []struct {
		parent, line uint64
		lent         int64
		spend        int64
		want         int64 // left
	}{
		{9, 1, 10, 0, 10},
		{9, 1, 12, 3, 9},
		{8, 1, 4, 0, 4},
		{8, 1, 4, 1, 3},
		{9, 1, 12, 0, 3},
		{9, 1, 20, 0, 3},
		{9, 2, 7, 0, 7},
		{8, 1, 6, 0, 7},
		{9, 2, 9, 0, 9},
		{8, 2, 6, 0, 6},
		{9, 2, 9, 0, 6},
		{9, 1, 30, 0, 6},
	} {
		a := answer(m, r)
		a.Parent = step.parent
		a.Lines = []Grant{{Name: user, Limit: limit, Line: step.line, Lent: limiter.Share{Tokens: step.lent, Capacity: step.lent}, Lease: 5 * time.Second, Keep: Keep{All: true}}}
		m.Acknowledged(now, a)
		if d, _, err := m.Check(now, user, step.spend, now, 1); err != nil || !d.Allowed || d.Remaining != step.want {
			t.Errorf("after answer %d of parent %d, which lent %d: %+v, %v; want %d left", i, step.parent, step.lent, d, err, step.want)
		}
		now = now.Add(time.Second)
		r = m.Output(now).Report
	}
}

// TestChildSaysThatItLeftALine: a lender that answers again, and tells of a line
// that was left with it, is told that it is not held. It would be out for good:
// nothing else is reported of a limit that nobody demands.
func TestChildSaysThatItLeftALine(t *testing.T) {
	m, r := joinedCity(t)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	now := limiter.Time(2)
	for i, parent := range []uint64{9, 8, 9} {
		a := answer(m, r)
		a.Parent = parent
		if parent == 9 {
			a.Lines = []Grant{{Name: user, Limit: limit, Line: 1, Lent: limiter.Share{Tokens: 1, Capacity: 1}, Lease: 5 * time.Second, Keep: Keep{All: true}}}
		}
		m.Acknowledged(now, a)
		now = now.Add(time.Minute)
		m.Tick(now)
		r = m.Output(now).Report
		if said := len(r.Lines) == 1 && r.Lines[0].Name == user && r.Lines[0].Line == 0; said != (i > 0) {
			t.Errorf("after answer %d, of parent %d: %+v", i, parent, r.Lines)
		}
	}
}

// TestLineThatWasLeft: a child that had the answer in which it was lent a line,
// and names another process' line, does not take ours up again. It is renewed no
// more, and the next one is another. Of a budget, what is out on it is spent.
func TestLineThatWasLeft(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"api":  {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1000/s", Burst: new(int64(1000))}}},
		"shop": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(100))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"api", "shop"} {
		disk := memory{}
		m := startRoot(t, rules, disk)
		name, limit := Name{namespace, "a"}, rules.Rule(namespace).Limits[0].ID
		now, sequence := limiter.Time(1), uint64(0)
		report := func(got uint64, of LineReport) *Ack {
			sequence++
			of.Name, of.Limit, of.Demand = name, limit, Demand{Ask: 10, Single: 10, Until: time.Second, Weight: 1}
			m.Tick(now)
			m.Read(disk)
			a := m.Reported(now, &Report{Child: "eu", Witness: witness(m), Session: 5, Number: 1, Sequence: sequence, Got: got, Hash: rules.Hash, Lines: []LineReport{of}})
			disk.apply(m.Output(now).Writes)
			return a
		}
		first := lent(t, report(0, LineReport{}))
		if again := lent(t, report(0, LineReport{Lender: 1, Line: 7})); again.Line != first.Line {
			t.Errorf("%s: line %d became %d before the child heard of it", namespace, first.Line, again.Line)
		}
		left := func() *line { return m.space(namespace).objects["a"].pools[0].lines[0] }
		expires := left().expires
		now = now.Add(time.Second)
		a := report(2, LineReport{Lender: 1, Line: 7})
		if namespace == "shop" {
			if other := lent(t, a); other.Line == first.Line || other.Lent.Tokens > 100-first.Lent.Tokens {
				t.Errorf("after %+v, of a budget of 100: %+v", first, other)
			}
			continue
		}
		if len(a.Lines) != 0 || left().number != first.Line || left().expires != expires {
			t.Errorf("a line that was left is renewed: %+v, until %d, not %d", a.Lines, left().expires, expires)
		}
		for range 20 {
			now = now.Add(time.Second / 2)
			if a = report(2, LineReport{Lender: 1, Line: 7}); len(a.Lines) > 0 {
				break
			}
		}
		if other := lent(t, a); other.Line == first.Line || now < expires {
			t.Errorf("line %d is lent at %d, line %d ends at %d", other.Line, now, first.Line, expires)
		}
	}
}

// TestRecallIsTakenOnceAndInOrder: what Recalls lend is there once, however
// they come: twice, late, after another report, or to another session.
func TestRecallIsTakenOnceAndInOrder(t *testing.T) {
	m, r := joinedCity(t)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	m.Acknowledged(2, answer(m, r))
	r = m.Output(2).Report
	m.Acknowledged(3, answer(m, r))
	if _, _, err := m.Check(3, user, 1, 3, 1); err != nil { // it is awake
		t.Fatal(err)
	}
	m.Output(3)
	for i, step := range []struct {
		session, sequence, line uint64
		lent                    int64
		spend, want             int64
	}{
		{1, r.Sequence, 4, 5, 2, 3},
		{1, r.Sequence, 4, 5, 0, 3},      // twice
		{1, r.Sequence, 4, 9, 0, 7},      // more
		{1, r.Sequence, 4, 5, 0, 7},      // late
		{1, r.Sequence - 1, 4, 20, 0, 7}, // after a report before
		{1, r.Sequence + 1, 4, 20, 0, 7}, // after one whose Ack did not come
		{2, r.Sequence, 4, 20, 0, 7},     // to a twin
		{1, r.Sequence, 6, 8, 5, 3},      // another line
		{1, r.Sequence, 4, 20, 0, 3},     // late, of the one before
		{1, r.Sequence, 0, 0, 0, 3},
	} {
		m.Recalled(4, &Recall{Parent: 9, Session: step.session, Sequence: step.sequence, Lines: []Grant{
			{Name: user, Limit: limit, Line: step.line, Lent: limiter.Share{Tokens: step.lent, Capacity: step.lent}, Lease: 5 * time.Second, Keep: Keep{All: true}},
		}})
		if d, _, err := m.Check(4, user, step.spend, 4, 1); err != nil || !d.Allowed || d.Remaining != step.want {
			t.Errorf("after recall %d, %+v: %+v, %v; want %d left", i, step, d, err, step.want)
		}
	}
	if h := m.spaces["api"].objects["user"].pools[0].held; h.expires != limiter.Time(2).Add(5*time.Second) {
		t.Errorf("the lease ends at %d: it began when the report was built, at 2", h.expires)
	}
}

// TestLostRecallIsSaidAgain: the Acks of the child's next reports repeat what
// a Recall lent, until one of them has come.
func TestLostRecallIsSaidAgain(t *testing.T) {
	m := start(t, memory{}, Root, false, 2)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	report := func(child Place, sequence, got uint64, lines ...LineReport) *Ack {
		for i := range lines {
			lines[i].Name, lines[i].Limit = user, limit
		}
		return m.Reported(0, &Report{Child: child, Witness: witness(m), Session: 5, Number: 1, Sequence: sequence, Got: got, Hash: m.rules.Hash, Rules: m.version, Lines: lines})
	}
	asks := Demand{Ask: 10, Single: 10, Until: time.Second, Weight: 1}
	all := lent(t, report("eu", 1, 0, LineReport{Demand: asks}))
	report("us", 1, 0, LineReport{Demand: asks})
	m.Output(0)
	report("eu", 2, 1, LineReport{Lender: 2, Line: all.Line, Returned: all.Lent, Ended: true})
	out := m.Output(0)
	if len(out.Recalls) != 1 || out.Recalls[0].Child != "us" || out.Recalls[0].Recall.Sequence != 1 {
		t.Fatalf("recalls %+v", out.Recalls)
	}
	told := out.Recalls[0].Recall.Lines[0]
	for i, step := range []struct {
		got  uint64
		want bool
	}{{1, true}, {1, true}, {2, true}, {2, true}, {5, false}, {6, false}} {
		a := report("us", uint64(i+2), step.got)
		if again := len(a.Lines) == 1 && a.Lines[0].Line == told.Line && a.Lines[0].Lent == told.Lent; again != step.want {
			t.Errorf("ack %d, when that of %d had come, says %+v", i+2, step.got, a.Lines)
		}
	}
}

// TestLostGrantIsSaidAgain: a line was lent in an answer that never came, and
// the child, which follows other rules now, demands nothing any more. It is told
// of the line all the same: what is out on it would be out for good.
func TestLostGrantIsSaidAgain(t *testing.T) {
	m := start(t, memory{}, Root, false, 2)
	user, limit := Name{"api", "user"}, m.rules.Rule("api").Limits[0].ID
	report := func(sequence, got, hash uint64, demand ...Demand) *Ack {
		r := &Report{Child: "eu", Witness: witness(m), Session: 5, Number: 1, Sequence: sequence, Got: got, Hash: hash, Rules: m.version}
		for _, d := range demand {
			r.Lines = append(r.Lines, LineReport{Name: user, Limit: limit, Demand: d})
		}
		return m.Reported(0, r)
	}
	given := lent(t, report(1, 0, m.rules.Hash, Demand{Ask: 10, Single: 10, Until: time.Second, Weight: 1}))
	if a := report(2, 0, 77, Demand{}); len(a.Lines) != 0 {
		t.Fatalf("a child with other rules is told of %+v", a.Lines)
	}
	for i, step := range []struct {
		got  uint64
		want bool
	}{{2, true}, {2, true}, {4, false}} {
		a := report(uint64(i+3), step.got, m.rules.Hash)
		if again := len(a.Lines) == 1 && a.Lines[0].Line == given.Line && a.Lines[0].Lent == given.Lent; again != step.want {
			t.Errorf("ack %d, when that of %d had come, says %+v", i+3, step.got, a.Lines)
		}
	}
}

// leafWith starts a leaf that is alone in the world and owns a limit.
func leafWith(t *testing.T, disk memory, session uint64, wall int64, spec limiter.LimitSpec) *Machine {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: []limiter.LimitSpec{spec}}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(0, Config{Place: Root, Partitions: 1, Leaf: true, Rules: rules, Session: session, NewWorld: 7, Wall: wall, MaxAwake: DefaultMaxAwake}, disk)
	if err != nil {
		t.Fatal(err)
	}
	disk.apply(m.Writes())
	return m
}

// TestPermitIsReleasedOnce: a second release of it brings nothing back, nor
// does one after it ended.
func TestPermitIsReleasedOnce(t *testing.T) {
	two := int64(2)
	m := leafWith(t, memory{}, 1, 0, limiter.LimitSpec{Scope: "global", Concurrency: &two, Hold: "10s"})
	job := Name{"api", "job"}
	start := func(now limiter.Time) Decision {
		d, _, err := m.Check(now, job, 1, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first, second := start(0), start(1)
	if !first.Allowed || !second.Allowed || start(2).Allowed {
		t.Fatalf("two jobs are allowed at a time: %+v, %+v", first, second)
	}
	for i, want := range []bool{true, false, false} {
		if released, err := m.Release(3, job, first.Permit); err != nil || released != want {
			t.Errorf("release %d: %v, %v", i, released, err)
		}
	}
	if d := start(4); !d.Allowed || d.Permit == first.Permit {
		t.Errorf("one was released: %+v", d)
	}
	if d := start(5); d.Allowed {
		t.Errorf("three jobs run: %+v", d)
	}
	after := limiter.Time(11 * time.Second)
	if released, err := m.Release(after, job, second.Permit); err != nil || released {
		t.Errorf("a permit that ended was released: %v, %v", released, err)
	}
	if d := start(after); !d.Allowed || d.Remaining != 1 {
		t.Errorf("both ended: %+v", d)
	}
}

// TestWindowIsOpenedOnce: a quota's owner that starts again on a machine whose
// wall clock was set back goes on in the window that it had opened.
func TestWindowIsOpenedOnce(t *testing.T) {
	const day = int64(24 * time.Hour)
	disk := memory{}
	user := Name{"api", "user"}
	for session, wall := range []int64{100 * day, 101 * day, 100 * day, 101 * day} {
		m := leafWith(t, disk, uint64(session+1), wall, limiter.LimitSpec{Scope: "global", Quota: "100/day"})
		spend := func(hits int64) Decision {
			d, _, err := m.Check(0, user, hits, limiter.Time(time.Second), 1)
			if err != nil {
				t.Fatal(err)
			}
			out := m.Output(0) // a part is written off first, and then it is decided
			disk.apply(out.Writes)
			if out.Commit > 0 {
				m.Committed(0, out.Commit)
				for _, decided := range m.Output(0).Decided {
					d = decided.Decision
				}
			}
			return d
		}
		want := []int64{100, 100, 0, 0}[session]
		if d := spend(100); d.Allowed != (want == 100) {
			t.Errorf("session %d, on day %d: %+v", session+1, wall/day, d)
		}
	}
}

// TestLineOfABudgetEndsWithItsSession: also when its lease had ended before the
// next session came, and nobody asks for the key any more.
func TestLineOfABudgetEndsWithItsSession(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"shop": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(100))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	disk := memory{}
	m := startRoot(t, rules, disk)
	bag, limit := Name{"shop", "bag"}, rules.Rule("shop").Limits[0].ID
	report := func(now limiter.Time, session, number uint64, lines ...LineReport) *Ack {
		m.Read(disk)
		a := m.Reported(now, &Report{Child: "eu", Witness: witness(m), Session: session, Number: number, Sequence: 1, Hash: rules.Hash, Lines: lines})
		disk.apply(m.Output(now).Writes)
		return a
	}
	lent(t, report(0, 5, 1, LineReport{Name: bag, Limit: limit, Demand: Demand{Ask: 10, Single: 10, Until: time.Second, Weight: 1}}))
	lines := func() int { return len(m.space("shop").objects["bag"].pools[0].lines) }
	now := limiter.Time(0)
	for range 20 {
		now = now.Add(time.Second)
		m.Tick(now)
		m.Output(now)
	}
	if lines() != 1 {
		t.Fatalf("%d lines: what was lent of a budget is the session's until it ends", lines())
	}
	report(now, 6, 2)
	m.Tick(now)
	if m.Output(now); lines() != 0 {
		t.Error("the line of the session before is there still")
	}
}

// TestWindowEndsAsTheWallClockSays: it was set back, so the window is open
// for longer than it seemed. Who is told when to come again is told the truth,
// and the machine sleeps until then.
func TestWindowEndsAsTheWallClockSays(t *testing.T) {
	const minute = int64(time.Minute)
	m := leafWith(t, memory{}, 1, 10*minute, limiter.LimitSpec{Scope: "global", Quota: "2/minute"})
	check := func(now limiter.Time, hits, deadline int64) (d Decision, decided bool, out Output) {
		d, decided, err := m.Check(now, Name{"api", "user"}, hits, limiter.Time(deadline), 1)
		if err != nil {
			t.Fatal(err)
		}
		return d, decided, m.Output(now)
	}
	m.SetWall(0, 10*minute)
	for range 3 { // drawn from the disk first
		_, _, out := check(0, 2, 0)
		m.Committed(0, out.Commit)
		m.Output(0)
	}
	now := limiter.Time(minute) + 1
	m.prune.at = limiter.Never         // that wakes it for another reason
	m.SetWall(now, 10*minute+minute/2) // half of it is to come
	d, _, out := check(now, 2, 5*minute)
	if d.Allowed || d.RetryAfter != time.Duration(minute/2) || out.Wake < now.Add(time.Second) {
		t.Errorf("it is told %+v, and the machine wakes %s later", d, out.Wake.Sub(now))
	}
}

// TestStopWithMorePermitsThanALoweredLimitIsNotClean: the next session would
// take only the lowered figure to be out, and be too generous when it is
// raised again.
func TestStopWithMorePermitsThanALoweredLimitIsNotClean(t *testing.T) {
	for _, test := range []struct {
		lowered int64
		clean   bool
	}{{4, true}, {2, false}} {
		four := int64(4)
		disk := memory{}
		m := leafWith(t, disk, 1, 0, limiter.LimitSpec{Scope: "global", Concurrency: &four, Hold: "10s"})
		for id := range uint64(3) {
			if d, _, err := m.Check(0, Name{"api", "job"}, 1, 0, id); err != nil || !d.Allowed {
				t.Fatalf("%+v, %v", d, err)
			}
		}
		rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: []limiter.LimitSpec{
			{Scope: "global", Concurrency: &test.lowered, Hold: "10s"},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Apply(0, rules); err != nil {
			t.Fatal(err)
		}
		m.Close(0)
		disk.apply(m.Output(0).Writes)
		if got := disk[metaKey].(*Meta).Clean; got != test.clean {
			t.Errorf("lowered to %d with 3 out, the store is marked clean: %v", test.lowered, got)
		}
	}
}
