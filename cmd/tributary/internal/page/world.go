package page

import (
	"context"
	"errors"
	"math"
	"time"
)

// Source is the world that the page shows and acts on. Its methods may be called concurrently with each other, but
// Snapshot only ever by one goroutine at a time.
type Source interface {
	// Snapshot returns the world as it is now. The page keeps the result: the next call must return new maps and
	// slices. It should read the root's totals before those of the cities (totals only grow, so what is still in
	// transit then never comes out negative), and must not take longer than [SampleInterval].
	Snapshot() World
	// Vote casts one vote in a city and returns, once it is durable there, the city's own total of that candidate.
	Vote(ctx context.Context, place, candidate string) (total int64, err error)
	// Link cuts (up is false) or mends a place's link to its parent. To cut what is cut is no error.
	Link(ctx context.Context, place string, up bool) error
}

// What a [Source] may wrap in an error, to say whose fault it was. Any other error is answered with 503: the world
// could not do it now.
var (
	ErrUnknown = errors.New("unknown")     // no such place or candidate: 404
	ErrRefused = errors.New("not allowed") // the place does not do this (a vote in a country, the root's link): 409
)

// World is one sample: the data of one server-sent event "world". Totals are JSON numbers; JavaScript is exact up to
// 2⁵³.
type World struct {
	At             time.Time `json:"at"`
	ElapsedSeconds float64   `json:"elapsed_seconds"` // since the world started
	Candidates     []string  `json:"candidates"`
	Places         []Place   `json:"places"` // parents before children, siblings in the order to show them
	Limit          Limit     `json:"limit"`
}

// Place is one node of the tree.
type Place struct {
	Place  string  `json:"place"`  // "eu.de.berlin"; the root is "global"
	Name   string  `json:"name"`   // "Berlin"
	Tier   string  `json:"tier"`   // "global", "region", "country", "city"
	Parent string  `json:"parent"` // "eu.de"; the root has none: ""
	Lat    float64 `json:"lat"`    // degrees north; only a city's count, a tier above lies in the middle of its own
	Lon    float64 `json:"lon"`    // degrees east
	Linked bool    `json:"linked"` // whether the link to its parent is up (of the root: true)

	// Totals are the place's own, per candidate: a city's count, a country's sum of what its cities reported.
	Totals map[string]int64 `json:"totals"`

	// Global is what a city knows of the global totals, GlobalAgeMS how old that is (-1: nothing came yet), and
	// Behind how many places the view says are cut off from it.
	Global      map[string]int64 `json:"global"`
	GlobalAgeMS int64            `json:"global_age_ms"`
	Behind      int              `json:"behind"`

	VotesPerSecond    float64 `json:"votes_per_second"`
	AdmittedPerSecond float64 `json:"admitted_per_second"` // of the limited namespace, in cities
	OfferedPerSecond  float64 `json:"offered_per_second"`
}

// Limit is the shared limit: what was offered, what was admitted, and the law that bounds it. Its rates, like those of
// places, are best taken over about a second: the page draws them as they come.
type Limit struct {
	Name              string  `json:"name"`  // "api/world"
	Rule              string  `json:"rule"`  // "1,000/s, burst 2,000, global, hard"
	Rate              int64   `json:"rate"`  // R, tokens per second
	Burst             int64   `json:"burst"` // B, tokens
	OfferedPerSecond  float64 `json:"offered_per_second"`
	AdmittedPerSecond float64 `json:"admitted_per_second"`
	Admitted          int64   `json:"admitted"` // since the start, as Offered
	Offered           int64   `json:"offered"`
	Bound             int64   `json:"bound"`       // B + R·t at the time of the sample
	Utilisation       float64 `json:"utilisation"` // admitted / min(offered, R·t): 0 to 1
}

// tidy makes a sample fit for JSON: rates of a world that has just started may be 0/0, and JavaScript wants [], not
// null.
func (w *World) tidy() {
	finite(&w.ElapsedSeconds, &w.Limit.OfferedPerSecond, &w.Limit.AdmittedPerSecond, &w.Limit.Utilisation)
	if w.Candidates == nil {
		w.Candidates = []string{}
	}
	if w.Places == nil {
		w.Places = []Place{}
	}
	for i := range w.Places {
		p := &w.Places[i]
		finite(&p.Lat, &p.Lon, &p.VotesPerSecond, &p.AdmittedPerSecond, &p.OfferedPerSecond)
		if p.Totals == nil {
			p.Totals = map[string]int64{}
		}
		if p.Global == nil {
			p.Global = map[string]int64{}
		}
	}
}

func finite(values ...*float64) {
	for _, v := range values {
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			*v = 0
		}
	}
}
