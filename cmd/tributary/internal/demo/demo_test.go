package demo

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/transport"
)

// start starts a demo, on a server and a folder of its own.
func start(t *testing.T, cfg Config) *Demo {
	t.Helper()
	server, err := transport.StartServer(transport.ServerConfig{Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	cfg.Server, cfg.Version = server, "0.0.1"
	if raced {
		cfg.crowd = 0.2 // all that the race detector leaves room for
	}
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	d, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, d) })
	return d
}

func stop(t *testing.T, d *Demo) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// warnings shows what goes wrong.
func warnings(t *testing.T) Config {
	return Config{Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)}
}

func TestDemoKeepsItsPromises(t *testing.T) {
	d := start(t, warnings(t))
	r, err := d.Measure(t.Context(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	if r.Places != 27 || r.Votes.Cast < 1000 || r.Limit.Offered < 1000 || r.Limit.Utilisation < 0.8 || r.Limit.Utilisation > 1.1 || r.ViewAgeMS.P50 < 0 {
		t.Errorf("nothing happened, or not what is said: %s", line)
	}
}
