package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// A scenario is a world that a seed drew: its places, its rules, what its
// clients ask for. Each part has a random source of its own, so that taking
// one fault away leaves the rest much as it was.
type scenario struct {
	world *World
	laws  *laws
	draw  *rand.Rand // of what the world is
	load  *rand.Rand // of what clients do
	chaos *chaos

	spec     limiter.Spec
	leaves   []*Node
	interior []*Node
	deepest  int // depth
	serial   int // of the next place's name

	counted []*target
	limited []*target
	steady  *target // nil: none

	perSecond float64 // operations
	skew      int     // clients prefer the first leaves, the more the higher
	steadyAt  []*Node // where the steady load is
	steadyFor float64 // its checks per second, over all
	active    time.Duration
	voting    bool
	checking  bool

	seed     uint64
	permits  []heldPermit
	requests uint64
}

// newScenario draws a world from a seed.
func newScenario(o Options) *scenario {
	source := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(o.Seed, stream)) }
	w := NewWorld(o.Seed, nil, Faults{})
	s := &scenario{world: w, seed: o.Seed, draw: source(1), load: source(2)}
	s.laws = newLaws(w)
	w.laws = s.laws
	s.chaos = newChaos(s, o.Faults, source(3))
	s.active = time.Duration(3+s.draw.IntN(20)) * time.Second
	if o.For > 0 {
		s.active = o.For
	}
	s.pace()
	s.laws.small = source(4).IntN(3) == 0
	s.rules()
	s.places()
	return s
}

// pace draws how fast things are.
func (s *scenario) pace() {
	w, d := s.world, s.draw
	switch lease := pick(d, 5*time.Second, 5*time.Second, 2*time.Second, time.Second, 500*time.Millisecond); {
	case lease < time.Second: // shorter than rules may say
		w.Lease = lease
	case s.chaos.mean[Rules] > 0:
		s.spec.Lease, w.longest = lease.String(), 5*time.Second
	default:
		s.spec.Lease, w.longest = lease.String(), lease
	}
	w.Faults.Delay = pick(d, time.Millisecond, 5*time.Millisecond, 5*time.Millisecond, 20*time.Millisecond)
	w.Faults.Sync = pick(d, 100*time.Microsecond, time.Millisecond, 3*time.Millisecond, 10*time.Millisecond)
	s.perSecond = pick(d, 50.0, 200.0, 500.0, 1500.0)
	s.skew = d.IntN(4)
	if d.IntN(3) == 0 {
		s.laws.maxAwake = 1 + d.IntN(6)
	}
	w.FoldAfter = pick(d, 0, time.Second, 3*time.Second, 10*time.Second)
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// places draws the tree, and starts it.
func (s *scenario) places() {
	d, w := s.draw, s.world
	tiersDeep := pick(d, 1, 2, 2, 3, 3, 4, 4, 4, 5)
	size := 2 + d.IntN(14)
	switch d.IntN(40) {
	case 0:
		size = 100 + d.IntN(400)
	case 1, 2, 3:
		size = 20 + d.IntN(50)
	}
	if tiersDeep == 1 {
		s.add(tiers.Root, true)
	} else {
		s.add(tiers.Root, false)
		for len(w.order) < size {
			parent := s.interior[d.IntN(len(s.interior))]
			depth := parent.Place.Depth() + 1
			s.add(s.below(parent), depth == tiersDeep-1 || d.IntN(4) == 0)
		}
		for _, n := range s.interior { // each has a leaf below it in the end
			if len(n.site.below) == 0 {
				s.add(s.below(n), true)
			}
		}
	}
	s.laws.oracles = make([]*oracle, 0, 64)
	for _, n := range w.order {
		if len(w.order) < 30 && d.IntN(4) == 0 {
			w.After(time.Duration(d.Int64N(int64(2*time.Second))), func() {
				if !n.Running() && !n.gone {
					n.Start()
				}
			})
		} else {
			n.Start()
		}
	}
	for _, n := range s.leaves {
		if s.steady != nil && (len(s.steadyAt) == 0 || d.IntN(3) == 0) {
			s.steadyAt = append(s.steadyAt, n)
		}
	}
}

func (s *scenario) add(p tiers.Place, leaf bool) *Node {
	n := s.world.place(p, leaf)
	s.deepest = max(s.deepest, p.Depth())
	if leaf {
		s.leaves = append(s.leaves, n)
	} else {
		s.interior = append(s.interior, n)
	}
	return n
}

// below names a new place.
func (s *scenario) below(parent *Node) tiers.Place {
	name := tiers.Place("p" + strconv.Itoa(s.serial))
	s.serial++
	if parent.Place == tiers.Root {
		return name
	}
	return parent.Place + "." + name
}

// rules draws the namespaces and their keys.
func (s *scenario) rules() {
	d := s.draw
	ns := map[string]limiter.NamespaceSpec{"votes": {}}
	if s.laws.async = s.seed%8 == 3; s.laws.async {
		ns["votes"] = limiter.NamespaceSpec{Durability: "async"}
	}
	pad := ""
	if s.laws.small { // so that few of them fill a message
		pad = strings.Repeat("-", 200)
	}
	keys := func(namespace string, n int, counted, limited bool) {
		for i := range n {
			t := s.laws.target(tiers.Name{Namespace: namespace, Key: "k" + strconv.Itoa(i) + pad}, counted, limited)
			if counted {
				s.counted = append(s.counted, t)
			}
			if limited {
				s.limited = append(s.limited, t)
			}
		}
	}
	keys("votes", 1+d.IntN(4), true, false)
	ns["once"] = limiter.NamespaceSpec{Dedupe: "1m"}
	keys("once", 1, true, false)
	if d.IntN(2) == 0 {
		spec := s.namespace()
		spec.Count = true
		ns["used"] = spec
		keys("used", 1+d.IntN(2), true, true)
	}
	if d.IntN(3) > 0 {
		rate := pick(d, 100, 400, 1000)
		ns["steady"] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{{Scope: "global", Rate: perSecond(rate), Burst: new(int64(rate))}}}
		s.steady = s.laws.target(tiers.Name{Namespace: "steady", Key: "k"}, false, true)
		s.steadyFor = float64(rate) * pick(d, 0.5, 1.5, 3)
	}
	for i := range 1 + d.IntN(4) {
		name := fmt.Sprintf("api%d", i)
		spec := s.namespace()
		ns[name] = spec
		keys(name, 1+d.IntN(3), false, true)
	}
	if s.laws.small {
		padRules(ns, 1)
	}
	s.spec.Namespaces = ns
	s.world.Rules = s.compile(s.spec)
}

// padRules adds namespaces that nobody asks for, in many parts of the rules, so
// that rules take several messages where those are small.
func padRules(ns map[string]limiter.NamespaceSpec, weight int) {
	for i := range 20 {
		ns[fmt.Sprintf("pad%d", i)] = limiter.NamespaceSpec{Weights: map[string]int64{strings.Repeat("xx.", 15) + "x": int64(weight)}}
	}
}

func (s *scenario) compile(spec limiter.Spec) *limiter.Rules {
	rules, err := limiter.Compile(spec)
	if err != nil {
		panic(fmt.Sprintf("sim: the rules that were drawn are wrong: %v", err))
	}
	return rules
}

func perSecond(n int) string { return strconv.Itoa(n) + "/s" }

// namespace draws one that is limited.
func (s *scenario) namespace() (spec limiter.NamespaceSpec) {
	d := s.draw
	seen := map[string]bool{}
	for range pick(d, 1, 1, 2, 3) {
		l := s.limit()
		if key := fmt.Sprint(l.Scope, l.Rate != "", l.Quota, l.Budget != nil, l.Concurrency != nil); !seen[key] {
			seen[key] = true
			spec.Limits = append(spec.Limits, l)
		}
	}
	spec.Shadow = d.IntN(8) == 0
	if d.IntN(4) == 0 {
		spec.Dedupe = "1m"
	}
	if d.IntN(4) == 0 {
		spec.Weights = map[string]int64{"p0": 3, "p1": 1 + d.Int64N(5)}
	}
	return spec
}

// limit draws one limit.
func (s *scenario) limit() limiter.LimitSpec {
	d := s.draw
	l := limiter.LimitSpec{Scope: pick(d, "global", "global", "global", "region", "country", "city")}
	switch pick(d, "rate", "rate", "rate", "quota", "budget", "concurrency") {
	case "quota":
		l.Quota = strconv.Itoa(pick(d, 3, 20, 300, 5000)) + "/minute"
	case "budget":
		l.Budget = new(int64(pick(d, 5, 100, 2000, 50_000)))
	case "concurrency":
		l.Concurrency = new(int64(pick(d, 1, 5, 40, 300)))
		l.Hold = pick(d, "1s", "2s", "5s")
	default:
		rate := pick(d, 1, 5, 50, 500)
		l.Rate = perSecond(rate)
		if d.IntN(6) == 0 {
			l.Rate = strconv.Itoa(pick(d, 5, 60)) + "/m"
		}
		l.Burst = new(int64(pick(d, 1, rate, 2*rate, 10*rate)))
	}
	if d.IntN(6) == 0 && l.Budget == nil {
		l.Mode = "soft"
	}
	return l
}

// leafFor picks a leaf for a client, nil if it does not answer.
func (s *scenario) leafFor() *Node {
	i := s.load.IntN(len(s.leaves))
	for range s.skew {
		i = min(i, s.load.IntN(len(s.leaves)))
	}
	if n := s.leaves[i].any(); n != nil && n.node.ready() {
		return n.node
	}
	return nil
}

// clients run until the scenario ends.
func (s *scenario) clients() {
	var next func()
	next = func() {
		if n := s.leafFor(); n != nil {
			s.operation(n)
		}
		s.world.After(time.Duration(float64(time.Second)/s.perSecond*s.load.ExpFloat64()), next)
	}
	s.world.After(time.Millisecond, next) // a first one is an event like the others
	if s.steady == nil {
		return
	}
	var steady func()
	steady = func() {
		if s.checking {
			n := s.steadyAt[s.load.IntN(len(s.steadyAt))].any()
			if n != nil && n.node.ready() {
				s.check(n.node, s.steady, 1, 250*time.Millisecond)
			}
		}
		s.world.After(time.Duration(float64(time.Second)/s.steadyFor*s.load.ExpFloat64()), steady)
	}
	s.world.After(0, steady)
}

// operation is one request of a client.
func (s *scenario) operation(n *Node) {
	r := s.load
	switch roll := r.IntN(100); {
	case roll < 35:
		if s.voting {
			s.vote(n, s.counted[r.IntN(len(s.counted))])
		}
	case roll < 40:
		s.get(s.world.order[r.IntN(len(s.world.order))])
	case roll < 90:
		if t := s.limited[r.IntN(len(s.limited))]; s.checks(t) {
			s.check(n, t, s.hits(n, t), pick(r, 0, 0, 50*time.Millisecond, 300*time.Millisecond, 2*time.Second))
		}
	default:
		s.operate(n)
	}
}

// checks says that clients check a key now. What is counted as well they do
// not when nothing more is to be counted.
func (s *scenario) checks(t *target) bool { return s.checking && (s.voting || !t.counted) }

// hits draws how much a check asks for: mostly little, at times all that
// there can be and one more.
func (s *scenario) hits(n *Node, t *target) int64 {
	r := s.load
	if r.IntN(8) > 0 {
		return r.Int64N(4)
	}
	if c := s.laws.charge(n, t); c.rule != nil && len(c.rule.Limits) > 0 {
		return r.Int64N(c.rule.Limits[r.IntN(len(c.rule.Limits))].Burst + 2)
	}
	return 1
}

func (s *scenario) vote(n *Node, t *target) {
	delta := pick(s.load, int64(1), 1, 1, 1, 7, -1)
	if strings.HasPrefix(t.name.Namespace, "once") {
		s.once(n, t, delta)
		return
	}
	p := n.proc
	t.ask(delta)
	p.add(t.name, delta, "", func(_ tiers.Total, err error) {
		if err == nil && !p.dead {
			s.laws.countedFor(n, p.session, t, delta)
		}
	})
}

// ask notes what clients want counted.
func (t *target) ask(delta int64) {
	if delta > 0 {
		t.asked.Added += uint64(delta)
	} else {
		t.asked.Removed += uint64(-delta)
	}
}

func (s *scenario) get(n *Node) {
	if !n.ready() {
		return
	}
	p, t := n.proc, s.counted[s.load.IntN(len(s.counted))]
	before := n.totals[t.index]
	p.runner.Get(t.name, func(total tiers.Total, views []tiers.View, _ bool, err error) {
		if err != nil || p.dead {
			return
		}
		s.laws.shown(n, t, before, total, views)
	})
}
