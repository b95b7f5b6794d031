package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// The figures say nothing here: that they are there, and that what was created is found again, does.

func TestObjectsAreMeasured(t *testing.T) {
	steps := map[string]bool{}
	r, err := Objects(t.Context(), ObjectsConfig{Dir: t.TempDir(), Counters: 4000, Memory: 1 << 20, Progress: func(what string, _, _ int) { steps[what] = true }})
	if err != nil {
		t.Fatal(err)
	}
	if r.Counters != 4000 || r.CreatedPerSec <= 0 || r.DiskMiB <= 0 || r.OpenedSeconds <= 0 || r.ColdP50Micros <= 0 || r.WarmP50Micros <= 0 || len(steps) != 3 {
		t.Errorf("%+v after %v", r, steps)
	}
}

func TestAddsAreMeasured(t *testing.T) {
	r, err := Adds(t.Context(), AddsConfig{Dir: t.TempDir(), For: 50 * time.Millisecond, Rounds: 1, InFlight: 8, Redis: "no-redis-has-this-name", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if r.Missing == "" {
		t.Error("it does not say that Redis is left out")
	}
	ratios := 0
	for _, row := range r.Rows {
		if row.PerSecond <= 0 {
			t.Errorf("nothing was done: %+v", row)
		}
		if row.Baseline != "" {
			ratios++
		}
	}
	if len(r.Rows) != 15 || ratios != 6 { // nine phases; six are compared with one that ran
		t.Errorf("%d rows, %d ratios: %+v", len(r.Rows), ratios, r.Rows)
	}
	if _, err := Adds(t.Context(), AddsConfig{Dir: t.TempDir(), For: time.Millisecond, Rounds: 1, InFlight: 1, Only: "no such phase"}); err == nil {
		t.Error("a phase that is none is measured")
	}
}

// TestAPhaseEndsWithItsFirstFailure, and not when its time is over: what nobody serves, what is refused, and an interrupt.
func TestAPhaseEndsWithItsFirstFailure(t *testing.T) {
	cfg := AddsConfig{Dir: t.TempDir(), For: time.Minute, InFlight: 8, Redis: "no-redis-has-this-name", Log: zerolog.Nop()}
	a, err := startAdds(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, interrupt := context.WithCancel(t.Context())
	phase := func(subject string) error {
		_, _, err := a.asked(subject, json, func(int) []byte { return []byte(`{}`) }, 1)(ctx)
		return err
	}
	began := time.Now()
	if err := phase("nobody"); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("where nobody answers: %v", err)
	}
	if err := phase("tributary.add." + benchCity); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("where all is refused: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, interrupt)
	if err := phase("echo"); !errors.Is(err, context.Canceled) {
		t.Errorf("when it is interrupted: %v", err)
	}
	if took := time.Since(began); took > cfg.For {
		t.Errorf("it took %v", took)
	}
}
