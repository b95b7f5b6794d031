package study

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// A Cell is one world of the study.
type Cell struct {
	Shape Shape
	Limit Limit
	Tree  Tree
	Load  float64 // demand, in limits
	Seed  uint64
}

func (c *Cell) String() string {
	return fmt.Sprintf("%s, %s, %s, load %g", c.Shape, c.Limit.Rate, c.Tree, c.Load)
}

// Shape says where demand is.
type Shape int

// The shapes.
const (
	Uniform Shape = iota // the same in each city
	Zipf                 // the nth city asks for 1/n
	OneCity              // all is in one city
	Crowd                // uniform, but that one city asks for 20 times as much for a while
	Sun                  // a quarter of the cities asks for 10 times as much as the others, each quarter for 10 s
)

// Shapes are all of them.
var Shapes = []Shape{Uniform, Zipf, OneCity, Crowd, Sun}

func (s Shape) String() string {
	return []string{"uniform", "Zipf", "one city", "flash crowd", "moving with the sun"}[s]
}

// Steady says that demand does not change, which is what Law 3 speaks of.
func (s Shape) Steady() bool { return s <= OneCity }

const (
	crowdTimes = 20
	sunTimes   = 10
	sunGroups  = 4
	sunStays   = 10 * time.Second
)

// A Limit is what is limited, and how long it takes to see how well.
type Limit struct {
	Rate string // "1000/s"; the burst is the same figure
	// Hits is what a check asks for: more than one where the checks would
	// be too many to simulate.
	Hits   int64
	Wait   time.Duration // of a check for a share
	Window time.Duration // that steady demand is measured for
	Crowd  time.Duration // how long a flash crowd stays
}

// Limits are those of the study.
var Limits = []Limit{
	{"5/min", 1, time.Second, 480 * time.Second, time.Minute},
	{"60/min", 1, time.Second, 180 * time.Second, time.Minute},
	{"10/s", 1, 250 * time.Millisecond, 30 * time.Second, 5 * time.Second},
	{"1000/s", 1, 250 * time.Millisecond, 10 * time.Second, 5 * time.Second},
	{"1000000/s", 1000, 250 * time.Millisecond, 10 * time.Second, 5 * time.Second},
}

// key is the one that is limited.
var key = tiers.Name{Namespace: "api", Key: "user"}

// rules are those of a world with the limit.
func (l *Limit) rules() *limiter.Rules {
	spec := limiter.LimitSpec{Scope: "global", Rate: l.Rate}
	for i := range 2 { // the burst is the figure, which is known when the rate was read
		rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{key.Namespace: {Limits: []limiter.LimitSpec{spec}}}})
		switch {
		case err != nil:
			panic(fmt.Sprintf("study: the limit %s is wrong: %v", l.Rate, err))
		case i == 1:
			return rules
		}
		burst := rules.Rule(key.Namespace).Limits[0].Figure()
		spec.Burst = &burst
	}
	return nil
}

// A Tree is the places below the root, tier by tier: how many children each
// place of the tier above has.
type Tree []int

// Trees are those of the study, of two to five tiers.
var Trees = []Tree{{16}, {4, 6}, {2, 4, 4}, {2, 2, 4, 4}}

// thousand is a tree of a thousand cities.
var thousand = Tree{10, 10, 10}

// Tiers is how many there are, the root's too.
func (t Tree) Tiers() int { return len(t) + 1 }

// Leaves is how many cities there are.
func (t Tree) Leaves() int {
	n := 1
	for _, children := range t {
		n *= children
	}
	return n
}

// Places is how many there are in all.
func (t Tree) Places() int {
	n, tier := 1, 1
	for _, children := range t {
		tier *= children
		n += tier
	}
	return n
}

func (t Tree) String() string { return fmt.Sprintf("%d tiers, %d cities", t.Tiers(), t.Leaves()) }

// roundTrip is the longest that a message takes from a city to the root and
// back.
func (t Tree) roundTrip() time.Duration { return 2 * time.Duration(len(t)) * delay }

// grow makes the places, parents first, and says which are leaves.
func (t Tree) grow(add func(p tiers.Place, leaf bool)) {
	add(tiers.Root, false)
	var below func(parent tiers.Place, depth int)
	below = func(parent tiers.Place, depth int) {
		for i := range t[depth] {
			p := tiers.Place("p" + strconv.Itoa(i))
			if parent != tiers.Root {
				p = parent + "." + p
			}
			leaf := depth == len(t)-1
			add(p, leaf)
			if !leaf {
				below(p, depth+1)
			}
		}
	}
	below(tiers.Root, 0)
}

// Loads are the demands, in limits.
var Loads = []float64{0.5, 1, 2}

// Cells are all cells of the study, in the order of the document.
func Cells(seed uint64) (cells []Cell) {
	add := func(c Cell) {
		c.Seed = seed + uint64(len(cells))
		cells = append(cells, c)
	}
	for _, l := range Limits {
		for _, s := range Shapes {
			for _, t := range Trees {
				for _, load := range Loads {
					add(Cell{Shape: s, Limit: l, Tree: t, Load: load})
				}
			}
		}
	}
	add(Cell{Shape: Uniform, Limit: Limits[0], Tree: thousand, Load: 2})
	return cells
}

// soon is when Law 3 begins to hold: three round trips of the depth after the
// first check.
func (c *Cell) soon() time.Duration { return 3 * c.Tree.roundTrip() }

// warmUp is how long demand goes on before it is measured: until the law
// holds, and then as long as a demand of twice the limit takes to spend the
// burst, so that it counts for nobody.
func (c *Cell) warmUp() time.Duration {
	if strings.HasSuffix(c.Limit.Rate, "/min") {
		return c.soon() + time.Minute
	}
	return c.soon() + time.Second
}

// window is how long it is measured.
func (c *Cell) window() time.Duration {
	switch c.Shape {
	case Crowd:
		return max(c.Limit.Window, 4*c.Limit.Crowd)
	case Sun:
		return max(c.Limit.Window, sunGroups*sunStays)
	}
	return c.Limit.Window
}

// crowd is when a flash crowd comes, counted from the first check.
func (c *Cell) crowd() time.Duration { return c.warmUp() + c.Limit.Crowd }

// covered says that Law 3 promises 95 % for the cell.
func (c *Cell) covered() bool { return c.Shape.Steady() }

// askers is how many cities ask for something.
func (c *Cell) askers() int64 {
	if c.Shape == OneCity {
		return 1
	}
	return int64(c.Tree.Leaves())
}
