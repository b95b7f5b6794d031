package transport

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// A tree is a world of places in this process, over one real NATS server
// and on real stores.
type tree struct {
	t        testing.TB
	server   *Server
	dial     func(user string, opts ...nats.Option) (*nats.Conn, error) // nil: to server
	rules    *limiter.Rules
	registry *prometheus.Registry
	metrics  *Metrics
	store    objects.Options
	logs     *logs // nil: not gathered
	dir      string
	places   map[tiers.Place]*Place
	askers   map[tiers.Place]*Client // of total
}

func testRules(t testing.TB, limits ...limiter.LimitSpec) *limiter.Rules {
	t.Helper()
	r, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"votes": {}, "api": {Limits: limits}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newTree starts places, parents first.
func newTree(t testing.TB, rules *limiter.Rules, places ...tiers.Place) *tree {
	t.Helper()
	server, err := StartServer(ServerConfig{Listen: "127.0.0.1:0", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry, "0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w := &tree{t: t, server: server, rules: rules, registry: registry, metrics: metrics, dir: t.TempDir(), places: map[tiers.Place]*Place{}, askers: map[tiers.Place]*Client{}}
	t.Cleanup(w.close)
	for _, p := range places {
		w.start(p)
	}
	return w
}

func (w *tree) start(p tiers.Place) *Place {
	w.t.Helper()
	nc, err := w.connect(string(p), ConnOptions(string(p), "", w.log())...)
	if err != nil {
		w.t.Fatal(err)
	}
	place, err := StartPlace(PlaceConfig{
		Place: p, Leaf: p.Depth() >= 3, Dir: filepath.Join(w.dir, string(p)), Conn: nc, Rules: w.rules,
		Version: "0.0.1", Metrics: w.metrics, Store: w.store, Logger: w.log(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.places[p] = place
	return place
}

// connect connects a place, or "client".
func (w *tree) connect(user string, opts ...nats.Option) (*nats.Conn, error) {
	if w.dial != nil {
		return w.dial(user, opts...)
	}
	return w.server.Connect(opts...)
}

// log is what a place logs to.
func (w *tree) log() zerolog.Logger {
	switch {
	case w.logs != nil:
		return zerolog.New(w.logs).Level(zerolog.InfoLevel)
	case testing.Verbose():
		return zerolog.New(zerolog.NewTestWriter(w.t)).Level(zerolog.InfoLevel)
	}
	return zerolog.Nop()
}

func (w *tree) stop(p tiers.Place) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	place := w.places[p]
	delete(w.places, p)
	if err := place.Stop(ctx); err != nil && !errors.Is(err, ErrUnreported) { // many a test leaves a link cut
		w.t.Errorf("stop %s: %v", p, err)
	}
	place.cfg.Conn.Close()
}

// close stops all places, leaves first.
func (w *tree) close() {
	for depth := 16; depth >= 0; depth-- {
		for p := range w.places {
			if p.Depth() == depth {
				w.stop(p)
			}
		}
	}
	w.server.Shutdown()
}

func (w *tree) client(at tiers.Place) *Client {
	w.t.Helper()
	nc, err := w.connect("client")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	opts := []Option{WithTimeout(patience / 2)}
	if at != "" {
		opts = append(opts, WithPlace(string(at)))
	}
	c, err := NewClient(nc, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

var world4 = []tiers.Place{"global", "eu", "eu.de", "eu.de.berlin", "eu.de.munich"}

func TestVotesOfTwoCitiesReachTheRoot(t *testing.T) {
	w := newTree(t, testRules(t), world4...)
	ctx := t.Context()
	for i := range 100 {
		for _, city := range []tiers.Place{"eu.de.berlin", "eu.de.munich"} {
			c := w.client(city)
			reply, err := c.Add(ctx, "votes", "alice", 1)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := reply.Total.Int64(); n != int64(i+1) {
				t.Fatalf("total %d after %d votes", n, i+1)
			}
		}
	}
	root := w.client("global")
	eventually(t, "the root has 200 votes", func() bool {
		reply, err := root.Get(ctx, "votes", "alice")
		return err == nil && reply.Total.String() == "200"
	})
	berlin := w.client("eu.de.berlin")
	eventually(t, "Berlin sees the root's 200 votes", func() bool {
		reply, err := berlin.Get(ctx, "votes", "alice")
		return err == nil && len(reply.Views) == 3 && reply.Views[2].Total.String() == "200" && reply.Views[2].Place == "global" && reply.Views[2].Behind == 0
	})
}
