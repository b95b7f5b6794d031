package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tributary-io/tributary/cmd/tributary/internal/bench"
	"github.com/tributary-io/tributary/tiers/sim"
	"github.com/tributary-io/tributary/tiers/sim/study"
)

// SimCmd runs simulated worlds, in which everything fails, and checks the laws.
type SimCmd struct {
	Seed       *uint64       `help:"Run the world of this seed, and no other." placeholder:"N" operand:""`
	For        time.Duration `help:"Run worlds for this long, one after the other on each core. Real time." default:"60s" placeholder:"DURATION" operand:""`
	Faults     string        `help:"What may go wrong: all, none, or names with commas between; -name takes one away." default:"all" placeholder:"NAMES" operand:""`
	Active     time.Duration `help:"How long faults and clients go on in each world, simulated. Without it each seed draws its own." placeholder:"DURATION" operand:""`
	Trace      bool          `help:"With --seed: print what happens, a line each." operand:""`
	RequireAll *bool         `help:"Fail if a fault was never injected or a recovery path never taken. So does a run of 10m or longer anyway: --no-require-all tells it not to." negatable:"" operand:""`
	Study      bool          `help:"Measure instead how well limits are used, and write utilisation.md and its plots." operand:""`
	Out        string        `help:"With --study: the folder to write to." default:"docs" placeholder:"FOLDER" operand:""`
	JSON       bool          `name:"json" help:"Print the result as one JSON object."`
}

// Help is the command's long help.
func (*SimCmd) Help() string {
	return `Each seed draws a world of its own: a tree of 1 to 500 places, rules, clients, and what goes wrong, and how
often. Every message, disk, clock and process in it is simulated, on one thread, so that a seed is the same world each
time. After each step the laws are checked: that no vote is lost or counted twice, that no limit is broken, that shares
are lent once; and in the end that counts are exact, demand is met and nothing is left lent.

With --study the worlds have no faults, and each has one limit under one load: it measures how much of the limit is
used, how fairly and how soon, and what other ways to keep it would do. --seed is 1 then unless named.

At the end it prints how often each fault was injected, and how often each recovery path was taken: that a parent was
filled again, a twin fenced, a retry answered from memory. One that was never taken shows nothing of that path: a run
of 10m or longer fails then, and names it.

It exits 1 if a law was broken, with the seed, and the end of the trace of the smallest world that breaks it: of the
fewest faults, the shortest time, the first step.

Examples:

    tributary sim
    tributary sim --for 10m --faults all --json
    tributary sim --for 1m --faults crash,lost-disk --require-all
    tributary sim --seed 42 --faults loss,crash --trace
    tributary sim --study --out docs`
}

func (c *SimCmd) wantsJSON() bool { return c.JSON }

// simReport is what --json prints.
type simReport struct {
	Seeds        uint64            `json:"seeds"`
	Places       uint64            `json:"places"`
	Steps        uint64            `json:"steps"`
	Simulated    float64           `json:"simulated_seconds"`
	CPU          float64           `json:"cpu_seconds"`
	StepsPerCPU  float64           `json:"steps_per_cpu_second"`
	Votes        uint64            `json:"votes"`
	Decided      uint64            `json:"checks_decided"`
	Admitted     uint64            `json:"checks_admitted"`
	LawsChecked  uint64            `json:"laws_checked"`
	Faults       map[string]uint64 `json:"faults"`
	Exceptions   map[string]uint64 `json:"exceptions"`
	Paths        map[string]uint64 `json:"paths"`
	Missing      []string          `json:"missing,omitempty"`
	FailedSeed   *uint64           `json:"failed_seed,omitempty"`
	Failure      string            `json:"failure,omitempty"`
	FailureTrace string            `json:"failure_trace,omitempty"`
}

// Run runs worlds.
func (c *SimCmd) Run(app *App) error {
	if c.Study {
		return c.study(app)
	}
	faults, err := sim.ParseFaults(c.Faults)
	switch {
	case err != nil:
		return fmt.Errorf("--faults: %w", err)
	case c.For <= 0:
		return fmt.Errorf("--for is %s: a time to run is more than nothing, such as 60s", c.For)
	case c.Trace && c.Seed == nil:
		return fmt.Errorf("--trace is of one world: name its --seed")
	}
	began, before := time.Now(), bench.CPUTime()
	all, failed := c.worlds(app, faults)
	cpu := (bench.CPUTime() - before).Seconds()
	report := c.report(all, cpu)
	if c.requireAll() {
		report.Missing = all.Missing(faults)
	}
	var trace strings.Builder
	if failed != nil {
		report.FailedSeed, report.Failure = &failed.Seed, failed.Err.Error()
		sim.Shrink(sim.Options{Seed: failed.Seed, For: c.Active, Faults: faults}, &trace)
		report.FailureTrace = trace.String()
	}
	if c.JSON {
		if err := json.NewEncoder(app.Stdout).Encode(report); err != nil {
			return err
		}
	} else {
		_, _ = fmt.Fprintf(app.Stdout, "%s\n\n%d seeds, %.0f steps per CPU second, in %s on %d cores\n", &all, all.Seeds, report.StepsPerCPU, time.Since(began).Round(time.Second), runtime.GOMAXPROCS(0))
		if failed != nil {
			_, _ = fmt.Fprintf(app.Stdout, "\n%s", &trace)
		}
	}
	switch {
	case failed != nil:
		_, _ = fmt.Fprintf(app.Stderr, "tributary: a law was broken in the world of seed %d: %v\n", failed.Seed, failed.Err)
		return codeError(exitError)
	case len(report.Missing) > 0:
		_, _ = fmt.Fprintf(app.Stderr, "tributary: never seen: %s; run longer, see --for\n", strings.Join(report.Missing, ", "))
		return codeError(exitError)
	}
	return nil
}

// requireAllFrom is how long a run is that has to see everything: rare paths are taken about once a minute.
const requireAllFrom = 10 * time.Minute

// requireAll says that a run fails in which something was never seen.
func (c *SimCmd) requireAll() bool {
	if c.RequireAll != nil {
		return *c.RequireAll
	}
	return c.Seed == nil && c.For >= requireAllFrom
}

// study measures how well limits are used, and writes it down.
func (c *SimCmd) study(app *App) error {
	if c.Trace || c.RequireAll != nil || c.JSON {
		return errors.New("--study writes a page: --trace, --require-all and --json do not go with it")
	}
	d := study.Document{Seed: 1}
	if c.Seed != nil {
		d.Seed = *c.Seed
	}
	cells := study.Cells(d.Seed)
	began := time.Now()
	var mu sync.Mutex
	var shown time.Time
	progress := func(done int) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); done == len(cells) || now.Sub(shown) >= time.Second {
			shown = now
			_, _ = fmt.Fprintf(app.Stderr, "%4.0fs  %d of %d cells\n", now.Sub(began).Seconds(), done, len(cells))
		}
	}
	var err error
	if d.Results, err = study.Run(app.Context, cells, runtime.GOMAXPROCS(0), progress); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	files := d.Plots()
	var page strings.Builder
	if err := d.Write(&page); err != nil {
		return err
	}
	files["utilisation.md"] = page.String()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(c.Out, name), []byte(files[name]), 0o644); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		_, _ = fmt.Fprintln(app.Stdout, filepath.Join(c.Out, name))
	}
	if broken := d.Broken(); len(broken) > 0 {
		_, _ = fmt.Fprintf(app.Stderr, "tributary: %d cells admitted more than their limit, first %s: %v\n", len(broken), &broken[0].Cell, broken[0].Broken)
		return codeError(exitError)
	}
	return nil
}

// worlds runs one world on each core at a time, until the time is over, or a law is broken, or someone interrupts.
func (c *SimCmd) worlds(app *App, faults sim.FaultSet) (all sim.Summary, failed *sim.Result) {
	if c.Seed != nil {
		options := sim.Options{Seed: *c.Seed, For: c.Active, Faults: faults}
		if c.Trace {
			options.Trace = app.Stdout
		}
		r := sim.Run(options)
		all.Add(&r)
		if r.Err != nil {
			failed = &r
		}
		return all, failed
	}
	ctx, cancel := context.WithTimeout(app.Context, c.For)
	defer cancel()
	var mu sync.Mutex
	var running sync.WaitGroup
	next := rand.Uint64() >> 16
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				next++
				seed := next
				mu.Unlock()
				r := sim.Run(sim.Options{Seed: seed, For: c.Active, Faults: faults})
				mu.Lock()
				all.Add(&r)
				if r.Err != nil && failed == nil {
					failed = &r
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	progress := newSimProgress(app.Stderr, c.For, c.JSON)
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			progress.end()
			return all, failed
		case <-ticker.C:
			mu.Lock()
			progress.show(all.Seeds, all.Steps)
			mu.Unlock()
		}
	}
}

// simProgress says how far a run is: a line a second.
type simProgress struct {
	out   io.Writer
	began time.Time
	long  time.Duration
}

func newSimProgress(out io.Writer, long time.Duration, quiet bool) *simProgress {
	if quiet {
		out = io.Discard
	}
	return &simProgress{out: out, began: time.Now(), long: long}
}

func (p *simProgress) show(seeds, steps uint64) {
	_, _ = fmt.Fprintf(p.out, "%4.0fs of %s  %d worlds, %d steps\n", time.Since(p.began).Seconds(), p.long, seeds, steps)
}

func (p *simProgress) end() {}

func (c *SimCmd) report(all sim.Summary, cpu float64) simReport {
	return simReport{
		Seeds: all.Seeds, Places: all.Places, Steps: all.Steps, Simulated: all.Simulated, CPU: cpu, StepsPerCPU: float64(all.Steps) / max(cpu, 1e-9),
		Votes: all.Votes, Decided: all.Decided, Admitted: all.Admitted, LawsChecked: all.Checks,
		Faults: all.FaultCounts(), Exceptions: all.ExceptionCounts(), Paths: all.Paths,
	}
}
