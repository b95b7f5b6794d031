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

// demoStopWithin bounds the end of the demo.
const demoStopWithin = 8 * time.Second

// defaultRun is how long --json measures unless told.
const defaultRun = 10 * time.Second

// Help is the command's long help.
func (*DemoCmd) Help() string {
	return `It prints a line a second: the votes that the root has counted, how many of those who asked the limit was kept for were
admitted in that second (in the first one the burst, too), and the votes that are still under way to the root. Ctrl-C ends
it with a summary.

Examples:

    tributary demo
    tributary demo --for 10s --json | jq .limit
    tributary demo --http 0.0.0.0:8080 --data world`
}

// Run runs the demo.
func (c *DemoCmd) Run(app *App) (err error) {
	if c.For < 0 {
		return fmt.Errorf("--for is %s: a time to run is more than nothing, such as 10s", c.For)
	}
	defaultSignals := app.endInOrder()
	defer defaultSignals()
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
	registry, metrics, err := newFigures(app.Version)
	if err != nil {
		return err
	}
	d, err := demo.Start(demo.Config{Data: dir, Server: server, Version: app.Version, Metrics: metrics, Logger: log})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), demoStopWithin)
		defer cancel()
		stopped := d.Stop(ctx)
		if c.Data == "" && stopped != nil { // as where a link was cut for long; nobody starts these places again
			app.Log.Warn().Err(stopped).Msg("the demo did not stop in good order, and its stores are removed all the same")
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
	return errors.Join(c.watch(app, d), summarize(app, d))
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
