// Package demo is the world of `tributary demo`: a root, regions, countries
// and cities in one process, each with its own store and its own connection,
// and people who vote and ask, over NATS like anybody else.
package demo

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
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

	// leastVotes is what every city casts in a second, whatever the hour.
	leastVotes = 100
	// checksPerVote makes the cities ask for more than the limit has.
	checksPerVote = 0.6
	// hour is how long an hour of the demo's day takes.
	hour = time.Second
	// beat is how often a city's people act.
	beat = 10 * time.Millisecond
	// maxWaiting bounds what one city's people wait for at a time.
	maxWaiting = 2000
)

// Rate and burst of the limit that the cities share.
const (
	Rate  = 1000
	Burst = 2000
)

// Config says what the demo runs on.
type Config struct {
	Data    string
	Server  *transport.Server
	Version string
	Metrics *transport.Metrics
	Logger  zerolog.Logger
}

// Demo is the running demo.
type Demo struct {
	World   *world.World
	cities  []*city
	limit   meter
	began   time.Time
	rootNC  *nats.Conn
	root    *transport.Client
	stopped context.CancelFunc
	people  sync.WaitGroup
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

// Start starts the world and its people.
func Start(cfg Config) (*Demo, error) {
	d := &Demo{began: time.Now()}
	var specs []world.Spec
	for _, s := range spots {
		specs = append(specs, world.Spec{Place: s.place, Leaf: s.voters > 0})
	}
	w, err := world.Start(context.Background(), world.Config{
		Places: specs, Data: cfg.Data, Server: cfg.Server, Rules: Rules(), Version: cfg.Version, Metrics: cfg.Metrics, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	d.World = w
	if d.rootNC, err = cfg.Server.Connect(); err != nil {
		return nil, err
	}
	if d.root, err = transport.NewClient(d.rootNC, transport.WithPlace(string(tiers.Root))); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stopped = cancel
	for _, s := range spots {
		if s.voters == 0 {
			continue
		}
		c := &city{spot: s, demo: d}
		if c.nc, err = cfg.Server.Connect(); err != nil {
			return nil, err
		}
		if c.client, err = transport.NewClient(c.nc, transport.WithPlace(string(s.place))); err != nil {
			return nil, err
		}
		d.cities = append(d.cities, c)
		d.people.Go(func() { c.live(ctx) })
	}
	return d, nil
}

// StopPeople ends the voting, and waits for the answers.
func (d *Demo) StopPeople() {
	d.stopped()
	d.people.Wait()
}

// Stop ends the demo.
func (d *Demo) Stop(ctx context.Context) error {
	d.StopPeople()
	for _, c := range d.cities {
		c.nc.Close()
	}
	d.rootNC.Close()
	return d.World.Stop(ctx)
}

// A meter counts what was offered and admitted, by the callers.
type meter struct {
	mu                sync.Mutex
	offered, admitted int64
	first, last       time.Time // of the admitted checks: the first sent, the last answered
}

func (m *meter) count(sent time.Time, allowed bool) {
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
	m.last = time.Now()
}

// read returns the figures, and the bound B + R·t on what was admitted.
func (m *meter) read() (offered, admitted, bound int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offered, m.admitted, Burst + int64(Rate*m.last.Sub(m.first).Seconds())
}

// A city's people.
type city struct {
	spot
	demo   *Demo
	nc     *nats.Conn
	client *transport.Client

	mu                         sync.Mutex
	waiting                    int
	cast, unanswered           map[string]int64 // votes, by candidate
	castAll, offered, admitted int64
}

// rate is how many votes a second are cast at an hour of the day: people
// sleep, but never all of them.
func (c *city) rate(at time.Duration) float64 {
	local := at.Hours()*float64(time.Hour/hour) + c.zone
	return max(leastVotes*1.1, c.voters*(1+0.35*math.Sin((local-9)*math.Pi/12)))
}

// live lets people vote and ask until ctx ends, and waits for the answers.
func (c *city) live(ctx context.Context) {
	var answers sync.WaitGroup
	defer answers.Wait()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	last := time.Now()
	var voters, askers float64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		arrived := c.rate(now.Sub(c.demo.began)) * now.Sub(last).Seconds()
		last = now
		voters, askers = voters+arrived, askers+arrived*checksPerVote
		for ; voters >= 1; voters-- {
			c.act(&answers, func(ctx context.Context) { c.vote(ctx, anyone()) })
		}
		for ; askers >= 1; askers-- {
			c.act(&answers, c.ask)
		}
	}
}

// act lets one person do something, unless too many wait already.
func (c *city) act(answers *sync.WaitGroup, do func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting >= maxWaiting {
		return
	}
	c.waiting++
	answers.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		do(ctx)
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	})
}

// anyone prefers a candidate.
func anyone() string {
	p := rand.Float64()
	for _, c := range candidates {
		if p -= c.share; p < 0 {
			return c.name
		}
	}
	return candidates[0].name
}

// vote casts one vote.
func (c *city) vote(ctx context.Context, candidate string) (transport.AddReply, error) {
	reply, err := c.client.Add(ctx, votes, candidate, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cast == nil {
		c.cast, c.unanswered = map[string]int64{}, map[string]int64{}
	}
	if err == nil {
		c.cast[candidate]++
		c.castAll++
	} else {
		c.unanswered[candidate]++ // it may have been done
	}
	return reply, err
}

// ask checks the shared limit once.
func (c *city) ask(ctx context.Context) {
	sent := time.Now()
	reply, err := c.client.Check(ctx, limited, key)
	if err != nil {
		return
	}
	c.demo.limit.count(sent, reply.Allowed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offered++
	if reply.Allowed {
		c.admitted++
	}
}

// Cast sums the votes that were acknowledged, and those that were not.
func (d *Demo) Cast() (acknowledged, unanswered int64) {
	for _, c := range d.cities {
		c.mu.Lock()
		for _, n := range c.cast {
			acknowledged += n
		}
		for _, n := range c.unanswered {
			unanswered += n
		}
		c.mu.Unlock()
	}
	return acknowledged, unanswered
}

// Counted asks the root, over NATS, for all votes.
func (d *Demo) Counted(ctx context.Context) (sum int64, err error) {
	for _, c := range candidates {
		reply, err := d.root.Get(ctx, votes, c.name)
		if err != nil {
			return 0, err
		}
		n, _ := reply.Total.Int64()
		sum += n
	}
	return sum, nil
}

// ViewAges asks the cities, over NATS, how old their view of the world is.
func (d *Demo) ViewAges(ctx context.Context) (ages []time.Duration) {
	for _, c := range d.cities {
		reply, err := c.client.Get(ctx, votes, candidates[0].name)
		if err != nil {
			continue
		}
		for _, v := range reply.Views {
			if v.Place == string(tiers.Root) {
				ages = append(ages, v.Age)
			}
		}
	}
	return ages
}

// Limit returns what was offered and admitted of the limit, and the bound.
func (d *Demo) Limit() (offered, admitted, bound int64) { return d.limit.read() }

// Cities is how many cities vote.
func (d *Demo) Cities() int { return len(d.cities) }
