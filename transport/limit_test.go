package transport

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// admitted is one admitted check, by the callers' clock.
type admitted struct{ sent, answered time.Time }

// hammer sends checks at a city from several callers until ctx ends.
func hammer(ctx context.Context, c *Client, callers int, pause time.Duration, hit func(admitted, CheckReply)) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				sent := time.Now()
				reply, err := c.Check(context.Background(), "api", "user-42")
				if err == nil && reply.Allowed {
					hit(admitted{sent, time.Now()}, reply)
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	return &wg
}

// excess returns the interval in which the most checks were admitted beyond
// burst + rate·t, of all intervals that begin with a request and end with a
// reply; at most 0 where the limit was kept.
func excess(all []admitted, rate, burst float64) (worst float64, from, to time.Time) {
	bySent, byAnswer := slices.Clone(all), slices.Clone(all)
	slices.SortFunc(bySent, func(a, b admitted) int { return a.sent.Compare(b.sent) })
	slices.SortFunc(byAnswer, func(a, b admitted) int { return a.answered.Compare(b.answered) })
	worst = -burst
	for _, first := range bySent {
		n := 0.0
		for _, last := range byAnswer {
			if last.sent.Before(first.sent) {
				continue
			}
			n++
			if over := n - burst - rate*last.answered.Sub(first.sent).Seconds(); over > worst {
				worst, from, to = over, first.sent, last.answered
			}
		}
	}
	return worst, from, to
}

func TestExcessSeesOneCheckTooMany(t *testing.T) {
	var all []admitted
	start := time.Now()
	for i := range 11 {
		at := start.Add(time.Duration(i) * time.Microsecond)
		all = append(all, admitted{at, at})
	}
	if worst, _, _ := excess(all, 1, 10); worst < 0.9 || worst > 1 {
		t.Errorf("11 checks at once are %.3f beyond a burst of 10", worst)
	}
	if worst, _, _ := excess(all, 1, 11); worst > 0 {
		t.Errorf("11 checks at once are %.3f beyond a burst of 11", worst)
	}
}

// TestHardLimitOverNATS hammers one global limit in all cities, and in one:
// it is never exceeded, by any interval of the callers' clock, and used.
func TestHardLimitOverNATS(t *testing.T) {
	const rate, burst = 1000, 500
	b := int64(burst)
	places := []tiers.Place{
		"global", "eu", "eu.de", "eu.fr", "us", "us.ny",
		"eu.de.berlin", "eu.de.munich", "eu.fr.paris", "us.ny.nyc",
	}
	cities := places[6:]
	for _, test := range []struct {
		name   string
		cities []tiers.Place
	}{{"all", cities}, {"one", cities[:1]}} {
		t.Run(test.name, func(t *testing.T) {
			w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "1000/s", Burst: &b}), places...)
			var mu sync.Mutex
			var all []admitted
			ctx, cancel := context.WithCancel(t.Context())
			var hammers []*sync.WaitGroup
			for _, city := range test.cities {
				hammers = append(hammers, hammer(ctx, w.client(city), 64/len(test.cities), 8*time.Millisecond, func(a admitted, _ CheckReply) {
					mu.Lock()
					defer mu.Unlock()
					all = append(all, a)
				}))
			}
			start := time.Now()
			pace(ctx, 2*time.Second)
			used := func(from, to time.Time) (n float64) {
				mu.Lock()
				defer mu.Unlock()
				for _, a := range all {
					if !a.answered.Before(from) && a.answered.Before(to) {
						n++
					}
				}
				return n / (rate * to.Sub(from).Seconds())
			}
			eventually(t, "three seconds in which 0.95 of the rate is used", func() bool { // a busy machine has others
				from := time.Now()
				pace(ctx, 3*time.Second)
				u := used(from, time.Now())
				t.Logf("%.3f of the rate used", u)
				return u >= 0.95
			})
			cancel()
			for _, h := range hammers {
				h.Wait()
			}
			if worst, from, to := excess(all, rate, burst); worst > 0 {
				t.Errorf("%.1f checks beyond the limit from %s to %s", worst, from.Sub(start), to.Sub(start))
			}
		})
	}
}

func TestCheckSaysWhatIsLeft(t *testing.T) {
	b := int64(20)
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "10/h", Burst: &b}, limiter.LimitSpec{Scope: "city", Rate: "100/h", Burst: new(int64(1000))}), world4...)
	berlin := w.client("eu.de.berlin")
	ctx := t.Context()
	reply, err := berlin.Check(ctx, "api", "user", WithHits(12))
	if err != nil || !reply.Allowed || reply.Scope != "global" || reply.Limit != 10 || reply.Remaining != 8 || reply.Place != "eu.de.berlin" {
		t.Fatalf("%+v %v", reply, err)
	}
	reply, err = berlin.Check(ctx, "api", "user", WithHits(9))
	if err != nil || reply.Allowed || reply.Reason != DeniedLimit || reply.Remaining != 8 || reply.RetryAfter <= 0 {
		t.Fatalf("%+v %v", reply, err)
	}
	reply, err = berlin.Check(ctx, "api", "user", WithHits(21))
	if err != nil || reply.Allowed || reply.Reason != DeniedBurst || reply.RetryAfter != 0 {
		t.Fatalf("%+v %v", reply, err)
	}
	reply, err = berlin.Check(ctx, "votes", "user")
	if err != nil || !reply.Allowed || reply.Scope != "" {
		t.Fatalf("%+v %v", reply, err)
	}
	// Another city gets what is left, and no more.
	reply, err = w.client("eu.de.munich").Check(ctx, "api", "user", WithHits(8), WithWait(patience))
	if err != nil || !reply.Allowed {
		t.Fatalf("%+v %v", reply, err)
	}
	reply, err = berlin.Check(ctx, "api", "user", WithWait(100*time.Millisecond))
	if err != nil || reply.Allowed {
		t.Fatalf("%+v %v", reply, err)
	}
}
