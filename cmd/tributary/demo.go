package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/tributary-io/tributary/cmd/tributary/internal/demo"
	"github.com/tributary-io/tributary/cmd/tributary/internal/page"
	"github.com/tributary-io/tributary/transport"
)

// DemoCmd runs a world of cities in one process.
type DemoCmd struct {
	For    time.Duration `help:"End after this long. Without it the demo runs until it is interrupted." placeholder:"DURATION"`
	JSON   bool          `name:"json" help:"Show no page and no line: print what was measured as one JSON object, after --for (10s where it is not given). Exit with 1 if a promise was broken."`
	HTTP   string        `name:"http" help:"Address of the page; another free port if it is in use." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Listen string        `help:"Address of the demo's NATS server; another free port if it is in use." default:"127.0.0.1:4222" placeholder:"HOST:PORT"`
	Data   string        `help:"Folder for the stores. Without it they are in a temporary one, and are removed in the end." type:"path" placeholder:"DIR"`
}

// defaultRun is how long --json measures unless told.
const defaultRun = 10 * time.Second

// Run runs the demo.
func (c *DemoCmd) Run(app *App) (err error) {
	if c.For < 0 {
		return fmt.Errorf("--for is %s: a time to run is more than nothing, such as 10s", c.For)
	}
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "tributary-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	log := app.Log
	if log.GetLevel() == zerolog.InfoLevel {
		log = log.Level(zerolog.WarnLevel) // its places come and go by the dozen
	}
	server, err := c.server(log)
	if err != nil {
		return err
	}
	defer server.Shutdown()
	registry := prometheus.NewRegistry()
	metrics, err := transport.NewMetrics(registry)
	if err != nil {
		return err
	}
	d, err := demo.Start(demo.Config{Data: dir, Server: server, Version: app.Version, Metrics: metrics, Logger: log})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		stopped := d.Stop(ctx)
		if ctx.Err() != nil { // a link was cut for long; every vote is on its city's disk
			app.Log.Warn().Msg("the demo stopped before all places had told their parents what they have")
			return
		}
		err = errors.Join(err, stopped)
	}()
	if c.JSON {
		return c.measure(app, d)
	}
	stop, err := c.show(app, d, registry, server.ClientURL())
	if err != nil {
		return err
	}
	defer stop()
	return c.watch(app, d)
}

// server starts the demo's NATS server, on another port if need be.
func (c *DemoCmd) server(log zerolog.Logger) (*transport.Server, error) {
	cfg := transport.ServerConfig{Name: "tributary-demo", Logger: log}
	if !c.JSON {
		cfg.Listen = free(c.Listen)
	}
	return transport.StartServer(cfg)
}

// free is address, with port 0 if it is in use.
func free(address string) string {
	l, err := net.Listen("tcp", address)
	if err == nil {
		_ = l.Close()
		return address
	}
	if host, _, split := net.SplitHostPort(address); split == nil && errors.Is(err, syscall.EADDRINUSE) {
		return net.JoinHostPort(host, "0")
	}
	return address // whoever listens there says what is wrong with it
}

// measure runs without a page, and prints what was measured.
func (c *DemoCmd) measure(app *App, d *demo.Demo) error {
	run := c.For
	if run == 0 {
		run = defaultRun
	}
	result, err := d.Measure(app.Context, run)
	switch {
	case app.Context.Err() != nil:
		return fmt.Errorf("the demo was stopped before its %s were over, so nothing was measured: %w", run, app.Context.Err())
	case result == nil:
		return err
	}
	return errors.Join(json.NewEncoder(app.Stdout).Encode(result), cmp.Or(err, result.Check()))
}

// show serves the page, and says where.
func (c *DemoCmd) show(app *App, d *demo.Demo, figures prometheus.Gatherer, url string) (stop func(), err error) {
	listener, err := listen(free(c.HTTP))
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(app.Stdout, "%d places, %d cities vote. ", len(d.World.Nodes()), d.Cities())
	if listener == nil {
		_, _ = fmt.Fprintf(app.Stdout, "NATS: %s. Stop with Ctrl-C.\n\n", url)
		return func() {}, nil
	}
	shown := page.Handler(d.Source(), page.Options{})
	mux := http.NewServeMux()
	d.World.Health(mux, figures)
	mux.Handle("/", shown)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			app.Log.Error().Err(err).Msg("the page ended")
		}
	}()
	_, _ = fmt.Fprintf(app.Stdout, "Watch them:\n\n  http://%s\n\nNATS: %s, Prometheus: http://%s/metrics. Stop with Ctrl-C.\n\n", listener.Addr(), url, listener.Addr())
	return func() {
		shown.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // who still watches is cut off
		}
	}, nil
}

// watch prints one living line a second, until the end.
func (c *DemoCmd) watch(app *App, d *demo.Demo) error {
	ctx := app.Context
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	say := func(line string) { _, _ = fmt.Fprintln(app.Stdout, line) }
	if f, ok := app.Stdout.(*os.File); ok && terminal(f) {
		say = func(line string) {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && len(line) >= width {
				line = line[:width-1] // one that wraps is not written over by the next
			}
			_, _ = fmt.Fprint(f, "\r\x1b[K", line)
		}
		defer func() { _, _ = fmt.Fprintln(f) }()
	}
	started := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var before standing
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.World.Fatal():
			return err
		case <-ticker.C:
		}
		now, err := look(ctx, d)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			say(fmt.Sprintf("%4.0fs  the root does not answer: %v", time.Since(started).Seconds(), err))
		default:
			say(fmt.Sprintf("%4.0fs  %s", time.Since(started).Seconds(), now.since(before)))
			before = now
		}
	}
}

// standing is how the demo stands at an instant.
type standing struct {
	at                       time.Time
	cast, counted            int64
	offered, admitted, bound int64
}

// lookWithin is how long the root may take to say how it stands.
const lookWithin = time.Second

func look(ctx context.Context, d *demo.Demo) (s standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	if s.counted, err = d.Counted(ctx); err != nil {
		return s, err
	}
	s.at, s.cast = time.Now(), d.Votes().Cast
	s.offered, s.admitted, s.bound = d.Limit()
	return s, nil
}

// since is the living line. It fits on 80 columns.
func (s standing) since(before standing) string {
	rate := func(now, then int64) float64 { return float64(now - then) }
	if seconds := s.at.Sub(before.at).Seconds(); !before.at.IsZero() {
		rate = func(now, then int64) float64 { return float64(now-then) / seconds }
	}
	verdict := "kept"
	if s.admitted > s.bound {
		verdict = "BROKEN"
	}
	return fmt.Sprintf("%d votes (+%.0f/s), %d under way; limit %s: %.0f of %.0f/s",
		s.counted, rate(s.cast, before.cast), max(0, s.cast-s.counted), verdict, rate(s.admitted, before.admitted), rate(s.offered, before.offered))
}
