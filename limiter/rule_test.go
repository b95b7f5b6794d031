package limiter

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func one(l LimitSpec) Spec {
	return Spec{Namespaces: map[string]NamespaceSpec{"api": {Limits: []LimitSpec{l}}}}
}

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
		if l.Rate != test.count || l.Period != test.period || l.Burst != test.want || l.Scope != Country {
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
		{"fraction", one(LimitSpec{Scope: "city", Rate: "1.5/s"}), "namespaces.api.limits.0.rate", "whole number"},
		{"zero", one(LimitSpec{Scope: "city", Rate: "0/s"}), "namespaces.api.limits.0.rate", "out of range"},
		{"too fast", one(LimitSpec{Scope: "city", Rate: "1000000001/s"}), "namespaces.api.limits.0.rate", "out of range"},
		{"too large for an integer", one(LimitSpec{Scope: "city", Rate: "99999999999999999999/d"}), "namespaces.api.limits.0.rate", "whole number"},
		{"no burst", one(LimitSpec{Scope: "city", Rate: "1/s", Burst: new(int64(0))}), "namespaces.api.limits.0.burst", "out of range"},
		{"burst", one(LimitSpec{Scope: "city", Rate: "1/s", Burst: new(int64(math.MaxInt64))}), "namespaces.api.limits.0.burst", "out of range"},
		{"mode", one(LimitSpec{Scope: "city", Rate: "1/s", Mode: "soft"}), "namespaces.api.limits.0.mode", `"soft" is not known`},
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

func TestHashTellsRulesApart(t *testing.T) {
	hash := func(s Spec) uint64 {
		t.Helper()
		r, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		return r.Hash
	}
	base := one(LimitSpec{Scope: "city", Rate: "60/s"})
	if hash(base) != hash(one(LimitSpec{Scope: "city", Rate: "60/second", Burst: new(int64(60)), Mode: "hard"})) {
		t.Error("the same rule, written otherwise, has another hash")
	}
	for _, other := range []Spec{
		one(LimitSpec{Scope: "global", Rate: "60/s"}), one(LimitSpec{Scope: "city", Rate: "61/s"}), one(LimitSpec{Scope: "city", Rate: "60/m"}),
		one(LimitSpec{Scope: "city", Rate: "60/s", Burst: new(int64(61))}),
		{Namespaces: map[string]NamespaceSpec{"api": {}}},
		{Namespaces: map[string]NamespaceSpec{"apj": base.Namespaces["api"]}},
	} {
		if hash(base) == hash(other) {
			t.Errorf("%+v has the hash of %+v", other, base)
		}
	}
}
