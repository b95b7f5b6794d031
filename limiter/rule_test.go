package limiter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func one(l LimitSpec) Spec {
	return Spec{Namespaces: map[string]NamespaceSpec{"api": {Limits: []LimitSpec{l}}}}
}

// said are the rules of one namespace.
func said(n NamespaceSpec) Spec { return Spec{Namespaces: map[string]NamespaceSpec{"api": n}} }

func TestCompile(t *testing.T) {
	for _, test := range []struct {
		rate   string
		burst  *int64
		count  int64
		period time.Duration
		want   int64
	}{
		{"1000/s", nil, 1000, time.Second, 1000},
		{"1000/s", new(int64(2000)), 1000, time.Second, 2000},
		{"5/m", nil, 5, time.Minute, 1},
		{"61/min", nil, 61, time.Minute, 2},
		{"100000/day", nil, 100000, 24 * time.Hour, 2},
		{" 7 / hour ", nil, 7, time.Hour, 1},
		{"1000000000/s", nil, 1e9, time.Second, 1e9},
		{"86400000000000/d", nil, 864e11, 24 * time.Hour, 1e9},
	} {
		rules, err := Compile(one(LimitSpec{Scope: "country", Rate: test.rate, Burst: test.burst, Mode: "hard"}))
		if err != nil {
			t.Errorf("%q: %v", test.rate, err)
			continue
		}
		l := rules.Rule("api").Limits[0]
		if l.Figure() != test.count || l.Written != test.period || l.Rate != test.count*int64(RatePeriod/test.period) || l.Period != RatePeriod || l.Burst != test.want || l.Scope != Country {
			t.Errorf("%q: %+v", test.rate, l)
		}
	}
}

func TestCompileNamesTheField(t *testing.T) {
	for _, test := range []struct {
		name string
		spec Spec
		path string
		says string
	}{
		{"scope", one(LimitSpec{Scope: "galaxy", Rate: "1/s"}), "namespaces.api.limits.0.scope", `"galaxy" is no tier (city, country, region, global)`},
		{"no scope", one(LimitSpec{Rate: "1/s"}), "namespaces.api.limits.0.scope", "no tier"},
		{"no rate", one(LimitSpec{Scope: "city"}), "namespaces.api.limits.0.rate", "missing"},
		{"unit", one(LimitSpec{Scope: "city", Rate: "1/fortnight"}), "namespaces.api.limits.0.rate", "1000/s"},
		{"no unit", one(LimitSpec{Scope: "city", Rate: "10"}), "namespaces.api.limits.0.rate", "1000/s"},
		{"fraction", one(LimitSpec{Scope: "city", Rate: "1.5/s"}), "namespaces.api.limits.0.rate", `"1.5" is not a whole number; write 90/m`},
		{"less than one a second", one(LimitSpec{Scope: "city", Rate: "0.5/s"}), "namespaces.api.limits.0.rate", "write 30/m"},
		{"one each hundred seconds", one(LimitSpec{Scope: "city", Rate: "0.01/s"}), "namespaces.api.limits.0.rate", "write 36/h"},
		{"one each four days", one(LimitSpec{Scope: "city", Rate: ".25/d"}), "namespaces.api.limits.0.rate", "the least is 1/d"},
		{"no number", one(LimitSpec{Scope: "city", Rate: "1e9/s"}), "namespaces.api.limits.0.rate", `"1e9" is not a whole number`},
		{"zero", one(LimitSpec{Scope: "city", Rate: "0/s"}), "namespaces.api.limits.0.rate", "out of range"},
		{"too fast", one(LimitSpec{Scope: "city", Rate: "1000000001/s"}), "namespaces.api.limits.0.rate", "out of range"},
		{"too large for an integer", one(LimitSpec{Scope: "city", Rate: "99999999999999999999/d"}), "namespaces.api.limits.0.rate", "whole number"},
		{"no burst", one(LimitSpec{Scope: "city", Rate: "1/s", Burst: new(int64(0))}), "namespaces.api.limits.0.burst", "out of range"},
		{"burst", one(LimitSpec{Scope: "city", Rate: "1/s", Burst: new(int64(math.MaxInt64))}), "namespaces.api.limits.0.burst", "out of range"},
		{"mode", one(LimitSpec{Scope: "city", Rate: "1/s", Mode: "open"}), "namespaces.api.limits.0.mode", `"open" is not known (hard, soft)`},
		{"two kinds", one(LimitSpec{Scope: "city", Rate: "1/s", Concurrency: new(int64(1))}), "namespaces.api.limits.0", "has rate and concurrency; keep one"},
		{"all kinds", one(LimitSpec{Scope: "city", Rate: "1/s", Quota: "1/day", Budget: new(int64(1)), Concurrency: new(int64(1))}), "namespaces.api.limits.0", "has rate and quota and budget and concurrency"},
		{"quota without a unit", one(LimitSpec{Scope: "city", Quota: "10"}), "namespaces.api.limits.0.quota", "write one like 10000/day"},
		{"quota of an empty unit", one(LimitSpec{Scope: "city", Quota: "10/"}), "namespaces.api.limits.0.quota", "write one like 10000/day"},
		{"quota with a short unit", one(LimitSpec{Scope: "city", Quota: "10/m"}), "namespaces.api.limits.0.quota", "minute, hour, day, week or month"},
		{"quota with a fraction", one(LimitSpec{Scope: "city", Quota: "1.5/day"}), "namespaces.api.limits.0.quota", `"1.5" is not a whole number`},
		{"quota of nothing", one(LimitSpec{Scope: "city", Quota: "0/day"}), "namespaces.api.limits.0.quota", "out of range (1 to 9007199254740991)"},
		{"quota too large", one(LimitSpec{Scope: "city", Quota: "9007199254740992/day"}), "namespaces.api.limits.0.quota", "out of range"},
		{"quota with burst", one(LimitSpec{Scope: "city", Quota: "1/day", Burst: new(int64(1))}), "namespaces.api.limits.0.burst", "remove it: the quota is all"},
		{"quota with hold", one(LimitSpec{Scope: "city", Quota: "1/day", Hold: "30s"}), "namespaces.api.limits.0.hold", "goes with a concurrency"},
		{"zone", one(LimitSpec{Scope: "city", Quota: "1/day", Zone: "Mars/Olympus"}), "namespaces.api.limits.0.zone", `"Mars/Olympus" is no time zone`},
		{"the machine's zone", one(LimitSpec{Scope: "city", Quota: "1/day", Zone: "Local"}), "namespaces.api.limits.0.zone", `"Local" is no time zone`},
		{"a zone of some machines", one(LimitSpec{Scope: "city", Quota: "1/day", Zone: "right/Europe/Berlin"}), "namespaces.api.limits.0.zone", "IANA"},
		{"a zone as a path", one(LimitSpec{Scope: "city", Quota: "1/day", Zone: "./Europe/Berlin"}), "namespaces.api.limits.0.zone", "IANA"},
		{"budget of nothing", one(LimitSpec{Scope: "global", Budget: new(int64(0))}), "namespaces.api.limits.0.budget", "0 is out of range"},
		{"budget too large", one(LimitSpec{Scope: "global", Budget: new(int64(MaxTokens + 1))}), "namespaces.api.limits.0.budget", "out of range"},
		{"soft budget", one(LimitSpec{Scope: "global", Budget: new(int64(1)), Mode: "soft"}), "namespaces.api.limits.0.mode", "soft is not for a budget"},
		{"budget with zone", one(LimitSpec{Scope: "global", Budget: new(int64(1)), Zone: "UTC"}), "namespaces.api.limits.0.zone", "goes with a quota"},
		{"concurrency of nothing", one(LimitSpec{Scope: "city", Concurrency: new(int64(-1))}), "namespaces.api.limits.0.concurrency", "-1 is out of range"},
		{"hold", one(LimitSpec{Scope: "city", Concurrency: new(int64(1)), Hold: "30"}), "namespaces.api.limits.0.hold", `"30" is no duration; write one like 30s`},
		{"hold too short", one(LimitSpec{Scope: "city", Concurrency: new(int64(1)), Hold: "999ms"}), "namespaces.api.limits.0.hold", "out of range (1s to 24h)"},
		{"hold too long", one(LimitSpec{Scope: "city", Concurrency: new(int64(1)), Hold: "24h1s"}), "namespaces.api.limits.0.hold", "out of range"},
		{"lease", Spec{Lease: "0s"}, "lease", "out of range (1s to 1h)"},
		{"lease too long", Spec{Lease: "61m"}, "lease", "out of range"},
		{"fold_after", Spec{FoldAfter: "1d"}, "fold_after", `"1d" is no duration; write one like 24h`},
		{"fold_after too short", Spec{FoldAfter: "59s"}, "fold_after", "out of range (1m to 87600h)"},
		{"fold_after too long", Spec{FoldAfter: "87601h"}, "fold_after", "out of range"},
		{"dedupe", said(NamespaceSpec{Dedupe: "1ms"}), "namespaces.api.dedupe", "out of range (1s to 24h)"},
		{"negative dedupe", said(NamespaceSpec{Dedupe: "-1h"}), "namespaces.api.dedupe", "out of range"},
		{"no dedupe", said(NamespaceSpec{Dedupe: "never"}), "namespaces.api.dedupe", "write one like 1h"},
		{"wait", said(NamespaceSpec{Wait: "61s"}), "namespaces.api.wait", "out of range (0s to 1m)"},
		{"negative wait", said(NamespaceSpec{Wait: "-1ms"}), "namespaces.api.wait", "out of range"},
		{"weight", said(NamespaceSpec{Weights: map[string]int64{"eu.de": 0}}), "namespaces.api.weights.eu.de", "0 is out of range (1 to 1000)"},
		{"great weight", said(NamespaceSpec{Weights: map[string]int64{"eu": 1001}}), "namespaces.api.weights.eu", "out of range"},
		{"weight of no place", said(NamespaceSpec{Weights: map[string]int64{"eu..de": 1}}), "namespaces.api.weights.eu..de", `"eu..de" is no place`},
		{"weight of a part of global", said(NamespaceSpec{Weights: map[string]int64{"global.eu": 1}}), "namespaces.api.weights.global.eu", "no place"},
		{"weight of a long place", said(NamespaceSpec{Weights: map[string]int64{strings.Repeat("a", 33): 1}}), "namespaces.api.weights." + strings.Repeat("a", 33), "no place"},
		{"weight of a deep place", said(NamespaceSpec{Weights: map[string]int64{strings.Repeat("a.", 16) + "a": 1}}), "namespaces.api.weights." + strings.Repeat("a.", 16) + "a", "no place"},
		{"name", Spec{Namespaces: map[string]NamespaceSpec{"API": {}}}, "namespaces.API", `character 'A'`},
		{"long name", Spec{Namespaces: map[string]NamespaceSpec{strings.Repeat("a", 65): {}}}, "namespaces." + strings.Repeat("a", 65), "1 to 64"},
		{"twice", Spec{Namespaces: map[string]NamespaceSpec{"api": {Limits: []LimitSpec{{Scope: "city", Rate: "1/s"}, {Scope: "city", Rate: "1/s"}}}}}, "namespaces.api.limits.1", "twice"},
		{"many", Spec{Namespaces: map[string]NamespaceSpec{"api": {Limits: slices.Repeat([]LimitSpec{{Scope: "city", Rate: "1/s"}}, MaxLimits+1)}}}, "namespaces.api.limits", "too many"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compile(test.spec)
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("%v names no field", err)
			}
			if got := strings.Join(field.Path, "."); got != test.path || !strings.Contains(field.Problem, test.says) {
				t.Errorf("%s: %s", got, field.Problem)
			}
		})
	}
}

func TestCompileSaysAllAtOnce(t *testing.T) {
	_, err := Compile(Spec{Namespaces: map[string]NamespaceSpec{"B": {}, "a": {Limits: []LimitSpec{{Scope: "x", Rate: "y"}}}}})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not three problems: %v", err)
	}
}

// compile compiles rules that are right.
func compile(t testing.TB, s Spec) *Rules {
	t.Helper()
	rules, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestLimitReadsAsItWasWritten(t *testing.T) {
	for _, test := range []struct {
		spec LimitSpec
		want string
	}{
		{LimitSpec{Scope: "global", Rate: "1000/s", Burst: new(int64(2000))}, "global rate 1000/s burst 2000"},
		{LimitSpec{Scope: "region", Rate: "90/minute", Mode: "soft"}, "region rate 90/m burst 2 soft"},
		{LimitSpec{Scope: "city", Quota: "100/day", Zone: "Europe/Berlin"}, "city quota 100/day Europe/Berlin"},
		{LimitSpec{Scope: "city", Quota: " 7 / month ", Mode: "soft"}, "city quota 7/month UTC soft"},
		{LimitSpec{Scope: "global", Budget: new(int64(1_000_000)), Mode: "hard"}, "global budget 1000000"},
		{LimitSpec{Scope: "country", Concurrency: new(int64(100))}, "country concurrency 100 hold 30s"},
		{LimitSpec{Scope: "country", Concurrency: new(int64(1)), Hold: "90m", Mode: "soft"}, "country concurrency 1 hold 1h30m soft"},
	} {
		limit := compile(t, one(test.spec)).Rule("api").Limits[0]
		if got := limit.String(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestCompileEachKind(t *testing.T) {
	rules := compile(t, said(NamespaceSpec{Limits: []LimitSpec{
		{Scope: "region", Quota: "10/week", Zone: "Asia/Kolkata"},
		{Scope: "global", Budget: new(int64(MaxTokens))},
		{Scope: "country", Concurrency: new(int64(7)), Hold: "2m"},
	}}))
	limits := rules.Rule("api").Limits
	for i := range limits {
		if l := &limits[i]; l.Rate != 0 || l.Period != time.Second || l.ID == 0 || l.Whole() != (Share{l.Burst, l.Burst, 0}) {
			t.Errorf("%s is %+v", l, *l)
		}
	}
	if q := limits[0]; q.Kind != Quota || q.Burst != 10 || q.Window.Unit != Week || q.Window.Zone.String() != "Asia/Kolkata" || !q.Durable() {
		t.Errorf("the quota is %+v", q)
	}
	if b := limits[1]; b.Kind != Budget || b.Burst != MaxTokens || b.Hold != 0 || b.Window != (Window{}) || !b.Durable() {
		t.Errorf("the budget is %+v", b)
	}
	if c := limits[2]; c.Kind != Concurrency || c.Burst != 7 || c.Hold != 2*time.Minute || c.Durable() {
		t.Errorf("the concurrency is %+v", c)
	}
}

func TestRulesThatSayNothingHaveDefaults(t *testing.T) {
	rules := compile(t, Spec{Namespaces: map[string]NamespaceSpec{"a": {}, "b": {Wait: "0", Dedupe: "0s"}}})
	if rules.Lease != DefaultLease || rules.FoldAfter != DefaultFoldAfter {
		t.Errorf("lease %s, fold after %s", rules.Lease, rules.FoldAfter)
	}
	if a := rules.Rule("a"); a.Wait >= 0 || a.Dedupe != 0 || a.Shadow || a.Count || a.Weight("eu.de") != 1 {
		t.Errorf("a is %+v", a)
	}
	if b := rules.Rule("b"); b.Wait != 0 || b.Dedupe != 0 {
		t.Errorf("b is %+v", b)
	}
}

func TestWeightIsThatOfTheNearestPlace(t *testing.T) {
	rule := compile(t, said(NamespaceSpec{Weights: map[string]int64{"global": 2, "eu": 3, "eu.de.berlin": 1}})).Rule("api")
	for place, want := range map[string]int64{"global": 2, "us.ny": 2, "eu": 3, "eu.de": 3, "eu.de.munich": 3, "eu.de.berlin": 1, "eu.de.berlin.app": 1, "eu2": 2} {
		if got := rule.Weight(place); got != want {
			t.Errorf("%s weighs %d, want %d", place, got, want)
		}
	}
}

func TestRulesKeepTheirSpec(t *testing.T) {
	spec := said(NamespaceSpec{Weights: map[string]int64{"eu": 3}})
	rules := compile(t, spec)
	spec.Namespaces["other"] = NamespaceSpec{}
	spec.Namespaces["api"].Weights["eu"] = 5
	if _, ok := rules.Spec().Namespaces["other"]; ok || rules.Rule("api").Weight("eu") != 3 {
		t.Error("rules changed after they were compiled")
	}
}

func TestIDIsNotOfTheFigures(t *testing.T) {
	id := func(l LimitSpec) uint64 { return compile(t, one(l)).Rule("api").Limits[0].ID }
	n, m := new(int64(10)), new(int64(20))
	seen := map[uint64]string{}
	for _, same := range [][]LimitSpec{
		{{Scope: "city", Rate: "1/s"}, {Scope: "city", Rate: "2/second"}, {Scope: "city", Rate: "1/s", Burst: n}, {Scope: "city", Rate: "1/s", Mode: "soft"}, {Scope: "city", Rate: "60/m"}, {Scope: "city", Rate: "7/h"}},
		{{Scope: "global", Rate: "1/s"}},
		{{Scope: "city", Quota: "1/minute"}, {Scope: "city", Quota: "2/minute", Zone: "UTC", Mode: "soft"}},
		{{Scope: "city", Quota: "1/day"}, {Scope: "city", Quota: "1/day", Zone: "Etc/UTC"}, {Scope: "city", Quota: "5/day", Zone: "Europe/Berlin"}},
		{{Scope: "city", Budget: n}, {Scope: "city", Budget: m}},
		{{Scope: "city", Concurrency: n}, {Scope: "city", Concurrency: m}, {Scope: "city", Concurrency: n, Hold: "1m"}, {Scope: "city", Concurrency: n, Mode: "soft"}},
		{{Scope: "country", Concurrency: n}},
	} {
		first := id(same[0])
		if other, ok := seen[first]; ok {
			t.Errorf("%+v has the ID of %s", same[0], other)
		}
		seen[first] = compile(t, one(same[0])).Rule("api").Limits[0].String()
		for _, l := range same[1:] {
			if id(l) != first {
				t.Errorf("%+v is not the limit that %+v is", l, same[0])
			}
		}
	}
	other := compile(t, Spec{Namespaces: map[string]NamespaceSpec{"other": {Limits: []LimitSpec{{Scope: "city", Rate: "1/s"}}}}})
	if other.Rule("other").Limits[0].ID != id(LimitSpec{Scope: "city", Rate: "1/s"}) {
		t.Error("the namespace is in the ID")
	}
}

func TestEqualLimitsAreNumbered(t *testing.T) {
	ids := func(rates ...string) (all []uint64) {
		var spec NamespaceSpec
		for _, r := range rates {
			spec.Limits = append(spec.Limits, LimitSpec{Scope: "city", Rate: r})
		}
		for _, l := range compile(t, said(spec)).Rule("api").Limits {
			all = append(all, l.ID)
		}
		return all
	}
	three := ids("1/s", "2/s", "3/s")
	if three[0] == three[1] || three[1] == three[2] || three[0] == three[2] {
		t.Errorf("one ID for several: %v", three)
	}
	if turned := ids("3/s", "1/s", "2/s"); turned[0] != three[2] || turned[1] != three[0] || turned[2] != three[1] {
		t.Errorf("%v, and in another order in the file %v", three, turned)
	}
}

// TestLimitKeepsItsIdentityAmongEquals follows three rates of one scope through rules that change.
func TestLimitKeepsItsIdentityAmongEquals(t *testing.T) {
	rates := func(rates ...string) *Rules {
		var spec NamespaceSpec
		for _, r := range rates {
			spec.Limits = append(spec.Limits, LimitSpec{Scope: "city", Rate: r})
		}
		return compile(t, said(spec))
	}
	ids := func(r *Rules) map[string]uint64 {
		all := map[string]uint64{}
		for _, l := range r.Rule("api").Limits {
			all[fmt.Sprintf("%d/%s", l.Figure(), periodNames[l.Written])] = l.ID
		}
		return all
	}
	before := rates("10/s", "100/m", "1000/h")
	was := ids(before)
	for _, test := range []struct {
		name  string
		after []string
		same  map[string]string // the limit after, and which it was; "": none
	}{
		{"another order", []string{"1000/h", "10/s", "100/m"}, map[string]string{"10/s": "10/s", "100/m": "100/m", "1000/h": "1000/h"}},
		{"one less", []string{"100/m", "1000/h"}, map[string]string{"100/m": "100/m", "1000/h": "1000/h"}},
		{"other figures", []string{"2000/h", "5/s", "50/m"}, map[string]string{"5/s": "10/s", "50/m": "100/m", "2000/h": "1000/h"}},
		{"one less, and another figure", []string{"100/m", "2000/h"}, map[string]string{"100/m": "100/m", "2000/h": "1000/h"}},
		{"one more", []string{"1/s", "10/s", "100/m", "1000/h"}, map[string]string{"1/s": "", "10/s": "10/s", "100/m": "100/m", "1000/h": "1000/h"}},
		{"another spelling", []string{"600/m", "100/m", "1000/h"}, map[string]string{"600/m": "10/s", "100/m": "100/m", "1000/h": "1000/h"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := Succeed(before, rates(test.after...))
			is := ids(after)
			for rate, old := range test.same {
				if old == "" {
					for _, id := range was {
						if is[rate] == id {
							t.Errorf("%s is new, and has the ID of a limit that was there", rate)
						}
					}
				} else if is[rate] != was[old] {
					t.Errorf("%s does not continue %s: %v, then %v", rate, old, was, is)
				}
			}
			if again := compile(t, after.Spec()); again.Hash != after.Hash {
				t.Error("what the spec says, compiled again, is something else")
			}
			if again := Succeed(after, compile(t, said(NamespaceSpec{Limits: rates(test.after...).Spec().Namespaces["api"].Limits}))); again.Hash != after.Hash {
				t.Error("the same file, applied again, is a change")
			}
		})
	}
}

// full is a Spec in which every field says something.
func full() Spec {
	return Spec{
		Lease: "10s", FoldAfter: "48h",
		Namespaces: map[string]NamespaceSpec{
			"votes": {},
			"api": {
				Limits: []LimitSpec{
					{Scope: "city", Rate: "60/s"},
					{Scope: "global", Rate: "600/s", Burst: new(int64(1200)), Mode: "soft"},
					{Scope: "country", Quota: "100/day", Zone: "Europe/Berlin"},
					{Scope: "global", Budget: new(int64(1000))},
					{Scope: "city", Concurrency: new(int64(10)), Hold: "1m"},
				},
				Shadow: true, Count: true, Dedupe: "1h", Wait: "250ms",
				Weights: map[string]int64{"eu": 3, "us.ny": 2, "asia": 1},
			},
		},
	}
}

// TestEachFieldIsInTheHashAndTheDiff changes one thing after another.
func TestEachFieldIsInTheHashAndTheDiff(t *testing.T) {
	base := compile(t, full())
	for name, change := range map[string]func(*Spec, *NamespaceSpec){
		"lease":          func(s *Spec, _ *NamespaceSpec) { s.Lease = "" },
		"fold_after":     func(s *Spec, _ *NamespaceSpec) { s.FoldAfter = "47h" },
		"namespace more": func(s *Spec, _ *NamespaceSpec) { s.Namespaces["more"] = NamespaceSpec{} },
		"namespace less": func(s *Spec, _ *NamespaceSpec) { delete(s.Namespaces, "votes") },
		"scope":          func(_ *Spec, n *NamespaceSpec) { n.Limits[0].Scope = "country" },
		"rate":           func(_ *Spec, n *NamespaceSpec) { n.Limits[0].Rate = "61/s" },
		"period":         func(_ *Spec, n *NamespaceSpec) { n.Limits[0].Rate = "60/m" },
		"burst":          func(_ *Spec, n *NamespaceSpec) { n.Limits[0].Burst = new(int64(61)) },
		"mode":           func(_ *Spec, n *NamespaceSpec) { n.Limits[1].Mode = "hard" },
		"quota":          func(_ *Spec, n *NamespaceSpec) { n.Limits[2].Quota = "101/day" },
		"window":         func(_ *Spec, n *NamespaceSpec) { n.Limits[2].Quota = "100/week" },
		"zone":           func(_ *Spec, n *NamespaceSpec) { n.Limits[2].Zone = "Europe/Paris" },
		"budget":         func(_ *Spec, n *NamespaceSpec) { n.Limits[3].Budget = new(int64(1001)) },
		"concurrency":    func(_ *Spec, n *NamespaceSpec) { n.Limits[4].Concurrency = new(int64(11)) },
		"hold":           func(_ *Spec, n *NamespaceSpec) { n.Limits[4].Hold = "" },
		"limit less":     func(_ *Spec, n *NamespaceSpec) { n.Limits = n.Limits[:4] },
		"shadow":         func(_ *Spec, n *NamespaceSpec) { n.Shadow = false },
		"count":          func(_ *Spec, n *NamespaceSpec) { n.Count = false },
		"dedupe":         func(_ *Spec, n *NamespaceSpec) { n.Dedupe = "" },
		"wait":           func(_ *Spec, n *NamespaceSpec) { n.Wait = "" },
		"no wait":        func(_ *Spec, n *NamespaceSpec) { n.Wait = "0" },
		"weight":         func(_ *Spec, n *NamespaceSpec) { n.Weights["eu"] = 4 },
		"weight of 1":    func(_ *Spec, n *NamespaceSpec) { delete(n.Weights, "asia") },
	} {
		s := full()
		n := s.Namespaces["api"]
		change(&s, &n)
		s.Namespaces["api"] = n
		other := compile(t, s)
		if other.Hash == base.Hash {
			t.Errorf("%s: the hash is the same", name)
		}
		if len(Diff(base, other)) == 0 {
			t.Errorf("%s: there is no difference", name)
		}
	}
}

func TestHashIsOfWhatRulesSay(t *testing.T) {
	base := compile(t, full())
	for range 20 { // maps are walked in another order each time
		if again := compile(t, full()); again.Hash != base.Hash {
			t.Fatalf("hash %x, and again %x", base.Hash, again.Hash)
		}
	}
	s := full()
	n := s.Namespaces["api"]
	n.Limits[0], n.Limits[4] = n.Limits[4], n.Limits[0]
	n.Limits[1].Rate, n.Limits[1].Scope = " 600 / second", "global"
	n.Limits[0].Mode, n.Limits[0].Hold = "hard", "60s"
	n.Wait = "0.25s"
	s.Namespaces["api"], s.Namespaces["votes"] = n, NamespaceSpec{Dedupe: "0"}
	if same := compile(t, s); same.Hash != base.Hash || len(Diff(base, same)) > 0 {
		t.Errorf("the same rules, written otherwise, have another hash; %v", Diff(base, same))
	}
}

func TestSpecSurvivesJSON(t *testing.T) {
	for _, spec := range []Spec{full(), {}, {Namespaces: map[string]NamespaceSpec{"votes": {}}}} {
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var back Spec
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&back); err != nil {
			t.Fatal(err)
		}
		if compile(t, back).Hash != compile(t, spec).Hash {
			t.Errorf("%s says something else", data)
		}
	}
}

// TestSpecJSONIsStable holds the names under which rules are stored.
func TestSpecJSONIsStable(t *testing.T) {
	data, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"lease":"10s","fold_after":"48h","namespaces":{"api":{"limits":[{"scope":"city","rate":"60/s"},` +
		`{"scope":"global","rate":"600/s","burst":1200,"mode":"soft"},{"scope":"country","quota":"100/day","zone":"Europe/Berlin"},` +
		`{"scope":"global","budget":1000},{"scope":"city","concurrency":10,"hold":"1m"}],"shadow":true,"count":true,"dedupe":"1h",` +
		`"wait":"250ms","weights":{"asia":1,"eu":3,"us.ny":2}},"votes":{}}}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}
