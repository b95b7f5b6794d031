package tiers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// TestForeseenIsWhatComes: a check is decided as was foreseen, in the middle of whatever else happens, and foreseeing
// it changes nothing.
func TestForeseenIsWhatComes(t *testing.T) {
	limits := []limiter.LimitSpec{
		{Scope: "global", Rate: "10/s", Burst: new(int64(20))},
		{Scope: "city", Rate: "5/s", Burst: new(int64(8))},
		{Scope: "country", Quota: "40/minute"},
		{Scope: "city", Quota: "30/minute"},
		{Scope: "global", Budget: new(int64(300))},
		{Scope: "city", Budget: new(int64(200))},
		{Scope: "region", Concurrency: new(int64(6)), Hold: "2s"},
		{Scope: "city", Concurrency: new(int64(4)), Hold: "1s"},
		{Scope: "global", Rate: "32/s", Burst: new(int64(32)), Mode: "soft"},
	}
	outcomes := map[string]int{}
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		spec := limiter.NamespaceSpec{Shadow: rnd.IntN(8) == 0}
		for _, i := range rnd.Perm(len(limits))[:1+rnd.IntN(3)] {
			spec.Limits = append(spec.Limits, limits[i])
		}
		rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": spec}})
		if err != nil {
			t.Fatal(err)
		}
		s := twoCities(t, rules)
		for step := range 200 {
			if rnd.IntN(50) == 0 {
				s.node("de").up, s.node("de").down = !s.node("de").up, !s.node("de").down
			}
			s.until(s.now.Add(time.Duration(rnd.Int64N(int64(100 * time.Millisecond)))))
			city := s.node([]string{"berlin", "munich"}[rnd.IntN(2)])
			name, hits := Name{"api", string('a' + rune(rnd.IntN(2)))}, rnd.Int64N(10)*rnd.Int64N(5)
			s.step(city, func(m *Machine) func() {
				m.SetWall(s.now, int64(s.now))
				var e Explanation
				f, _, err := m.Explain(s.now, name, hits, &e)
				if again, awake, _ := m.Explain(s.now, name, hits, &e); err != nil || again != f || !awake {
					t.Fatalf("seed %d, step %d: %+v, and again %+v, %v", seed, step, f, again, err)
				}
				d, decided, err := m.Check(s.now, name, hits, 0, uint64(step))
				switch {
				case err != nil:
					t.Fatal(err)
				case !decided: // it waits for its own disk
					if !f.Decision.Allowed && !f.Waits {
						t.Errorf("seed %d, step %d: a check of %d waits, foreseen was %+v", seed, step, hits, f)
					}
					outcomes["waits"]++
					return nil
				}
				want := d
				want.Permit, want.Hold = 0, 0
				if d.Allowed && !d.Shadow { // it took what it was asked for
					want.Remaining, want.Reset = f.Decision.Remaining, f.Decision.Reset
				}
				if want != f.Decision {
					t.Errorf("seed %d, step %d: a check of %d came out as\n%#v, foreseen was\n%#v", seed, step, hits, d, f.Decision)
				}
				if l := e.Limits[f.Limit].Limit; l.Scope != d.Scope || l.Kind != d.Kind {
					t.Errorf("seed %d, step %d: %+v is of limit %d, %s", seed, step, d, f.Limit, l)
				}
				outcomes[fmt.Sprintf("%s %v %v", d.Reason, d.Allowed, d.Shadow)]++
				return nil
			})
			if t.Failed() {
				return
			}
		}
	}
	for _, outcome := range []string{"waits", " true false", "limit false false", "share false false", "burst false false", "limit true true"} {
		if outcomes[outcome] < 5 {
			t.Errorf("the outcome %q came %d times: %v", outcome, outcomes[outcome], outcomes)
		}
	}
	t.Log(outcomes)
}
