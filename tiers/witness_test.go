package tiers

import (
	"maps"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// witness is what a child knows that has heard of the root's session.
func witness(m *Machine) Witness { return Witness{m.cfg.Session, m.meta.Number} }

// A rootWorld is a root with the children eu and us, and the limits of a rate
// and of a budget of 100.
type rootWorld struct {
	t        *testing.T
	rules    *limiter.Rules
	disk     memory
	m        *Machine
	now      limiter.Time
	sequence uint64
	longest  time.Duration // the longest lease that children tell of
	events   []Event
}

func newRootWorld(t *testing.T) *rootWorld {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"api":  {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "100/s", Burst: new(int64(100))}}},
		"shop": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(100))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := &rootWorld{t: t, rules: rules, disk: memory{}, now: 1}
	w.start(1)
	for _, child := range []Place{"eu", "us"} {
		w.report(child, witness(w.m), 0)
	}
	return w
}

// start starts a session on the disk as it is.
func (w *rootWorld) start(session uint64) {
	w.t.Helper()
	var err error
	if w.m, err = Start(w.now, Config{
		Place: Root, Partitions: 1, Rules: w.rules, Session: session, NewWorld: 7,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, w.disk); err != nil {
		w.t.Fatal(err)
	}
	w.done()
}

func (w *rootWorld) done() {
	out := w.m.Output(w.now)
	w.disk.apply(out.Writes)
	w.events = append(w.events, out.Events...)
	w.m.Read(w.disk)
}

// report is a child's, that asks for so much of both limits, and returns how
// much it is lent of them, tokens of the rate and of the budget.
func (w *rootWorld) report(child Place, of Witness, ask int64) (rate, budget int64) {
	w.t.Helper()
	w.sequence++
	r := &Report{Child: child, World: 7, Session: 5, Number: 1, Sequence: w.sequence, Hash: w.rules.Hash, Witness: of, Longest: w.longest}
	if ask > 0 {
		for _, namespace := range []string{"api", "shop"} {
			r.Lines = append(r.Lines, LineReport{
				Name: Name{namespace, "a"}, Limit: w.rules.Rule(namespace).Limits[0].ID,
				Demand: Demand{Now: ask, Peak: ask, Ask: ask, Single: ask, Until: time.Second, Weight: 1},
			})
		}
	}
	w.m.Tick(w.now)
	a := w.m.Reported(w.now, r)
	if a == nil || a.Refused != "" {
		w.t.Fatalf("the report of %s is answered with %+v", child, a)
	}
	w.done()
	for _, g := range a.Lines {
		if g.Name.Namespace == "api" {
			rate += g.Lent.Tokens
		} else {
			budget += g.Lent.Tokens
		}
	}
	return rate, budget
}

// askOf is a report that asks for one namespace's limit, by a child that has
// heard of the session; it returns how many tokens it is lent.
func (w *rootWorld) askOf(child Place, namespace string, ask int64) (lent int64) {
	w.t.Helper()
	w.sequence++
	w.m.Tick(w.now)
	a := w.m.Reported(w.now, &Report{
		Child: child, World: 7, Session: 5, Number: 1, Sequence: w.sequence, Hash: w.rules.Hash, Witness: witness(w.m), Longest: w.longest,
		Lines: []LineReport{{
			Name: Name{namespace, "a"}, Limit: w.rules.Rule(namespace).Limits[0].ID,
			Demand: Demand{Now: ask, Peak: ask, Ask: ask, Single: ask, Until: time.Second, Weight: 1},
		}},
	})
	w.done()
	for _, g := range a.Lines {
		lent += g.Lent.Tokens
	}
	return lent
}

// stop ends the session in good order.
func (w *rootWorld) stop() {
	if !w.closed() {
		w.t.Fatal("the store is not marked as stopped in good order")
	}
}

// closed ends the session, and says whether it marks its store as clean.
func (w *rootWorld) closed() bool {
	w.m.Stop(w.now)
	w.m.Close(w.now)
	w.done()
	return w.disk[metaKey].(*Meta).Clean
}

func (w *rootWorld) told(kind EventKind) (times int) {
	for _, e := range w.events {
		if e.Kind == kind {
			times++
		}
	}
	return times
}

// TestRootIsJudgedByItsChildren: a root that was stopped in good order lends
// all it has as soon as all its children have said that they know of no later
// session, and to those only that have written down of which they borrow.
func TestRootIsJudgedByItsChildren(t *testing.T) {
	w := newRootWorld(t)
	before := witness(w.m)
	w.stop()
	w.start(2)
	if rate, budget := w.report("eu", witness(w.m), 100); rate != 0 || budget != 0 {
		t.Errorf("%d and %d were lent before the other child was heard", rate, budget)
	}
	w.report("us", before, 0)
	if rate, budget := w.report("us", before, 100); rate != 0 || budget != 0 {
		t.Errorf("%d and %d were lent to a child that has not heard of the session", rate, budget)
	}
	if rate, budget := w.report("eu", witness(w.m), 100); rate != 100 || budget != 100 {
		t.Errorf("%d and %d of 100 and 100 were lent", rate, budget)
	}
	if w.told(EventLost)+w.told(EventSilent) > 0 {
		t.Errorf("there was trouble: %+v", w.events)
	}
}

// TestStopWithSharesLentIsNotClean: the next session has to wait until their
// leases end.
func TestStopWithSharesLentIsNotClean(t *testing.T) {
	for _, ask := range []int64{0, 10} {
		w := newRootWorld(t)
		w.report("eu", witness(w.m), ask)
		if clean := w.closed(); clean != (ask == 0) {
			t.Errorf("with %d tokens lent of each limit the store is clean: %v", ask, clean)
		}
	}
}

// TestRootWaitsNoLongerThanALease: a child that says nothing makes of a clean
// start one after a crash.
func TestRootWaitsNoLongerThanALease(t *testing.T) {
	w := newRootWorld(t)
	w.stop()
	w.start(2)
	w.report("eu", witness(w.m), 0)
	if rate, budget := w.report("eu", witness(w.m), 100); rate != 0 || budget != 0 {
		t.Errorf("%d and %d were lent at once", rate, budget)
	}
	w.now = w.now.Add(lenderLease(DefaultLease) + time.Second/2)
	if rate, budget := w.report("eu", witness(w.m), 100); rate != 50 || budget != 100 {
		t.Errorf("half a second after old leases have ended %d and %d of 50 and 100 are lent", rate, budget)
	}
}

// TestRootThatWasSetBack: a clean disk that is an old one is found out by any
// child to which something was lent since, before anything is lent again. What
// is left of a budget is not known.
func TestRootThatWasSetBack(t *testing.T) {
	for _, awake := range []bool{false, true} {
		w := newRootWorld(t)
		w.stop()
		old := maps.Clone(w.disk)
		w.start(2)
		since := witness(w.m)
		w.report("eu", since, 0)
		w.report("us", since, 0)
		if rate, budget := w.report("us", since, 100); rate != 100 || budget != 100 {
			t.Fatalf("%d and %d of 100 and 100 were lent", rate, budget)
		}
		w.disk = old
		w.start(3)
		if awake {
			w.report("eu", witness(w.m), 100)
		}
		w.report("us", since, 100)
		if witness(w.m).Number <= since.Number || w.disk[metaKey].(*Meta).Number <= since.Number {
			t.Error("the session does not outnumber the one that it learned of")
		}
		if rate, budget := w.report("eu", witness(w.m), 100); rate != 0 || budget != 0 {
			t.Errorf("%d and %d were lent again", rate, budget)
		}
		if w.told(EventLost) != 1 || w.told(EventSilent) != 1 {
			t.Errorf("it does not say what it found: %+v", w.events)
		}
		w.now = w.now.Add(lenderLease(DefaultLease) + time.Second)
		if rate, budget := w.report("eu", witness(w.m), 100); rate != 100 || budget != 0 {
			t.Errorf("a lease and a second later %d and %d of 100 and 0 are lent", rate, budget)
		}
		if err := w.m.Figure(w.now, Name{"shop", "a"}, 30); err != nil {
			t.Fatal(err)
		}
		w.report("us", since, 0) // it has not heard yet, and says nothing new
		if _, budget := w.report("eu", witness(w.m), 100); budget != 30 {
			t.Errorf("%d of 30 are lent that an operator said are left", budget)
		}
	}
}

// TestWitnessIsDurable: a child names a session of the root only when its disk
// does, and keeps the one with the highest number.
func TestWitnessIsDurable(t *testing.T) {
	disk := memory{}
	m := start(t, disk, "eu", false, 9)
	disk.apply(m.Writes())
	m.Read(disk)
	now := limiter.Time(0)
	for i, say := range []struct{ parent, number, session uint64 }{{4, 3, 4}, {6, 3, 4}, {6, 4, 6}, {8, maxNumber + 1, 6}, {4, 3, 6}} {
		now = now.Add(2 * time.Second)
		m.Tick(now)
		out := m.Output(now)
		disk.apply(out.Writes)
		r := out.Report
		if r == nil {
			t.Fatalf("%d: no report", i)
		}
		m.Acknowledged(now, &Ack{World: 7, Session: 9, Sequence: r.Sequence, Parent: say.parent, Root: say.number, Number: 1})
		out = m.Output(now)
		disk.apply(out.Writes)
		if is := disk[metaKey].(*Meta).Witness; is.Session != say.session {
			t.Errorf("after %+v the disk knows of %+v", say, is)
		}
	}
}
