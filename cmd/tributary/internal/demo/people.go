package demo

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/transport"
)

const (
	// leastVotes is what every city casts in a second, whatever the hour.
	leastVotes = 110
	// checksPerVote makes the cities ask for more than the limit has, also in
	// the hours when most of them sleep.
	checksPerVote = 0.85
	// hour is how long an hour of the demo's day takes.
	hour = time.Second
	// beat is how often a city's people act.
	beat = 10 * time.Millisecond
	// maxWaiting bounds what one city's people wait for at a time, to a second
	// of what they ask; who would be one more goes home. A machine that is too
	// slow for the demo then has a smaller one, and not ever more of it.
	maxWaiting = 250
	// patience is how long a person waits for an answer.
	patience = 5 * time.Second
)

// A city's people.
type city struct {
	spot
	demo   *Demo
	nc     *nats.Conn
	client *transport.Client

	mu                sync.Mutex
	waiting           int
	votes             []Votes // by candidate
	offered, admitted int64
}

// rate is how many votes a second are cast at an hour of the day: people
// sleep, but never all of them.
func (c *city) rate(at time.Duration) float64 {
	local := at.Hours()*float64(time.Hour/hour) + c.zone
	return c.demo.crowd * max(leastVotes, c.voters*(1+0.35*math.Sin((local-9)*math.Pi/12)))
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
			c.act(&answers, func(ctx context.Context) { _, _ = c.vote(ctx, anyone()) }) // it was noted how that went
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
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		do(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.waiting--
	})
}

// anyone prefers a candidate.
func anyone() int {
	p := rand.Float64()
	for i, c := range candidates {
		if p -= c.share; p < 0 {
			return i
		}
	}
	return 0
}

// vote casts one vote.
func (c *city) vote(ctx context.Context, candidate int) (transport.AddReply, error) {
	c.note(candidate, Votes{Sent: 1})
	reply, err := c.client.Add(ctx, votes, candidates[candidate].name, 1)
	switch {
	case err == nil:
		c.note(candidate, Votes{Cast: 1})
	case errors.Is(err, transport.ErrNoResponders):
		c.note(candidate, Votes{Refused: 1})
	default: // a place that fails may have it on its disk all the same
		c.note(candidate, Votes{Unanswered: 1})
	}
	return reply, err
}

func (c *city) note(candidate int, v Votes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.votes[candidate].add(v)
}

// ask checks the shared limit once.
func (c *city) ask(ctx context.Context) {
	sent := time.Now()
	reply, err := c.client.Check(ctx, limited, key)
	answered := time.Now()
	if err != nil {
		return
	}
	c.demo.limit.count(sent, answered, reply.Allowed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offered++
	if reply.Allowed {
		c.admitted++
	}
}
