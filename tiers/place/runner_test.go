package place_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

var errDisk = errors.New("the disk is gone")

// TestNothingLeavesBeforeItIsDurable: reports, and the answers to adds and
// gets, wait for their commits, and leave in the order of the steps.
func TestNothingLeavesBeforeItIsDurable(t *testing.T) {
	f := city(t)
	f.store.held = true
	f.add(1)
	f.add(2)
	f.runner.Get(alice, func(total tiers.Total, _ []tiers.View, _ bool, err error) { f.say("got: %d, %v", total.Added, err) })
	f.runner.List("votes", "", "", 10, func(keys []tiers.Listed, more bool, err error) { f.say("listed: %v, %v, %v", keys, more, err) })
	f.said()
	f.store.syncOne(nil)
	f.said("report 3 of 1 counts", "added: 1, <nil>")
	f.store.syncOne(nil)
	f.said("added: 3, <nil>")
	f.store.syncOne(nil)
	f.said("got: 3, <nil>")
	f.store.syncOne(nil)
	f.said("listed: [{alice {3 0}}], false, <nil>")
}

// TestAsyncAddIsAnsweredAtOnce, and its report waits for the commit all the
// same.
func TestAsyncAddIsAnsweredAtOnce(t *testing.T) {
	f := city(t)
	f.store.held = true
	hit := tiers.Name{Namespace: "hits", Key: "page"}
	f.addAll([]place.Add{{Name: hit, Delta: 2}, {Name: alice, Delta: 3}}, func(i int, total tiers.Total, err error) {
		f.say("%d added: %d, %v", i, total.Added, err)
	})
	f.said("0 added: 2, <nil>")
	f.runner.Get(hit, func(total tiers.Total, _ []tiers.View, _ bool, err error) { f.say("got: %d, %v", total.Added, err) })
	f.said()
	f.store.syncOne(nil)
	f.said("report 3 of 2 counts", "1 added: 3, <nil>")
	f.store.syncOne(nil)
	f.said("got: 2, <nil>")
	f.store.full = errDisk
	f.addAll([]place.Add{{Name: hit, Delta: 2}}, func(_ int, _ tiers.Total, err error) { f.say("refused: %v", err) })
	f.said("refused: the disk is gone")
}

// TestNoAckBeforeItIsDurable: a parent commits, then acknowledges.
func TestNoAckBeforeItIsDurable(t *testing.T) {
	f := root(t)
	f.store.held = true
	f.told(&tiers.Report{Sequence: 1, To: 1, Counts: []tiers.Count{{Name: alice, Pairs: []tiers.Pair{{Total: tiers.Total{Added: 4}}}}}})
	f.told(&tiers.Report{Sequence: 2, From: 1, To: 1})
	f.told(&tiers.Report{Sequence: 2, From: 1, To: 1}) // twice: no answer
	f.said()
	f.store.syncOne(nil)
	f.said("ack 1: acked 1, 0 lines")
	f.store.sync(nil)
	f.said("ack 2: acked 1, 0 lines")
}

// TestNoRecallBeforeItIsDurable: what it lends has to be in the ledger first,
// which a budget's is on the disk.
func TestNoRecallBeforeItIsDurable(t *testing.T) {
	f := root(t)
	limit := config(t, tiers.Root, 1).Rules.Rule("api").Limits[0].ID
	asks := func(child tiers.Place) {
		f.runner.Reported(&tiers.Report{Child: child, Witness: tiers.Witness{Session: 1, Number: 1}, Session: 5, Number: 1, Sequence: 1, Hash: f.runner.Current().Hash, Lines: []tiers.LineReport{
			{Name: user, Limit: limit, Demand: tiers.Demand{Now: 10, Ask: 10, Single: 10, Until: 1e9, Weight: 1}},
		}}, func(a *tiers.Ack) { f.say("%s is lent %d", child, a.Lines[0].Lent.Capacity) })
	}
	asks("eu")
	f.said("eu is lent 100")
	f.store.held = true
	asks("us")
	f.said()
	f.store.sync(nil)
	f.said("recall to eu", "us is lent 0")
}

// TestCheckWaitsForNoDisk: a decision leaves while commits wait, whether the
// key has to be read first or not.
func TestCheckWaitsForNoDisk(t *testing.T) {
	f := city(t)
	f.store.held = true
	f.add(1)
	f.check(desk)
	f.said("checked: true, <nil>")
	steps := f.store.steps
	f.check(desk)
	f.said("checked: true, <nil>")
	if f.store.steps != steps {
		t.Errorf("a check of a key in memory took %d steps of the store", f.store.steps-steps)
	}
	if d, err := f.tryCheck(desk, 98); err != nil || !d.Allowed || d.Shadow || d.Reason != "" || d.Remaining != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := f.tryCheck(desk, 1); err != nil || d.Allowed || d.Reason != tiers.ReasonLimit {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := f.tryCheck(tiers.Name{Namespace: "own", Key: "other"}, 1); err != nil || !d.Allowed {
		t.Errorf("a key that is asleep: %+v, %v", d, err)
	}
}

// TestRefundWaitsForNoDisk: what a check did in memory is undone there.
func TestRefundWaitsForNoDisk(t *testing.T) {
	f := city(t)
	f.store.held = true
	f.add(1)
	f.check(desk)
	refund := func() {
		f.runner.Refund(desk, 5, func(refunded int64, err error) { f.say("refunded: %d, %v", refunded, err) })
	}
	refund()
	refund()
	f.runner.Release(desk, 1, func(released bool, err error) { f.say("released: %v, %v", released, err) })
	f.runner.Renew(desk, 1, func(renewed bool, err error) { f.say("renewed: %v, %v", renewed, err) })
	f.store.refused = errDisk
	refund()
	f.said("checked: true, <nil>", "refunded: 1, <nil>", "refunded: 0, <nil>", "released: false, <nil>", "renewed: false, <nil>", "refunded: 0, "+errDisk.Error())
}

// TestWaitingCheckIsDecidedByAGrant: and that depends on no disk.
func TestWaitingCheckIsDecidedByAGrant(t *testing.T) {
	f := city(t)
	f.check(user)
	f.said("report 3 of 0 counts")
	f.store.held = true
	lines, five := f.report.Lines, limiter.Share{Tokens: 5, Capacity: 5, Rate: 1}
	f.acknowledge(func(a *tiers.Ack) {
		a.Lines = []tiers.Grant{{Name: user, Limit: lines[0].Limit, Line: 1, Lent: five, Lease: time.Second, Keep: tiers.Keep{All: true}}}
	})
	f.said("checked: true, <nil>")
	if d, err := f.tryCheck(user, 4); err != nil || !d.Allowed || d.Remaining != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	f.store.held = false
	f.store.sync(nil)
	f.runner.Recalled(&tiers.Recall{Parent: 9, Session: f.report.Session, Sequence: 3, Lines: []tiers.Grant{{Name: user, Limit: lines[0].Limit, Line: 1, Lent: five, Lease: time.Second}}})
	f.now = f.now.Add(time.Second)
	f.runner.Tick()
	if r := f.report; len(r.Lines) != 1 || r.Lines[0].Returned.Capacity != 5 {
		t.Errorf("after the recall it reports %+v", r)
	}
}

// TestCheckThatWaitsInVainIsDecidedInTime: by the tick that Wake asked for.
func TestCheckThatWaitsInVainIsDecidedInTime(t *testing.T) {
	f := city(t)
	f.check(user)
	f.said("report 3 of 0 counts")
	wake := f.wakes[len(f.wakes)-1]
	if wake > f.now.Add(time.Second) {
		t.Fatalf("wakes at %s", time.Duration(wake))
	}
	f.now = wake
	f.store.held = true
	f.runner.Tick()
	f.said("checked: false, <nil>")
}

// TestFailedCommitStopsTheRunner: its memory may hold what the disk does not,
// so nothing that follows is answered but with an error.
func TestFailedCommitStopsTheRunner(t *testing.T) {
	f := city(t)
	f.check(user) // waits for a share
	f.said("report 3 of 0 counts")
	f.store.held = true
	f.add(1)
	f.add(2)
	f.said()
	f.store.sync(errDisk)
	stopped := place.ErrStopped.Error() + ": " + errDisk.Error()
	f.said("checked: false, "+stopped, "added: 1, "+errDisk.Error(), "added: 3, "+errDisk.Error())
	f.add(4)
	f.check(user)
	f.check(tiers.Name{Namespace: "own", Key: "asleep"})
	f.said("added: 0, "+stopped, "checked: false, "+stopped, "checked: false, "+stopped)
	f.runner.Get(alice, func(_ tiers.Total, _ []tiers.View, _ bool, err error) { f.say("got: %v", err) })
	f.said("got: " + stopped)
	if _, err := f.tryCheck(desk, 1); !errors.Is(err, place.ErrStopped) || !errors.Is(err, errDisk) {
		t.Errorf("check: %v", err)
	}
	f.runner.Tick()
	if len(f.broken) != 1 || !errors.Is(f.broken[0], errDisk) {
		t.Errorf("broken: %v", f.broken)
	}
	if _, err := f.runner.State(); !errors.Is(err, errDisk) {
		t.Errorf("state: %v", err)
	}
	if !f.runner.Stopped() {
		t.Error("it does not say that it stopped")
	}
}

// TestStoppedRunnerSleeps: it asks for no more ticks.
func TestStoppedRunnerSleeps(t *testing.T) {
	f := city(t)
	f.runner.Kill()
	f.wakes = nil
	f.runner.Tick()
	if len(f.wakes) > 0 {
		t.Errorf("it wants to be woken at %v", f.wakes)
	}
}

// TestFullStoreTakesNoAdds: they are refused before the machine counts them.
func TestFullStoreTakesNoAdds(t *testing.T) {
	f := city(t)
	f.store.full = errors.New("the disk is full")
	steps := f.store.steps
	f.add(1)
	f.said("added: 0, the disk is full")
	if f.store.steps != steps {
		t.Error("the machine was stepped")
	}
	f.check(desk)
	f.said("checked: true, <nil>")
	f.store.full = nil
	f.add(1)
	f.said("report 3 of 1 counts", "added: 1, <nil>")
}

// TestFullStoreKeepsLeases: of a child's report the counts wait, and are not
// acknowledged; its lines are served.
func TestFullStoreKeepsLeases(t *testing.T) {
	f := root(t)
	report := func(sequence uint64) *tiers.Report {
		rules := config(t, tiers.Root, 1).Rules
		return &tiers.Report{
			Hash: rules.Hash, Sequence: sequence, To: 3,
			Counts: []tiers.Count{{Name: alice, Pairs: []tiers.Pair{{Total: tiers.Total{Added: 4}}}}},
			Lines:  []tiers.LineReport{{Name: user, Limit: rules.Rule("api").Limits[0].ID, Demand: tiers.Demand{Ask: 1}}},
		}
	}
	f.told(&tiers.Report{Sequence: 1})
	f.said("ack 1: acked 0, 0 lines")
	f.store.full = errors.New("the disk is full")
	given := report(2)
	f.told(given)
	f.said("ack 2: acked 0, 1 lines")
	if len(given.Counts) != 1 || given.To != 3 {
		t.Errorf("the caller's report was changed to %+v", given)
	}
	f.store.full = nil
	f.told(report(3))
	f.said("ack 3: acked 3, 1 lines")
	f.runner.Get(alice, func(total tiers.Total, _ []tiers.View, _ bool, err error) { f.say("got: %d, %v", total.Added, err) })
	f.said("got: 4, <nil>")
}

// TestRefusedStepDoesNotBreak: a store that takes no more for now says so to
// whoever asked; a tick comes again soon.
func TestRefusedStepDoesNotBreak(t *testing.T) {
	f := city(t)
	f.store.refused = errors.New("too much waits")
	f.now = limiter.Time(time.Minute)
	f.add(1)
	f.check(tiers.Name{Namespace: "own", Key: "asleep"})
	f.said("added: 0, too much waits", "checked: false, too much waits")
	f.wakes = nil
	f.runner.Tick()
	if len(f.wakes) != 1 || f.wakes[0] <= f.now || f.wakes[0] > f.now.Add(time.Second) {
		t.Fatalf("it wants to be woken at %v", f.wakes)
	}
	f.store.refused = nil
	f.now = f.wakes[0]
	f.runner.Tick()
	f.said("report 3 of 0 counts") // the heartbeat
	f.add(1)
	f.said("added: 1, <nil>")
	if len(f.broken) != 0 {
		t.Errorf("broken: %v", f.broken)
	}
}

// TestKillSaysNothingMore: as a crash would. Waiting checks are answered, so
// that nobody hangs; what becomes durable afterwards is not told.
func TestKillSaysNothingMore(t *testing.T) {
	f := city(t)
	f.check(user)
	f.said("report 3 of 0 counts")
	f.acknowledge(nil)
	f.log = nil
	f.store.held = true
	f.now = limiter.Time(time.Minute)
	f.add(1) // with a report
	meta := *f.store.meta()
	f.runner.Kill()
	if len(f.log) != 1 || !strings.HasPrefix(f.log[0], "checked: false, "+place.ErrStopped.Error()) {
		t.Errorf("said %q", f.log)
	}
	f.log, f.wakes = nil, nil
	f.store.sync(nil)
	for _, line := range f.log {
		if !strings.HasPrefix(line, "added: 1, "+place.ErrStopped.Error()) {
			t.Errorf("said %q", line)
		}
	}
	f.runner.Tick()
	f.runner.Kill()
	if err := f.runner.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if !reflect.DeepEqual(*f.store.meta(), meta) || len(f.broken) != 0 {
		t.Errorf("it wrote %+v, broken %v", f.store.meta(), f.broken)
	}
}

// TestKilledParentAcknowledgesNothing: nor does it.
func TestKilledParentAcknowledgesNothing(t *testing.T) {
	f := root(t)
	f.store.held = true
	f.told(&tiers.Report{Sequence: 1})
	f.runner.Kill()
	f.store.sync(nil)
	f.said()
}

// TestCloseMarksAGoodStop: and what is started on it, is not silent.
func TestCloseMarksAGoodStop(t *testing.T) {
	f := root(t)
	if f.store.meta().Clean {
		t.Error("a running place's store is marked as stopped")
	}
	f.runner.Stop()
	if !f.runner.Stopped() {
		t.Error("a root has nobody to say goodbye to")
	}
	f.log = nil
	if err := f.runner.Close(); err != nil {
		t.Fatal(err)
	}
	if !f.store.meta().Clean {
		t.Error("it is not marked")
	}
	f.told(&tiers.Report{Sequence: 1})
	f.said()
	again := open(t, f.store, tiers.Root, 2)
	again.runner.Tick()
	again.runner.Kill()
	crashed := open(t, f.store, tiers.Root, 3)
	crashed.runner.Tick()
	if len(again.events) != 0 || !slices.Equal(crashed.events, []tiers.EventKind{tiers.EventSilent}) {
		t.Errorf("after a good stop %v, after a crash %v", again.events, crashed.events)
	}
}

// TestCloseSaysWhatWentWrong: a mark that is not durable is none.
func TestCloseSaysWhatWentWrong(t *testing.T) {
	f := root(t)
	f.store.refused = errDisk
	if err := f.runner.Close(); !errors.Is(err, errDisk) {
		t.Errorf("close: %v", err)
	}
}

// TestCityStopsInGoodOrder: once its parent has all it had.
func TestCityStopsInGoodOrder(t *testing.T) {
	f := city(t)
	f.add(1)
	f.runner.Stop()
	f.said("report 3 of 1 counts", "added: 1, <nil>")
	if f.runner.Stopped() {
		t.Error("its parent knows nothing yet")
	}
	f.acknowledge(nil)
	f.said("report 4 of 0 counts")
	if !f.report.Bye {
		t.Error("no goodbye")
	}
	f.acknowledge(nil)
	if !f.runner.Stopped() {
		t.Error("it goes on")
	}
}

// TestFencedPlaceExits: Broken says why, once.
func TestFencedPlaceExits(t *testing.T) {
	f := city(t)
	f.now = limiter.Time(time.Minute)
	f.runner.Tick()
	f.acknowledge(func(a *tiers.Ack) { a.Fenced = true })
	if len(f.broken) != 1 || !errors.Is(f.broken[0], tiers.ErrFenced) {
		t.Fatalf("broken: %v", f.broken)
	}
	if fenced, err := f.runner.State(); !fenced || !errors.Is(err, tiers.ErrFenced) {
		t.Errorf("fenced %v, %v", fenced, err)
	}
}

// TestFailedReportIsSentAgain: soon, but not at once.
func TestFailedReportIsSentAgain(t *testing.T) {
	f := city(t)
	f.add(1)
	f.said("report 3 of 1 counts", "added: 1, <nil>")
	f.runner.Failed(2) // an older one
	f.runner.Failed(3)
	f.said()
	f.now = f.wakes[len(f.wakes)-1]
	if f.now <= 0 || f.now > limiter.Time(time.Second) {
		t.Fatalf("it tries again at %s", time.Duration(f.now))
	}
	f.runner.Tick()
	f.said("report 4 of 1 counts")
}

// TestStartSaysWhatIsWrong: with another place's store, or a failing one.
func TestStartSaysWhatIsWrong(t *testing.T) {
	f := root(t)
	_, err := place.Start(config(t, "eu", 2), f.store, f, func() limiter.Time { return 0 }, func() int64 { return 0 })
	if want := fmt.Sprintf("belongs to %s", tiers.Root); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	f.store.refused = errDisk
	if _, err := place.Start(config(t, tiers.Root, 2), f.store, f, func() limiter.Time { return 0 }, func() int64 { return 0 }); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
}
