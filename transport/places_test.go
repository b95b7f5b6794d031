package transport

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// TestPlacesAreListedAndForgotten: a place that left for good is forgotten, its counts stay, and it is refused.
func TestPlacesAreListedAndForgotten(t *testing.T) {
	w := newTree(t, testRules(t), world4...)
	ctx := t.Context()
	country := w.client("eu.de")
	must[AddReply](t)(w.client("eu.de.berlin").Add(ctx, "votes", "alice", 7))
	must[AddReply](t)(w.client("eu.de.munich").Add(ctx, "votes", "alice", 5))
	w.converges(12)

	listed := func() map[string]ChildPlace {
		all := map[string]ChildPlace{}
		for _, p := range must[PlacesReply](t)(country.Places(ctx)).Places {
			all[p.Place] = p
		}
		return all
	}
	if all := listed(); len(all) != 2 || all["eu.de.berlin"].SeenMS < 0 || all["eu.de.berlin"].Starts != 1 || all["eu.de.munich"].Forgotten {
		t.Fatalf("%+v", all)
	}
	if _, err := country.Forget(ctx, "eu.de.munich"); !errors.Is(err, ErrConflict) {
		t.Fatalf("a place that reports was forgotten: %v", err)
	}
	if _, err := country.Forget(ctx, "eu.de.hamburg"); !errors.Is(err, ErrUnknownPlace) {
		t.Fatalf("a place that never was: %v", err)
	}
	w.kill("eu.de.munich")
	eventually(t, "Munich is forgotten", func() bool {
		_, err := country.Forget(ctx, "eu.de.munich")
		return err == nil
	})
	if all := listed(); !all["eu.de.munich"].Forgotten {
		t.Errorf("%+v", all)
	}
	munich := w.start("eu.de.munich")
	select {
	case <-munich.Done():
	case <-time.After(patience):
		t.Fatal("the forgotten place goes on")
	}
	if err := munich.Err(); !errors.Is(err, tiers.ErrEnded) {
		t.Errorf("it ended with %v", err)
	}
	must[AddReply](t)(w.client("eu.de.berlin").Add(ctx, "votes", "alice", 1))
	w.converges(13)
}

// TestHealthyRootIsNotJoined: a root with children is taken out of their world only by force, whoever asks. Else an operator
// who mistypes one command cuts the world off from its root.
func TestHealthyRootIsNotJoined(t *testing.T) {
	w := newTree(t, testRules(t), world4...)
	ctx := t.Context()
	berlin, root := w.client("eu.de.berlin"), w.client(tiers.Root)
	must[AddReply](t)(berlin.Add(ctx, "votes", "alice", 7))
	w.converges(7)
	const wrong = "1f3a5c7e9b2d4f60"
	for place, relative := range map[tiers.Place]string{tiers.Root: "eu reported", "eu.de": "eu took its report", "eu.de.berlin": "eu.de took its report"} {
		_, err := w.client(place).Join(ctx, wrong, false)
		if refused, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrConflict) || !strings.Contains(refused.Message, relative) || !strings.Contains(refused.Message, "ago") {
			t.Errorf("%s: %v", place, err)
		}
	}
	must[AddReply](t)(berlin.Add(ctx, "votes", "alice", 1))
	w.converges(8)

	// A root that starts again knows by its disk who its children are, before they report.
	cut := w.places["eu"]
	cut.SetLink(false)
	w.stop(tiers.Root)
	w.start(tiers.Root)
	if _, err := root.Join(ctx, wrong, false); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "eu reported before this start") {
		t.Errorf("a root whose children are away: %v", err)
	}
	cut.SetLink(true)
	must[AddReply](t)(berlin.Add(ctx, "votes", "alice", 1))
	w.converges(9)
	running := w.places[tiers.Root]
	must[JoinReply](t)(root.Join(ctx, wrong, true))
	<-running.Done()
	if err := running.Err(); !errors.Is(err, tiers.ErrJoined) {
		t.Fatalf("forced, it ended with %v", err)
	}
}

// TestLostRootIsJoined: the places of the world that it was refuse a root on a new disk, until it is joined to them; what
// is left of a budget is an operator's to say.
func TestLostRootIsJoined(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {}, "api": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(100))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t, rules, world4...)
	ctx := t.Context()
	berlin := w.client("eu.de.berlin")
	allowed := func(hits int64) bool {
		return must[CheckReply](t)(berlin.Check(ctx, "api", "user", WithHits(hits), WithWait(2*time.Second))).Allowed
	}
	must[AddReply](t)(berlin.Add(ctx, "votes", "alice", 7))
	w.converges(7)
	if !allowed(60) {
		t.Fatal("60 of 100 are denied")
	}
	world := fmt.Sprintf("%016x", w.places["eu.de"].runner.World())
	w.stop(tiers.Root)
	if err := os.RemoveAll(filepath.Join(w.dir, string(tiers.Root))); err != nil {
		t.Fatal(err)
	}
	w.start(tiers.Root)
	root := w.client(tiers.Root)
	if _, err := root.Join(ctx, "new", false); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("joined to no world: %v", err)
	}
	running := w.places[tiers.Root]
	if r := must[JoinReply](t)(root.Join(ctx, world, false)); r.World != world {
		t.Fatalf("%+v", r)
	}
	<-running.Done()
	if err := running.Err(); !errors.Is(err, tiers.ErrJoined) {
		t.Fatalf("the root ended with %v", err)
	}
	w.stop(tiers.Root)
	w.start(tiers.Root)
	must[AddReply](t)(berlin.Add(ctx, "votes", "alice", 1))
	w.converges(8)
	if allowed(1) {
		t.Fatal("a budget is lent of which nobody knows what was spent")
	}
	eventually(t, "the figure is taken", func() bool {
		_, err := root.Left(ctx, "api", "user", 40)
		return err == nil
	})
	eventually(t, "40 are left", func() bool { return allowed(40) })
	if allowed(1) {
		t.Error("more than 40 were left")
	}
	if _, err := root.Left(ctx, "api", "user", 40); !errors.Is(err, ErrNotOwner) {
		t.Errorf("a second figure: %v", err)
	}
}
