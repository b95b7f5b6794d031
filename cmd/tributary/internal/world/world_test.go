package world

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// startRoot starts a world of a root that is a leaf, too.
func startRoot(t *testing.T, log zerolog.Logger) *World {
	t.Helper()
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
		Rules: rules, Version: "0.0.1", Logger: log,
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
	return w
}

// TestPlaceWithAClosedConnectionStartsAgain: the NATS library gave the
// connection up for good, and the place goes on with another one.
func TestPlaceWithAClosedConnectionStartsAgain(t *testing.T) {
	var log safeLog
	w := startRoot(t, zerolog.New(&log))
	n := w.Node(tiers.Root)
	first := n.Running()
	n.mu.Lock()
	n.conn.Close()
	n.mu.Unlock()
	for end := time.Now().Add(time.Minute); n.Running() == first || n.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not run again: %v", n.Ready())
		}
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), "the place runs again"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say that it runs again:\n%s", &log)
		}
	}
	if !strings.Contains(log.String(), transport.ErrDisconnected.Error()) {
		t.Errorf("the log does not say why it stopped:\n%s", &log)
	}
}

// safeLog is a log that many write to.
type safeLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestANodeRunsOnce has a place killed and started again by several at once,
// as faults do that take longer than was planned.
func TestANodeRunsOnce(t *testing.T) {
	w := startRoot(t, zerolog.Nop())
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
