package transport

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// TestBacklogPassesASmallMaxPayload: 400 long keys were counted while their
// city was cut off, and the server takes 64 KiB. All reach the root, and limits
// are lent beside them.
func TestBacklogPassesASmallMaxPayload(t *testing.T) {
	server, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", MaxPayload: 64 << 10, Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "1000/s"}))
	w.server.Shutdown()
	w.server = server
	for _, p := range world4 {
		w.start(p)
	}
	const keys = 400
	berlin, root := w.client("eu.de.berlin"), w.client(tiers.Root)
	w.places["eu.de.berlin"].SetLink(false)
	key := func(i int) string { return fmt.Sprintf("%0*d", MaxKey, i) }
	for i := range keys {
		if _, err := berlin.Add(t.Context(), "votes", key(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	w.places["eu.de.berlin"].SetLink(true)
	eventually(t, "the root has all", func() bool {
		after, n := "", 0
		for {
			page, err := root.List(t.Context(), ListRequest{Namespace: "votes", After: after, Limit: MaxList})
			if err != nil {
				return false
			}
			if n += len(page.Keys); !page.More {
				return n == keys
			}
			after = page.Keys[len(page.Keys)-1].Key
		}
	})
	eventually(t, "the limit is lent", func() bool {
		reply, err := berlin.Check(t.Context(), "api", key(0))
		return err == nil && reply.Allowed
	})
}

// TestPlacesAreListedHoweverMany: more than an answer holds.
func TestPlacesAreListedHoweverMany(t *testing.T) {
	s := newConfigured(t, fmt.Sprintf("max_payload: %d\n%s", tiers.LeastMessage, users(nil)))
	w := newTree(t, testRules(t))
	w.dial = s.dial
	w.start(tiers.Root)
	nc, err := s.dial("client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	const children = 400
	for i := range children {
		p := tiers.Place(fmt.Sprintf("%0*d", tiers.MaxToken, i))
		data, err := wire.MarshalReport(&tiers.Report{Child: p, Session: 1, Sequence: 1})
		if err == nil {
			err = nc.Publish("tributary.up.0."+string(p), data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root := w.client(tiers.Root)
	var first PlacesReply
	eventually(t, "all are listed", func() bool {
		all, err := root.Places(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all.Places) == children && !all.More
	})
	reply, err := nc.Request("tributary.admin.places.global", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(reply.Data, &first); err != nil || !first.More || len(first.Places) == children {
		t.Errorf("one answer has %d places, more: %v, %v: %.200s", len(first.Places), first.More, err, reply.Data)
	}
}

// TestExplanationIsCutToWhatFits: the lines of many children are more than an answer holds.
func TestExplanationIsCutToWhatFits(t *testing.T) {
	r := ExplainReply{Limits: []LimitExplanation{{Children: 100, Lines: make([]LentLine, 100)}, {Lines: make([]LentLine, 3)}}}
	for _, want := range []int{50, 25, 12, 6, 3, 1, 0} {
		short, ok := r.shorter()
		if !ok || len(short.Limits[0].Lines) != want || short.Limits[0].Children != 100 || len(short.Limits[1].Lines) != min(3, want) {
			t.Fatalf("%d and %d lines, %v, want %d", len(short.Limits[0].Lines), len(short.Limits[1].Lines), ok, want)
		}
		r = short
	}
	if _, ok := r.shorter(); ok {
		t.Error("one without lines can be shorter")
	}
}
