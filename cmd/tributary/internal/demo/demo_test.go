package demo

import (
	"context"
	"encoding/json"
	"fmt"
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
	wait(t.Context(), steadyAfter)
	d.mustUse(t, 0.8)
	r, err := d.Measure(t.Context(), time.Since(d.began)+2*time.Second)
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
	if r.Places != 27 || r.Votes.Cast == 0 || r.Limit.Admitted == 0 || r.Limit.Offered < r.Limit.Admitted || r.ViewAgeMS.P50 < 0 {
		t.Errorf("nothing happened, or not what is said: %s", line)
	}
}

// mustUse waits for a second in which so much of the limit is used. How soon
// that is, a loaded machine decides.
func (d *Demo) mustUse(t *testing.T, least float64) {
	t.Helper()
	began := time.Now()
	until(t, fmt.Sprintf("%g of the limit to be used", least), func() bool {
		before := d.usage()
		wait(t.Context(), time.Second)
		used := d.usage().after(before)
		t.Logf("after %s %.3f of the limit is used", time.Since(began).Round(time.Millisecond), used)
		return used >= least
	})
}

func TestCheckKnowsBrokenPromises(t *testing.T) {
	for _, test := range []struct {
		cast, unanswered, counted, admitted int64
		kept                                bool
	}{
		{100, 0, 100, 10, true},
		{100, 0, 99, 10, false},
		{100, 0, 101, 10, false},
		{100, 2, 99, 10, false},
		{100, 2, 100, 10, true},
		{100, 2, 102, 10, true},
		{100, 2, 103, 10, false},
		{100, 0, 100, 11, false},
	} {
		r := Result{}
		r.Votes.Cast, r.Votes.Unanswered, r.Votes.Counted = test.cast, test.unanswered, test.counted
		r.Limit.Bound, r.Limit.Admitted = 10, test.admitted
		if err := r.Check(); (err == nil) != test.kept {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
