package tiers

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// manyRules are rules of so many namespaces, which say what seed says, for the
// first so many of them.
func manyRules(t fataler, n, seeded int, seed int64) limiter.Spec {
	t.Helper()
	s := limiter.Spec{Lease: fmt.Sprintf("%ds", 5+seed%3), Namespaces: map[string]limiter.NamespaceSpec{}}
	for i := range n {
		rate := int64(10)
		if i < seeded {
			rate += seed
		}
		s.Namespaces[fmt.Sprintf("namespace-%03d", i)] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{
			{Scope: "global", Rate: fmt.Sprintf("%d/s", rate)}, {Scope: "city", Concurrency: new(int64(i + 1))},
		}}
	}
	return s
}

func compiled(t fataler, s limiter.Spec) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// collecting is a root and a place below it whose messages have little room.
func collecting(t *testing.T, room int) *backlog {
	b, _ := fitting(t, room, room)
	return b
}

// until has the two talk until the city follows the root's rules, and returns
// how many bytes of rules came in how many answers. Each answer fits, and what
// the city follows is what the root followed at some time.
func (b *backlog) until(room int, followed map[uint64]bool, lose func() bool) (total, answers int) {
	b.t.Helper()
	for range 2000 {
		followed[b.parent.rules.Hash] = true
		if b.city.rules.Hash == b.parent.rules.Hash && b.city.version == b.parent.version {
			return total, answers
		}
		b.exchange(func(r *Report, a *Ack) bool {
			if r.Size() > room || a.Size() > room {
				b.t.Fatalf("a report of %d bytes, and an answer of %d", r.Size(), a.Size())
			}
			if a.Parts != nil {
				answers++
				for _, p := range a.Parts.Pieces {
					total += len(p.Data)
				}
			}
			return !lose()
		})
		if b.city.version > 0 && !followed[b.city.rules.Hash] {
			b.t.Fatalf("the city follows rules that never were the root's")
		}
	}
	b.t.Fatalf("the city follows version %d, its parent %d", b.city.version, b.parent.version)
	return 0, 0
}

func never() bool { return false }

// TestRulesComeInPieces: rules that no answer has room for come in several, and
// afterwards only those parts that changed.
func TestRulesComeInPieces(t *testing.T) {
	const room = 4 << 10
	b := collecting(t, room)
	followed := map[uint64]bool{}
	apply := func(s limiter.Spec) int {
		rules := compiled(t, s)
		if _, err := b.parent.Apply(b.now, rules); err != nil {
			t.Fatal(err)
		}
		return rules.Size()
	}
	whole := apply(manyRules(t, 500, 0, 0))
	if total, answers := b.until(room, followed, never); total < whole*9/10 || total > whole*11/10 || answers < whole/room {
		t.Errorf("%d bytes came in %d answers, of %d", total, answers, whole)
	}
	apply(manyRules(t, 500, 1, 3)) // and another lease
	if total, answers := b.until(room, followed, never); total > whole/limiter.Parts*3 || answers > 5 {
		t.Errorf("one namespace changed, and %d bytes came in %d answers, of %d", total, answers, whole)
	}
	apply(manyRules(t, 400, 1, 3)) // some are gone
	b.until(room, followed, never)
	apply(manyRules(t, 400, 1, 4)) // the top, and one
	b.until(room, followed, never)
	if n := len(b.city.rules.Namespaces()); n != 400 || b.city.rules.Lease != 6*time.Second {
		t.Errorf("%d namespaces, a lease of %v", n, b.city.rules.Lease)
	}
	if b.city.upper.collected != nil {
		t.Error("what was collected is still there")
	}
}

// TestPiecesOfRulesSurviveFaults: answers are lost, either side starts again,
// and the rules change meanwhile. The city follows only what the root did, and
// in the end what it does.
func TestPiecesOfRulesSurviveFaults(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		room := 3<<10 + rng.IntN(3<<10)
		b := collecting(t, room)
		followed := map[uint64]bool{b.parent.rules.Hash: true}
		for change := range 6 {
			if _, err := b.parent.Apply(b.now, compiled(t, manyRules(t, 50+rng.IntN(100), rng.IntN(100), int64(change)))); err != nil {
				t.Fatal(err)
			}
			b.parentDisk.apply(b.parent.Output(b.now).Writes)
			followed[b.parent.rules.Hash] = true
			for range rng.IntN(20) {
				b.exchange(func(_ *Report, a *Ack) bool { return rng.IntN(4) > 0 })
				if !followed[b.city.rules.Hash] {
					t.Fatalf("seed %d: the city follows rules that never were the root's", seed)
				}
			}
			switch rng.IntN(4) {
			case 0:
				b.session++
				b.parent = start(t, b.parentDisk, Root, false, b.session)
				b.parent.SetMaxMessage(room)
			case 1:
				b.report = nil
				b.session++
				b.city = start(t, b.cityDisk, "eu", true, b.session)
				b.city.SetMaxMessage(room)
			}
		}
		b.until(room, followed, func() bool { return rng.IntN(4) == 0 })
	}
}

// TestHoldsComeWithPieces: the holds that rules shortened are there when the
// rules are, in a place whose disk did not know them.
func TestHoldsComeWithPieces(t *testing.T) {
	const room = 4 << 10
	b := collecting(t, room)
	held := func(hold string) limiter.Spec {
		s := manyRules(t, 300, 0, 0)
		for name, n := range s.Namespaces {
			n.Limits[1].Hold = hold
			s.Namespaces[name] = n
		}
		return s
	}
	for _, hold := range []string{"20s", "2s"} {
		if _, err := b.parent.Apply(b.now, compiled(t, held(hold))); err != nil {
			t.Fatal(err)
		}
	}
	b.until(room, map[uint64]bool{b.city.rules.Hash: true}, never)
	if len(b.city.holds) != 300 {
		t.Errorf("the city knows %d holds", len(b.city.holds))
	}
	kept, _ := b.cityDisk[rulesKey].(*RulesRecord)
	if kept == nil || len(kept.Holds) != 300 || kept.Holds[0].Hold != 20*time.Second {
		t.Error("its disk does not")
	}

	// Rules that say the same bring the holds that others shortened meanwhile, before their version is followed.
	b = collecting(t, room)
	apply := func(hold string) {
		if _, err := b.parent.Apply(b.now, compiled(t, held(hold))); err != nil {
			t.Fatal(err)
		}
	}
	apply("20s")
	b.until(room, map[uint64]bool{b.city.rules.Hash: true}, never)
	apply("2s")
	apply("20s")
	if total, _ := b.until(room, map[uint64]bool{}, never); total == 0 || len(b.city.holds) != 300 {
		t.Errorf("%d bytes came, and the city knows %d holds", total, len(b.city.holds))
	}
}

// TestPiecesThatAreWrong: what does not belong together is not put together,
// and what cannot be read is said once, and not asked for again.
func TestPiecesThatAreWrong(t *testing.T) {
	const room = 4 << 10
	for name, spoil := range map[string]func(*RulesParts){
		"another byte": func(p *RulesParts) {
			p.Pieces[0].Data = bytes.ReplaceAll(p.Pieces[0].Data, []byte("10/s"), []byte("99/s"))
		},
		"no such part":      func(p *RulesParts) { p.Pieces[0].Part = limiter.Parts },
		"a negative part":   func(p *RulesParts) { p.Pieces[0].Part = -1 },
		"a huge part":       func(p *RulesParts) { p.Pieces[0].Size = 1 << 40 },
		"out of range":      func(p *RulesParts) { p.Pieces[0].Offset = p.Pieces[0].Size },
		"a gap":             func(p *RulesParts) { p.Pieces[0].Offset++; p.Pieces[0].Size++ },
		"another's":         func(p *RulesParts) { p.Pieces[0].Part ^= 1 },
		"another ID":        func(p *RulesParts) { p.Pieces[0].ID++ },
		"no pieces":         func(p *RulesParts) { p.Pieces = nil },
		"another lease":     func(p *RulesParts) { p.Lease = "9s" },
		"the last is twice": func(p *RulesParts) { p.Pieces = append(p.Pieces, p.Pieces[len(p.Pieces)-1]) },
	} {
		t.Run(name, func(t *testing.T) {
			b := collecting(t, room)
			if _, err := b.parent.Apply(b.now, compiled(t, manyRules(t, 300, 0, 0))); err != nil {
				t.Fatal(err)
			}
			followed := map[uint64]bool{b.city.rules.Hash: true, b.parent.rules.Hash: true}
			for range 40 {
				b.exchange(func(_ *Report, a *Ack) bool {
					if a.Parts != nil && len(a.Parts.Pieces) > 0 {
						spoil(a.Parts)
					}
					return true
				})
				if !followed[b.city.rules.Hash] {
					t.Fatal("the city follows rules that never were the root's")
				}
			}
			if _, err := b.parent.Apply(b.now, compiled(t, manyRules(t, 300, 10, 3))); err != nil {
				t.Fatal(err)
			}
			b.until(room, followed, never)
		})
	}
}

// TestRulesThatCannotBeReadAreAskedForOnce: their parent may be of a newer
// program, and is not asked for them with each report.
func TestRulesThatCannotBeReadAreAskedForOnce(t *testing.T) {
	const room = 4 << 10
	b := collecting(t, room)
	if _, err := b.parent.Apply(b.now, compiled(t, manyRules(t, 300, 0, 0))); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for range 100 {
		b.exchange(func(r *Report, a *Ack) bool {
			if r.Parts != nil {
				asked++
			}
			if a.Parts != nil && len(a.Parts.Pieces) > 0 {
				a.Parts.Pieces[0].Part = limiter.Parts
			}
			return true
		})
	}
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
}

// TestCollectionIsBounded: parts of many versions do not pile up.
func TestCollectionIsBounded(t *testing.T) {
	c := newCollection(someRules(t))
	text := []byte(`{"votes":{}}` + strings.Repeat(" ", maxPartSize/4))
	for i := range 10 {
		if err := c.take(RulesPiece{Part: i, ID: hashOf(text), Size: len(text), Data: text}); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, size := range c.sizes {
			kept += size
		}
		if kept > maxPartSize {
			t.Fatalf("after %d parts %d bytes are kept", i+1, kept)
		}
	}
	if len(c.parts) == 0 || len(c.parts) > 3 {
		t.Errorf("%d parts are kept", len(c.parts))
	}
}

// TestHoldsAreBounded: rules that would have the root remember more of them are
// refused, and change nothing.
func TestHoldsAreBounded(t *testing.T) {
	m := start(t, memory{}, Root, false, 1)
	for i := range maxHolds - 1 {
		m.holds[limitOf{"other", uint64(i)}] = longHold{time.Second, limiter.Never}
	}
	held := func(namespaces int) *limiter.Rules {
		s := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
		for i := range namespaces {
			s.Namespaces[fmt.Sprintf("n%d", i)] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{{Scope: "city", Concurrency: new(int64(1))}}}
		}
		return compiled(t, s)
	}
	for _, step := range []struct {
		rules *limiter.Rules
		want  error
	}{{held(2), nil}, {held(0), ErrManyHolds}, {held(1), nil}} {
		before := m.rules
		if _, err := m.Apply(1, step.rules); !errors.Is(err, step.want) || (m.rules == before) != (err != nil) {
			t.Errorf("%d namespaces are applied with %v, want %v", len(step.rules.Namespaces()), err, step.want)
		}
	}
}
