package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tributary-io/tributary/cmd/tributary/internal/bench"
)

// BenchCmd measures on this machine what docs/benchmarks.md shows of another.
type BenchCmd struct {
	Objects BenchObjectsCmd `cmd:"" help:"Measure the object runtime with millions of counters."`
	Adds    BenchAddsCmd    `cmd:"" help:"Measure adds over NATS beside Redis, raw Pebble and a bare echo."`
}

// BenchObjectsCmd measures the object runtime at the size of a city.
type BenchObjectsCmd struct {
	Counters int    `help:"How many counters to create." default:"10000000" placeholder:"N" operand:""`
	Dir      string `help:"Folder to work in: a new one in it is used, and removed. Its disk is measured." default:"." placeholder:"FOLDER" operand:""`
	Memory   int64  `help:"Memory for awake objects, MiB." default:"256" placeholder:"MIB" operand:""`
	Profile  string `help:"Write a profile of the CPU to this file, for go tool pprof." placeholder:"FILE" operand:""`
	JSON     bool   `name:"json" help:"Print the result as one JSON object."`
}

// Help is the command's long help.
func (*BenchObjectsCmd) Help() string {
	return `It creates counters of 16 bytes, each by a synced operation of its own, opens the store again, and asks counters
that sleep. Ten million take some minutes and a gigabyte of disk.

Example:

    tributary bench objects --counters 1000000 --dir /var/tmp`
}

func (c *BenchObjectsCmd) wantsJSON() bool { return c.JSON }

// Run measures.
func (c *BenchObjectsCmd) Run(app *App) error {
	if c.Counters < 100 {
		return fmt.Errorf("--counters is %d: at least 100 are needed", c.Counters)
	}
	defaultSignals := app.endInOrder()
	defer defaultSignals()
	dir, err := os.MkdirTemp(c.Dir, "tributary-bench-")
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stop, err := profile(c.Profile)
	if err != nil {
		return err
	}
	defer stop()
	r, err := bench.Objects(app.Context, bench.ObjectsConfig{Dir: dir, Counters: c.Counters, Memory: c.Memory << 20, Progress: benchProgress(app.Stderr)})
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(app.Stdout).Encode(r)
	}
	w := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t"+format+"\n", append([]any{what}, args...)...)
	}
	row("counters created", "%d in %.0f s, %.0f a second, %.1f µs of CPU each", r.Counters, r.CreatedSeconds, r.CreatedPerSec, r.CreateCPUMicros)
	row("on disk", "%.0f MiB, %.0f bytes each", r.DiskMiB, r.DiskMiB*(1<<20)/float64(r.Counters))
	row("opened, and the first operation answered", "%.2f s", r.OpenedSeconds)
	row("operation on a counter that sleeps", "p50 %.0f µs, p99 %.0f µs", r.ColdP50Micros, r.ColdP99Micros)
	row("operation on one that is awake", "p50 %.1f µs", r.WarmP50Micros)
	row("memory of an awake one, beyond its state", "%.0f bytes (of %d)", r.AwakeBytes, r.AwakeCount)
	row("most memory of the process", "%.0f MiB", r.PeakMiB)
	return w.Flush()
}

// BenchAddsCmd measures adds over NATS.
type BenchAddsCmd struct {
	For      time.Duration `help:"How long each phase of each round takes." default:"3s" placeholder:"DURATION" operand:""`
	Rounds   int           `help:"How often all phases take turns; the median counts." default:"3" placeholder:"N" operand:""`
	Only     string        `help:"Only the phases whose name holds this, such as hot." placeholder:"TEXT" operand:""`
	Profile  string        `help:"Write a profile of the CPU to this file, for go tool pprof." placeholder:"FILE" operand:""`
	InFlight int           `help:"Requests in flight, on four connections." default:"64" placeholder:"N" operand:""`
	Redis    string        `help:"Program of the Redis to compare with. It is started in a folder of its own." default:"redis-server" placeholder:"PROGRAM" operand:""`
	Dir      string        `help:"Folder to work in: a new one in it is used, and removed. Its disk is measured." default:"." placeholder:"FOLDER" operand:""`
	JSON     bool          `name:"json" help:"Print the result as one JSON object."`
}

// Help is the command's long help.
func (*BenchAddsCmd) Help() string {
	return `The phases take turns in one run: adds one by one and in batches of 100, over TCP to a city in this process;
the same messages to a service that only echoes them; INCR to a Redis that syncs each write, by redis-benchmark; and
synced batches written to Pebble without anything around it. The ratio is what counts: other load slows all of them.

Example:

    tributary bench adds --rounds 5 --dir /var/tmp`
}

func (c *BenchAddsCmd) wantsJSON() bool { return c.JSON }

// Run measures.
func (c *BenchAddsCmd) Run(app *App) error {
	if c.Rounds < 1 || c.InFlight < 1 || c.For <= 0 {
		return fmt.Errorf("--rounds, --in-flight and --for must be more than nothing")
	}
	defaultSignals := app.endInOrder()
	defer defaultSignals()
	dir, err := os.MkdirTemp(c.Dir, "tributary-bench-")
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stop, err := profile(c.Profile)
	if err != nil {
		return err
	}
	defer stop()
	r, err := bench.Adds(app.Context, bench.AddsConfig{
		Only: c.Only, Dir: dir, For: c.For, Rounds: c.Rounds, InFlight: c.InFlight, Redis: c.Redis, Log: app.Log, Progress: benchProgress(app.Stderr),
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(app.Stdout).Encode(r)
	}
	w := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%d in flight\ta second\tCPU each\t\n", r.InFlight)
	for _, row := range r.Rows {
		if row.Baseline == "" {
			_, _ = fmt.Fprintf(w, "%s\t%.0f\t%.2f µs\t\n", row.What, row.PerSecond, row.CPUMicros)
		} else {
			_, _ = fmt.Fprintf(w, "\t\t\t%.2f of %s\n", row.Ratio, row.Baseline)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.Missing != "" {
		_, _ = fmt.Fprintf(app.Stdout, "\nleft out  %s\n", r.Missing)
	}
	return nil
}

// profile writes a profile to a file until stop is called; without a name it writes none.
func profile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// benchProgress says what is done, a few times a minute.
func benchProgress(w io.Writer) func(what string, done, whole int) {
	var last time.Time
	var said string
	return func(what string, done, whole int) {
		if what == said && time.Since(last) < 5*time.Second {
			return
		}
		last, said = time.Now(), what
		_, _ = fmt.Fprintln(w, strings.TrimSpace(fmt.Sprintf("%s: %d of %d", what, done, whole)))
	}
}
