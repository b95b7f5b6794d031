package transport

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// logs gathers what the places of a tree log.
type logs struct {
	mu    sync.Mutex
	lines []logged
}

// logged is a line of a log.
type logged struct {
	Level, Place, Event, About, Detail, Message, Subject string
}

func (l *logs) Write(p []byte) (int, error) {
	var line logged
	if err := json.Unmarshal(p, &line, json.MatchCaseInsensitiveNames(true)); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return len(p), nil
}

// has reports whether a place logged a message with some detail.
func (l *logs) has(place tiers.Place, message, detail string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line logged) bool {
		return line.Place == string(place) && line.Message == message && strings.Contains(line.Detail, detail)
	})
}

// admissions are what checks of api/user-42 were admitted, by the callers' clock.
type admissions struct {
	mu  sync.Mutex
	all map[tiers.Place][]admitted
}

// since counts those at a place that were sent after an instant.
func (a *admissions) since(place tiers.Place, at time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.all[place] {
		if c.sent.After(at) {
			n++
		}
	}
	return n
}

// check sends checks of api/user-42 at cities until the function that it returns is called.
func (w *tree) check(cities ...tiers.Place) (*admissions, func()) {
	w.t.Helper()
	a := &admissions{all: map[tiers.Place][]admitted{}}
	ctx, cancel := context.WithCancel(w.t.Context())
	var hammers []*sync.WaitGroup
	for _, city := range cities {
		c := w.client(city)
		c.timeout = 300 * time.Millisecond // of those that are lost with a place
		hammers = append(hammers, hammer(ctx, c, 4, 5*time.Millisecond, func(one admitted, _ CheckReply) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.all[city] = append(a.all[city], one)
		}))
	}
	stop := func() {
		cancel()
		for _, h := range hammers {
			h.Wait()
		}
	}
	w.t.Cleanup(stop)
	return a, stop
}

// lenderSide is how long a lender counts a lease.
func lenderSide(lease time.Duration) time.Duration { return lease * 102 / 100 }

// TestLostAndOldDisks takes one place's disk away, or sets it back to an old copy, at each tier, while a limit that the
// world shares is asked for in two cities. Everything that was reported stays counted, but for a lost root, which is
// another world; the limit is kept; and the logs say what was found.
func TestLostAndOldDisks(t *testing.T) {
	const rate, burst = 100, 200
	const lost, refill = "this store is not the place's last", "the parent lost its disk, or runs on an old one"
	type said struct {
		place           tiers.Place
		message, detail string
	}
	for _, test := range []struct {
		victim tiers.Place
		old    bool
		says   []said
	}{
		{"eu.de.berlin", false, []said{{"eu.de.berlin", lost, "this place ran 2 times since its disk was written, which is a new one"}}},
		{"eu.de.berlin", true, []said{{"eu.de.berlin", lost, "this place ran 1 times since its disk was written, which is an old copy"}}},
		{"eu.de", false, []said{{"eu.de", lost, "which is a new one"}, {"eu.de.berlin", refill, "it lacks changes that it had acknowledged; sending them again"}}},
		{"eu.de", true, []said{{"eu.de", lost, "which is an old copy"}, {"eu.de.munich", refill, "sending them again"}}},
		{"eu", false, []said{{"eu", lost, "which is a new one"}, {"eu.de", refill, "sending them again"}}},
		{"eu", true, []said{{"eu", lost, "which is an old copy"}, {"eu.de", refill, "sending them again"}}},
		{"global", false, []said{{"eu", "the parent refuses our reports", "they must not be summed"}, {"global", "a child's reports are refused", "they must not be summed"}}},
		{"global", true, []said{{"eu", refill, "sending them again"}, {"global", "after a crash an owner of limits waits until old leases have ended", "lends nothing of its own limits for 1.02s"}}},
	} {
		name := fmt.Sprintf("%s/lost", test.victim)
		if test.old {
			name = fmt.Sprintf("%s/old", test.victim)
		}
		t.Run(name, func(t *testing.T) {
			w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "100/s", Burst: new(int64(burst))}))
			w.logs = &logs{}
			for _, p := range world4 {
				w.startOn(p, nil)
			}
			cities := world4[3:]
			votes := map[tiers.Place]int64{}
			vote := func(n int64) {
				t.Helper()
				for _, city := range cities {
					must[AddReply](t)(w.client(city).Add(t.Context(), "votes", "alice", n))
					votes[city] += n
					n++
				}
			}
			shows := func(p tiers.Place, want int64) {
				t.Helper()
				eventually(t, fmt.Sprintf("%s shows %d votes", p, want), func() bool { return w.total(p, "alice") == want })
			}
			all := func() int64 { return votes[cities[0]] + votes[cities[1]] }
			admitted, stop := w.check(cities...)
			onward := func(since time.Time) {
				t.Helper()
				for _, city := range cities {
					eventually(t, fmt.Sprintf("checks are admitted at %s", city), func() bool { return admitted.since(city, since) >= 5 })
				}
			}

			vote(10)
			w.converges(all())
			onward(time.Now())
			folder, copied := filepath.Join(w.dir, string(test.victim)), filepath.Join(t.TempDir(), "copy")
			w.kill(test.victim)
			if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			w.startOn(test.victim, nil)
			vote(20)
			w.converges(all())

			w.kill(test.victim)
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
			if test.old {
				if err := os.Rename(copied, folder); err != nil {
					t.Fatal(err)
				}
			}
			swapped := time.Now()
			w.startOn(test.victim, nil)
			for _, s := range test.says {
				eventually(t, fmt.Sprintf("%s logs %q: %q", s.place, s.message, s.detail), func() bool { return w.logs.has(s.place, s.message, s.detail) })
			}
			vote(30)
			for _, city := range cities {
				shows(city, votes[city])
			}
			shows("eu", all())
			if test.victim == "global" && !test.old {
				shows("global", 0)
				// Nothing is lent any more: what was lent ends with its lease.
				for _, city := range cities {
					eventually(t, "the lease ends at "+string(city), func() bool {
						return must[CheckReply](t)(w.client(city).Check(t.Context(), "api", "user-42", WithWait(0))).Reason == DeniedShare
					})
				}
				ended := time.Now()
				stop()
				if n := admitted.since(cities[0], ended) + admitted.since(cities[1], ended); n > 0 {
					t.Errorf("%d checks were admitted although no lease runs", n)
				}
				for p := range w.places { // they have no parent to say goodbye to
					w.kill(p)
				}
			} else {
				shows("global", all())
				onward(swapped.Add(lenderSide(faultLease)))
				stop()
			}
			once := slices.Concat(admitted.all[cities[0]], admitted.all[cities[1]])
			if worst, from, to := excess(once, rate, burst); worst > 0 {
				t.Errorf("%.1f checks of %d beyond the limit, from %s to %s after the disk was swapped", worst, len(once), from.Sub(swapped), to.Sub(swapped))
			}
		})
	}
}

// TestBudgetOfALostCountryWaitsForItsOperator: nobody knows what was lent of it, so nothing is until an operator resets
// it; explain says so.
func TestBudgetOfALostCountryWaitsForItsOperator(t *testing.T) {
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "country", Budget: new(int64(100))}))
	w.logs = &logs{}
	for _, p := range world4 {
		w.startOn(p, nil)
	}
	berlin := w.client("eu.de.berlin")
	spend := func(hits int64) CheckReply {
		t.Helper()
		return must[CheckReply](t)(berlin.Check(t.Context(), "api", "user-42", WithHits(hits), WithWait(0)))
	}
	eventually(t, "70 of 100 are spent", func() bool { return spend(70).Allowed })
	eventually(t, "the rest, too", func() bool { return spend(1).Reason == DeniedSpent })
	w.kill("eu.de")
	if err := os.RemoveAll(filepath.Join(w.dir, "eu.de")); err != nil {
		t.Fatal(err)
	}
	w.startOn("eu.de", nil)
	eventually(t, "the loss is logged", func() bool {
		return w.logs.has("eu.de", "this store is not the place's last", "what it lent since is not known")
	})
	var above LimitExplanation
	eventually(t, "eu.de is asked, and waits for an operator", func() bool {
		if r := spend(1); r.Allowed {
			t.Fatalf("a check of what nobody knows: %+v", r)
		}
		e := must[Explanation](t)(berlin.Explain(t.Context(), "api", "user-42", 1))
		if e.Path[1].Unanswered != "" || len(e.Path[1].Limits) == 0 {
			return false
		}
		above = e.Path[1].Limits[0]
		return above.NeedsReset && e.Path[0].Verdict.Reason == DeniedShare
	})
	if above.Limit != "country budget 100" || above.Here.Tokens != 0 {
		t.Errorf("eu.de: %+v", above)
	}
	if r := must[ResetReply](t)(w.client("eu.de").Reset(t.Context(), "api", "user-42")); !slices.Equal(r.Limits, []string{"country budget 100"}) {
		t.Errorf("%+v", r)
	}
	eventually(t, "all 100 are there", func() bool { return spend(100).Allowed })
	eventually(t, "the city hears that no more is there", func() bool {
		if r := spend(1); r.Allowed {
			t.Fatalf("more than 100 after the reset: %+v", r)
		}
		return must[Explanation](t)(berlin.Explain(t.Context(), "api", "user-42", 1)).Path[0].Limits[0].Spent
	})
}

// TestBudgetOutlivesALostCity: what the city had been lent counts as spent, and nothing is spent twice.
func TestBudgetOutlivesALostCity(t *testing.T) {
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Budget: new(int64(100))}))
	for _, p := range world4 {
		w.startOn(p, nil)
	}
	var spent int64
	spend := func(city tiers.Place, hits int64) bool {
		t.Helper()
		r, err := w.client(city).Check(t.Context(), "api", "user-42", WithHits(hits), WithWait(200*time.Millisecond))
		if err == nil && r.Allowed {
			spent += hits
		}
		return err == nil && r.Allowed
	}
	eventually(t, "30 are spent in Berlin", func() bool { return spend("eu.de.berlin", 30) })
	w.kill("eu.de.berlin")
	if err := os.RemoveAll(filepath.Join(w.dir, "eu.de.berlin")); err != nil {
		t.Fatal(err)
	}
	w.startOn("eu.de.berlin", nil)
	denied := 0
	eventually(t, "the rest is spent", func() bool {
		for _, city := range world4[3:] {
			if !spend(city, 5) {
				denied++
			}
		}
		return denied >= 10
	})
	// What Berlin held when its disk was lost is at most what it was lent beyond what it had spent: little.
	if spent > 100 || spent < 80 {
		t.Errorf("%d of 100 were spent", spent)
	}
}
