package world

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// TestANodeRunsOnce has a place killed and started again by several at once,
// as faults do that take longer than was planned.
func TestANodeRunsOnce(t *testing.T) {
	server, err := transport.StartServer(transport.ServerConfig{Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	rules, err := limiter.Compile(limiter.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := Start(t.Context(), Config{
		Places: []Spec{{Place: tiers.Root, Leaf: true}}, Data: t.TempDir(), Server: server,
		Rules: rules, Version: "0.0.1", Logger: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	n := w.Node(tiers.Root)
	var faulty sync.WaitGroup
	for range 4 {
		faulty.Go(func() {
			for range 5 {
				if err := n.Kill(); err != nil {
					t.Errorf("killing it: %v", err)
				}
				if err := n.Restart(); err != nil {
					t.Errorf("starting it again: %v", err)
				}
			}
		})
	}
	faulty.Wait()
	if err := n.Ready(); err != nil {
		t.Errorf("after all: %v", err)
	}
}
