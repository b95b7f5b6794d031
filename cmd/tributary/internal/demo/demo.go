// Package demo is the world of `tributary demo`: a root, regions, countries
// and cities in one process, each with its own store and its own connection,
// and people who vote and ask, over NATS like anybody else.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/cmd/tributary/internal/world"
	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

const (
	votes   = "votes"
	limited = "api"
	key     = "world"
)

// Rate and burst of the limit that the cities share. The burst is so small
// that the cities have used it up by second 2: what is measured from then on
// is the rate.
const (
	Rate  = 1000
	Burst = 1000
)

// askWithin bounds what the demo itself asks of a place.
const askWithin = 5 * time.Second

// Config says what the demo runs on.
type Config struct {
	Data    string
	Server  *transport.Server
	Version string
	Metrics *transport.Metrics
	Logger  zerolog.Logger

	// For tests: what is told of each admitted check, and which part of the
	// people is there, all of them if 0.
	admitted func(sent, answered time.Time)
	crowd    float64
}

// Demo is the running demo.
type Demo struct {
	World  *world.World
	cities []*city
	crowd  float64
	limit  meter
	began  time.Time // when the people began
	rootNC *nats.Conn
	root   *transport.Client
	before []int64 // what the cities' disks held of each candidate from an earlier run
	stop   context.CancelFunc
	people sync.WaitGroup
}

// Rules are the demo's.
func Rules() *limiter.Rules {
	burst := int64(Burst)
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		votes:   {},
		limited: {Limits: []limiter.LimitSpec{{Scope: "global", Rate: fmt.Sprintf("%d/s", Rate), Burst: &burst}}},
	}})
	if err != nil {
		panic(err) // they are constants
	}
	return rules
}

// Start starts the world and its people. What it started before an error is
// stopped again.
func Start(cfg Config) (d *Demo, err error) {
	ctx, stop := context.WithCancel(context.Background())
	d = &Demo{crowd: cmp.Or(cfg.crowd, 1), limit: meter{each: cfg.admitted}, stop: stop}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), askWithin)
		defer cancel()
		d, err = nil, errors.Join(err, d.Stop(ctx))
	}()
	var specs []world.Spec
	for _, s := range spots {
		specs = append(specs, world.Spec{Place: s.place, Leaf: s.voters > 0})
	}
	if d.World, err = world.Start(context.Background(), world.Config{
		Places: specs, Data: cfg.Data, Server: cfg.Server, Rules: Rules(), Version: cfg.Version, Metrics: cfg.Metrics, Logger: cfg.Logger,
	}); err != nil {
		return d, err
	}
	if p := d.World.Node(tiers.Root).Running(); p != nil && p.Runner().Current().Hash != Rules().Hash {
		return d, fmt.Errorf("the stores in %s are another world's, whose rules are not the demo's: give --data another folder", cfg.Data)
	}
	if d.rootNC, d.root, err = dial(cfg.Server, tiers.Root); err != nil {
		return d, err
	}
	d.before = make([]int64, len(candidates))
	for _, s := range spots {
		if s.voters == 0 {
			continue
		}
		c := &city{spot: s, demo: d, votes: make([]Votes, len(candidates))}
		if c.nc, c.client, err = dial(cfg.Server, s.place); err != nil {
			return d, err
		}
		d.cities = append(d.cities, c)
		totals, err := totalsAt(ctx, c.client)
		if err != nil {
			return d, err
		}
		for i, n := range totals {
			d.before[i] += n
		}
	}
	d.began = time.Now()
	for _, c := range d.cities {
		d.people.Go(func() { c.live(ctx) })
	}
	return d, nil
}

// dial connects to the server, to ask one place.
func dial(server *transport.Server, p tiers.Place) (*nats.Conn, *transport.Client, error) {
	nc, err := server.Connect(nats.Name("people of " + string(p)))
	if err != nil {
		return nil, nil, err
	}
	c, err := transport.NewClient(nc, transport.WithPlace(string(p)))
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, c, nil
}

// StopPeople ends the voting, waits for the answers, and says how long people voted.
func (d *Demo) StopPeople() time.Duration {
	took := time.Since(d.began)
	d.stop()
	d.people.Wait()
	return took
}

// Stop ends the demo. Links that are cut are mended first: a place that
// stops tells its parent all it has, and would wait for that.
func (d *Demo) Stop(ctx context.Context) error {
	d.StopPeople()
	for _, c := range d.cities {
		c.nc.Close()
	}
	if d.rootNC != nil {
		d.rootNC.Close()
	}
	if d.World == nil {
		return nil
	}
	for _, n := range d.World.Nodes() {
		n.SetLink(true)
	}
	return d.World.Stop(ctx)
}

// A meter counts what was offered and admitted, by the callers.
type meter struct {
	each func(sent, answered time.Time) // told of each admitted check, where it is set

	mu                sync.Mutex
	offered, admitted int64
	first, last       time.Time // of the admitted checks: the first sent, the last answered
}

func (m *meter) count(sent, answered time.Time, allowed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offered++
	if !allowed {
		return
	}
	m.admitted++
	if m.first.IsZero() || sent.Before(m.first) {
		m.first = sent
	}
	if answered.After(m.last) {
		m.last = answered
	}
	if m.each != nil {
		m.each(sent, answered)
	}
}

// read returns the figures, and the bound B + R·t on what was admitted.
func (m *meter) read() (offered, admitted, bound int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offered, m.admitted, Burst + int64(Rate*m.last.Sub(m.first).Seconds())
}

// Votes are those of one candidate, by what the voters know of them.
type Votes struct {
	Sent       int64 // of which some have no answer yet
	Cast       int64 // acknowledged: they count
	Unanswered int64 // failed, and may count or not
	Refused    int64 // failed, and do not count: nobody was there to take them
}

func (v *Votes) add(w Votes) {
	v.Sent += w.Sent
	v.Cast += w.Cast
	v.Unanswered += w.Unanswered
	v.Refused += w.Refused
}

// Ballots are the votes of each candidate, in all cities.
func (d *Demo) Ballots() []Votes {
	all := make([]Votes, len(candidates))
	for _, c := range d.cities {
		c.mu.Lock()
		for i := range all {
			all[i].add(c.votes[i])
		}
		c.mu.Unlock()
	}
	return all
}

// Votes are the votes of all candidates, in all cities.
func (d *Demo) Votes() (all Votes) {
	for _, v := range d.Ballots() {
		all.add(v)
	}
	return all
}

// Tally asks the root, over NATS, for each candidate's votes of this run.
func (d *Demo) Tally(ctx context.Context) ([]int64, error) {
	totals, err := totalsAt(ctx, d.root)
	for i := range totals {
		totals[i] -= d.before[i]
	}
	return totals, err
}

// Counted is the sum of the [Demo.Tally].
func (d *Demo) Counted(ctx context.Context) (sum int64, err error) {
	totals, err := d.Tally(ctx)
	for _, n := range totals {
		sum += n
	}
	return sum, err
}

// totalsAt asks a place for each candidate's total, in one message.
func totalsAt(ctx context.Context, c *transport.Client) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	requests := make([]transport.GetRequest, len(candidates))
	for i, candidate := range candidates {
		requests[i] = transport.GetRequest{Namespace: votes, Key: candidate.name}
	}
	replies, err := c.GetBatch(ctx, requests)
	if err != nil {
		return nil, err
	}
	totals := make([]int64, len(candidates))
	for i, r := range replies {
		if r.Err != nil {
			return nil, r.Err
		}
		n, exact := r.Reply.Total.Int64()
		if !exact {
			return nil, fmt.Errorf("%s has more votes than the demo can count", candidates[i].name)
		}
		totals[i] = n
	}
	return totals, nil
}

// ViewAges asks the cities, over NATS and all at once, how old their view of
// the world's votes for a candidate is. A city that has none yet is left out.
func (d *Demo) ViewAges(ctx context.Context, candidate int) (ages []time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, c := range d.cities {
		asked.Go(func() {
			reply, err := c.client.Get(ctx, votes, candidates[candidate].name)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range reply.Views {
				if v.Place == string(tiers.Root) {
					ages = append(ages, v.Age)
				}
			}
		})
	}
	asked.Wait()
	return ages
}

// Limit returns what was offered and admitted of the limit, and the bound.
func (d *Demo) Limit() (offered, admitted, bound int64) { return d.limit.read() }

// Cities is how many cities vote.
func (d *Demo) Cities() int { return len(d.cities) }
