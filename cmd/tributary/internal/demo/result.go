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
		Cast       int64 `json:"cast"`       // acknowledged to the voters
		Unanswered int64 `json:"unanswered"` // asked for in vain: they may count or not
		Counted    int64 `json:"counted"`    // the root's answer, over NATS
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
	// steadyAfter is when the limit's use is measured from, or half of a
	// shorter run than twice that. The cities' views are sampled from half of
	// that on: they get the first one when they first ask.
	steadyAfter = 2 * time.Second
	// sampleEach is how often the age of the cities' views is sampled.
	sampleEach = 100 * time.Millisecond
	// convergeWithin is how long the root may take to have all votes.
	convergeWithin = 30 * time.Second
)

// Measure lets the demo run until run after its start, ends the voting, waits
// until the root has all votes, and says what was measured. An error comes
// with a result where the root did not get all votes.
func (d *Demo) Measure(ctx context.Context, run time.Duration) (*Result, error) {
	steady := min(steadyAfter, run/2)
	var used usage
	var ages []time.Duration
	// The views are asked for from the start, and believed from when they have come.
	for n := 0; ; n++ {
		at := time.Since(d.began)
		if at >= run {
			break
		}
		if at >= steady && used.since.IsZero() {
			used = d.usage()
		}
		if sampled := d.ViewAges(ctx, n%len(candidates)); at >= steady/2 {
			ages = append(ages, sampled...)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-d.World.Fatal():
			return nil, err
		case <-time.After(min(sampleEach, run-at)):
		}
	}
	r := &Result{Places: len(d.World.Nodes())}
	r.Limit.Utilisation = d.usage().after(used)
	d.StopPeople()
	err := d.converge(ctx, r)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.Limit.Offered, r.Limit.Admitted, r.Limit.Bound = d.Limit()
	r.ViewAgeMS.P50, r.ViewAgeMS.P99 = percentile(ages, 50), percentile(ages, 99)
	if len(ages) == 0 {
		err = errors.Join(err, errors.New("no city got a view of the world"))
	}
	return r, err
}

// converge waits until the root has all votes.
func (d *Demo) converge(ctx context.Context, r *Result) (err error) {
	stopped := time.Now()
	cast := d.Votes()
	r.Votes.Cast, r.Votes.Unanswered = cast.Cast, cast.Unanswered
	for {
		r.Votes.Counted, err = d.Counted(ctx)
		r.ConvergedMS = time.Since(stopped).Milliseconds()
		if err == nil && r.Votes.Counted >= r.Votes.Cast {
			return nil
		}
		if time.Since(stopped) > convergeWithin {
			return errors.Join(fmt.Errorf("after %s the root has %d of %d votes", convergeWithin, r.Votes.Counted, r.Votes.Cast), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // the root is asked again
		}
	}
}

// usage is what was used of the limit until an instant.
type usage struct {
	since             time.Time
	offered, admitted int64
}

func (d *Demo) usage() usage {
	offered, admitted, _ := d.Limit()
	return usage{time.Now(), offered, admitted}
}

// after is the part of min(offered, R·t) that was admitted since an earlier
// instant.
func (u usage) after(earlier usage) float64 {
	if possible := min(float64(u.offered-earlier.offered), Rate*u.since.Sub(earlier.since).Seconds()); possible > 0 {
		return float64(u.admitted-earlier.admitted) / possible
	}
	return 0
}

// percentile is -1 of nothing.
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
	if v := r.Votes; v.Counted < v.Cast || v.Counted > v.Cast+v.Unanswered {
		errs = append(errs, fmt.Errorf("%d votes were cast, and %d are counted (%d were not answered, and may count or not)", v.Cast, v.Counted, v.Unanswered))
	}
	if r.Limit.Admitted > r.Limit.Bound {
		errs = append(errs, fmt.Errorf("%d checks were admitted, and at most %d may be", r.Limit.Admitted, r.Limit.Bound))
	}
	return errors.Join(errs...)
}
