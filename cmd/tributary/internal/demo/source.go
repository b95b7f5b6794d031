package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/cmd/tributary/internal/page"
	"github.com/tributary-io/tributary/tiers"
)

// source shows the demo to the page.
type source struct {
	*Demo
	past []sample // the last second's, oldest first
}

// sample is what was counted when, to take rates over about a second.
type sample struct {
	at                time.Time
	cities            []figures
	offered, admitted int64
}

type figures struct{ cast, offered, admitted int64 }

// Source returns the demo as the page sees it.
func (d *Demo) Source() page.Source { return &source{Demo: d} }

func (s *source) sample() sample {
	now := sample{at: time.Now()}
	for _, c := range s.cities {
		c.mu.Lock()
		now.cities = append(now.cities, figures{c.castAll, c.offered, c.admitted})
		c.mu.Unlock()
	}
	now.offered, now.admitted, _ = s.Limit()
	return now
}

// rates returns the sample now, and the one of about a second ago.
func (s *source) rates() (now, then sample, seconds float64) {
	now = s.sample()
	s.past = append(s.past, now)
	for len(s.past) > 2 && now.at.Sub(s.past[1].at) >= time.Second {
		s.past = slices.Delete(s.past, 0, 1)
	}
	then = s.past[0]
	return now, then, max(now.at.Sub(then.at).Seconds(), 0.001)
}

// Snapshot implements page.Source.
func (s *source) Snapshot() page.World {
	now, then, seconds := s.rates()
	w := page.World{At: now.at, ElapsedSeconds: now.at.Sub(s.began).Seconds()}
	for _, c := range candidates {
		w.Candidates = append(w.Candidates, c.name)
	}
	for _, spot := range spots { // the root is the first
		p := page.Place{
			Place: string(spot.place), Name: spot.name, Tier: spot.place.Tier(), Parent: string(spot.place.Parent()),
			Lat: spot.lat, Lon: spot.lon, GlobalAgeMS: -1, Linked: s.World.Node(spot.place).Linked(),
			Totals: map[string]int64{}, Global: map[string]int64{},
		}
		s.totals(&p)
		if i := slices.IndexFunc(s.cities, func(c *city) bool { return c.place == spot.place }); i >= 0 {
			rate := func(now, then int64) float64 { return float64(now-then) / seconds }
			p.VotesPerSecond = rate(now.cities[i].cast, then.cities[i].cast)
			p.OfferedPerSecond = rate(now.cities[i].offered, then.cities[i].offered)
			p.AdmittedPerSecond = rate(now.cities[i].admitted, then.cities[i].admitted)
		}
		w.Places = append(w.Places, p)
	}
	offered, admitted, bound := s.Limit()
	w.Limit = page.Limit{
		Name: limited + "/" + key, Rule: Rules().Rule(limited).Limits[0].String() + ", hard", Rate: Rate, Burst: Burst,
		Offered: offered, Admitted: admitted, Bound: bound,
		OfferedPerSecond: float64(now.offered-then.offered) / seconds, AdmittedPerSecond: float64(now.admitted-then.admitted) / seconds,
	}
	if possible := min(w.Limit.OfferedPerSecond, Rate); possible > 0 {
		w.Limit.Utilisation = min(1, w.Limit.AdmittedPerSecond/possible)
	}
	return w
}

// totals fills in what a place has counted, and what it knows of the world.
func (s *source) totals(p *page.Place) {
	running := s.World.Node(tiers.Place(p.Place)).Running()
	if running == nil {
		return
	}
	for _, c := range candidates {
		got := make(chan struct{})
		running.Runner().Get(tiers.Name{Namespace: votes, Key: c.name}, func(t tiers.Total, views []tiers.View, err error) {
			defer close(got)
			if err != nil {
				return
			}
			p.Totals[c.name] = int64(t.Added - t.Removed)
			for _, v := range views {
				if v.Place == tiers.Root && v.Age >= 0 {
					p.Global[c.name] = int64(v.Total.Added - v.Total.Removed)
					p.GlobalAgeMS, p.Behind = v.Age.Milliseconds(), v.Behind
				}
			}
		})
		<-got
	}
}

// Vote implements page.Source.
func (s *source) Vote(ctx context.Context, place, candidate string) (int64, error) {
	i := slices.IndexFunc(s.cities, func(c *city) bool { return string(c.place) == place })
	if i < 0 {
		return 0, fmt.Errorf("%w: %q is no city of the demo", page.ErrUnknown, place)
	}
	if !slices.ContainsFunc(candidates, func(c struct {
		name  string
		share float64
	}) bool {
		return c.name == candidate
	}) {
		return 0, fmt.Errorf("%w: nobody is called %q", page.ErrUnknown, candidate)
	}
	reply, err := s.cities[i].vote(ctx, candidate)
	if err != nil {
		return 0, err
	}
	total, _ := reply.Total.Int64()
	return total, nil
}

// Link implements page.Source.
func (s *source) Link(_ context.Context, place string, up bool) error {
	n := s.World.Node(tiers.Place(place))
	switch {
	case n == nil:
		return fmt.Errorf("%w: %q is no place of the demo", page.ErrUnknown, place)
	case n.Place == tiers.Root:
		return fmt.Errorf("%w: the root has no link to cut", page.ErrRefused)
	}
	n.SetLink(up)
	return nil
}
