package tiers

import (
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/tributary-io/tributary/limiter"
)

func (w Wide) big() *big.Int {
	return new(big.Int).Add(new(big.Int).Lsh(new(big.Int).SetUint64(w.High), 64), new(big.Int).SetUint64(w.Low))
}

// TestWideSumsAreExact: of more keys than memory holds, each with the largest
// limit, up and down.
func TestWideSumsAreExact(t *testing.T) {
	var w Wide
	want := new(big.Int)
	for i := range 5000 {
		n := int64(math.MaxInt64) - int64(i)
		w.add(n)
		want.Add(want, big.NewInt(n))
	}
	for i := range 4000 {
		n := -int64(math.MaxInt64) + int64(3*i)
		w.add(n)
		want.Add(want, big.NewInt(n))
	}
	if w.High == 0 || w.big().Cmp(want) != 0 {
		t.Errorf("%+v is %s, want %s", w, w.big(), want)
	}
}

// many are rules of n namespaces of one limit each.
func many(t *testing.T, n int) *limiter.Rules {
	t.Helper()
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	for i := range n {
		spec.Namespaces[fmt.Sprintf("n%05d", i)] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{{Scope: "global", Rate: "60/m", Burst: new(int64(7))}}}
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestStatsDoNotVisitKeys: what figures cost does not grow with the keys that
// are awake, nor beyond a bound with the limits that they are of.
func TestStatsDoNotVisitKeys(t *testing.T) {
	const namespaces = maxSums + 10
	m := startRoot(t, many(t, namespaces), memory{})
	key := func(i int) *object { return m.object(1, m.spaces[fmt.Sprintf("n%05d", i)], "k") }
	for i := range namespaces {
		key(i)
	}
	m.Output(1)
	s := m.Stats(1)
	if len(s.Pools) != maxSums+1 || s.Awake != namespaces {
		t.Fatalf("%d sums of %d keys", len(s.Pools), s.Awake)
	}
	first, rest := s.Pools[0], s.Pools[maxSums]
	if first.Namespace != "n00000" || first.Limit == nil || first.Keys != 1 || first.Here.Capacity.Low != 7 || first.Here.RatePerDay.Low != 86_400 {
		t.Errorf("the first is %+v", first)
	}
	if rest.Limit != nil || rest.Keys != 10 || rest.Here.Capacity.Low != 70 || rest.Here.RatePerDay.Low != 864_000 {
		t.Errorf("the rest is %+v", rest)
	}
	space := m.spaces["n00000"]
	objects := space.objects
	space.objects, m.idle = nil, lru{} // whoever visits keys finds none
	if again := m.Stats(1); again.Pools[0] != first {
		t.Errorf("without its keys it is %+v", again.Pools[0])
	}
	space.objects = objects
	for i := range 100 {
		m.object(1, space, fmt.Sprint(i))
	}
	m.Output(1)
	if allocs := testing.AllocsPerRun(10, func() { m.Stats(1) }); allocs > 2 {
		t.Errorf("%v allocations", allocs)
	}
	if got := m.Stats(1).Pools[0]; got.Keys != 101 || got.Here.Capacity.Low != 101*7 {
		t.Errorf("with more keys it is %+v", got)
	}
}

// TestLimitsMakeRoomForOthers: a limit none of whose keys is awake has no sum,
// and one that has none of its own may have one when it is asked for again.
func TestLimitsMakeRoomForOthers(t *testing.T) {
	m := startRoot(t, many(t, maxSums+1), memory{})
	m.cfg.MaxAwake = 1
	for i := range maxSums + 1 {
		m.object(1, m.spaces[fmt.Sprintf("n%05d", i)], "k")
	}
	for range maxSums {
		m.Output(1)
	}
	s := m.Stats(1)
	if len(s.Pools) != s.Awake || s.Awake > 2 {
		t.Fatalf("%d sums of %d keys", len(s.Pools), s.Awake)
	}
	m.cfg.MaxAwake = maxSums
	m.object(1, m.spaces["n00007"], "k")
	s = m.Stats(1)
	if last := s.Pools[len(s.Pools)-1]; last.Namespace != "n00007" && s.Pools[0].Namespace != "n00007" || last.Keys != 1 {
		t.Errorf("%+v", s.Pools)
	}
}

// TestKeyThatSleepsStaysInNoList: what is to be done with all that are awake
// passes by one that is not, though something still refers to it.
func TestKeyThatSleepsStaysInNoList(t *testing.T) {
	m := startRoot(t, many(t, 1), memory{})
	space := m.spaces["n00000"]
	gone := m.object(1, space, "gone")
	m.cfg.MaxAwake = 1
	m.object(1, space, "stays")
	if m.Output(1); !gone.asleep || m.awake != 1 {
		t.Fatalf("asleep %v, %d are awake", gone.asleep, m.awake)
	}
	done := 0
	m.forAll(1, taskRules, func(limiter.Time, *object) { done++ })
	m.current(1, gone)
	if done != 0 || m.sweep.stale.first == nil {
		t.Errorf("%d objects were looked at, and the one that is awake is not in the list any more", done)
	}
	if m.goOn(1); done != 1 {
		t.Errorf("%d objects were looked at", done)
	}
}
