package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/cmd/tributary/internal/world"
	"github.com/tributary-io/tributary/tiers"
)

// recovery is what the demo promises after the last fault: two leases, and a
// little.
const recovery = 2*tiers.DefaultLease + 2*time.Second

// fault is one thing that goes wrong, for a while.
type fault struct {
	at, lasts time.Duration
	place     tiers.Place
	kill      bool // the place; else its link is cut
}

func (f fault) String() string {
	what := "cut off"
	if f.kill {
		what = "killed"
	}
	return fmt.Sprintf("%6s  %s is %s for %s", f.at.Round(time.Millisecond), f.place, what, f.lasts.Round(time.Millisecond))
}

// plan draws faults: at each moment of the length one or two kills and a few
// cuts. Kills go round the tiers, so that each tier has its turn.
func plan(seed uint64, length time.Duration) (faults []fault) {
	random := rand.New(rand.NewPCG(seed, 0))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(most-least)))
	}
	var tier [4][]tiers.Place
	for _, s := range spots {
		tier[s.place.Depth()] = append(tier[s.place.Depth()], s.place)
	}
	until := map[tiers.Place]time.Duration{} // when a place's last fault is over
	try := func(f fault) {
		if f.lasts = min(f.lasts, length-f.at); f.at >= until[f.place] && f.lasts > 0 {
			until[f.place] = f.at + f.lasts + time.Millisecond
			faults = append(faults, f)
		}
	}
	turn := random.IntN(4)
	for at := between(0, 300*time.Millisecond); at < length; at += between(300*time.Millisecond, 1200*time.Millisecond) {
		places := tier[turn%4]
		turn++
		try(fault{at, between(50*time.Millisecond, 1500*time.Millisecond), places[random.IntN(len(places))], true})
	}
	for at := between(0, 300*time.Millisecond); at < length; at += between(200*time.Millisecond, 1000*time.Millisecond) {
		places := tier[1+random.IntN(3)]
		try(fault{at, between(100*time.Millisecond, 4*time.Second), places[random.IntN(len(places))], false})
	}
	slices.SortFunc(faults, func(a, b fault) int { return int(a.at - b.at) })
	return faults
}

// strike does a fault to a node, and undoes it.
func (f fault) strike(ctx context.Context, n *world.Node) error {
	if !wait(ctx, f.at) {
		return nil
	}
	if !f.kill {
		n.SetLink(false)
		wait(ctx, f.lasts)
		n.SetLink(true)
		return nil
	}
	if err := n.Kill(); err != nil {
		return fmt.Errorf("killing %s: %w", f.place, err)
	}
	wait(ctx, f.lasts)
	if err := n.Restart(); err != nil {
		return fmt.Errorf("starting %s again: %w", f.place, err)
	}
	return nil
}

// wait waits for a length of time that is itself what is tested.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// TestDemoKeepsItsPromisesUnderFaults cuts links, and kills places of every
// tier and starts them again, while people vote and ask. The limit holds in
// every interval of the callers' clock and the world never has a vote that
// nobody cast, nor loses one that it had; and after the last fault the limit
// is used as before, the views come again, and every vote that was
// acknowledged is counted. How soon is logged: what is promised is two leases
// and two seconds, and the machine may be busy.
//
//	TRIBUTARY_SEED=42 go test -run Faults ./cmd/tributary/internal/demo
func TestDemoKeepsItsPromisesUnderFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("TRIBUTARY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	length := 15 * time.Second
	if testing.Short() {
		length = 4 * time.Second
	}
	faults := plan(seed, length)
	t.Logf("TRIBUTARY_SEED=%d, %d faults", seed, len(faults))
	t.Cleanup(func() {
		if t.Failed() {
			var b strings.Builder
			for _, f := range faults {
				fmt.Fprintln(&b, f)
			}
			t.Logf("what happened, from the first second on:\n%s", &b)
		}
	})

	var checks []admitted // under the meter's lock
	d := start(t, Config{Logger: zerolog.Nop(), admitted: func(sent, answered time.Time) { checks = append(checks, admitted{sent, answered}) }})
	if !wait(t.Context(), time.Second) { // it runs well, to begin with
		return
	}
	began := time.Now()
	at := func(when time.Time) time.Duration { return when.Sub(began).Round(time.Millisecond) }
	watching, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	var watcher sync.WaitGroup
	watcher.Go(func() { d.watchLaws(watching, t, began) })

	var faulty sync.WaitGroup
	for _, f := range faults {
		faulty.Go(func() {
			if err := f.strike(t.Context(), d.World.Node(f.place)); err != nil {
				t.Errorf("%s: %v", at(time.Now()), err)
			}
		})
	}
	faulty.Wait()
	t.Logf("%s: the last fault is over; %+v", at(time.Now()), d.Votes())
	if t.Failed() || !wait(t.Context(), recovery) {
		return
	}

	t.Logf("%s: measuring", at(time.Now()))
	if !raced {
		d.mustUse(t, 0.95)
		n := 0
		until(t, "half of the cities' views to be no older than a heartbeat", func() bool {
			n++
			age := percentile(d.ViewAges(t.Context(), n%len(candidates)), 50)
			return age >= 0 && age <= tiers.DefaultHeartbeat.Milliseconds()
		})
		t.Logf("%s: the limit is used, and the views are fresh", at(time.Now()))
	}

	d.StopPeople()
	d.mustConverge(t)
	stopWatching()
	watcher.Wait()
	worst, from, to := excess(checks, Rate, Burst)
	t.Logf("%d checks were admitted, at best %.1f short of the limit", len(checks), -worst)
	if worst > 0 {
		t.Errorf("%.3f checks beyond the limit from %s to %s", worst, at(from), at(to))
	}
	if len(checks) < int(d.crowd*Rate*length.Seconds()/10) {
		t.Errorf("only %d checks were admitted: the limit was not tried", len(checks))
	}
}

// watchLaws looks, until ctx ends, that no more is admitted than the bound,
// that the world has no votes that were not sent, and none fewer than before.
func (d *Demo) watchLaws(ctx context.Context, t *testing.T, began time.Time) {
	looks, had := 0, make([]int64, len(candidates))
	for wait(ctx, 10*time.Millisecond) {
		if _, admitted, bound := d.Limit(); admitted > bound {
			t.Errorf("%s: %d checks are admitted, and at most %d may be", time.Since(began), admitted, bound)
			return
		}
		asked := time.Now()
		within, cancel := context.WithTimeout(ctx, time.Second)
		counted, err := d.Tally(within)
		cancel()
		if err != nil {
			continue // the root does not run
		}
		looks++
		for i, v := range d.Ballots() { // after the root was asked: what it had was sent by now
			name := candidates[i].name
			if possible := v.Sent - v.Refused; counted[i] > possible {
				t.Errorf("%s to %s: the world has %d votes for %s, and at most %d were taken: %+v", asked.Sub(began), time.Since(began), counted[i], name, possible, v)
				return
			}
			if counted[i] < had[i] {
				t.Errorf("%s to %s: the world had %d votes for %s, and has %d", asked.Sub(began), time.Since(began), had[i], name, counted[i])
				return
			}
			had[i] = counted[i]
		}
	}
	if looks < 100 && !raced {
		t.Errorf("the root was looked at only %d times", looks)
	}
}

// mustConverge waits until the world has each candidate's votes: all that
// were acknowledged, and none beyond those that failed.
func (d *Demo) mustConverge(t *testing.T) {
	t.Helper()
	const within = 60 * time.Second
	cast := d.Ballots()
	var counted []int64
	var err error
	stopped := time.Now()
	for time.Since(stopped) < within {
		missing := int64(0)
		if counted, err = d.Tally(t.Context()); err == nil {
			for i, v := range cast {
				missing += max(0, v.Cast-counted[i])
			}
			if missing == 0 {
				t.Logf("converged after %s", time.Since(stopped))
				break
			}
		}
		wait(t.Context(), time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range cast {
		if counted[i] < v.Cast || counted[i] > v.Cast+v.Unanswered {
			t.Errorf("%s after the last vote the world has %d for %s, and should have %d to %d", within, counted[i], candidates[i].name, v.Cast, v.Cast+v.Unanswered)
		}
		if v.Sent != v.Cast+v.Unanswered+v.Refused {
			t.Errorf("votes for %s that nobody knows of: %+v", candidates[i].name, v)
		}
	}
}

// TestPlanReachesEveryTier looks at the plans themselves.
func TestPlanReachesEveryTier(t *testing.T) {
	for seed := range uint64(100) {
		const length = 15 * time.Second
		var killed [4]int
		cuts := 0
		over := map[tiers.Place]time.Duration{}
		for _, f := range plan(seed, length) {
			if f.kill {
				killed[f.place.Depth()]++
			} else {
				cuts++
			}
			if f.at < over[f.place] || f.at+f.lasts > length || !f.kill && f.place == tiers.Root {
				t.Fatalf("seed %d: %s", seed, f)
			}
			over[f.place] = f.at + f.lasts
		}
		if slices.Contains(killed[:], 0) || cuts < 5 {
			t.Fatalf("seed %d: %v kills per tier, %d cuts", seed, killed, cuts)
		}
	}
}
