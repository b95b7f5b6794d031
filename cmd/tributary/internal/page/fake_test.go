package page

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"time"
)

// fakeWorld is a world in memory: a sample moves it by one SampleInterval, and what a place has reaches the place
// above with the next sample, if the link is up. The same goes for views, downwards.
type fakeWorld struct {
	mu         sync.Mutex
	start, at  time.Time
	candidates []string
	order      []*fakePlace
	places     map[string]*fakePlace
	offered    float64
	admitted   float64
	quiet      bool // no votes but those that are cast by hand
	samples    int
	sampling   int // Snapshot calls that run now
	linkErr    error
	hook       func() // called in each Snapshot, unlocked
}

type fakePlace struct {
	Place
	weight float64
	shown  map[string]int64 // what the place above has of this one
}

func newFakeWorld() *fakeWorld {
	f := &fakeWorld{
		start:      time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC),
		candidates: []string{"Ada", "Grace", "Linus", "Margaret"},
		places:     map[string]*fakePlace{},
	}
	f.at = f.start
	f.add("global", "World", "global", 0, 0, 0)
	for _, r := range []struct{ place, name, countries string }{
		{"eu", "Europe", "de:Germany fr:France uk:Britain"},
		{"am", "Americas", "us:United_States br:Brazil"},
		{"ap", "Asia-Pacific", "jp:Japan in:India"},
	} {
		f.add(r.place, r.name, "region", 0, 0, 0)
		for c := range strings.FieldsSeq(r.countries) {
			token, name, _ := strings.Cut(c, ":")
			f.add(r.place+"."+token, strings.ReplaceAll(name, "_", " "), "country", 0, 0, 0)
		}
	}
	for _, c := range []struct {
		place, name      string
		lat, lon, weight float64
	}{
		{"eu.de.berlin", "Berlin", 52.5, 13.4, 140},
		{"eu.de.munich", "Munich", 48.1, 11.6, 110},
		{"eu.de.hamburg", "Hamburg", 53.6, 10, 105},
		{"eu.fr.paris", "Paris", 48.9, 2.4, 190},
		{"eu.fr.lyon", "Lyon", 45.8, 4.8, 100},
		{"eu.uk.london", "London", 51.5, -.1, 230},
		{"eu.uk.leeds", "Leeds", 53.8, -1.5, 100},
		{"am.us.nyc", "New York", 40.7, -74, 240},
		{"am.us.chicago", "Chicago", 41.9, -87.6, 130},
		{"am.us.sf", "San Francisco", 37.8, -122.4, 150},
		{"am.br.sao-paulo", "São Paulo", -23.5, -46.6, 210},
		{"am.br.rio", "Rio de Janeiro", -22.9, -43.2, 120},
		{"ap.jp.tokyo", "Tokyo", 35.7, 139.7, 320},
		{"ap.jp.osaka", "Osaka", 34.7, 135.5, 160},
		{"ap.in.mumbai", "Mumbai", 19.1, 72.9, 280},
		{"ap.in.delhi", "Delhi", 28.6, 77.2, 300},
	} {
		f.add(c.place, c.name, "city", c.lat, c.lon, c.weight)
	}
	return f
}

func (f *fakeWorld) add(place, name, tier string, lat, lon, weight float64) {
	parent := "global"
	if i := strings.LastIndexByte(place, '.'); i >= 0 {
		parent = place[:i]
	}
	if tier == "global" {
		parent = ""
	}
	p := &fakePlace{weight: weight, Place: Place{
		Place: place, Name: name, Tier: tier, Parent: parent, Lat: lat, Lon: lon, Linked: true,
		Totals: map[string]int64{}, Global: map[string]int64{}, GlobalAgeMS: -1,
	}}
	f.order = append(f.order, p)
	f.places[place] = p
}

func (f *fakeWorld) Snapshot() World {
	if f.hook != nil {
		f.hook()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sampling++
	defer func() { f.sampling-- }()
	if f.sampling > 1 {
		panic("two samplers at once")
	}
	f.samples++
	f.step()
	w := World{At: f.at, ElapsedSeconds: f.at.Sub(f.start).Seconds(), Candidates: f.candidates, Limit: f.limit()}
	for _, p := range f.order {
		shown := p.Place
		shown.Totals, shown.Global = maps.Clone(p.Totals), maps.Clone(p.Global)
		w.Places = append(w.Places, shown)
	}
	return w
}

func (f *fakeWorld) step() {
	dt := SampleInterval.Seconds()
	f.at = f.at.Add(SampleInterval)
	t := f.at.Sub(f.start).Seconds()
	root := f.places["global"]
	down := 0
	for _, p := range f.order { // parents first: what is passed up has the age of one sample a tier
		if !p.Linked {
			down++
		}
		if above := f.places[p.Parent]; above != nil && p.Linked {
			for c, n := range p.Totals {
				if p.shown == nil {
					p.shown = map[string]int64{}
				}
				above.Totals[c] += n - p.shown[c]
				p.shown[c] = n
			}
		}
		if p.weight == 0 {
			continue
		}
		if f.linked(p) {
			p.Global, p.GlobalAgeMS = maps.Clone(root.Totals), int64(8+p.weight/10+6*math.Sin(t+p.weight))
		} else {
			p.GlobalAgeMS += SampleInterval.Milliseconds()
		}
		if f.quiet {
			continue
		}
		p.VotesPerSecond = p.weight * (1 + .25*math.Sin(t/9+p.Lon/40))
		p.OfferedPerSecond = p.VotesPerSecond * .55
		p.AdmittedPerSecond = p.OfferedPerSecond * min(1, 1000/(f.offered+1))
		for i, c := range f.candidates {
			p.Totals[c] += int64(math.Round(p.VotesPerSecond * dt * []float64{.34, .29, .16, .21}[i]))
		}
	}
	for _, p := range f.order {
		if p.weight > 0 && f.linked(p) {
			p.Behind = down
		}
	}
	f.offered = 1350 + 420*math.Sin(t/7) + 90*math.Sin(t*1.7)
	f.admitted += min(f.offered, 1000) * dt
}

func (f *fakeWorld) limit() Limit {
	t := f.at.Sub(f.start).Seconds()
	return Limit{
		Name: "api/world", Rule: "1,000/s, burst 2,000, global, hard", Rate: 1000, Burst: 2000,
		OfferedPerSecond: f.offered, AdmittedPerSecond: min(f.offered, 1000), Admitted: int64(f.admitted),
		Offered: int64(1350 * t), Bound: 2000 + int64(1000*t), Utilisation: f.admitted / (1000 * t),
	}
}

func (f *fakeWorld) linked(p *fakePlace) bool {
	for ; p != nil; p = f.places[p.Parent] {
		if !p.Linked {
			return false
		}
	}
	return true
}

func (f *fakeWorld) Vote(ctx context.Context, place, candidate string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.places[place]
	switch {
	case p == nil:
		return 0, fmt.Errorf("place %q: %w", place, ErrUnknown)
	case p.Tier != "city":
		return 0, fmt.Errorf("a vote in %q is %w: it is no city", place, ErrRefused)
	}
	p.Totals[candidate]++
	return p.Totals[candidate], ctx.Err()
}

func (f *fakeWorld) Link(_ context.Context, place string, up bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.places[place]
	if p == nil {
		return fmt.Errorf("place %q: %w", place, ErrUnknown)
	}
	if f.linkErr != nil {
		return f.linkErr
	}
	p.Linked = up
	return nil
}

func (f *fakeWorld) sampled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.samples
}
