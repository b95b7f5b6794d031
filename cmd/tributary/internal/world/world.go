// Package world runs the places of one process: each on a folder and a NATS
// connection of its own, started parents first, started again when its store
// fails or its connection is closed, and stopped leaves first, within a time.
package world

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// Config says which places run, and on what.
type Config struct {
	Places []Spec
	Data   string // each place's store is in a folder below it
	// Backups is where each place has a folder for its backups; empty: there are none.
	Backups string
	// URL is the NATS server to connect to; Server, where it is set, is one in this process.
	URL    string
	Server *transport.Server
	Prefix string
	Rules  *limiter.Rules

	ReportInterval, Heartbeat time.Duration // 0: the default
	MaxAwake                  int           // keys of each place; 0: the default

	Version string
	Metrics *transport.Metrics
	Logger  zerolog.Logger
}

// Spec is one place.
type Spec struct {
	Place tiers.Place
	Leaf  bool // it takes checks and adds
}

// World is the running places.
type World struct {
	cfg    Config
	clock  *transport.Clock
	nodes  []*Node // parents before children
	fatal  chan error
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// Node is one place of a World, whatever runs it at the time.
type Node struct {
	Spec
	world *World

	turn    sync.Mutex // of who starts, stops or kills it
	mu      sync.Mutex // what follows
	running *transport.Place
	conn    *nats.Conn
	linked  bool
	why     error // why it does not run, while it is started again
}

// Start starts the places. The error names the one that does not start.
func Start(ctx context.Context, cfg Config) (*World, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &World{cfg: cfg, clock: transport.NewClock(), fatal: make(chan error, 1), cancel: cancel}
	specs := slices.Clone(cfg.Places)
	slices.SortStableFunc(specs, func(a, b Spec) int { return a.Place.Depth() - b.Place.Depth() })
	for _, s := range specs {
		n := &Node{Spec: s, world: w, linked: true}
		if err := n.start(); err != nil {
			stop, done := context.WithTimeout(context.Background(), time.Second)
			defer done()
			return nil, errors.Join(err, w.Stop(stop))
		}
		w.nodes = append(w.nodes, n)
		w.wait.Go(func() { n.supervise(ctx) })
	}
	return w, nil
}

// Nodes returns the places, parents before children.
func (w *World) Nodes() []*Node { return w.nodes }

// Node returns a place, or nil.
func (w *World) Node(p tiers.Place) *Node {
	for _, n := range w.nodes {
		if n.Place == p {
			return n
		}
	}
	return nil
}

// Fatal delivers an error after which the process should end: one of its
// places runs elsewhere.
func (w *World) Fatal() <-chan error { return w.fatal }

// start starts the place on its folder, over a connection of its own, unless
// it runs.
func (n *Node) start() error {
	n.turn.Lock()
	defer n.turn.Unlock()
	if n.Running() != nil {
		return nil
	}
	w := n.world
	name := "tributary " + string(n.Place)
	log := w.cfg.Logger.With().Str("place", string(n.Place)).Logger()
	var conn *nats.Conn
	var err error
	if w.cfg.Server != nil {
		conn, err = w.cfg.Server.Connect(transport.ConnOptions(name, inboxPrefix(w.cfg.Prefix, n.Place), log)...)
	} else {
		conn, err = transport.Dial(w.cfg.URL, name, inboxPrefix(w.cfg.Prefix, n.Place), log)
	}
	if err != nil {
		return err
	}
	backups := ""
	if w.cfg.Backups != "" {
		backups = filepath.Join(w.cfg.Backups, string(n.Place))
	}
	p, err := transport.StartPlace(transport.PlaceConfig{
		Place: n.Place, Leaf: n.Leaf, Dir: filepath.Join(w.cfg.Data, string(n.Place)), Backups: backups, Conn: conn, Prefix: w.cfg.Prefix, Rules: w.cfg.Rules,
		ReportInterval: w.cfg.ReportInterval, Heartbeat: w.cfg.Heartbeat, MaxAwake: w.cfg.MaxAwake,
		Version: w.cfg.Version, Store: storeOptions(len(w.cfg.Places)), Clock: w.clock, Metrics: w.cfg.Metrics, Logger: w.cfg.Logger,
	})
	if err != nil {
		conn.Close()
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running, n.conn, n.why = p, conn, nil
	p.SetLink(n.linked)
	return nil
}

// storeOptions has the stores of so many places share the memory that one would take, but for a little that each needs.
func storeOptions(places int) objects.Options {
	return objects.Options{
		MemTableBytes: max(2<<20, objects.DefaultMemTableBytes/int64(places)),
		CacheBytes:    max(8<<20, objects.DefaultCacheBytes/int64(places)),
	}
}

// inboxPrefix gives each connection its own inbox, so that permissions cover
// replies too.
func inboxPrefix(prefix string, p tiers.Place) string {
	if prefix == "" {
		prefix = transport.DefaultPrefix
	}
	return "_INBOX." + prefix + "." + string(p)
}

// supervise starts the place again when its store has failed, or its
// connection was closed for good, until ctx ends.
func (n *Node) supervise(ctx context.Context) {
	for {
		p := n.Running()
		if p == nil { // killed: Restart starts it
			select {
			case <-ctx.Done():
				return
			case <-time.After(superviseEach):
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
		}
		if n.Running() != p {
			continue // killed, and perhaps started again
		}
		err := p.Err()
		if errors.Is(err, tiers.ErrFenced) || errors.Is(err, tiers.ErrEnded) { // another start would end the same
			select {
			case n.world.fatal <- fmt.Errorf("place %s: %w", n.Place, err):
			default:
			}
			return
		}
		began, tries := time.Now(), 0
		n.doesNotRun(err)
		_ = n.stop(ctx) // what failed was logged
		retry := backoff.NewExponentialBackOff()
		retry.InitialInterval, retry.MaxInterval = 100*time.Millisecond, 5*time.Second
		_, err = backoff.Retry(ctx, func() (struct{}, error) {
			tries++
			err := n.start()
			if err != nil && n.doesNotRun(err) {
				n.world.cfg.Logger.Error().Err(err).Str("place", string(n.Place)).Msg("the place does not start again yet: trying until it does")
			}
			return struct{}{}, err
		}, backoff.WithBackOff(retry), backoff.WithMaxElapsedTime(0))
		if err != nil {
			return // ctx ended
		}
		n.world.cfg.Logger.Info().Str("place", string(n.Place)).Dur("after", time.Since(began)).Int("tries", tries).Msg("the place runs again")
	}
}

// superviseEach is how often a killed place is looked at.
const superviseEach = 20 * time.Millisecond

// stop ends what runs in good order, as far as ctx allows.
func (n *Node) stop(ctx context.Context) error {
	return n.end(func(p *transport.Place) error { return p.Stop(ctx) })
}

// end ends what runs, in some way, and its connection.
func (n *Node) end(how func(*transport.Place) error) error {
	n.turn.Lock()
	defer n.turn.Unlock()
	n.mu.Lock()
	p, conn := n.running, n.conn
	n.running, n.conn = nil, nil
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	err := how(p)
	conn.Close()
	return err
}

// Running is the place as it runs now, nil while it does not.
func (n *Node) Running() *transport.Place {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running
}

// SetLink cuts the link to the parent, or mends it.
func (n *Node) SetLink(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linked = up
	if n.running != nil {
		n.running.SetLink(up)
	}
}

// Linked says that the link to the parent is not cut.
func (n *Node) Linked() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linked
}

// Kill ends the place as a crash would, until Restart.
func (n *Node) Kill() error { return n.end((*transport.Place).Kill) }

// Restart starts a place that was killed, unless it runs again.
func (n *Node) Restart() error { return n.start() }

// Ready says why the place cannot take requests, if so.
func (n *Node) Ready() error {
	n.mu.Lock()
	p, why := n.running, n.why
	n.mu.Unlock()
	switch {
	case p != nil:
		return p.Ready()
	case why != nil:
		return fmt.Errorf("%s does not run, and is started again: %w", n.Place, why)
	}
	return fmt.Errorf("%s does not run", n.Place)
}

// Refused says why the place's parent does not hear it, as
// [transport.Place.Refused] does.
func (n *Node) Refused() string {
	if p := n.Running(); p != nil {
		return p.Refused()
	}
	return ""
}

// doesNotRun notes why the place does not run, and says whether that is news.
func (n *Node) doesNotRun(why error) (news bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	news = n.why == nil || n.why.Error() != why.Error()
	n.why = why
	return news
}
