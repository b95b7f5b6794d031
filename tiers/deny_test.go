package tiers

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
)

// A solitary city is a leaf that owns all its limits, and whose disk is done at once.
type solitary struct {
	*Machine
	disk  memory
	now   limiter.Time
	asked uint64
	shows map[uint64]Decision // what checks that waited were told
}

func newSolitary(t fataler, rules *limiter.Rules) *solitary {
	t.Helper()
	s := &solitary{disk: memory{}, now: 1, shows: map[uint64]Decision{}}
	m, err := Start(s.now, Config{
		Place: Root, Partitions: 1, Leaf: true, Rules: rules, Session: 1, NewWorld: 7, Wall: 1_800_000_020e9,
		Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
	}, s.disk)
	if err != nil {
		t.Fatal(err)
	}
	s.Machine = m
	s.disk.apply(m.Writes())
	return s
}

// settle does what the machine wants done, until it wants no more.
func (s *solitary) settle() {
	for {
		out := s.Output(s.now)
		s.disk.apply(out.Writes)
		for _, d := range out.Decided {
			s.shows[d.ID] = d.Decision
		}
		if out.Commit == 0 {
			return
		}
		s.Committed(s.now, out.Commit)
	}
}

// pass lets time go by.
func (s *solitary) pass(d time.Duration) {
	s.now = s.now.Add(d)
	s.SetWall(s.now, 1_800_000_020e9+int64(s.now))
	s.Tick(s.now)
	s.settle()
}

// check asks, and waits for the disk alone.
func (s *solitary) check(t fataler, key string, hits int64) Decision {
	t.Helper()
	s.asked++
	d, decided, err := s.Check(s.now, Name{"api", key}, hits, s.now, s.asked)
	if err != nil {
		t.Fatal(err)
	}
	if s.settle(); !decided {
		var answered bool
		if d, answered = s.shows[s.asked]; !answered {
			t.Fatal(fmt.Sprintf("a check of %d waits for more than the disk", hits))
		}
	}
	return d
}

// specOf compiles limits of a namespace, or fails.
func specOf(t fataler, shadow bool, limits ...limiter.LimitSpec) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Shadow: shadow, Limits: limits}}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func drawLimit(t *rapid.T) limiter.LimitSpec {
	figure := rapid.Int64Range(1, 12)
	l := limiter.LimitSpec{Scope: rapid.SampledFrom([]string{"global", "city"}).Draw(t, "scope")}
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		l.Rate = fmt.Sprintf("%d/%s", figure.Draw(t, "rate"), rapid.SampledFrom([]string{"s", "m", "h"}).Draw(t, "per"))
		l.Burst = new(figure.Draw(t, "burst"))
	case 1:
		l.Rate = fmt.Sprintf("%d/m", figure.Draw(t, "rate"))
		l.Burst = new(figure.Draw(t, "burst"))
	case 2:
		l.Quota = fmt.Sprintf("%d/%s", figure.Draw(t, "quota"), rapid.SampledFrom([]string{"minute", "hour", "day"}).Draw(t, "window"))
	case 3:
		l.Budget = new(4 * figure.Draw(t, "budget"))
	case 4:
		l.Concurrency = new(figure.Draw(t, "concurrency"))
		l.Hold = rapid.SampledFrom([]string{"2s", "3m"}).Draw(t, "hold")
	}
	return l
}

// TestRetryAfterIsWhenTheCheckPasses: whatever the limits of a key are, and however they stand in the rules, the answer
// of a denied check is the same; and where it says when to come again, the check that comes then passes.
func TestRetryAfterIsWhenTheCheckPasses(t *testing.T) {
	told, reasons := 0, map[Reason]int{}
	rapid.Check(t, func(t *rapid.T) {
		limits := rapid.SliceOfN(rapid.Custom(drawLimit), 1, 4).Draw(t, "limits")
		order := rapid.Permutation(limits).Draw(t, "order")
		if _, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Limits: limits}}}); err != nil {
			t.Skip(err) // two are the same limit
		}
		shadow := rapid.IntRange(0, 9).Draw(t, "shadow") == 0
		here, there := newSolitary(t, specOf(t, shadow, limits...)), newSolitary(t, specOf(t, shadow, order...))
		for range rapid.IntRange(1, 30).Draw(t, "checks") {
			gap := rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.Int64Range(0, int64(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 2 * time.Hour}).Draw(t, "unit"))).Draw(t, "gap"))
			}).Draw(t, "after")
			hits := rapid.Int64Range(0, 8).Draw(t, "hits")
			here.pass(gap)
			there.pass(gap)
			d := here.check(t, "a", hits)
			if other := there.check(t, "a", hits); d != other {
				t.Fatalf("a check of %d is told\n%+v, and with the limits in another order\n%+v", hits, d, other)
			}
			if d.Allowed && !d.Shadow {
				continue
			}
			reasons[d.Reason]++
			if never := d.Reason == ReasonBurst || d.Reason == ReasonSpent; never && d.RetryAfter != 0 {
				t.Fatalf("%+v never passes, and says when", d)
			}
			if d.RetryAfter == 0 {
				continue
			}
			told++
			here.pass(d.RetryAfter)
			there.pass(d.RetryAfter)
			later := here.check(t, "a", hits)
			if there.check(t, "a", hits); !later.Allowed || later.Shadow {
				t.Fatalf("a check of %d was told\n%+v, and nobody came meanwhile:\n%+v", hits, d, later)
			}
		}
	})
	if told < 20 || reasons[ReasonBurst] < 5 || reasons[ReasonSpent] < 5 || reasons[ReasonLimit] < 20 {
		t.Errorf("%d answers said when to come again, for the reasons %v", told, reasons)
	}
}

// TestAnswerIsOfTheLimitThatPassesLast: a row is limits, what is spent before, and what a check of so many is told.
func TestAnswerIsOfTheLimitThatPassesLast(t *testing.T) {
	second, minute, hour := limiter.LimitSpec{Scope: "city", Rate: "1/s"}, limiter.LimitSpec{Scope: "city", Rate: "1/m"}, limiter.LimitSpec{Scope: "city", Rate: "1/h"}
	quota := limiter.LimitSpec{Scope: "city", Quota: "1/minute"} // the first window ends after 40 s
	budget := limiter.LimitSpec{Scope: "global", Budget: new(int64(1))}
	wide := limiter.LimitSpec{Scope: "city", Rate: "1/s", Burst: new(int64(5))}
	permits := limiter.LimitSpec{Scope: "city", Concurrency: new(int64(1))}
	for name, c := range map[string]struct {
		limits []limiter.LimitSpec
		hits   int64
		reason Reason
		figure string
		after  time.Duration
	}{
		"two rates":               {[]limiter.LimitSpec{second, hour}, 1, ReasonLimit, "city rate 1/h burst 1", time.Hour},
		"a window ends first":     {[]limiter.LimitSpec{quota, hour}, 1, ReasonLimit, "city rate 1/h burst 1", time.Hour},
		"a window ends last":      {[]limiter.LimitSpec{second, quota}, 1, ReasonLimit, "city quota 1/minute UTC", 40 * time.Second},
		"a budget is spent":       {[]limiter.LimitSpec{minute, budget}, 1, ReasonSpent, "global budget 1", 0},
		"a burst":                 {[]limiter.LimitSpec{wide, hour}, 3, ReasonBurst, "city rate 1/h burst 1", 0},
		"a permit is out":         {[]limiter.LimitSpec{hour, permits}, 1, ReasonLimit, "city concurrency 1 hold 30s", 0},
		"a permit, and a budget":  {[]limiter.LimitSpec{budget, permits, second}, 1, ReasonSpent, "global budget 1", 0},
		"only one of them denies": {[]limiter.LimitSpec{wide, minute}, 1, ReasonLimit, "city rate 1/m burst 1", time.Minute},
	} {
		for _, backwards := range []bool{false, true} {
			limits := append([]limiter.LimitSpec(nil), c.limits...)
			if backwards {
				for i, j := 0, len(limits)-1; i < j; i, j = i+1, j-1 {
					limits[i], limits[j] = limits[j], limits[i]
				}
			}
			s := newSolitary(t, specOf(t, false, limits...))
			if d := s.check(t, "a", 1); !d.Allowed {
				t.Fatalf("%s: the first is told %+v", name, d)
			}
			d := s.check(t, "a", c.hits)
			var e Explanation
			f, _, err := s.Explain(s.now, Name{"api", "a"}, c.hits, &e)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Limits[f.Limit].Limit.String(); d.Allowed || d.Reason != c.reason || got != c.figure || d.RetryAfter.Round(time.Second) != c.after {
				t.Errorf("%s, backwards %v: it is told of %s: %+v, want %s %s after %s", name, backwards, got, d, c.figure, c.reason, c.after)
			}
			if d != f.Decision {
				t.Errorf("%s: foreseen was %+v, and it is told %+v", name, f.Decision, d)
			}
		}
	}
}

// TestRetryAfterIsForAsManyAsWereAsked: a lender says when it has enough for the checks that it knows of; one for more has to
// ask first.
func TestRetryAfterIsForAsManyAsWereAsked(t *testing.T) {
	rules := specOf(t, false, limiter.LimitSpec{Scope: "global", Rate: "1/s", Burst: new(int64(10))})
	begin := func(p Place, leaf bool, session uint64) *Machine {
		m, err := Start(1, Config{Place: p, Partitions: 1, Leaf: leaf, Rules: rules, Session: session, NewWorld: 7, Heartbeat: DefaultHeartbeat, MaxAwake: DefaultMaxAwake}, memory{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	root, city := begin(Root, false, 1), begin("eu", true, 2)
	now := limiter.Time(1)
	ask := func(hits int64) Decision {
		d, _, err := city.Check(now, Name{"api", "a"}, hits, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // what it tells is answered at once
			if r := city.Output(now).Report; r != nil {
				city.Acknowledged(now, root.Reported(now, r))
			}
		}
		root.Output(now)
		return d
	}
	var small Decision
	for n := 0; small.RetryAfter == 0; n++ { // until all is spent, and the lender has said when there is more
		if n > 100 {
			t.Fatalf("no answer says when to come again: %+v", small)
		}
		small = ask(1)
		now = now.Add(10 * time.Millisecond)
	}
	large := ask(8)
	if large.Allowed || large.RetryAfter != 0 {
		t.Errorf("a check of 1 is told %+v, one of 8 %+v, although the lender knew of none such", small, large)
	}
	now = now.Add(10 * time.Millisecond)
	if large = ask(8); large.RetryAfter < 6*time.Second || large.RetryAfter > 8*time.Second {
		t.Errorf("a check of 8 that the lender knew of is told %+v", large)
	}
}
