package limiter

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	limits := func(l ...LimitSpec) Spec { return said(NamespaceSpec{Limits: l}) }
	city, global := LimitSpec{Scope: "city", Rate: "300/s"}, LimitSpec{Scope: "global", Budget: new(int64(10))}
	for _, test := range []struct {
		name          string
		before, after Spec
		want          []string
	}{
		{"nothing", full(), full(), nil},
		{"the top", Spec{}, Spec{Lease: "10s", FoldAfter: "1h"}, []string{"changed lease 5s to 10s", "changed fold_after 24h to 1h"}},
		{"a figure", limits(city, global), limits(LimitSpec{Scope: "city", Rate: "100/s", Mode: "soft"}, global), []string{
			"api: changed limit city rate 300/s burst 300 to city rate 100/s burst 100 soft",
		}},
		{"a limit more", limits(city), limits(global, city), []string{"api: added limit global budget 10"}},
		{"a limit less", limits(city, global), limits(global), []string{"api: removed limit city rate 300/s burst 300 (forgets what was spent)"}},
		{"another kind", limits(city), limits(LimitSpec{Scope: "city", Quota: "300/day"}), []string{
			"api: removed limit city rate 300/s burst 300 (forgets what was spent)", "api: added limit city quota 300/day UTC",
		}},
		{"the first of equals", limits(city, LimitSpec{Scope: "city", Rate: "5/s"}), limits(LimitSpec{Scope: "city", Rate: "5/s"}), []string{
			"api: removed limit city rate 300/s burst 300 (forgets what was spent)",
		}},
		{"another spelling", limits(LimitSpec{Scope: "city", Rate: "60/h"}, LimitSpec{Scope: "city", Quota: "5/day"}), limits(LimitSpec{Scope: "city", Rate: "1/m"}, LimitSpec{Scope: "city", Quota: "5/day", Zone: "Etc/UTC"}), []string{
			"api: changed limit city rate 60/h burst 1 to city rate 1/m burst 1", "api: changed limit city quota 5/day UTC to city quota 5/day Etc/UTC",
		}},
		{
			"the flags",
			said(NamespaceSpec{Shadow: true, Wait: "1s", Weights: map[string]int64{"us": 2, "eu": 3}}),
			said(NamespaceSpec{Count: true, Dedupe: "1h", Weights: map[string]int64{"us": 4, "af": 5}}),
			[]string{
				"api: changed shadow true to false", "api: changed count false to true", "api: changed dedupe 0s to 1h", "api: removed wait 1s",
				"api: added weight af 5", "api: removed weight eu 3", "api: changed weight us 2 to 4",
			},
		},
		{
			"namespaces",
			Spec{Namespaces: map[string]NamespaceSpec{"a": {}, "z": {Shadow: true, Limits: []LimitSpec{city}}}},
			Spec{Lease: "6s", Namespaces: map[string]NamespaceSpec{"a": {}, "b": {Wait: "0", Limits: []LimitSpec{city}}}},
			[]string{
				"changed lease 5s to 6s",
				"b: added namespace b", "b: added limit city rate 300/s burst 300", "b: added wait 0s",
				"z: removed namespace z", "z: removed limit city rate 300/s burst 300 (forgets what was spent)", "z: changed shadow true to false",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, c := range Diff(compile(t, test.before), compile(t, test.after)) {
				got = append(got, c.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// TestNoDifferenceIsTheSameHash draws small rules, of which many are equal.
func TestNoDifferenceIsTheSameHash(t *testing.T) {
	limit := rapid.SampledFrom([]LimitSpec{
		{Scope: "city", Rate: "1/s"},
		{Scope: "city", Rate: "2/s"},
		{Scope: "city", Rate: "60/m"},
		{Scope: "city", Quota: "1/day"},
		{Scope: "city", Quota: "1/day", Mode: "soft"},
		{Scope: "city", Concurrency: new(int64(1))},
		{Scope: "city", Concurrency: new(int64(1)), Hold: "1m"},
	})
	namespace := rapid.Custom(func(t *rapid.T) (n NamespaceSpec) {
		n.Limits = rapid.SliceOfNDistinct(limit, 0, 2, func(l LimitSpec) string {
			rules, _ := Compile(one(l))
			limit := rules.Rule("api").Limits[0]
			return fmt.Sprint(limit.Rate, limit.Burst, limit.ID, limit.Hold, limit.Soft)
		}).Draw(t, "limits")
		n.Shadow = rapid.Bool().Draw(t, "shadow")
		n.Wait = rapid.SampledFrom([]string{"", "0", "0s"}).Draw(t, "wait")
		n.Weights = rapid.MapOfN(rapid.SampledFrom([]string{"eu", "us"}), rapid.Int64Range(1, 2), 0, 1).Draw(t, "weights")
		return n
	})
	spec := rapid.Custom(func(t *rapid.T) Spec {
		return Spec{
			Lease:      rapid.SampledFrom([]string{"", "5s", "6s"}).Draw(t, "lease"),
			Namespaces: rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), namespace, 0, 2).Draw(t, "namespaces"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		before, err := Compile(spec.Draw(t, "before"))
		if err != nil {
			t.Fatal(err)
		}
		after, err := Compile(spec.Draw(t, "after"))
		if err != nil {
			t.Fatal(err)
		}
		after = Succeed(before, after)
		if changes := Diff(before, after); (len(changes) == 0) != (before.Hash == after.Hash) {
			t.Errorf("hashes %x and %x, and %d changes: %v", before.Hash, after.Hash, len(changes), changes)
		}
	})
}
