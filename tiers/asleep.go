package tiers

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tributary-io/tributary/limiter"
)

// This file remembers what rules that change do to keys that are not in
// memory. A key leaves memory only when its bucket is full, so one that is
// not there is taken to be full. But capacity that a limit is raised by comes
// empty, and fills by its rate: until it has, a key that slept through the
// change has no more than one that was awake and full. So an owner keeps, for
// each limit whose figures changed, the bucket of such a key, and lets it live
// through all changes.
//
// A limit that leaves the rules is kept as well. What was lent of it may be in
// use until its leases have ended, and what was spent of it is not known: it
// comes back empty, as of then. That it left is written down at once: after a
// crash the rules do not say any more that it was there.

const (
	// maxLeftLimits is how many limits that left the rules are remembered although
	// they would be whole again by now, and how many are written down while the
	// place runs, with each block of marks. One of those before is taken for a
	// new one if it comes back.
	maxLeftLimits = 1000
	// maxLeftInUse bounds all others: more than rules can have.
	maxLeftInUse = 2 * limiter.MaxNamespaces * limiter.MaxLimits
)

// An asleep is a limit as a key has it that is not in memory, where that is
// not simply full.
type asleep struct {
	bucket limiter.Bucket // as of since, if the store is to be believed
	since  limiter.Time
	quiet  limiter.Time // the owner lends nothing of it before: it left the rules
	left   bool         // it is not in the rules
	whole  limiter.Time // where it left: a key has all of it then
}

// leave makes a limit one that left the rules, of which a key has nothing before
// an instant.
func leave(at limiter.Time, l *limiter.Limit) *asleep {
	a := newAsleep(l, 0, at)
	a.quiet, a.left, a.whole = at, true, at.Add(lenderLease(l.Hold))
	a.fills(at)
	return a
}

// newAsleep makes a limit of which a key has so many tokens at an instant.
func newAsleep(l *limiter.Limit, tokens int64, since limiter.Time) *asleep {
	return &asleep{bucket: limiter.NewBucket(l.Period, limiter.Share{Tokens: tokens, Capacity: l.Burst, Rate: l.Rate}, since), since: since}
}

// fills notes when the bucket of a rate that is as of an instant is full.
func (a *asleep) fills(at limiter.Time) {
	if wait, ok := a.bucket.Wait(a.bucket.Capacity()); ok {
		a.whole = at.Add(wait)
	}
}

// An AsleepRecord is an asleep on disk. What it holds is as of a clean stop.
type AsleepRecord struct {
	Namespace           string
	Limit               uint64 // limiter.Limit.ID
	Tokens, Burst, Rate int64
	Left                bool
}

// asleepAt returns what a key has of a limit while nothing is in memory or
// written of it: so many tokens at an instant, refilling since. Until the
// parent has said whether to believe the store, it is what the store promises.
func (m *Machine) asleepAt(of limitOf, l *limiter.Limit) (tokens int64, since limiter.Time) {
	switch a := m.asleep[of]; {
	case a != nil:
		return min(a.bucket.Tokens(), l.Burst), a.since
	case m.promising():
		return l.Burst, m.began
	}
	return 0, max(m.began, m.silent)
}

// promising says that the store is to be believed, or may turn out to be.
func (m *Machine) promising() bool { return m.intact || !m.judged && m.promises() }

// changeFigures takes the limits of a namespace whose rule takes the place of
// another; either may be nil. Those that leave the rules are not lent before
// quiet, if they come back.
func (m *Machine) changeFigures(now, quiet limiter.Time, was, is *limiter.Rule) {
	if was != nil {
		for i := range was.Limits {
			l := &was.Limits[i]
			of, stays := limitOf{was.Namespace, l.ID}, is.Limit(l.ID)
			switch {
			case !m.owns(l):
			case stays == nil:
				m.asleep[of] = leave(quiet, l)
			case l.Kind == limiter.Rate && m.asleep[of] == nil && (stays.Burst != l.Burst || stays.Rate != l.Rate):
				tokens, since := m.asleepAt(of, l)
				m.asleep[of] = newAsleep(l, tokens, since)
			}
		}
	}
	if is != nil {
		for i := range is.Limits {
			l := &is.Limits[i]
			of := limitOf{is.Namespace, l.ID}
			switch a := m.asleep[of]; {
			case a != nil:
				a.become(now, l)
			case m.owns(l) && was.Limit(l.ID) == nil && !m.promising():
				// It is new, or was once in rules that this disk does not know: empty, and as of now.
				m.asleep[of] = newAsleep(l, 0, max(now, m.silent))
			}
		}
	}
}

// changeAllFigures does that for all namespaces, from old rules to those that
// the machine follows now.
func (m *Machine) changeAllFigures(now, quiet limiter.Time, old *limiter.Rules) {
	for _, name := range old.Namespaces() {
		m.changeFigures(now, quiet, old.Rule(name), m.rules.Rule(name))
	}
	for _, name := range m.rules.Namespaces() {
		if old.Rule(name) == nil {
			m.changeFigures(now, quiet, nil, m.rules.Rule(name))
		}
	}
	m.forgetLeft(now)
	if left := m.asleepRecords(now, false); !slices.Equal(left, m.meta.Asleep) {
		m.meta.Asleep = left
		m.write(metaKey, m.saved())
	}
}

// become gives the limit other figures: what is more comes empty.
func (a *asleep) become(now limiter.Time, l *limiter.Limit) {
	a.bucket.Settle(now)
	a.since, a.left = max(a.since, now), false
	reshape(now, &a.bucket, l)
}

// reshape gives a bucket the figures of a limit: what is more comes empty, and
// what is less is gone.
func reshape(now limiter.Time, b *limiter.Bucket, l *limiter.Limit) {
	have := b.Share()
	is := limiter.Share{Capacity: l.Burst, Rate: l.Rate}
	more, less := is.Minus(have).Max(limiter.Share{}), have.Minus(is).Max(limiter.Share{})
	more.Tokens, less.Tokens = 0, 0
	b.Add(now, more)
	b.Cut(now, less)
}

// emptyAsleep is called when the store is not to be believed, or when the owner
// is silent for longer than it was thought to be: what sleeps is empty as of then.
func (m *Machine) emptyAsleep() {
	for _, a := range m.asleep {
		a.since = max(a.since, m.silent)
		have := a.bucket.Share()
		a.bucket = limiter.NewBucket(limiter.RatePeriod, limiter.Share{Capacity: have.Capacity, Rate: have.Rate}, a.since)
	}
}

// leftUntil says that a limit that left the rules may still be in use.
func (m *Machine) leftUntil(now limiter.Time) bool {
	for _, a := range m.asleep {
		if a.quiet > now {
			return true
		}
	}
	return false
}

// leftLimits are those that left the rules, the longest ago first.
func (m *Machine) leftLimits() []limitOf {
	var left []limitOf
	for of, a := range m.asleep {
		if a.left {
			left = append(left, of)
		}
	}
	slices.SortFunc(left, func(a, b limitOf) int {
		return cmp.Or(cmp.Compare(m.asleep[a].since, m.asleep[b].since), compareLimits(a, b))
	})
	return left
}

// forgetLeft bounds what is remembered of limits that left the rules. Where rules
// are taken back soon, all that they took away is still known.
func (m *Machine) forgetLeft(now limiter.Time) {
	left := m.leftLimits()
	for i, of := range left {
		if n := len(left) - i; n > maxLeftInUse || n > maxLeftLimits && m.asleep[of].whole <= now {
			delete(m.asleep, of)
		}
	}
}

// asleepRecords are what is written down: limits that left the rules, and at a
// clean stop those in the rules that are not full.
func (m *Machine) asleepRecords(now limiter.Time, stop bool) []AsleepRecord {
	keys := m.leftLimits()
	if stop {
		keys = slices.Collect(maps.Keys(m.asleep))
	} else if n := len(keys); n > maxLeftLimits {
		keys = keys[n-maxLeftLimits:]
	}
	slices.SortFunc(keys, compareLimits)
	var all []AsleepRecord
	for _, of := range keys {
		a := m.asleep[of]
		b := a.bucket
		b.Settle(now)
		s := b.Share()
		if !stop {
			s.Tokens = 0
		}
		if a.left || s.Tokens < s.Capacity {
			all = append(all, AsleepRecord{of.namespace, of.id, s.Tokens, s.Capacity, s.Rate, a.left})
		}
	}
	return all
}

// readAsleep takes what the last session wrote, as of the start; after a crash,
// as empty as of when the owner's silence ends.
func (m *Machine) readAsleep() {
	since := max(m.began, m.silent)
	if m.promises() {
		since = m.began
	}
	for _, r := range m.prior.Asleep {
		s := limiter.Share{Tokens: r.Tokens, Capacity: r.Burst, Rate: r.Rate}
		if s.Tokens < 0 || s.Rate < 0 || s.Tokens > s.Capacity {
			continue // not written by this program
		}
		a := &asleep{bucket: limiter.NewBucket(limiter.RatePeriod, s, since), since: since, left: r.Left, whole: since.Add(lenderLease(limiter.MaxHold))}
		a.fills(since)
		m.asleep[limitOf{r.Namespace, r.Limit}] = a
	}
	m.meta.Asleep = m.asleepRecords(m.began, false) // what the stop wrote is of no more use
}

func compareLimits(a, b limitOf) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.id, b.id))
}
