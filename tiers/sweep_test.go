package tiers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// These show that no step of a place does more when it has more keys. What a
// step did is counted, not timed: the keys that it changed, the records that
// it read and wrote, and what it sent and decided.

// crowdRules limit every kind at the root, and one rate at the leaf itself.
func crowdRules(t fataler, figure int64) *limiter.Rules {
	t.Helper()
	budget := 20 * figure
	one := func(l limiter.LimitSpec) limiter.NamespaceSpec {
		return limiter.NamespaceSpec{Limits: []limiter.LimitSpec{l}, Wait: "1s"}
	}
	counted := one(limiter.LimitSpec{Scope: "global", Rate: fmt.Sprintf("%d/s", figure)})
	counted.Count = true
	r, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"budget":  one(limiter.LimitSpec{Scope: "global", Budget: &budget}),
		"own":     one(limiter.LimitSpec{Scope: "region", Rate: fmt.Sprintf("%d/m", figure), Burst: &figure}),
		"permits": one(limiter.LimitSpec{Scope: "global", Concurrency: &figure, Hold: "30s"}),
		"rate":    counted,
		"votes":   {},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ordered is a store that is walked through in order, and counts what is read.
type ordered struct {
	records memory
	keys    []Key // sorted, if they are
	sorted  bool
	reads   int
}

func (d *ordered) Get(k Key) (Record, error) {
	d.reads++
	return d.records[k], nil
}

func (d *ordered) Scan(prefix, after Key, yield func(Key, Record) bool) error {
	if !d.sorted {
		d.keys, d.sorted = d.keys[:0], true
		for k := range d.records {
			d.keys = append(d.keys, k)
		}
		slices.Sort(d.keys)
	}
	i, found := slices.BinarySearch(d.keys, max(prefix, after))
	if found && d.keys[i] == after {
		i++
	}
	for _, k := range d.keys[i:] {
		if !strings.HasPrefix(string(k), string(prefix)) {
			break
		}
		d.reads++
		if !yield(k, d.records[k]) {
			break
		}
	}
	return nil
}

func (d *ordered) apply(writes []Write) {
	for _, w := range writes {
		if _, there := d.records[w.Key]; there != (w.Record != nil) {
			d.sorted = false
		}
	}
	d.records.apply(writes)
}

// member is a place of a crowd.
type member struct {
	*Machine
	disk   *ordered
	report *Report // under way
	seen   map[*object]snapshot
}

// snapshot is what a key was like when it was looked at last.
type snapshot struct {
	pools   [1]poolSnapshot
	timer   limiter.Time
	waiting int
	dirty   bool
	total   Total
}

type poolSnapshot struct {
	limit        *limiter.Limit
	bucket       limiter.Bucket
	own          limiter.Share
	held         held
	told         Demand
	due          bool
	credit, debt int64
	waits        bool
	frozen       int
	lines        int
	out          limiter.Share
	demand       Demand
}

func snap(m *Machine, o *object) (k snapshot) {
	k.timer, k.waiting = o.timer.at, len(o.waiters)
	if o.count != nil {
		k.dirty, k.total = m.upper.dirty.has(o.count), o.count.total
	}
	for i, p := range o.pools {
		q := poolSnapshot{p.limit, p.bucket, p.own, p.held, p.told, p.due, p.credit, p.debt, p.waits, len(p.frozen), len(p.lines), limiter.Share{}, Demand{}}
		for _, l := range p.lines {
			q.out, q.demand = q.out.Plus(l.out()), q.demand.plus(l.demand)
		}
		k.pools[i] = q
	}
	return k
}

// changed counts the keys that were changed since it was asked last.
func (of *member) changed() (n int) {
	for o := of.idle.first; o != nil; o = o.links[byUse].next {
		if k := snap(of.Machine, o); k != of.seen[o] {
			of.seen[o] = k
			n++
		}
	}
	return n
}

// crowd is a root and a leaf below it, with many keys awake, whose every step
// is looked at.
type crowd struct {
	t          *testing.T
	now        limiter.Time
	root, leaf *member
	sessions   uint64
	most       int // that a step may do
	did        int // the most that one did
	watch      int // how many steps are looked at from now on: each look takes milliseconds
	cut        bool
	events     []EventKind
}

const (
	crowdStep = 128  // Config.MaxStep
	crowdKeys = 1500 // in each namespace
)

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, now: limiter.Time(time.Hour), most: 5 * maxEntries}
	c.root, c.leaf = &member{disk: &ordered{records: memory{}}}, &member{disk: &ordered{records: memory{}}}
	c.start(c.root, Root)
	c.start(c.leaf, "eu")
	return c
}

// start starts a member's next session on its disk.
func (c *crowd) start(of *member, p Place) {
	c.t.Helper()
	c.sessions++
	of.report, of.seen = nil, map[*object]snapshot{}
	reads := of.disk.reads
	m, err := Start(c.now, Config{
		Place: p, Partitions: 1, Leaf: p != Root, Rules: crowdRules(c.t, 100), Session: c.sessions, NewWorld: 7,
		Lease: time.Second, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake, MaxStep: crowdStep, MaxWalk: 1000,
	}, of.disk)
	if err != nil {
		c.t.Fatal(err)
	}
	if n := of.disk.reads - reads; n > c.most {
		c.t.Errorf("the start of %s reads %d records", p, n)
	}
	of.Machine = m
	of.disk.apply(m.Writes())
}

// step gives a member an input, and fails if that did too much.
func (c *crowd) step(of *member, what string, do func()) (out Output) {
	c.t.Helper()
	of.disk.reads = 0
	do()
	out = of.Output(c.now)
	if c.watch > 0 {
		c.watch--
		keys := of.changed()
		did := len(out.Writes) + len(out.Decided) + len(out.Recalls) + of.disk.reads + keys
		if c.did = max(c.did, did); did > c.most {
			c.t.Fatalf("%s at %s does too much in one step, with %d keys awake: %d writes, %d decisions, %d recalls, %d reads, %d keys", what, of.cfg.Place, of.awake,
				len(out.Writes), len(out.Decided), len(out.Recalls), of.disk.reads, keys)
		}
	}
	of.disk.apply(out.Writes)
	for _, e := range out.Events {
		c.events = append(c.events, e.Kind)
	}
	if out.Report != nil {
		of.report = out.Report
	}
	for _, r := range out.Recalls {
		if of == c.root && !c.cut {
			c.step(c.leaf, "a recall", func() { c.leaf.Recalled(c.now, r.Recall) })
		}
	}
	if out.Commit > 0 {
		c.step(of, "a commit", func() { of.Committed(c.now, out.Commit) })
	}
	return out
}

// pass lets time go by: all is done that is due, and reports are answered.
func (c *crowd) pass(d time.Duration) {
	c.t.Helper()
	for end := c.now.Add(d); c.now < end; {
		next := end
		for _, of := range []*member{c.root, c.leaf} {
			next = min(next, c.step(of, "a tick", func() { of.Tick(c.now) }).Wake)
		}
		r := c.leaf.report
		if r != nil {
			next = c.now
		}
		c.now = max(next, c.now.Add(time.Millisecond))
		if r == nil || c.cut {
			continue
		}
		c.leaf.report = nil
		var a *Ack
		c.step(c.root, "a report", func() { a = c.root.Reported(c.now, r) })
		if a != nil {
			c.step(c.leaf, "an answer", func() { c.leaf.Acknowledged(c.now, a) })
		}
	}
}

// ask has every key asked for, and counted.
func (c *crowd) ask() {
	c.t.Helper()
	c.watch = 0
	for i := range crowdKeys {
		for _, namespace := range []string{"budget", "own", "permits", "rate"} {
			if _, _, err := c.leaf.Check(c.now, Name{namespace, fmt.Sprint(i)}, 1, c.now.Add(10*time.Second), uint64(i)); err != nil {
				c.t.Fatal(err)
			}
		}
		if _, err := c.leaf.Add(c.now, Name{"votes", fmt.Sprint(i)}, 1); err != nil {
			c.t.Fatal(err)
		}
		out := c.leaf.Output(c.now)
		c.leaf.disk.apply(out.Writes)
		if out.Report != nil {
			c.leaf.report = out.Report
		}
	}
}

// closely looks at the next steps.
func (c *crowd) closely() {
	c.root.changed()
	c.leaf.changed()
	c.watch = 400
}

// settled fails if something is left to do with keys that are awake.
func (c *crowd) settled() {
	c.t.Helper()
	for _, of := range []*member{c.root, c.leaf} {
		if !of.swept() {
			c.t.Errorf("%s has not done all", of.cfg.Place)
		}
	}
}

// TestNoStepGrowsWithTheKeys: whatever happens to a place that has many keys
// awake, its steps stay small.
func TestNoStepGrowsWithTheKeys(t *testing.T) {
	c := newCrowd(t)
	c.pass(100 * time.Millisecond) // the leaf joins
	busy := func() {
		c.ask()
		c.pass(time.Second)
		c.closely()
	}
	busy()
	if n := c.root.lower.children["eu"].lines; n < 2*crowdKeys {
		t.Fatalf("only %d lines are lent", n)
	}
	for _, figure := range []int64{50, 200} {
		c.step(c.root, "rules", func() {
			if _, err := c.root.Apply(c.now, crowdRules(t, figure)); err != nil {
				t.Fatal(err)
			}
		})
		c.pass(time.Second)
		c.settled()
		for _, of := range []*member{c.root, c.leaf} {
			for o := of.idle.first; o != nil; o = o.links[byUse].next {
				for _, p := range o.pools {
					if p.limit != of.rules.Rule(o.name.Namespace).Limit(p.limit.ID) {
						t.Fatalf("%s at %s follows %s, which is not in the rules", o.name, of.cfg.Place, p.limit)
					}
				}
			}
		}
		c.closely()
	}

	busy()
	c.step(c.root, "forfeit", func() {
		if lines, err := c.root.Forfeit(c.now, "eu"); err != nil || lines < crowdKeys/2 {
			t.Errorf("%d lines of budgets are forfeited: %v", lines, err)
		}
	})
	c.cut = true
	c.closely()
	c.now = c.now.Add(3 * time.Second) // the machine stood still, and all leases ended meanwhile
	c.pass(time.Second)
	c.cut = false

	busy()
	c.start(c.root, Root) // it crashed: the leaf meets another session
	c.closely()
	c.pass(2 * time.Second)
	c.settled()
	if !slices.Contains(c.events, EventSilent) {
		t.Error("the root was not silent")
	}

	busy()
	c.start(c.leaf, "eu") // as the leaf does
	c.closely()
	c.pass(time.Second)
	c.settled()

	busy()
	c.step(c.leaf, "stop", func() { c.leaf.Stop(c.now) })
	c.pass(2 * time.Second)
	if !c.leaf.Stopped() {
		t.Fatal("the leaf does not stop")
	}
	c.closely()
	for done := false; !done; {
		c.step(c.leaf, "close", func() { done = c.leaf.Close(c.now) })
	}
	saved := 0
	for k := range c.leaf.disk.records {
		if strings.HasPrefix(string(k), string(bucketPrefix)) {
			saved++
		}
	}
	if saved != crowdKeys {
		t.Errorf("%d buckets are written down, want %d", saved, crowdKeys)
	}
	c.cut = true
	c.pass(4 * time.Second)
	c.closely()
	c.step(c.root, "forget", func() {
		if err := c.root.Forget(c.now, "eu"); err != nil {
			t.Error(err)
		}
	})
	c.watch = 4000 // a step for each few records
	c.pass(4 * time.Second)
	c.settled()
	if kept := c.root.disk.records[countKey(Name{"votes", "7"}, "")]; c.root.leaveAt() != limiter.Never || kept == nil {
		t.Error("not all that the leaf counted is kept")
	}
	if n := c.root.lower.children["eu"].lines; n != 0 {
		t.Errorf("%d lines are lent to a place that left", n)
	}
	t.Log("the most in one step: ", c.did)
}

// TestOnlySweepsWalkThroughTheKeys: nothing else in the package does.
func TestOnlySweepsWalkThroughTheKeys(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	walks := regexp.MustCompile(`links\[byUse\]\.next|links\[bySweep\]\.next`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range walks.FindAllString(string(source), -1) {
			t.Errorf("%s walks through all keys that are awake: %s", file, found)
		}
	}
}

// TestKeyIsBroughtUpBeforeItIsUsed: rules that were lowered hold for every key
// from then on, also for those that the machine has not come to yet, and what a
// key gained since is by the new figures.
func TestKeyIsBroughtUpBeforeItIsUsed(t *testing.T) {
	c := newCrowd(t)
	c.pass(100 * time.Millisecond) // the leaf joins
	c.ask()
	rules := crowdRules(t, 10)
	c.now = c.now.Add(time.Second)
	c.leaf.adopt(c.now, rules, 5) // nothing of it was done yet
	if c.leaf.swept() {
		t.Fatal("all was done at once")
	}
	name := Name{"own", "7"}
	var d Decision
	if _, awake, err := c.leaf.CheckAwake(c.now, name, 1, 0, 1, &d); awake || err != nil {
		t.Fatalf("a key that follows old rules is decided: %+v, %v", d, err)
	}
	if c.leaf.Inspect(c.now, name, &Explanation{}) {
		t.Error("what a key was like is shown as what it is")
	}
	spend := func(now limiter.Time) (n int) {
		for range 1000 {
			if d, _, err := c.leaf.Check(now, name, 1, 0, 1); err != nil || !d.Allowed {
				return n
			}
			n++
		}
		return n
	}
	if n := spend(c.now); n != 10 {
		t.Errorf("%d of 10 are admitted", n)
	}
	c.now = c.now.Add(6 * time.Second) // 1 comes, not 10
	if n := spend(c.now); n != 1 {
		t.Errorf("%d of 1 are admitted", n)
	}
	// A key that nobody came to for a while did not gain by the old rate either.
	other := Name{"own", "8"}
	c.leaf.adopt(c.now, crowdRules(t, 600), 6)
	name = other
	spend(c.now)
	c.leaf.adopt(c.now, crowdRules(t, 6), 7)
	if n := spend(c.now.Add(time.Second)); n != 0 {
		t.Errorf("%d were gained in a second by 6 a minute", n)
	}
}
