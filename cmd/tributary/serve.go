package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/cmd/tributary/internal/world"
	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// ServeCmd runs places.
type ServeCmd struct {
	Place          []string      `help:"Place to run, such as eu.de.berlin; repeat it to run several in this process. Without any: a root and the places down to one city." placeholder:"PLACE"`
	Leaf           []string      `help:"Place that takes checks and adds although it is no city (cities do anyway)." placeholder:"PLACE"`
	Data           string        `help:"Folder for the stores; each place has its own below it." default:"tributary-data" type:"path" placeholder:"DIR"`
	Backups        string        `help:"Folder for backups that are asked for while it runs; each place has its own below it. Without it: beside --data, with -backups behind its name." type:"path" placeholder:"DIR"`
	NATS           string        `name:"nats" help:"NATS server to connect to. Without it, one runs in this process, at --listen." placeholder:"URL"`
	Listen         string        `help:"Address of the NATS server in this process." default:"127.0.0.1:4222" placeholder:"HOST:PORT"`
	Prefix         string        `help:"First part of all subjects. Worlds that share a NATS system need different ones." default:"tributary"`
	Rules          string        `help:"Rules of a new world; give every process the same file. Without it: the built-in rules, which 'tributary rules check' shows. A store that has rules keeps them, until 'tributary rules apply' changes the world's." type:"existingfile" placeholder:"FILE"`
	HTTP           string        `name:"http" help:"Address for /metrics, /healthz and /readyz; 'off' for none." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	ReportInterval time.Duration `help:"Least pause between two reports that a busy parent asks of a child." default:"5ms"`
	Heartbeat      time.Duration `help:"How often an idle place reports to its parent." default:"1s"`
	Memory         int           `help:"Memory for the keys that are awake at one place, MiB; beyond it idle ones sleep, on disk. A key takes about 1 KiB." default:"256" placeholder:"MIB"`
	StopWithin     time.Duration `help:"How long a stop in good order may take: what is not done by then is named, and the exit code is 1. A service manager should wait a bit longer." default:"8s"`
}

// keyBytes is about what a key that is awake takes: half of it where it is
// only counted, a bit less where it has one limit, more where it has several.
const keyBytes = 1 << 10

// defaultPlaces is what serve runs when it is not told: a city needs all
// places above it, or it has no share of what they own.
var defaultPlaces = []string{"global", "eu", "eu.de", "eu.de.berlin"}

// cityDepth is how deep cities lie: a place at that depth or deeper is a
// leaf unless it runs together with places below it.
const cityDepth = 3

// Help is the command's long help.
func (*ServeCmd) Help() string {
	return `Without --nats a NATS server runs in the process; without --place a root and the places down to one city do. A place is
named by its path, from the region down, and the root is global. SIGTERM and Ctrl-C end it in good order; a second one at
once.

Examples:

    tributary serve
    tributary serve --rules rules.yaml --data /var/lib/tributary
    tributary serve --place global --rules rules.yaml
    tributary serve --place eu --place eu.de --nats nats://127.0.0.1:4222 --http 127.0.0.1:8081
    tributary serve --place eu.de.berlin --nats tls://user:password@nats.example.com:4222
    tributary serve --config settings.yaml`
}

// Run runs places until it is told to stop.
func (c *ServeCmd) Run(app *App) error {
	specs, err := c.specs()
	if err != nil {
		return err
	}
	rules, err := c.startRules()
	if err != nil {
		return err
	}
	if c.ReportInterval <= 0 || c.ReportInterval > time.Second || c.Heartbeat < c.ReportInterval {
		return fmt.Errorf("--report-interval is %s and --heartbeat %s: an interval goes from 1ns to 1s, and a heartbeat is no shorter", c.ReportInterval, c.Heartbeat)
	}
	if c.Memory < 1 {
		return fmt.Errorf("--memory is %d: a place needs 1 MiB at least", c.Memory)
	}
	if c.StopWithin <= 0 {
		return fmt.Errorf("--stop-within is %s: a stop takes some time, such as 8s", c.StopWithin)
	}
	hangups := make(chan os.Signal, 1)
	app.outlive(hangups)
	for _, what := range lacks(runtime.GOOS) {
		app.Log.Warn().Msg(what)
	}
	registry, metrics, err := newFigures(app.Version)
	if err != nil {
		return err
	}

	listener, err := listen(c.HTTP)
	if err != nil {
		return err
	}
	if listener != nil {
		defer func() { _ = listener.Close() }() // the server closes it first
	}
	cfg := world.Config{
		Places: specs, Data: c.Data, Backups: cmp.Or(c.Backups, c.Data+"-backups"), URL: c.NATS, Prefix: c.Prefix, Rules: rules, ReportInterval: c.ReportInterval, Heartbeat: c.Heartbeat, MaxAwake: c.Memory << 20 / keyBytes,
		Version: app.Version, Metrics: metrics, Logger: app.Log,
	}
	url := c.NATS
	if c.NATS == "" {
		if cfg.Server, err = transport.StartServer(transport.ServerConfig{Listen: c.Listen, Name: "tributary", Logger: app.Log}); err != nil {
			return err
		}
		defer cfg.Server.Shutdown()
		url = cfg.Server.ClientURL()
	}
	w, err := world.Start(context.Background(), cfg)
	if err != nil {
		return c.advise(err)
	}
	stopHTTP := serveHTTP(listener, w, registry, app.Log)
	c.welcome(app, specs, url, listener, w, rules)

	for running := true; running; {
		select {
		case <-app.Context.Done():
			app.Log.Info().Dur("within_ms", c.StopWithin).Msg("stopping: shares go back, and the rest is reported; a second signal ends the process at once")
			running = false
		case err = <-w.Fatal():
			running = false
		case <-hangups:
			app.Log.Info().Msg("SIGHUP changes nothing: rules are changed by 'tributary rules apply', settings by another start")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.StopWithin)
	defer cancel()
	err = errors.Join(err, w.Stop(ctx))
	stopHTTP(ctx)
	if err == nil {
		app.Log.Info().Msg("stopped")
	}
	return err
}

// advise says what to do about a folder that cannot be used.
func (c *ServeCmd) advise(err error) error {
	_, file := errors.AsType[*fs.PathError](err)
	switch {
	case errors.Is(err, objects.ErrInUse):
		return fmt.Errorf("%w: stop the process that serves this place, or give this one another folder than --data %s", err, c.Data)
	case errors.Is(err, objects.ErrCorrupt):
		return fmt.Errorf("%w: see 'tributary verify --data %s', and 'tributary restore' a backup to another folder", err, c.Data)
	case errors.Is(err, objects.ErrFull):
		return err // which says what to do
	case file:
		return fmt.Errorf("%w: give --data a folder that this user may write, or may make; %s is none", err, c.Data)
	}
	return err
}

// specs are the places to run.
func (c *ServeCmd) specs() ([]world.Spec, error) {
	names := c.Place
	if len(names) == 0 && len(c.Leaf) == 0 {
		names = defaultPlaces
	}
	var specs []world.Spec
	for i, name := range slices.Concat(names, c.Leaf) {
		p, err := tiers.ParsePlace(name)
		if err != nil {
			return nil, err
		}
		if j := slices.IndexFunc(specs, func(s world.Spec) bool { return s.Place == p }); j >= 0 {
			specs[j].Leaf = specs[j].Leaf || i >= len(names)
			continue
		}
		specs = append(specs, world.Spec{Place: p, Leaf: i >= len(names) || p.Depth() >= cityDepth})
	}
	for i, s := range specs {
		if j := slices.IndexFunc(specs, func(o world.Spec) bool { return o.Place.Parent() == s.Place }); j >= 0 {
			if slices.Contains(c.Leaf, string(s.Place)) {
				return nil, fmt.Errorf("%s cannot be a leaf: %s reports to it", s.Place, specs[j].Place)
			}
			specs[i].Leaf = false
		}
		if s.Leaf && s.Place == tiers.Root {
			return nil, fmt.Errorf("%s is the root, which takes no checks and adds: give a place below it", s.Place)
		}
	}
	return specs, nil
}

// listen listens for HTTP, unless it is off.
func listen(address string) (net.Listener, error) {
	if address == "off" || address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--http %s is in use: choose another address, or --http off", address)
	}
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w; write host and port, such as 127.0.0.1:8080, or off", address, err)
	}
	return l, nil
}

// serveHTTP serves a world's health, and returns how to stop that.
func serveHTTP(l net.Listener, w *world.World, figures prometheus.Gatherer, log zerolog.Logger) (stop func(context.Context)) {
	if l == nil {
		return func(context.Context) {}
	}
	mux := http.NewServeMux()
	w.Health(mux, figures)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Msg("HTTP ended")
		}
	}()
	return func(ctx context.Context) { _ = server.Shutdown(ctx) } // what is still asked for is cut off
}

// welcome says what runs, and what to type next.
func (c *ServeCmd) welcome(app *App, specs []world.Spec, url string, l net.Listener, w *world.World, start *limiter.Rules) {
	rules, known := c.sayRules(app.Log, w, start)
	names := make([]string, 0, len(specs))
	var leaf tiers.Place
	for _, s := range specs {
		names = append(names, string(s.Place))
		if s.Leaf {
			leaf = s.Place
		}
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		data = c.Data
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tributary %s serves %s\n", app.Version, strings.Join(names, ", "))
	shown := transport.RedactURLs(url)
	fmt.Fprintf(&b, "  NATS   %s\n", shown)
	if l != nil {
		fmt.Fprintf(&b, "  HTTP   http://%s (/metrics, /healthz, /readyz)\n", l.Addr())
	}
	fmt.Fprintf(&b, "  data   %s\n  rules  %s\n", data, rules)
	if leaf != "" && c.Rules == "" && known {
		at, where := "", ""
		switch {
		case url == "nats://127.0.0.1:4222":
		case url == shown:
			at = " --nats " + url
		default: // whoever may know the secret has it
			where = ", with the URL of NATS in TRIBUTARY_NATS"
		}
		fmt.Fprintf(&b, "\nTry in another terminal%s:\n  tributary add votes/alice%s\n  tributary get votes/alice --at %s%s\n  tributary check api/user-42%s\n", where, at, leaf, at, at)
		fmt.Fprintf(&b, "  nats req %s.check.%s '{\"namespace\":\"api\",\"key\":\"user-42\"}'\n", c.Prefix, leaf)
	}
	_, _ = fmt.Fprintln(app.Stdout, b.String())
}

// newFigures are what /metrics shows: of the places, of Go and of the process.
func newFigures(version string) (*prometheus.Registry, *transport.Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := transport.NewMetrics(registry, version)
	return registry, metrics, err
}
