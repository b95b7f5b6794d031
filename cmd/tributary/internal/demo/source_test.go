package demo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/cmd/tributary/internal/page"
	"github.com/tributary-io/tributary/cmd/tributary/internal/world"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); wait(t.Context(), 10*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func sum(totals map[string]int64) (all int64) {
	for _, n := range totals {
		all += n
	}
	return all
}

// inCities is how many votes the cities of a sample have.
func inCities(w page.World) (all int64) {
	for _, p := range w.Places {
		if p.Tier == "city" {
			all += sum(p.Totals)
		}
	}
	return all
}

// find returns a place of a sample.
func find(w page.World, place tiers.Place) *page.Place {
	return &w.Places[slices.IndexFunc(w.Places, func(p page.Place) bool { return p.Place == string(place) })]
}

// TestSourceShowsTheWorld looks at what the page is given.
func TestSourceShowsTheWorld(t *testing.T) {
	d := start(t, Config{Logger: zerolog.Nop()})
	source := d.Source()
	var took []time.Duration
	look := func() page.World {
		began := time.Now()
		w := source.Snapshot()
		took = append(took, time.Since(began))
		// What was sent after the sample is not in it, and the root was read first.
		for _, p := range w.Places {
			if len(p.Totals) > 0 && len(p.Totals) != len(candidates) {
				t.Fatalf("%s has totals of %d candidates", p.Place, len(p.Totals))
			}
		}
		cities := inCities(w)
		running := !slices.ContainsFunc(d.World.Nodes(), func(n *world.Node) bool { return n.Running() == nil })
		if root := sum(w.Places[0].Totals); running && root > cities || cities > d.Votes().Sent {
			t.Fatalf("the root has %d votes, the cities %d, and %d were sent", root, cities, d.Votes().Sent)
		}
		return w
	}
	until(t, "every city to vote, and to see the world", func() bool {
		w := look()
		return len(w.Places) == len(spots) && !slices.ContainsFunc(w.Places, func(p page.Place) bool {
			return p.Tier == "city" && (p.VotesPerSecond < 50*d.crowd || p.OfferedPerSecond == 0 || len(p.Global) < len(candidates) || p.GlobalAgeMS < 0)
		})
	})
	w := look()
	if w.Limit.Bound < w.Limit.Admitted || w.Limit.Offered < w.Limit.Admitted || w.Limit.Rate != Rate || w.Limit.Utilisation <= 0 || w.Limit.Utilisation > 1 {
		t.Errorf("%+v", w.Limit)
	}

	// A place that does not run is shown as it last was.
	tokyo := d.World.Node("ap.jp.tokyo")
	had := find(w, tokyo.Place).Totals
	if err := tokyo.Kill(); err != nil {
		t.Fatal(err)
	}
	if p := find(look(), tokyo.Place); sum(p.Totals) < sum(had) {
		t.Errorf("it had %v, and is shown with %v", had, p.Totals)
	}
	if _, err := source.Vote(t.Context(), "ap.jp.tokyo", "nile"); !errors.Is(err, transport.ErrNoResponders) {
		t.Errorf("a vote where nobody is: %v", err)
	}
	if err := tokyo.Restart(); err != nil {
		t.Fatal(err)
	}

	// A link of any tier can be cut; what is below is then in transit.
	for _, place := range []string{"eu", "us.br", "ap.in.delhi"} {
		if err := source.Link(t.Context(), place, false); err != nil {
			t.Error(err)
		}
	}
	until(t, "votes to be in transit", func() bool {
		w := look()
		for _, p := range w.Places {
			if p.Linked == slices.Contains([]string{"eu", "us.br", "ap.in.delhi"}, p.Place) {
				t.Fatalf("%s is shown as linked: %t", p.Place, p.Linked)
			}
		}
		return inCities(w)-sum(w.Places[0].Totals) > int64(500*d.crowd) && find(w, "ap.jp.osaka").Behind > 0
	})
	for _, place := range []string{"eu", "us.br", "ap.in.delhi"} {
		if err := source.Link(t.Context(), place, true); err != nil {
			t.Error(err)
		}
	}
	d.StopPeople()
	d.mustConverge(t)

	// Of those that nobody had an answer to some may count yet.
	had = find(look(), "eu.fr.lyon").Totals
	total, err := source.Vote(t.Context(), "eu.fr.lyon", "nile")
	if err != nil || total <= had["nile"] || total > find(look(), "eu.fr.lyon").Totals["nile"] {
		t.Errorf("Lyon had %d votes for nile, and has %d: %v", had["nile"], total, err)
	}
	until(t, "the vote to be in the world", func() bool {
		w := look()
		return sum(w.Places[0].Totals) == inCities(w) && find(w, "eu.fr.lyon").Totals["nile"] >= total
	})

	for _, test := range []struct {
		err  error
		want error
	}{
		{second(source.Vote(t.Context(), "eu.fr", "nile")), page.ErrUnknown},
		{second(source.Vote(t.Context(), "eu.fr.lyon", "rhone")), page.ErrUnknown},
		{source.Link(t.Context(), "eu.it", false), page.ErrUnknown},
		{source.Link(t.Context(), "global", false), page.ErrRefused},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%v, want %v", test.err, test.want)
		}
	}
	slices.Sort(took)
	t.Logf("%d samples took %s, at most %s", len(took), took[len(took)/2], took[len(took)-1])
}

func second[A any](_ A, err error) error { return err }

// TestStartStopsWhatItStarted starts a demo of which one city cannot start,
// and then, on the same stores, one that can, twice: votes of earlier runs
// are not among those of the last.
func TestStartStopsWhatItStarted(t *testing.T) {
	dir := t.TempDir()
	server, err := transport.StartServer(transport.ServerConfig{Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	inTheWay := filepath.Join(dir, "us.us.chicago")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Start(Config{Data: dir, Server: server, Version: "0.0.1", Logger: zerolog.Nop()}); err == nil || d != nil || !strings.Contains(err.Error(), "us.us.chicago") {
		t.Fatalf("started with a file where a store should be: %v", err)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d := start(t, Config{Data: dir, Logger: zerolog.Nop()})
		until(t, "a view of the world", func() bool { return len(d.ViewAges(t.Context(), 0)) > 0 })
		r, err := d.Measure(t.Context(), time.Since(d.began)+time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(); err != nil || r.Votes.Cast == 0 {
			t.Errorf("%+v: %v", r, err)
		}
		stop(t, d)
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	d := start(t, Config{Logger: zerolog.Nop()})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if r, err := d.Measure(ctx, time.Hour); r != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v %v", r, err)
	}
}
