package transport

import (
	"fmt"
	"testing"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
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
