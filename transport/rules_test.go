package transport

import (
	"errors"
	"testing"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// TestRulesFlow: rules are applied at the root, and a moment later its cities follow them; what was spent stays spent.
func TestRulesFlow(t *testing.T) {
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "city", Rate: "1/h", Burst: new(int64(10))}), world4...)
	berlin := w.client("eu.de.berlin")
	if reply, err := berlin.Check(t.Context(), "api", "user", WithHits(4)); err != nil || !reply.Allowed || reply.Remaining != 6 {
		t.Fatalf("%+v %v", reply, err)
	}
	before, err := berlin.Rules(t.Context())
	if err != nil || len(before.Rules.Namespaces["api"].Limits) != 1 {
		t.Fatalf("%+v %v", before, err)
	}
	if _, err := berlin.ApplyRules(t.Context(), before.Rules); !errors.Is(err, ErrNotServed) {
		t.Fatalf("a city applied rules: %v", err)
	}
	raised := testRules(t, limiter.LimitSpec{Scope: "city", Rate: "2/h", Burst: new(int64(30))})
	applied, err := w.client(tiers.Root).ApplyRules(t.Context(), raised.Spec())
	if err != nil || applied.Version < 2 {
		t.Fatalf("%+v %v", applied, err)
	}
	eventually(t, "the city follows them", func() bool {
		now, err := berlin.Rules(t.Context())
		return err == nil && now.Version == applied.Version
	})
	if reply, err := berlin.Check(t.Context(), "api", "user", WithHits(0)); err != nil || reply.Limit != 2 || reply.Remaining != 26 {
		t.Fatalf("%+v %v", reply, err)
	}
	if _, err := w.client(tiers.Root).ApplyRules(t.Context(), limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Wait: "soon"}}}); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("rules that are wrong: %v", err)
	}
}
