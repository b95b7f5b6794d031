package demo

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/transport"
)

// start starts a demo whose logs the test shows.
func start(t *testing.T) *Demo {
	t.Helper()
	server, err := transport.StartServer(transport.ServerConfig{Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	d, err := Start(Config{Data: t.TempDir(), Server: server, Version: "0.0.1", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDemoKeepsItsPromises(t *testing.T) {
	d := start(t)
	r, err := d.Measure(t.Context(), 6*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	line, _ := json.Marshal(r)
	t.Logf("%s", line)
	if r.Places != 27 || r.Votes.Cast < 1000 || r.Limit.Admitted == 0 || r.Limit.Utilisation == 0 {
		t.Errorf("nothing happened: %+v", r)
	}
}
