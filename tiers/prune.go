package tiers

import (
	"strconv"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file deletes records that mean nothing any more: what is left of a
// quota's window that has ended, what was in a bucket that is full again, ids
// of requests that need not be remembered. Most of them belong to keys that
// nobody asks for again, so no check would come across them. The machine walks
// through them once in a while, some in each step, and begins anew in each
// session.
//
// A record goes only if a key that is asked for later is then as it would have
// been with it. So what is left of a budget stays, and so does what is left of
// a window that may be open; and of a limit that left the rules all that it
// would find if it came back soon.

const (
	// DefaultPruneEach is the time between two walks.
	DefaultPruneEach = time.Minute
	// prunePause is the time between two steps of a walk, and pruneSoon where
	// the last one found something.
	prunePause = 20 * time.Millisecond
	pruneSoon  = 5 * time.Millisecond
	// goneFor is how long a limit or a namespace that left the rules may take
	// to come back and find everything, by this place's running time: as long
	// as any rule has requests remembered.
	goneFor = limiter.MaxDedupe
	// longestWindow is longer than every window of a quota.
	longestWindow = 32 * 24 * int64(time.Hour/time.Second)
)

// pruned are the records that are walked through.
var pruned = [...]Key{bucketPrefix, requestPrefix, windowPrefix}

// prune is how far the walk has come.
type prune struct {
	of    int // in pruned
	after Key
	at    limiter.Time    // the next step
	began limiter.Time    // of this walk
	ruled limiter.Time    // when other rules were last followed, or this session began
	found map[string]bool // namespaces of which requests are remembered
}

// pruneEach is the time between two walks.
func (m *Machine) pruneEach() time.Duration {
	if m.cfg.PruneEach > 0 {
		return m.cfg.PruneEach
	}
	return DefaultPruneEach
}

// goPrune takes the next step of the walk.
func (m *Machine) goPrune(now limiter.Time) {
	w := &m.prune
	if w.of == 0 && w.after == "" {
		w.began = now
	}
	pending := map[Key]bool{} // what this step writes is not what it reads
	for _, write := range m.out.Writes {
		pending[write.Key] = true
	}
	var read []Write
	ended := true
	m.scan(pruned[w.of], w.after, func(k Key, r Record) bool {
		if len(read) == m.maxStep() {
			ended = false
			return false
		}
		read = append(read, Write{k, r})
		return true
	})
	w.at = now.Add(prunePause)
	for _, r := range read {
		if m.work++; r.Key <= w.after {
			continue
		}
		w.after = r.Key
		if !pending[r.Key] && m.meansNothing(now, r.Key, r.Record) {
			m.write(r.Key, nil)
			w.at = now.Add(pruneSoon)
		}
	}
	if !ended {
		return
	}
	if w.of, w.after = w.of+1, ""; w.of < len(pruned) {
		w.at = now
		return
	}
	w.of, w.found = 0, nil
	w.at = now.Add(max(m.pruneEach(), now.Sub(w.began))) // half of the time, at most
}

// meansNothing says that a record may be deleted.
func (m *Machine) meansNothing(now limiter.Time, k Key, r Record) bool {
	switch r := r.(type) {
	case *SavedBucket:
		return m.savedIsVoid(now, k, r)
	case *RequestRecord:
		return m.requestIsOld(now, k)
	case *WindowRecord:
		return m.windowIsVoid(now, k, r)
	}
	return false
}

// longGone says that what left the rules may be forgotten.
func (m *Machine) longGone(now limiter.Time) bool { return now.Sub(m.prune.ruled) >= goneFor }

// savedIsVoid says that what is written of a bucket is not what the bucket is,
// or that it is what it would be without.
func (m *Machine) savedIsVoid(now limiter.Time, k Key, saved *SavedBucket) bool {
	name, id := parseBucketKey(k)
	s, l := m.limitOf(name.Namespace, id)
	switch {
	case l == nil && saved.Window != 0:
		return m.longGone(now) && m.unix(now) > saved.Window+longestWindow
	case l == nil:
		return saved.Fills && m.longGone(now)
	case !m.owns(l):
		return false
	case l.Kind == limiter.Quota:
		return saved.Window < m.calendarOf(now, s, l).begin
	case l.Durable() || !m.judged:
		return false
	}
	of := limitOf{name.Namespace, l.ID}
	whole := l.Whole()
	without, from := m.asleepAt(of, l)
	whole.Tokens = max(0, min(saved.Tokens, without))
	if whole.Tokens == without {
		return true // after a crash nothing that was written is believed, for one
	}
	if from = max(from, m.quietOf(of)); l.Kind == limiter.Concurrency {
		return now >= max(from.Add(lenderLease(l.Hold)), m.holds[of].until)
	}
	b := limiter.NewBucket(l.Period, whole, from)
	b.Settle(now)
	return now >= from && b.Tokens() == l.Burst
}

// requestIsOld says that a request need not be remembered any more.
func (m *Machine) requestIsOld(now limiter.Time, k Key) bool {
	namespace, rest, _ := strings.Cut(string(k[len(requestPrefix):]), "/")
	number, _, _ := strings.Cut(rest, "/")
	slot, err := strconv.ParseInt(number, 16, 64)
	s := m.spaces[namespace]
	switch {
	case err != nil:
		return false
	case s == nil || s.rule == nil || s.rule.Dedupe <= 0:
		if m.longGone(now) {
			return true
		}
	default:
		if slot < m.slotsOf(now, s).newest-1 {
			return true
		}
	}
	if m.prune.found == nil {
		m.prune.found = map[string]bool{}
	}
	m.prune.found[namespace] = true
	m.prune.after = requestPrefix + Key(namespace) + "/\xff" // the others are newer
	return false
}

// windowIsVoid says that a window of a limit that left the rules has ended, or
// that nothing is remembered by the slots of a namespace that remembers no
// requests.
func (m *Machine) windowIsVoid(now limiter.Time, k Key, r *WindowRecord) bool {
	namespace, what, _ := strings.Cut(string(k[len(windowPrefix):]), "/")
	if k == slotsKey(namespace) {
		s := m.spaces[namespace]
		return (s == nil || s.rule == nil || s.rule.Dedupe <= 0) && m.longGone(now) && !m.prune.found[namespace]
	}
	id, err := strconv.ParseUint(what, 16, 64)
	if err != nil {
		return false
	}
	_, l := m.limitOf(namespace, id)
	return l == nil && m.longGone(now) && m.unix(now) > r.Begin+longestWindow
}

// limitOf finds a limit of the rules by its ID, now or in the version before.
func (m *Machine) limitOf(namespace string, id uint64) (*space, *limiter.Limit) {
	s := m.spaces[namespace]
	if s == nil || s.rule == nil {
		return s, nil
	}
	for i := range s.rule.Limits {
		if l := &s.rule.Limits[i]; l.ID == id || l.FormerID == id && id != 0 {
			return s, l
		}
	}
	return s, nil
}

// parseBucketKey is the inverse of bucketKey.
func parseBucketKey(k Key) (n Name, limit uint64) {
	namespace, rest, _ := strings.Cut(string(k[len(bucketPrefix):]), "/")
	key, id, _ := strings.Cut(rest, "\x00")
	limit, _ = strconv.ParseUint(id, 16, 64) // 0 is no limit's
	return Name{namespace, key}, limit
}
