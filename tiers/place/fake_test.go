package place_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// store is a Store that commits when it is told to.
type store struct {
	held    bool  // commits wait for sync
	refused error // steps are not run
	full    error // Writable says so
	steps   int
	records map[tiers.Key]tiers.Record
	pending []func(error)
}

func (s *store) Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	if s.refused != nil {
		done(s.refused)
		return
	}
	s.steps++
	writes, err := step(s)
	if err != nil {
		done(err)
		return
	}
	for _, w := range writes {
		if w.Record == nil {
			delete(s.records, w.Key)
		} else {
			s.records[w.Key] = w.Record
		}
	}
	if s.pending = append(s.pending, done); !s.held {
		s.sync(nil)
	}
}

// sync ends all commits that wait.
func (s *store) sync(err error) {
	for len(s.pending) > 0 {
		s.syncOne(err)
	}
}

func (s *store) syncOne(err error) {
	done := s.pending[0]
	s.pending = s.pending[1:]
	done(err)
}

func (s *store) Writable() error { return s.full }

func (s *store) Get(k tiers.Key) (tiers.Record, error) { return s.records[k], nil }

func (s *store) Scan(prefix, after tiers.Key, yield func(tiers.Key, tiers.Record) bool) error {
	for _, k := range slices.Sorted(maps.Keys(s.records)) {
		if strings.HasPrefix(string(k), string(prefix)) && k > after && !yield(k, s.records[k]) {
			break
		}
	}
	return nil
}

// meta is what the store says of itself.
func (s *store) meta() *tiers.Meta { return s.records["meta"].(*tiers.Meta) }

// fixture is a runner whose store, sender and clock are the test's. What it
// sends and answers is logged, in order.
type fixture struct {
	t      *testing.T
	store  *store
	runner *place.Runner
	now    limiter.Time
	log    []string
	wakes  []limiter.Time
	events []tiers.EventKind
	report *tiers.Report // the last one sent
	broken []error
}

func (f *fixture) Report(r *tiers.Report) {
	f.report = r
	f.say("report %d of %d counts", r.Sequence, len(r.Counts))
}
func (f *fixture) Recall(p tiers.Place, _ *tiers.Recall) { f.say("recall to %s", p) }
func (f *fixture) Event(e tiers.Event)                   { f.events = append(f.events, e.Kind) }
func (f *fixture) Wake(t limiter.Time)                   { f.wakes = append(f.wakes, t) }
func (f *fixture) Broken(err error)                      { f.broken = append(f.broken, err) }

func (f *fixture) say(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

// said fails unless exactly this was said since it was last asked.
func (f *fixture) said(want ...string) {
	f.t.Helper()
	if !slices.Equal(f.log, want) {
		f.t.Fatalf("said %q, want %q", f.log, want)
	}
	f.log = nil
}

var (
	alice = tiers.Name{Namespace: "votes", Key: "alice"}
	user  = tiers.Name{Namespace: "api", Key: "user"} // of a global limit
	desk  = tiers.Name{Namespace: "own", Key: "desk"} // of a city's own
)

func config(t *testing.T, p tiers.Place, session uint64) tiers.Config {
	t.Helper()
	burst := int64(100)
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {},
		"hits":  {Durability: "async"},
		"api":   {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "10/s", Burst: &burst}}},
		"own":   {Limits: []limiter.LimitSpec{{Scope: "city", Rate: "10/s", Burst: &burst}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return tiers.Config{
		Place: p, Partitions: 1, Leaf: p.Depth() == 3, Rules: rules, Session: session, NewWorld: 7,
		Lease: tiers.DefaultLease, Heartbeat: tiers.DefaultHeartbeat, ReportInterval: tiers.DefaultReportInterval, MaxAwake: tiers.DefaultMaxAwake,
	}
}

func open(t *testing.T, s *store, p tiers.Place, session uint64) *fixture {
	t.Helper()
	f := &fixture{t: t, store: s}
	var err error
	if f.runner, err = place.Start(config(t, p, session), s, f, func() limiter.Time { return f.now }, func() int64 { return 0 }); err != nil {
		t.Fatal(err)
	}
	return f
}

func root(t *testing.T) *fixture {
	t.Helper()
	return open(t, &store{records: map[tiers.Key]tiers.Record{}}, tiers.Root, 1)
}

// city is a city that has joined its country, with no report in flight.
func city(t *testing.T) *fixture {
	t.Helper()
	f := open(t, &store{records: map[tiers.Key]tiers.Record{}}, "eu.de.berlin", 1)
	f.runner.Tick()
	for f.runner.Stats().InFlight {
		f.acknowledge(nil)
	}
	f.log, f.wakes = nil, nil
	return f
}

// acknowledge answers the last report as the country would.
func (f *fixture) acknowledge(change func(*tiers.Ack)) {
	a := &tiers.Ack{World: 7, Hash: f.report.Hash, Session: 1, Sequence: f.report.Sequence, Parent: 9, Number: 1, Acked: f.report.To, Stamp: 1}
	if change != nil {
		change(a)
	}
	f.runner.Acknowledged(a)
}

func (f *fixture) add(delta int64) {
	f.addAll([]place.Add{{Name: alice, Delta: delta}}, func(_ int, total tiers.Total, err error) { f.say("added: %d, %v", total.Added, err) })
}

func (f *fixture) addAll(adds []place.Add, done func(i int, total tiers.Total, err error)) {
	f.runner.Add(len(adds), func(i int) place.Add { return adds[i] }, done)
}

func (f *fixture) check(name tiers.Name) {
	f.runner.Check(name, 1, 1e9, func(d tiers.Decision, err error) { f.say("checked: %v, %v", d.Allowed, err) })
}

// tryCheck is Runner.TryCheck on a decision that holds something already.
func (f *fixture) tryCheck(name tiers.Name, hits int64) (tiers.Decision, error) {
	d := tiers.Decision{Allowed: true, Shadow: true, Reason: "before", Remaining: -1}
	err := f.runner.TryCheck(name, hits, &d)
	return d, err
}

// told gives a child's report to the runner.
func (f *fixture) told(r *tiers.Report) {
	r.Child, r.Session, r.Number, r.Witness = "eu", 5, 1, tiers.Witness{Session: 1, Number: 1}
	f.runner.Reported(r, func(a *tiers.Ack) { f.say("ack %d: acked %d, %d lines", a.Sequence, a.Acked, len(a.Lines)) })
}
