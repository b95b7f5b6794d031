package tiers

import (
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// holding are rules with a concurrency of 2 for each key.
func holding(t *testing.T, scope, hold string) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"api": {Limits: []limiter.LimitSpec{{Scope: scope, Concurrency: new(int64(2)), Hold: hold}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// A holdingLeaf is a leaf that owns a concurrency of 2, and runs alone.
type holdingLeaf struct {
	t    *testing.T
	hold string
	disk memory
	m    *Machine
	now  limiter.Time
}

func newHoldingLeaf(t *testing.T, hold string) *holdingLeaf {
	t.Helper()
	w := &holdingLeaf{t: t, hold: hold, disk: memory{}, now: 1}
	w.begin(1)
	return w
}

func (w *holdingLeaf) begin(session uint64) {
	w.t.Helper()
	m, err := Start(w.now, Config{
		Place: Root, Partitions: 1, Leaf: true, Rules: holding(w.t, "city", w.hold), Session: session, NewWorld: 7,
		Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	m.Read(w.disk)
	w.disk.apply(m.Output(w.now).Writes)
}

// check asks for a permit, and does not wait.
func (w *holdingLeaf) check() bool {
	w.t.Helper()
	w.m.Tick(w.now)
	d, _, err := w.m.Check(w.now, Name{"api", "a"}, 1, w.now, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.disk.apply(w.m.Output(w.now).Writes)
	return d.Allowed
}

// permits asks for all that there are, and says how many there were.
func (w *holdingLeaf) permits() (n int) {
	w.t.Helper()
	for w.check() {
		n++
	}
	return n
}

// TestPermitsOfACrashComeBack: a hold after the start, though no check waits.
func TestPermitsOfACrashComeBack(t *testing.T) {
	w := newHoldingLeaf(t, "2s")
	if w.permits() != 2 {
		t.Fatal("a new concurrency has not two permits")
	}
	w.begin(2)
	if w.check() {
		t.Error("a permit is given while those of before the crash may be out")
	}
	w.now = w.now.Add(lenderLease(2 * time.Second))
	if w.permits() != 2 {
		t.Error("not both come back")
	}
}

// TestShortenedHoldAtALeaf: permits that were given before rules shortened their
// hold run on, also where the session that gave them ends; those that were given
// since end first.
func TestShortenedHoldAtALeaf(t *testing.T) {
	w := newHoldingLeaf(t, "20s")
	if !w.check() {
		t.Fatal("a new concurrency is empty")
	}
	if _, err := w.m.Apply(w.now, holding(t, "city", "1s")); err != nil {
		t.Fatal(err)
	}
	if !w.check() || w.check() {
		t.Fatal("not two are there")
	}
	if w.now = w.now.Add(1100 * time.Millisecond); !w.check() || w.check() {
		t.Error("not one comes back after the shorter hold")
	}
	w.begin(2) // after a crash
	began := w.now
	for _, at := range []time.Duration{2 * time.Second, 19 * time.Second} {
		if w.now = began.Add(at); w.check() {
			t.Errorf("%s after a crash a permit is given", at)
		}
	}
	if len(w.disk[rulesKey].(*RulesRecord).Holds) != 1 {
		t.Errorf("the longer hold is not remembered: %+v", w.disk[rulesKey])
	}
	w.now = began.Add(lenderLease(DefaultLease) + lenderLease(20*time.Second))
	if w.permits() != 2 {
		t.Error("not both come back in the end")
	}
	if len(w.disk[rulesKey].(*RulesRecord).Holds) != 0 {
		t.Errorf("the longer hold is not forgotten: %+v", w.disk[rulesKey])
	}
}

// A lentAfter says how much is lent so long after the world began.
type lentAfter struct {
	after time.Duration
	want  int64
}

func (w *rootWorld) expectLent(child Place, steps []lentAfter) {
	w.t.Helper()
	for _, step := range steps {
		w.now = 1 + limiter.Time(step.after)
		if lent := w.askOf(child, "api", 2); lent != step.want {
			w.t.Errorf("%s after the beginning %d are lent to %s, expected %d", step.after, lent, child, step.want)
		}
	}
}

// TestShortenedHoldOfALine: what a line that ends had out comes back when the
// permits have ended that were given by a hold which was longer.
func TestShortenedHoldOfALine(t *testing.T) {
	w := &rootWorld{t: t, rules: holding(t, "global", "20s"), disk: memory{}, now: 1}
	w.start(1)
	w.askOf("eu", "api", 0)
	if lent := w.askOf("eu", "api", 2); lent != 2 {
		t.Fatalf("%d of 2 were lent", lent)
	}
	w.rules = holding(t, "global", "1s")
	if _, err := w.m.Apply(w.now, w.rules); err != nil {
		t.Fatal(err)
	}
	w.done()
	w.askOf("us", "api", 0)
	lease, hold := lenderLease(DefaultLease), lenderLease(20*time.Second)
	w.expectLent("us", []lentAfter{{lease + 2*time.Second, 0}, {hold, 0}, {lease + hold, 2}})
}

// TestLimitThatLeavesAndComesBackWithAShorterHold: permits of before run on.
func TestLimitThatLeavesAndComesBackWithAShorterHold(t *testing.T) {
	w := &rootWorld{t: t, rules: holding(t, "global", "20s"), disk: memory{}, now: 1}
	w.start(1)
	w.askOf("eu", "api", 0)
	w.askOf("eu", "api", 2)
	apply := func(rules *limiter.Rules) {
		if _, err := w.m.Apply(w.now, rules); err != nil {
			t.Fatal(err)
		}
		w.done()
	}
	none, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"votes": {}}})
	if err != nil {
		t.Fatal(err)
	}
	apply(none)
	w.now = w.now.Add(time.Second)
	w.rules = holding(t, "global", "1s")
	apply(w.rules)
	w.askOf("us", "api", 0)
	lease, hold := lenderLease(DefaultLease), lenderLease(20*time.Second)
	w.expectLent("us", []lentAfter{{lease + 3*time.Second, 0}, {hold, 0}, {lease + hold + 2*time.Second, 2}})
}

// TestHoldsComeWithRules: a place whose disk was lost hears from its parent of
// holds that were longer, though the rules that it started with are the newest.
func TestHoldsComeWithRules(t *testing.T) {
	root := &rootWorld{t: t, rules: holding(t, "global", "20s"), disk: memory{}, now: 1}
	root.start(1)
	rules := holding(t, "global", "1s")
	if _, err := root.m.Apply(root.now, rules); err != nil {
		t.Fatal(err)
	}
	disk := memory{}
	m, err := Start(root.now, Config{
		Place: "eu", Partitions: 1, Rules: rules, Session: 3,
		Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, disk)
	if err != nil {
		t.Fatal(err)
	}
	m.Read(disk)
	for range 3 {
		out := m.Output(root.now)
		disk.apply(out.Writes)
		if out.Report != nil {
			a := root.m.Reported(root.now, out.Report)
			root.done()
			m.Acknowledged(root.now, a)
		}
	}
	disk.apply(m.Output(root.now).Writes)
	r, _ := disk[rulesKey].(*RulesRecord)
	if r == nil || len(r.Holds) != 1 || r.Holds[0].Hold != 20*time.Second || r.Version != root.m.version {
		t.Errorf("the disk knows of %+v", r)
	}
}

// TestLongerHoldOfALostDisk: an owner whose disk was lost knows the holds of the
// rules that it was started with, and those that it followed when it hears of them.
func TestLongerHoldOfALostDisk(t *testing.T) {
	w := newHoldingLeaf(t, "2s")
	w.permits()
	w.begin(2) // after a crash
	if w.permits() != 0 {
		t.Error("a permit is given while those of before the crash may be out")
	}
	if _, err := w.m.Apply(w.now, holding(t, "city", "20s")); err != nil {
		t.Fatal(err)
	}
	began := w.now
	if w.now = began.Add(19 * time.Second); w.permits() != 0 {
		t.Error("a permit is given while those of the longer hold may be out")
	}
	if w.now = began.Add(lenderLease(20 * time.Second)); w.permits() != 2 {
		t.Error("not both come back")
	}
}
