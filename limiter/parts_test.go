package limiter

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// manyNamespaces are so many namespaces of two limits each.
func manyNamespaces(n int) Spec {
	s := Spec{Lease: "6s", Namespaces: map[string]NamespaceSpec{}}
	for i := range n {
		s.Namespaces[fmt.Sprintf("namespace-%05d", i)] = NamespaceSpec{Limits: []LimitSpec{
			{Scope: "global", Rate: "1000/s", Burst: new(int64(2000 + i))}, {Scope: "city", Rate: "300/s"},
		}}
	}
	return s
}

// TestRulesAreTheirParts: the parts hold every namespace once, and together
// with the top they are the rules' JSON.
func TestRulesAreTheirParts(t *testing.T) {
	for _, s := range []Spec{{}, {Lease: "7s"}, {FoldAfter: "48h", Namespaces: map[string]NamespaceSpec{"a": {}}}, manyNamespaces(1000)} {
		rules := compile(t, s)
		var again Spec
		if err := json.Unmarshal(rules.JSON(), &again); err != nil {
			t.Fatal(err)
		}
		if back := compile(t, again); back.Hash != rules.Hash || len(back.Namespaces()) != len(s.Namespaces) {
			t.Errorf("%d namespaces are %d after a round through JSON", len(s.Namespaces), len(back.Namespaces()))
		}
		if size := len(rules.JSON()); rules.Size() != size {
			t.Errorf("%d bytes, and the size is %d", size, rules.Size())
		}
		found := 0
		for i := range Parts {
			text, hash := rules.Part(i)
			if (text == nil) != (hash == 0) {
				t.Errorf("part %d has %d bytes and hash %x", i, len(text), hash)
			}
			var namespaces map[string]NamespaceSpec
			if text != nil {
				if err := json.Unmarshal(text, &namespaces); err != nil {
					t.Fatal(err)
				}
			}
			for name := range namespaces {
				if found++; PartOf(name) != i {
					t.Errorf("%s is in part %d, not %d", name, i, PartOf(name))
				}
			}
		}
		if found != len(s.Namespaces) {
			t.Errorf("the parts have %d of %d namespaces", found, len(s.Namespaces))
		}
	}
}

// TestRulesWithOtherParts: to take some parts anew is the same as to compile
// all, and says what is wrong in them.
func TestRulesWithOtherParts(t *testing.T) {
	s := manyNamespaces(300)
	before := compile(t, s)
	name := "namespace-00007"
	after := Spec{FoldAfter: "48h", Namespaces: maps.Clone(s.Namespaces)}
	after.Namespaces[name] = NamespaceSpec{Limits: []LimitSpec{{Scope: "region", Budget: new(int64(5))}}}
	want := compile(t, after)
	changed := map[int]map[string]NamespaceSpec{PartOf(name): {}}
	for n, spec := range after.Namespaces {
		if PartOf(n) == PartOf(name) {
			changed[PartOf(name)][n] = spec
		}
	}
	got, err := before.With(Spec{FoldAfter: "48h"}, changed)
	if err != nil || got.Hash != want.Hash || got.Size() != want.Size() || len(Diff(got, want)) > 0 {
		t.Fatalf("%v: %v", err, Diff(got, want))
	}
	for i := range Parts {
		if text, hash := got.Part(i); string(text) != string(want.parts[i].text) || hash != want.parts[i].hash {
			t.Errorf("part %d is %s, want %s", i, text, want.parts[i].text)
		}
	}
	if before.Hash == got.Hash || before.Rule(name).Limits[0].Kind != Rate {
		t.Error("the rules before changed, too")
	}

	without, err := got.With(Spec{}, map[int]map[string]NamespaceSpec{PartOf(name): nil})
	if err != nil || without.Rule(name) != nil || len(without.Namespaces()) != 300-len(changed[PartOf(name)]) {
		t.Errorf("without the part: %v", err)
	}
	for _, wrong := range []map[int]map[string]NamespaceSpec{
		{PartOf(name): {name: {Wait: "soon"}}},
		{(PartOf(name) + 1) % Parts: {name: {}}},
	} {
		if rules, err := before.With(Spec{}, wrong); err == nil {
			t.Errorf("%v is taken: %v", wrong, rules.Namespaces())
		}
	}
}

// TestOneBoundOfSize: the longest names and limits that ten thousand
// namespaces may have fit, and what does not says so.
func TestOneBoundOfSize(t *testing.T) {
	s := Spec{Namespaces: map[string]NamespaceSpec{}}
	quota := fmt.Sprintf("%d/minute", int64(MaxTokens))
	for i := range MaxNamespaces {
		s.Namespaces[fmt.Sprintf("%064d", i)] = NamespaceSpec{Dedupe: "24h", Wait: "250ms", Limits: []LimitSpec{
			{Scope: "country", Quota: quota, Zone: "America/Argentina/Buenos_Aires", Mode: "soft"},
			{Scope: "region", Quota: quota, Zone: "America/Argentina/Buenos_Aires", Mode: "soft"},
		}}
	}
	if rules := compile(t, s); rules.Size() > MaxSize {
		t.Errorf("%d bytes", rules.Size())
	}

	weights := map[string]int64{}
	for i := range MaxWeights {
		weights[fmt.Sprintf("eu.de.%s%03d", strings.Repeat("x", 20), i)] = 2
	}
	s = Spec{Namespaces: map[string]NamespaceSpec{}}
	for i := range 200 {
		s.Namespaces[fmt.Sprintf("n%d", i)] = NamespaceSpec{Weights: weights}
	}
	_, err := Compile(s)
	if e, ok := errors.AsType[*FieldError](err); !ok || !strings.Contains(e.Problem, "at most 4194304 are allowed") {
		t.Errorf("got %.300v", err)
	}
}
