package wire

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// A filler fills in values of package tiers, field by field as they are
// declared, so that a field that is added there and forgotten here is lost
// in a test.
type filler struct {
	t        *rapid.T
	whole    bool // no field is left zero
	positive bool // figures are not negative
}

// filled fills m, a pointer, with what a place may say or keep.
func filled[M any](t *rapid.T, whole bool, m M) M {
	filler{t: t, whole: whole}.fill("", reflect.ValueOf(m).Elem())
	if whole {
		for _, path := range zeros("", reflect.ValueOf(m).Elem()) {
			t.Fatalf("%T%s is zero", m, path)
		}
	}
	return m
}

// everything is some message or record without a field that is zero.
func everything[M any](m func() M) M {
	return rapid.Custom(func(t *rapid.T) M { return filled(t, true, m()) }).Example(1)
}

func (f filler) fill(label string, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *tiers.Place:
		*p = tiers.Place(rapid.StringMatching(`global|[a-f][a-z0-9-]{0,3}(\.[a-z0-9-]{1,4}){0,3}`).Draw(f.t, label))
		return
	case *tiers.Name:
		p.Namespace = rapid.StringMatching(`[a-z0-9_-]{1,8}`).Draw(f.t, label+".Namespace")
		p.Key = rapid.StringMatching(`[ -~ä-ž一-三]{1,8}`).Draw(f.t, label+".Key")
		return
	case *limiter.Scope:
		*p = limiter.Scope(f.among(label, int(limiter.City)))
		return
	case *limiter.Kind:
		*p = limiter.Kind(f.among(label, int(limiter.Concurrency)))
		return
	case **limiter.Rules:
		*p = drawRules(f.t, f.whole)
		return
	case *tiers.Demand, *tiers.Grant, *limiter.Share, *tiers.Keep:
		f.positive = true
	}

	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(label+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		if n := rapid.IntRange(int(f.least()), 3).Draw(f.t, label); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			f.fill(label, v.Index(i))
		}
	case reflect.Pointer:
		if f.whole || rapid.Bool().Draw(f.t, label) {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(label, v.Elem())
		}
	case reflect.String:
		v.SetString(rapid.StringN(int(f.least()), 20, -1).Draw(f.t, label))
	case reflect.Bool:
		v.SetBool(f.whole || rapid.Bool().Draw(f.t, label))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Uint8Min(uint8(f.least())).Draw(f.t, label)))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32Min(uint32(f.least())).Draw(f.t, label)))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64Min(uint64(f.least())).Draw(f.t, label))
	case reflect.Int: // a number of places, or of bytes
		v.SetInt(int64(rapid.Uint32Min(uint32(f.least())).Draw(f.t, label)))
	case reflect.Int64:
		n := rapid.Int64Min(f.least()).Draw(f.t, label)
		if !f.positive && rapid.Bool().Draw(f.t, label+" is negative") {
			n = -n
		}
		v.SetInt(n)
	default:
		f.t.Fatalf("%s is a %s, and nobody knows how to fill it", label, v.Type())
	}

	switch p := v.Addr().Interface().(type) {
	case *tiers.Report:
		p.Session = max(1, p.Session)
		p.From, p.To = min(p.From, p.To), max(p.From, p.To)
	case *tiers.Grant:
		p.Window = min(p.Window, lastSecond)
	case *tiers.Keep:
		if p.All = p.All && !f.whole; p.All {
			*p = tiers.Keep{All: true}
		}
	}
}

func (f filler) least() int64 {
	if f.whole {
		return 1
	}
	return 0
}

func (f filler) among(label string, last int) int {
	return rapid.IntRange(int(f.least()), last).Draw(f.t, label)
}

// zeros returns the fields that are zero, but for a Keep's All, which goes
// without the others.
func zeros(path string, v reflect.Value) (found []string) {
	if _, ok := v.Interface().(*limiter.Rules); v.IsZero() || ok {
		if v.IsZero() {
			found = append(found, path)
		}
		return found
	}
	switch v.Kind() {
	case reflect.Pointer:
		return zeros(path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); v.Type() != reflect.TypeFor[tiers.Keep]() || field.Name != "All" {
				found = append(found, zeros(path+"."+field.Name, v.Field(i))...)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			found = append(found, zeros(path, v.Index(i))...)
		}
	default:
	}
	return found
}

// TestFillerLeavesNothingOut: what it says of a value with a field that is
// zero.
func TestFillerLeavesNothingOut(t *testing.T) {
	a := everything(func() *tiers.Ack { return &tiers.Ack{} })
	a.Lines[0].Lent.Rate, a.Above[0].Age, a.Rules.Rules = 0, 0, nil
	got := zeros("", reflect.ValueOf(a))
	if want := []string{".Rules.Rules", ".Lines.Lent.Rate", ".Above.Age"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func compile(t rapid.TB, s limiter.Spec) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// drawRules returns rules that say something of everything, or little.
func drawRules(t *rapid.T, whole bool) *limiter.Rules {
	tokens := rapid.Int64Range(1, math.MaxInt32).Draw(t, "tokens")
	all := limiter.Spec{Lease: "7s", FoldAfter: "48h", Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {},
		"api": {
			Limits: []limiter.LimitSpec{
				{Scope: "global", Rate: "10/s", Burst: &tokens, Mode: "soft"},
				{Scope: "region", Quota: "1000/day", Zone: "Europe/Berlin"},
				{Scope: "country", Budget: &tokens},
				{Scope: "city", Concurrency: &tokens, Hold: "1m"},
			},
			Shadow: true, Count: true, Dedupe: "1h", Wait: "250ms", Weights: map[string]int64{"eu": 2, "eu.de.berlin": 3},
		},
	}}
	if whole {
		return compile(t, all)
	}
	return compile(t, rapid.SampledFrom([]limiter.Spec{{}, {Namespaces: map[string]limiter.NamespaceSpec{}}, all}).Draw(t, "rules"))
}
