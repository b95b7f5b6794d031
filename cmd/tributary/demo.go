package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
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
	dir := c.Data
	if dir == "" {
		if dir, err = os.MkdirTemp("", "tributary-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	log := app.Log
	if log.GetLevel() < zerolog.WarnLevel {
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
		err = errors.Join(err, d.Stop(ctx))
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
	if c.JSON {
		return transport.StartServer(transport.ServerConfig{Name: "tributary-demo", Logger: log})
	}
	listen := free(c.Listen)
	return transport.StartServer(transport.ServerConfig{Listen: listen, Name: "tributary-demo", Logger: log})
}

// free is address, with port 0 if it is in use.
func free(address string) string {
	l, err := net.Listen("tcp", address)
	if err == nil {
		_ = l.Close()
		return address
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		return net.JoinHostPort(host, "0")
	}
	return address
}

// measure runs without a page, and prints what was measured.
func (c *DemoCmd) measure(app *App, d *demo.Demo) error {
	run := c.For
	if run == 0 {
		run = defaultRun
	}
	result, err := d.Measure(app.Context, run)
	if result != nil {
		err = errors.Join(err, json.NewEncoder(app.Stdout).Encode(result), result.Check())
	}
	return err
}

// show serves the page, and says where.
func (c *DemoCmd) show(app *App, d *demo.Demo, figures prometheus.Gatherer, url string) (stop func(), err error) {
	listener, err := listen(free(c.HTTP))
	if err != nil {
		return nil, err
	}
	if listener == nil {
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
	_, _ = fmt.Fprintf(app.Stdout, "%d places, %d cities vote. Watch them:\n\n  http://%s\n\nNATS: %s, Prometheus: http://%s/metrics. Stop with Ctrl-C.\n\n",
		len(d.World.Nodes()), d.Cities(), listener.Addr(), url, listener.Addr())
	return func() {
		shown.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // who still watches is cut off
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
	begin, end := "", "\n"
	if terminal(app.Stdout) {
		begin, end = "\r\x1b[K", ""
		defer func() { _, _ = fmt.Fprintln(app.Stdout) }()
	}
	started := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var cast0, offered0, admitted0 int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		counted, err := d.Counted(ctx)
		cast, _ := d.Cast()
		offered, admitted, bound := d.Limit()
		if err != nil {
			continue // the root may be cut off, or ctx over
		}
		verdict := "kept"
		if admitted > bound {
			verdict = "BROKEN"
		}
		_, _ = fmt.Fprintf(app.Stdout, "%s%4.0fs  votes %d (%d/s), the world has %d (%d under way)   limit %d/s: %d of %d asked for, %s%s", begin,
			time.Since(started).Seconds(), cast, cast-cast0, counted, max(0, cast-counted), demo.Rate, admitted-admitted0, offered-offered0, verdict, end)
		cast0, offered0, admitted0 = cast, offered, admitted
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
