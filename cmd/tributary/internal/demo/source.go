package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/cmd/tributary/internal/page"
	"github.com/tributary-io/tributary/tiers"
)

// readWithin is how long the places may take to say what they have, for one
// sample.
const readWithin = page.SampleInterval / 2

// source shows the demo to the page.
type source struct {
	*Demo
	rule string
	past []sample                  // the last second's, oldest first
	last map[tiers.Place][]reading // what each place said last
}

// sample is what was counted when, to take rates over about a second.
type sample struct {
	at                time.Time
	cities            []figures
	offered, admitted int64
}

type figures struct{ cast, offered, admitted int64 }

// Source returns the demo as the page sees it.
func (d *Demo) Source() page.Source {
	return &source{Demo: d, rule: fmt.Sprintf("%d/s, burst %d, global, hard", Rate, Burst), last: map[tiers.Place][]reading{}}
}

func (s *source) sample() sample {
	now := sample{at: time.Now()}
	for _, c := range s.cities {
		c.mu.Lock()
		f := figures{offered: c.offered, admitted: c.admitted}
		for _, v := range c.votes {
			f.cast += v.Cast
		}
		c.mu.Unlock()
		now.cities = append(now.cities, f)
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
	s.read()
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
		for i, r := range s.last[spot.place] {
			r.show(&p, candidates[i].name)
		}
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
		Name: limited + "/" + key, Rule: s.rule, Rate: Rate, Burst: Burst,
		Offered: offered, Admitted: admitted, Bound: bound,
		OfferedPerSecond: float64(now.offered-then.offered) / seconds, AdmittedPerSecond: float64(now.admitted-then.admitted) / seconds,
	}
	if possible := min(w.Limit.OfferedPerSecond, Rate); possible > 0 {
		w.Limit.Utilisation = min(1, w.Limit.AdmittedPerSecond/possible)
	}
	return w
}

// A reading is what one place has of one candidate's votes.
type reading struct {
	place     tiers.Place
	candidate int
	total     tiers.Total
	global    tiers.View // at a city, once one came: what it knows of the world
	viewed    bool
	err       error
}

func (r *reading) show(p *page.Place, candidate string) {
	p.Totals[candidate] = int64(r.total.Added - r.total.Removed)
	if r.viewed {
		p.Global[candidate] = int64(r.global.Total.Added - r.global.Total.Removed)
		p.GlobalAgeMS, p.Behind = r.global.Age.Milliseconds(), r.global.Behind
	}
}

// read asks all places what they have, parents first: what is in transit is
// then never less than nothing. A place reads at once, and answers when what
// it read is durable: all places wait for their disks at the same time. One
// that does not answer in time is shown as it last was.
func (s *source) read() {
	nodes := s.World.Nodes()
	answers := make(chan reading, len(nodes)*len(candidates)) // room for those that come too late
	asked := 0
	for _, n := range nodes {
		running := n.Running()
		if running == nil {
			continue
		}
		for i, c := range candidates {
			asked++
			running.Runner().Get(tiers.Name{Namespace: votes, Key: c.name}, func(t tiers.Total, views []tiers.View, _ bool, err error) {
				r := reading{place: n.Place, candidate: i, total: t, err: err}
				for _, v := range views {
					if n.Leaf && v.Place == tiers.Root && v.Age >= 0 {
						r.global, r.viewed = v, true
					}
				}
				answers <- r
			})
		}
	}
	late := time.NewTimer(readWithin)
	defer late.Stop()
	for range asked {
		select {
		case r := <-answers:
			if r.err != nil {
				continue
			}
			if s.last[r.place] == nil {
				s.last[r.place] = make([]reading, len(candidates))
			}
			s.last[r.place][r.candidate] = r
		case <-late.C:
			return
		}
	}
}

// Vote implements page.Source.
func (s *source) Vote(ctx context.Context, place, candidate string) (int64, error) {
	i := slices.IndexFunc(s.cities, func(c *city) bool { return string(c.place) == place })
	if i < 0 {
		return 0, fmt.Errorf("%w: %q is no city of the demo", page.ErrUnknown, place)
	}
	j := slices.IndexFunc(candidates, func(c candidacy) bool { return c.name == candidate })
	if j < 0 {
		return 0, fmt.Errorf("%w: nobody is called %q", page.ErrUnknown, candidate)
	}
	reply, err := s.cities[i].vote(ctx, j)
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
