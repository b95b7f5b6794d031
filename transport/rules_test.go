package transport

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// TestRulesFlow: rules are applied at the root, and a moment later its cities follow them; what was spent stays spent, and
// what is raised comes empty.
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
	if reply, err := berlin.Check(t.Context(), "api", "user", WithHits(0)); err != nil || reply.Limit != 2 || reply.Remaining != 6 {
		t.Fatalf("%+v %v", reply, err)
	}
	if _, err := w.client(tiers.Root).ApplyRules(t.Context(), limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {Wait: "soon"}}}); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("rules that are wrong: %v", err)
	}
}

// TestRulesOfAnotherVersionAreNotOverwritten: who applies rules says which they follow; what somebody else has applied
// meanwhile stays.
func TestRulesOfAnotherVersionAreNotOverwritten(t *testing.T) {
	w := newTree(t, testRules(t), tiers.Root)
	root := w.client(tiers.Root)
	before, err := root.Rules(t.Context())
	if err != nil || before.Version != 1 {
		t.Fatalf("%+v %v", before, err)
	}
	mine := testRules(t, limiter.LimitSpec{Scope: "city", Rate: "1/h"}).Spec()
	theirs := testRules(t, limiter.LimitSpec{Scope: "city", Rate: "2/h"}).Spec()
	if applied, err := root.ApplyRulesIf(t.Context(), before.Version, theirs); err != nil || applied.Version != 2 {
		t.Fatalf("%+v %v", applied, err)
	}
	_, err = root.ApplyRulesIf(t.Context(), before.Version, mine)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != 409 || !errors.Is(err, ErrConflict) || !strings.Contains(e.Message, "version 2, not 1") {
		t.Fatalf("got %v", err)
	}
	if now, err := root.Rules(t.Context()); err != nil || now.Version != 2 || now.Rules.Namespaces["api"].Limits[0].Rate != "2/h" {
		t.Fatalf("%+v %v", now, err)
	}
	if reply := ask(t, root.nc, "tributary.admin.rules.global", `{"apply":{"namespaces":{"votes":{}}},"if_version":1}`); reply.Header.Get("Nats-Service-Error-Code") != "409" {
		t.Errorf("%s", reply.Data)
	}
}

// manyRules are rules of so many namespaces of two limits each.
func manyRules(t testing.TB, n int) limiter.Spec {
	t.Helper()
	s := limiter.Spec{Lease: "6s", Namespaces: map[string]limiter.NamespaceSpec{"votes": {}}}
	for i := range n {
		s.Namespaces[fmt.Sprintf("namespace-%05d", i)] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{
			{Scope: "global", Rate: "1000/s", Burst: new(int64(2000 + i))}, {Scope: "city", Rate: "300/s"},
		}}
	}
	return s
}

// TestRulesLargerThanAMessage: they are applied in pieces, read in pages, kept on the disk in pieces, and nothing of longer
// ones is left of them there.
func TestRulesLargerThanAMessage(t *testing.T) {
	w := newTree(t, testRules(t), tiers.Root)
	many := manyRules(t, limiter.MaxNamespaces-1)
	applied, err := w.client(tiers.Root).ApplyRulesIf(t.Context(), 1, many)
	if err != nil || applied.Version != 2 || len(applied.Rules.Namespaces) != limiter.MaxNamespaces {
		t.Fatalf("%d namespaces, version %d, %v", len(applied.Rules.Namespaces), applied.Version, err)
	}
	same := func(want limiter.Spec) {
		t.Helper()
		got, err := w.client(tiers.Root).Rules(t.Context())
		if err != nil || got.More {
			t.Fatalf("%d namespaces, %v", len(got.Rules.Namespaces), err)
		}
		if compiled(t, got.Rules).Hash != compiled(t, want).Hash {
			t.Errorf("%d namespaces, want %d", len(got.Rules.Namespaces), len(want.Namespaces))
		}
	}
	same(many)
	w.stop(tiers.Root)
	w.start(tiers.Root)
	same(many)

	fewer := manyRules(t, 10)
	if _, err := w.client(tiers.Root).ApplyRules(t.Context(), fewer); err != nil {
		t.Fatal(err)
	}
	w.stop(tiers.Root)
	w.start(tiers.Root)
	same(fewer)
	var left []string
	read := make(chan error, 1)
	w.places[tiers.Root].store.Update(func(r tiers.Reader) ([]tiers.Write, error) {
		for e, err := range r.(txReader).tx.List(objects.ListOptions{Prefix: "rules"}) {
			if err != nil {
				return nil, err
			}
			left = append(left, e.Key)
		}
		return nil, nil
	}, func(err error) { read <- err })
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(left, []string{"rules"}) {
		t.Errorf("the store has %q", left)
	}

	reply := ask(t, w.client(tiers.Root).nc, "tributary.admin.rules.global", `{"pages":true}`)
	if !strings.Contains(string(reply.Data), `"namespace-00009"`) || strings.Contains(string(reply.Data), `"more"`) {
		t.Errorf("a page that holds all: %.300s", reply.Data)
	}
}

func compiled(t testing.TB, s limiter.Spec) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestUploadsAreBounded: pieces that come out of turn, too many of them, or of too many rules, are refused, and what was
// begun is forgotten.
func TestUploadsAreBounded(t *testing.T) {
	piece := func(id string, n int, more bool) RulesRequest {
		spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{fmt.Sprintf("n%d", n): {}}}
		return RulesRequest{Upload: id, Piece: n, More: more, Apply: &spec}
	}
	is := func(err, of *Error) bool { return err != nil && errors.Is(err, of) }
	const room = 1 << 20
	var u uploads
	if whole, err := u.take(piece("a", 0, true), room); whole != nil || err != nil {
		t.Fatalf("%v %v", whole, err)
	}
	for _, n := range []int{0, 2} {
		if whole, err := u.take(piece("a", n, false), room); whole != nil || !is(err, ErrConflict) {
			t.Errorf("piece %d out of turn: %v %v", n, whole, err)
		}
	}
	if whole, err := u.take(piece("a", 1, false), room); err != nil || len(whole.Namespaces) != 2 {
		t.Errorf("%v %v", whole, err)
	}
	if whole, err := u.take(piece("a", 1, false), room); whole != nil || !is(err, ErrConflict) {
		t.Errorf("a piece of rules that are whole: %v %v", whole, err)
	}
	for i := range maxUploads + 1 {
		if _, err := u.take(piece(fmt.Sprint(i), 0, true), room); (i == maxUploads) != is(err, ErrOverloaded) {
			t.Errorf("upload %d: %v", i, err)
		}
	}
	ended := false
	for n := 1; n < 100 && !ended; n++ {
		_, err := u.take(piece("0", n, true), room)
		ended = is(err, ErrOutOfRange)
	}
	if !ended {
		t.Error("a hundred messages hold no rules")
	}
	if len(u.byID) != maxUploads-1 {
		t.Errorf("%d uploads are left", len(u.byID))
	}
	for id, up := range u.byID {
		up.gone.Stop()
		u.forget(id, up)
	}
	if len(u.byID) != 0 {
		t.Errorf("%d uploads are never forgotten", len(u.byID))
	}
}

// TestTenThousandNamespacesArrive: as many as there may be are applied at the root, and a city follows them, three tiers
// below and over a server that takes messages of the default size; and then another of one of them.
func TestTenThousandNamespacesArrive(t *testing.T) {
	w := newTree(t, testRules(t), world4[:4]...)
	many := manyRules(t, limiter.MaxNamespaces-1)
	root, berlin := w.client(tiers.Root), w.places["eu.de.berlin"]
	for _, rate := range []string{"300/s", "400/s"} {
		many.Namespaces["namespace-00042"].Limits[1].Rate = rate
		applied, err := root.ApplyRules(t.Context(), many)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the city follows them", func() bool {
			_, version := berlin.Runner().Rules()
			return version == applied.Version
		})
		if rules, _ := berlin.Runner().Rules(); rules.Hash != compiled(t, many).Hash {
			t.Fatalf("the city follows %d other namespaces", len(rules.Namespaces()))
		}
	}
	limit := berlin.Runner().Current().Rule("namespace-00042").Limits[1]
	if limit.Burst != 400 {
		t.Errorf("it follows %s", &limit)
	}
}
