package study

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A meter measures what one way to keep a limit admits. Its bucket is the
// limit as it would be if all were in one place: what does not fit it is too
// much.
type meter struct {
	cell             *Cell
	demand           *demand
	limit            *limiter.Limit
	soon, begin, end time.Duration // begin to end is what is measured

	bucket limiter.Bucket
	opened bool
	held   int64   // in the bucket at soon
	early  int64   // admitted within the limit since soon
	taken  int64   // the same since begin
	over   int64   // beyond the limit since begin
	beyond int64   // beyond the limit, ever
	byLeaf []int64 // admitted since begin
	series []int64 // admitted in all, by bins from the first check
	city   []int64 // admitted in the crowd's city
}

// bin is how finely a course of time is seen.
const bin = 10 * time.Millisecond

func newMeter(c *Cell, d *demand, l *limiter.Limit) *meter {
	m := &meter{cell: c, demand: d, limit: l, soon: c.soon(), begin: c.warmUp(), end: d.end, bucket: limiter.NewBucket(l.Period, l.Whole(), 0), byLeaf: make([]int64, c.Tree.Leaves())}
	bins := d.end/bin + 1
	m.series, m.city = make([]int64, bins), make([]int64, bins)
	return m
}

// admit notes hits that a leaf admitted.
func (m *meter) admit(now time.Duration, leaf int, hits int64) {
	m.open(now)
	m.bucket.Settle(limiter.Time(now))
	fits := min(hits, m.bucket.Tokens())
	m.bucket.Spend(fits)
	m.beyond += hits - fits
	if now >= m.end {
		return
	}
	if now >= m.soon {
		m.early += fits
	}
	if now >= m.begin {
		m.taken += fits
		m.over += hits - fits
		m.byLeaf[leaf] += hits
	}
	m.series[now/bin] += hits
	if leaf == m.demand.city {
		m.city[now/bin] += hits
	}
}

// open notes what the bucket holds when the law begins to hold.
func (m *meter) open(now time.Duration) {
	if !m.opened && now >= m.soon {
		m.opened = true
		m.bucket.Settle(limiter.Time(m.soon))
		m.held = m.bucket.Tokens()
	}
}

// perSecond is the limit's rate.
func (m *meter) perSecond() float64 { return float64(m.limit.Rate) / m.limit.Period.Seconds() }

// An Outcome is how well one way keeps a limit. Shares are of the lesser of
// demand and limit, which is what the limit gains.
type Outcome struct {
	Utilisation float64 // admitted within the limit
	Law         float64 // the same from three round trips on, which is when Law 3 begins to hold
	Early       float64 // the same, with the burst that was not spent by then as a part of the limit
	Over        float64 // admitted beyond the limit
	Beyond      int64   // tokens admitted beyond the limit, from the first check on
	Fairness    float64 // Jain's index of what each city has of its due; 0: too few tokens to say
	Start       time.Duration
	Reaction    time.Duration
	Messages    float64 // sent each second, in all
	Busiest     float64 // by the place that sends most
	city        []int64
}

// Of Start and Reaction.
const (
	never        = time.Duration(-1) // 95 % were not reached
	unmeasurable = time.Duration(-2) // nothing more is due, or too few tokens to say when
)

// outcome sums up.
func (m *meter) outcome() Outcome {
	m.open(m.end)
	want := func(begin time.Duration, held int64) float64 {
		most := float64(held) + m.perSecond()*(m.end-begin).Seconds()
		return min(most, float64(m.demand.offered(m.cell.Limit.Hits, begin, m.end)))
	}
	o := Outcome{
		Utilisation: float64(m.taken) / want(m.begin, 0), Law: float64(m.early) / want(m.soon, 0), Early: float64(m.early) / want(m.soon, m.held),
		Over: float64(m.over) / want(m.begin, 0), Beyond: m.beyond, Fairness: m.fairness(), Reaction: unmeasurable, city: m.city,
	}
	total := 0.0
	for _, rate := range m.demand.phases[0].rates {
		total += rate
	}
	o.Start = m.reached(m.series, 0, min(m.demand.phases[0].end, m.end), min(total, m.perSecond()))
	if m.cell.Shape == Crowd {
		crowd := m.demand.phases[1]
		due := func(p phase) float64 { return maxMin(m.perSecond(), p.rates)[m.demand.city] }
		if due(crowd) > 1.1*due(m.demand.phases[0]) {
			o.Reaction = m.reached(m.city, crowd.begin, crowd.end, due(crowd))
		}
	}
	return o
}

// fewest is how many tokens there must be of what is compared.
const fewest = 10

// fairness is Jain's index over the leaves that something is due to.
func (m *meter) fairness() float64 {
	var sum, squares, n, least float64
	for i, due := range m.demand.due(m.perSecond(), m.begin, m.end) {
		if due == 0 {
			continue
		}
		if n == 0 || due < least {
			least = due
		}
		x := float64(m.byLeaf[i]) / due
		sum, squares, n = sum+x, squares+x*x, n+1
	}
	if least < fewest*float64(m.cell.Limit.Hits) || squares == 0 {
		return 0
	}
	return sum * sum / (n * squares)
}

// reached is how long it takes from begin on until 95 % of what is due are
// admitted, over the 250 ms that follow, or as long as 40 checks take.
func (m *meter) reached(series []int64, begin, end time.Duration, perSecond float64) time.Duration {
	over := max(250*time.Millisecond, time.Duration(40*float64(m.cell.Limit.Hits)/perSecond*float64(time.Second)))
	if 2*over > end-begin {
		return unmeasurable
	}
	first, bins := int((begin+bin-1)/bin), int(over/bin)
	var sum int64
	for _, n := range series[first : first+bins] {
		sum += n
	}
	want := 0.95 * perSecond * (time.Duration(bins) * bin).Seconds()
	for i := first; i+bins < int(end/bin); i++ {
		if float64(sum) >= want {
			return time.Duration(i-first) * bin
		}
		sum += series[i+bins] - series[i]
	}
	return never
}
