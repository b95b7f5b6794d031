package study

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A gate is a bucket that checks wait at, first come, first served.
type gate struct {
	world   *world
	bucket  limiter.Bucket
	hits    int64 // of a check, in the bucket's units
	waiting []waiting
	wakes   bool
}

type waiting struct {
	leaf  int
	until time.Duration
}

func (g *gate) take(k check) {
	g.waiting = append(g.waiting, waiting{k.leaf, k.at + g.world.meter.cell.Limit.Wait})
	g.serve()
}

func (g *gate) serve() {
	w := g.world
	now := w.since()
	g.waiting = expire(g.waiting, now)
	for len(g.waiting) > 0 && g.bucket.Take(limiter.Time(now), g.hits) {
		w.meter.admit(now, g.waiting[0].leaf, w.meter.cell.Limit.Hits)
		g.waiting = g.waiting[1:]
	}
	if len(g.waiting) == 0 || g.wakes {
		return
	}
	if wait, ok := g.bucket.Wait(g.hits); ok {
		g.wakes = true
		w.After(wait, func() { g.wakes = false; g.serve() })
	}
}

// expire drops those that waited long enough; all wait equally long.
func expire(all []waiting, now time.Duration) []waiting {
	for len(all) > 0 && all[0].until < now {
		all = all[1:]
	}
	return all
}

// oneBucket is the limit if there were no distance: what can be had at best.
func oneBucket(w *world) func(check) {
	l := w.meter.limit
	g := &gate{world: w, bucket: limiter.NewBucket(l.Period, l.Whole(), 0), hits: w.meter.cell.Limit.Hits}
	return g.take
}

// staticShares gives each leaf an equal part of the limit for itself, and a
// burst of at least one check.
func staticShares(w *world) func(check) {
	l, hits := w.meter.limit, w.meter.cell.Limit.Hits
	n := int64(w.meter.cell.Tree.Leaves())
	// The buckets count in nths of a token, so that a part is exact.
	burst := max(l.Burst, hits*n)
	gates := make([]gate, n)
	for i := range gates {
		gates[i] = gate{world: w, bucket: limiter.NewBucket(l.Period, limiter.Share{Tokens: burst, Capacity: burst, Rate: l.Rate}, 0), hits: hits * n}
	}
	return func(k check) { gates[k.leaf].take(k) }
}

// syncEvery is how often hits are told and what remains is broadcast:
// Gubernator's default for GLOBAL limits, GlobalSyncWait.
const syncEvery = 100 * time.Millisecond

// broadcasts keeps the limit as Gubernator's GLOBAL behaviour does: a leaf
// admits while what the owner said last, less what it admitted itself since,
// is enough; what it admitted it tells the owner every syncEvery; the owner
// takes that off its bucket, as far as there is something, and tells all
// leaves what remains. Where the original leaves it open, the better for the
// limit is taken.
func broadcasts(w *world) func(check) {
	l, hits := w.meter.limit, w.meter.cell.Limit.Hits
	hops := len(w.meter.cell.Tree)
	owner := limiter.NewBucket(l.Period, l.Whole(), 0)
	type leaf struct {
		remains, untold int64
		asked           bool
		waiting         []waiting
	}
	leaves := make([]leaf, w.meter.cell.Tree.Leaves())
	send := func(n int, arrive func()) {
		if at := w.since(); at >= w.meter.begin && at < w.meter.end {
			w.messages++
			if n < 0 {
				w.owner++
			}
		}
		var takes time.Duration
		for range hops {
			takes += delay/10 + time.Duration(w.rng.Int64N(int64(delay*9/10)+1))
		}
		w.After(takes, arrive)
	}
	serve := func(i int) {
		f := &leaves[i]
		now := w.since()
		f.waiting = expire(f.waiting, now)
		for len(f.waiting) > 0 && f.remains >= hits {
			f.remains -= hits
			f.untold += hits
			f.waiting = f.waiting[1:]
			w.meter.admit(now, i, hits)
		}
	}
	news := false
	for i := range leaves {
		leaves[i].remains = l.Burst
		var tell func()
		tell = func() {
			w.After(syncEvery, tell)
			f := &leaves[i]
			if !f.asked {
				return
			}
			told := f.untold
			f.untold, f.asked = 0, len(f.waiting) > 0
			send(i, func() {
				news = true
				owner.Settle(limiter.Time(w.since()))
				owner.Spend(min(told, owner.Tokens()))
			})
		}
		w.After(time.Duration(w.rng.Int64N(int64(syncEvery))), tell)
	}
	var tellAll func()
	tellAll = func() {
		w.After(syncEvery, tellAll)
		if !news {
			return
		}
		news = false
		owner.Settle(limiter.Time(w.since()))
		remains := owner.Tokens()
		for i := range leaves {
			send(-1, func() {
				leaves[i].remains = remains
				serve(i)
			})
		}
	}
	w.After(syncEvery, tellAll)
	return func(k check) {
		f := &leaves[k.leaf]
		f.asked = true
		f.waiting = append(f.waiting, waiting{k.leaf, k.at + w.meter.cell.Limit.Wait})
		serve(k.leaf)
	}
}
