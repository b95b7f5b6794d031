package tiers

import (
	"testing"

	"github.com/tributary-io/tributary/limiter"
)

// counted compiles rules of namespaces that are counted.
func counted(t fataler, names ...string) *limiter.Rules {
	t.Helper()
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	for _, name := range names {
		spec.Namespaces[name] = limiter.NamespaceSpec{}
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestRulesOfTheDiskHold: whatever a root is started with, a world keeps its
// rules; those of the start are for a new one.
func TestRulesOfTheDiskHold(t *testing.T) {
	disk := memory{}
	start := func(session uint64, rules *limiter.Rules) *Machine {
		m, err := Start(0, Config{Place: Root, Partitions: 1, Rules: rules, Session: session, NewWorld: 7, MaxAwake: 1}, disk)
		if err != nil {
			t.Fatal(err)
		}
		disk.apply(m.Writes())
		return m
	}
	first, second, other := counted(t, "first"), counted(t, "first", "second"), counted(t, "other")
	m := start(1, first)
	if rules, version := m.Rules(); rules.Hash != first.Hash || version != 1 {
		t.Fatalf("a new world follows version %d of %v", version, rules.Namespaces())
	}
	for i, given := range []*limiter.Rules{other, first} {
		m = start(uint64(2+i), given)
		if rules, version := m.Rules(); rules.Hash != first.Hash || version != 1 {
			t.Fatalf("started with %v, the root follows version %d of %v", given.Namespaces(), version, rules.Namespaces())
		}
	}
	if version, err := m.Apply(0, second); err != nil || version != 2 {
		t.Fatalf("version %d, %v", version, err)
	}
	disk.apply(m.Output(0).Writes)
	for i, given := range []*limiter.Rules{first, other, second} {
		if rules, version := start(uint64(4+i), given).Rules(); rules.Hash != second.Hash || version != 2 {
			t.Fatalf("started with %v, the root follows version %d of %v", given.Namespaces(), version, rules.Namespaces())
		}
	}
}
