package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// laws watches a world. It knows the truth, which no place does: what was
// counted and admitted, in true time. The first breach ends the world.
//
// What it looks at after a step is what the step touched: the records that
// were written, the message that was carried, the decision that was given,
// and the lines between the place and its parent.
type laws struct {
	world    *World
	err      error
	sites    map[tiers.Place]*site
	all      []*site
	targets  []*target
	byName   map[tiers.Name]*target
	keys     map[tiers.Key]recordKey
	oracles  []*oracle
	maxAwake int
	small    bool // messages are
	async    bool // adds are answered before they are durable

	paths    map[string]uint64
	excepted [numExceptions]uint64
	checks   uint64 // laws looked at
	decided  uint64 // checks decided
	admitted uint64

	carriedOut []carriedOut
	spendings  []spending          // by checks that the step under way decided
	also       func(*World) string // a law of a test: what is wrong, if so
	requests   map[string]*request
	changed    []changedTotal // by the commit that is under way
	lines      lineLaws
	root       rootLaws
}

// A site is a place as the laws know it.
type site struct {
	place  tiers.Place
	parent *site
	depth  int
	leaf   bool
	nodes  []*Node
	below  []*site
	left   bool // for good, and is forgotten by its parent
	twice  bool // two processes ran for it, a parent of others: each lent the limits that it owns
	kept   []kept

	counts  []siteCount // by target
	charges []charges   // by target, at a leaf
}

// lost says that a disk of the place was lost.
func (s *site) lost() bool {
	return slices.ContainsFunc(s.nodes, func(n *Node) bool { return n.disk.lost })
}

// A target is a key that clients ask for.
type target struct {
	name    tiers.Name
	index   int
	counted bool
	limited bool
	asked   tiers.Total // what clients wanted counted, each request once, or had admitted
}

func newLaws(w *World) *laws {
	return &laws{
		world: w, sites: map[tiers.Place]*site{}, byName: map[tiers.Name]*target{}, keys: map[tiers.Key]recordKey{},
		paths: map[string]uint64{}, requests: map[string]*request{}, lines: lineLaws{cutFrom: map[cut]upperLine{}}, maxAwake: tiers.DefaultMaxAwake,
	}
}

// target makes a key known.
func (l *laws) target(name tiers.Name, counted, limited bool) *target {
	t := &target{name: name, index: len(l.targets), counted: counted, limited: limited}
	l.targets = append(l.targets, t)
	l.byName[name] = t
	return t
}

// add makes a node known.
func (l *laws) add(n *Node) {
	s := l.sites[n.Place]
	if s == nil {
		s = &site{
			place: n.Place, parent: l.sites[n.Place.Parent()], depth: n.Place.Depth(), leaf: n.Leaf,
			counts: make([]siteCount, len(l.targets)), charges: make([]charges, len(l.targets)),
		}
		l.sites[n.Place] = s
		l.all = append(l.all, s)
		if s.parent != nil {
			s.parent.below = append(s.parent.below, s)
		}
	}
	s.nodes = append(s.nodes, n)
	n.site = s
	n.totals = make([]tiers.Total, len(l.targets))
}

// broken notes the first breach of a law.
func (l *laws) broken(law string, n *Node, format string, args ...any) {
	if l.err == nil {
		where := tiers.Place("the world")
		if n != nil {
			where = n.Place
		}
		text := fmt.Sprintf(format, args...)
		l.err = &ViolationError{Law: law, Step: l.world.steps, Place: where, Key: l.keyIn(text), Text: text}
		l.world.say(n, "BREACH of %s: %s", law, fmt.Sprintf(format, args...))
	}
}

// keyIn finds the key that a text is about: the first it names.
func (l *laws) keyIn(text string) (key string) {
	first := len(text)
	for _, t := range l.targets {
		if at := strings.Index(text, t.name.String()); at >= 0 && at < first {
			key, first = t.name.String(), at
		}
	}
	return key
}

// A ViolationError is a breach of a law.
type ViolationError struct {
	Law   string // which checker caught it
	Step  uint64
	Place tiers.Place
	Key   string // namespace/key, if it is about one
	Text  string
}

func (v *ViolationError) Error() string {
	return fmt.Sprintf("%s: at %s, step %d: %s", v.Law, v.Place, v.Step, v.Text)
}

// starts is called before a process starts on a node's disk.
func (l *laws) starts(n *Node) {
	n.rules = l.world.Rules
	if r, _ := n.disk.durable["rules"].(*tiers.RulesRecord); r != nil && r.Version > 0 {
		n.rules = r.Rules
	}
	l.follow(n)
	if n.disk.other {
		l.knewLongerHolds(n)
	}
	n.disk.other = false
	l.rootStarts(n)
}

// step looks at what the last event touched.
func (l *laws) step() {
	for _, c := range l.carriedOut {
		l.decidedCheck(c.node, c.target, c.hits, &c.decision)
	}
	l.carriedOut = l.carriedOut[:0]
	for i := range l.spendings {
		l.spend(&l.spendings[i])
	}
	l.spendings = l.spendings[:0]
	if l.err == nil {
		l.stepLines()
	}
	if l.also != nil {
		if wrong := l.also(l.world); wrong != "" {
			l.broken("a test's law", nil, "%s", wrong)
		}
	}
}

// whose is the process's own session.
func (n *Node) session() uint64 {
	if n.proc == nil {
		return 0
	}
	return n.proc.session
}

// sum adds up totals that fit.
func sum(a, b tiers.Total) tiers.Total {
	return tiers.Total{Added: a.Added + b.Added, Removed: a.Removed + b.Removed}
}

func minus(a, b tiers.Total) tiers.Total {
	return tiers.Total{Added: a.Added - b.Added, Removed: a.Removed - b.Removed}
}

// atMost says that a is at most b in both parts.
func atMost(a, b tiers.Total) bool { return a.Added <= b.Added && a.Removed <= b.Removed }

func larger(a, b tiers.Total) tiers.Total {
	return tiers.Total{Added: max(a.Added, b.Added), Removed: max(a.Removed, b.Removed)}
}

// less is a-b, and 0 where that is negative.
func less(a, b tiers.Total) tiers.Total {
	return tiers.Total{Added: a.Added - min(a.Added, b.Added), Removed: a.Removed - min(a.Removed, b.Removed)}
}
