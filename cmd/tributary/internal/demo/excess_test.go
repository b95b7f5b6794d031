package demo

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// admitted is one admitted check, by the callers' clock.
type admitted struct{ sent, answered time.Time }

// excess returns by how many tokens the worst interval is beyond burst +
// rate·t, of all that begin with a request and end with an answer, and that
// interval: the checks whose request and answer both lie in it are counted.
// At most 0 means that the limit was kept.
//
// It goes back through the requests. For each, a tree holds, per answer at b
// of a check that was sent no earlier, how many were also answered by then,
// less rate·b: a check more is one more for all b from its own answer on, and
// the best of all b is the worst interval that begins there. n·log n, exact.
func excess(all []admitted, rate, burst int64) (worst float64, from, to time.Time) {
	if len(all) == 0 {
		return -float64(burst), from, to
	}
	const token = int64(time.Second) // in units in which rate tokens a second are rate a nanosecond
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b admitted) int { return a.answered.Compare(b.answered) })
	start := all[0].sent
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
		if all[i].sent.Before(start) {
			start = all[i].sent
		}
	}
	slices.SortFunc(order, func(a, b int) int { return all[b].sent.Compare(all[a].sent) })

	tree := newMaxima(len(all))
	most := -1 << 62
	for _, i := range order {
		tree.add(i, len(all), int(token))
		tree.add(i, i+1, -int(rate)*int(all[i].answered.Sub(start))-unset)
		best, at := tree.max()
		if over := best + int(rate)*int(all[i].sent.Sub(start)) - int(burst*token); over > most {
			most, from, to = over, all[i].sent, all[at].answered
		}
	}
	return float64(most) / float64(token), from, to
}

// unset is so little that no sum makes it the most.
const unset = -1 << 60

// maxima is a segment tree: add to a range, and find the most.
type maxima struct {
	n         int
	most, lag []int // per node: the most below it, and what was added to all below it
	at        []int
}

func newMaxima(n int) *maxima {
	m := &maxima{n: n, most: make([]int, 4*n), lag: make([]int, 4*n), at: make([]int, 4*n)}
	m.build(1, 0, n)
	return m
}

func (m *maxima) build(node, lo, hi int) {
	m.most[node], m.at[node] = unset, lo
	if hi-lo > 1 {
		mid := (lo + hi) / 2
		m.build(2*node, lo, mid)
		m.build(2*node+1, mid, hi)
	}
}

func (m *maxima) max() (most, at int) { return m.most[1], m.at[1] }

// add adds v to the elements from lo up to, not including, hi.
func (m *maxima) add(lo, hi, v int) { m.addTo(1, 0, m.n, lo, hi, v) }

func (m *maxima) addTo(node, from, to, lo, hi, v int) {
	switch {
	case hi <= from || to <= lo:
		return
	case lo <= from && to <= hi:
		m.most[node] += v
		m.lag[node] += v
		return
	}
	mid := (from + to) / 2
	m.addTo(2*node, from, mid, lo, hi, v)
	m.addTo(2*node+1, mid, to, lo, hi, v)
	better := 2 * node
	if m.most[better+1] > m.most[better] {
		better++
	}
	m.most[node], m.at[node] = m.most[better]+m.lag[node], m.at[better]
}

// TestExcessFindsTheWorstInterval compares with a look at every interval.
func TestExcessFindsTheWorstInterval(t *testing.T) {
	start := time.Now()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		all := make([]admitted, 1+random.IntN(60))
		for i := range all {
			sent := start.Add(time.Duration(random.Int64N(int64(50 * time.Millisecond))))
			all[i] = admitted{sent, sent.Add(time.Duration(random.Int64N(int64(5 * time.Millisecond))))}
		}
		rate, burst := random.Int64N(2000), random.Int64N(20)
		want := -1e9
		for _, a := range all {
			for _, b := range all {
				n := 0.0
				for _, c := range all {
					if !c.sent.Before(a.sent) && !c.answered.After(b.answered) {
						n++
					}
				}
				if n > 0 {
					want = max(want, n-float64(burst)-float64(rate)*b.answered.Sub(a.sent).Seconds())
				}
			}
		}
		got, from, to := excess(all, rate, burst)
		if diff := got - want; diff > 1e-6 || diff < -1e-6 {
			t.Fatalf("seed %d: %f from %s to %s, and %f by looking at all", seed, got, from.Sub(start), to.Sub(start), want)
		}
	}
}

func TestExcessSeesOneCheckTooMany(t *testing.T) {
	var all []admitted
	start := time.Now()
	for i := range 11 {
		at := start.Add(time.Duration(i) * time.Microsecond)
		all = append(all, admitted{at, at})
	}
	if worst, _, _ := excess(all, 1, 10); worst < 0.9 || worst > 1 {
		t.Errorf("11 checks at once are %.3f beyond a burst of 10", worst)
	}
	if worst, _, _ := excess(all, 1, 11); worst > 0 {
		t.Errorf("11 checks at once are %.3f beyond a burst of 11", worst)
	}
}
