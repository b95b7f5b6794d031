package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Result is what a run of the demo measured.
type Result struct {
	Places int `json:"places"`
	Votes  struct {
		Cast    int64 `json:"cast"`    // acknowledged to the voters
		Counted int64 `json:"counted"` // the root's answer, over NATS
	} `json:"votes"`
	ConvergedMS int64 `json:"converged_ms"` // from the last vote's answer until the root had all
	Limit       struct {
		Bound       int64   `json:"bound"`    // B + R·t, from the first to the last admitted check
		Admitted    int64   `json:"admitted"` // by all cities together
		Offered     int64   `json:"offered"`
		Utilisation float64 `json:"utilisation"` // from second 2 on: admitted / min(offered, R·t)
	} `json:"limit"`
	ViewAgeMS struct {
		P50 int64 `json:"p50"`
		P99 int64 `json:"p99"`
	} `json:"view_age_ms"`
}

const (
	// steadyAfter is when the limit's use is measured from.
	steadyAfter = 2 * time.Second
	// sampleEach is how often the age of the cities' views is sampled.
	sampleEach = 100 * time.Millisecond
	// convergeWithin is how long the root may take to have all votes.
	convergeWithin = 30 * time.Second
)

// Measure lets the demo run for d, ends the voting, waits until the root has
// all votes, and says what was measured.
func (d *Demo) Measure(ctx context.Context, run time.Duration) (*Result, error) {
	var ages []time.Duration
	var steadyAt time.Time
	var offered0, admitted0 int64
	end := time.Now().Add(run)
	for now := time.Now(); now.Before(end); now = time.Now() {
		if steadyAt.IsZero() && now.Sub(d.began) >= steadyAfter {
			steadyAt = now
			offered0, admitted0, _ = d.Limit()
		}
		if now.Sub(d.began) >= time.Second {
			ages = append(ages, d.ViewAges(ctx)...)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(min(sampleEach, time.Until(end))):
		}
	}
	steadyFor := time.Since(steadyAt)
	offered1, admitted1, _ := d.Limit()

	d.StopPeople()
	r := &Result{Places: len(d.World.Nodes())}
	stopped := time.Now()
	var err error
	for {
		var unanswered int64
		r.Votes.Cast, unanswered = d.Cast()
		if r.Votes.Counted, err = d.Counted(ctx); err == nil && r.Votes.Counted >= r.Votes.Cast {
			break
		}
		if time.Since(stopped) > convergeWithin || ctx.Err() != nil {
			return r, errors.Join(fmt.Errorf("after %s the root has %d of %d votes (%d more were not answered)", convergeWithin, r.Votes.Counted, r.Votes.Cast, unanswered), err, ctx.Err())
		}
		time.Sleep(time.Millisecond) // the root is asked again
	}
	r.ConvergedMS = time.Since(stopped).Milliseconds()
	r.Limit.Offered, r.Limit.Admitted, r.Limit.Bound = d.Limit()
	if !steadyAt.IsZero() {
		possible := min(float64(offered1-offered0), Rate*steadyFor.Seconds())
		r.Limit.Utilisation = float64(admitted1-admitted0) / possible
	}
	r.ViewAgeMS.P50, r.ViewAgeMS.P99 = percentile(ages, 50), percentile(ages, 99)
	return r, nil
}

func percentile(d []time.Duration, p int) int64 {
	if len(d) == 0 {
		return -1
	}
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)].Milliseconds()
}

// Check says which promise a result breaks, if any.
func (r *Result) Check() error {
	var errs []error
	if r.Votes.Cast != r.Votes.Counted {
		errs = append(errs, fmt.Errorf("%d votes were cast, %d counted", r.Votes.Cast, r.Votes.Counted))
	}
	if r.Limit.Admitted > r.Limit.Bound {
		errs = append(errs, fmt.Errorf("%d checks were admitted, at most %d are allowed", r.Limit.Admitted, r.Limit.Bound))
	}
	return errors.Join(errs...)
}
