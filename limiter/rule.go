package limiter

import (
	"fmt"
	"strings"
	"time"
)

// Scope is the tier that owns a limit, as a depth: 0 is the root.
type Scope int

// The tiers by name. Only the names know that there are four.
const (
	Global Scope = iota
	Region
	Country
	City
)

var scopeNames = []string{"global", "region", "country", "city"}

func (s Scope) String() string { return scopeNames[s] }

// Limits on what a rule may ask for: everything has one.
const (
	MaxLimits     = 16            // limits of one namespace
	MaxNamespaces = 10_000        // namespaces of one file
	MaxRate       = 1_000_000_000 // tokens per second
	MaxWeight     = 1000          // of one place: more would leave the others nothing
	MaxWeights    = 1000          // places that one namespace weighs
	MaxHold       = 24 * time.Hour
	MaxDedupe     = 24 * time.Hour
	MaxWait       = time.Minute
	MaxLease      = time.Hour
	MaxFoldAfter  = 10 * 365 * 24 * time.Hour
)

// Kind is what a limit bounds.
type Kind int

// The kinds. All are one token bucket for each key.
const (
	Rate        Kind = iota // tokens per period, with a burst
	Quota                   // tokens in each window of the calendar
	Budget                  // tokens, ever
	Concurrency             // tokens out at a time
)

var kindNames = []string{"rate", "quota", "budget", "concurrency"}

func (k Kind) String() string { return kindNames[k] }

// A Limit is one token bucket for each key of its namespace.
type Limit struct {
	Kind    Kind
	Scope   Scope
	Rate    int64         // tokens per Period; 0 where nothing refills
	Period  time.Duration // the unit of Rate: a day, whatever the rule writes; a second where nothing refills
	Written time.Duration // the unit in which the rule writes its rate: one second, minute, hour or day
	Burst   int64         // the bucket's capacity: the burst, quota, budget or concurrency
	Window  Window        // of a quota
	Hold    time.Duration // of a concurrency: how long a permit lives that is not renewed
	Soft    bool          // rather open than exact
	// ID names this limit between places and on disk. It stands for its kind,
	// its scope, the unit of a quota's windows, and which of the namespace's
	// limits it is that have these in common ([LimitSpec.Ordinal]). So a
	// limit whose figures change, or are written in another way, stays the
	// same limit.
	ID uint64
	// FormerID is the ID that versions before format 2 of a place's store
	// gave a quota, which had the time zone in it; 0 where it is the same.
	FormerID uint64
}

// RatePeriod is the unit of all rates: a count in any unit that a rule may
// write is a whole number a day, so equal rates are equal numbers.
const RatePeriod = 24 * time.Hour

// Whole returns the full bucket of the limit as a share.
func (l *Limit) Whole() Share { return Share{l.Burst, l.Burst, l.Rate} }

// Durable says that its tokens are gone once they are spent: what is left is
// written down before it is lent.
func (l *Limit) Durable() bool { return l.Kind == Quota || l.Kind == Budget }

// Figure is the number that the rule names.
func (l *Limit) Figure() int64 {
	if l.Kind == Rate {
		return l.InWritten(l.Rate)
	}
	return l.Burst
}

// InWritten says a number of tokens per Period in the unit that the rule
// writes, rounded to the nearest whole one.
func (l *Limit) InWritten(n int64) int64 {
	if l.Written == 0 || l.Written == l.Period {
		return n
	}
	parts := int64(l.Period / l.Written)
	return n/parts + (n%parts+parts/2)/parts
}

// Equal says that two limits ask for the same, however their rules write it.
func (l *Limit) Equal(o *Limit) bool {
	a, b := *l, *o
	a.ID, a.FormerID, a.Written, a.Window = b.ID, b.FormerID, b.Written, b.Window
	return a == b && l.Window.Unit == o.Window.Unit && l.Window.zone() == o.Window.zone()
}

// String says all that the limit says: "global rate 1000/s burst 2000".
func (l *Limit) String() string {
	s := fmt.Sprintf("%s %s %d", l.Scope, l.Kind, l.Figure())
	switch l.Kind {
	case Rate:
		s += fmt.Sprintf("/%s burst %d", periodNames[l.Written], l.Burst)
	case Quota:
		s += fmt.Sprintf("/%s %s", l.Window.Unit, l.Window.Zone)
	case Concurrency:
		s += " hold " + FormatDuration(l.Hold)
	}
	if l.Soft {
		s += " soft"
	}
	return s
}

// A Rule is what a namespace asks for. A check passes all of its limits or
// spends from none. Without limits it is counted, and every check is allowed.
type Rule struct {
	Namespace string
	Limits    []Limit
	Shadow    bool          // decide and count, but never deny
	Count     bool          // count what checks admit, and take adds, although there are limits
	Dedupe    time.Duration // how long request ids are remembered; 0: not at all
	Wait      time.Duration // how long a check waits that does not say; negative: the rule does not say
	Async     bool          // an add is answered before it is durable
	weights   map[string]int64
	says      []byte // all of it, for the hash of the rules
}

// Limit returns the limit of an ID, or nil if the rule, which may be nil, has
// none.
func (r *Rule) Limit(id uint64) *Limit {
	if r == nil {
		return nil
	}
	for i := range r.Limits {
		if r.Limits[i].ID == id {
			return &r.Limits[i]
		}
	}
	return nil
}

// Weighted says that the rule gives some places weights.
func (r *Rule) Weighted() bool { return len(r.weights) > 0 }

// Weight is what a leaf counts in the division of the rule's limits: that of
// the longest part of its path that the rule names, else 1.
func (r *Rule) Weight(place string) int64 {
	for {
		if w := r.weights[place]; w > 0 {
			return w
		}
		i := strings.LastIndexByte(place, '.')
		if i < 0 {
			return max(1, r.weights["global"])
		}
		place = place[:i]
	}
}

// Rules are the rules of all namespaces. They do not change once compiled.
type Rules struct {
	byName map[string]*Rule
	names  []string // sorted
	spec   Spec
	parts  [Parts]part
	size   int // as JSON
	// Hash is the same for two places exactly when their rules say the same.
	// The order of limits is nothing that they say, but for the figures of
	// limits that are equal in all else.
	Hash uint64
	// Lease is how long owners lend, FoldAfter when the counts of an ended
	// session are folded.
	Lease, FoldAfter time.Duration
}

// Defaults of what rules leave out.
const (
	DefaultLease     = 5 * time.Second
	DefaultFoldAfter = 24 * time.Hour
	DefaultHold      = 30 * time.Second
)

// Rule returns the rule of a namespace, or nil if there is none.
func (r *Rules) Rule(namespace string) *Rule { return r.byName[namespace] }

// Namespaces returns the names of all namespaces, sorted; they must not be
// changed.
func (r *Rules) Namespaces() []string { return r.names }

// Spec returns what the rules were compiled from; it must not be changed.
func (r *Rules) Spec() Spec { return r.spec }

// FormatDuration writes a duration as a rule does: "30s", "24h", "1h30m".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
