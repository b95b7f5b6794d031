package tiers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tributary-io/tributary/limiter"
)

// A count is a key's totals at one place: what each source counted, and the
// sum. At a leaf the only source is the place itself, "", in one pair for
// each session; elsewhere the sources are children, and "" for those that
// were forgotten.
type count struct {
	object  *object
	sources []source // sorted by place
	total   Total
	mark    uint64   // of the last change
	handed  uint64   // upper.handings when earlier sessions' pairs went up and came back, this session; 0: they did not
	part    partTold // or so many of them

	dirty      uint64 // in the dirty list; see its has
	prev, next *count
}

// A partTold is how much went up and came back of a count that has more pairs than
// a report holds: those of sessions up to one, to one session of the parent.
type partTold struct{ upto, parent, handings uint64 }

// partly is how much went up of a count that has to be handed over.
func (u *upper) partly(c *count) partTold {
	if c.part.handings != u.handings {
		return partTold{}
	}
	return c.part
}

type source struct {
	place  Place
	key    Key // of its record; empty until it is first written
	mark   uint64
	pairs  []Pair // sorted by session; never changed in place once written
	folded Total  // of sessions that were folded
	kept   Total  // of children that were forgotten: the pair of an interior place has it too
}

// total is what a source adds to its count.
func (s *source) total() Total {
	sum := s.folded // it all fitted when it was taken
	for _, p := range s.pairs {
		sum, _ = sum.plus(p.Total)
	}
	if s.place == "" {
		sum, _ = sum.plus(s.kept)
	}
	return sum
}

// sourceOf is what a record says of a source, and record the inverse.
func sourceOf(from Place, r *CountRecord) source {
	return source{place: from, mark: r.Mark, pairs: r.Pairs, folded: r.Folded, kept: r.Kept}
}

func (s *source) record() *CountRecord {
	return &CountRecord{Mark: s.mark, Pairs: s.pairs, Folded: s.folded, Kept: s.kept}
}

// counted returns an object's count, reading it if need be.
func (m *Machine) counted(o *object) *count {
	if o.count != nil {
		return o.count
	}
	c := &count{object: o}
	take := func(from Place, r *CountRecord) {
		s := sourceOf(from, r)
		c.sources = append(c.sources, s)
		c.mark = max(c.mark, r.Mark)
		c.total, _ = c.total.plus(s.total()) // fitted when it was written
	}
	if m.cfg.Leaf {
		if r, _ := m.read(countKey(o.name, "")).(*CountRecord); r != nil {
			take("", r)
		}
	} else {
		m.scan(countKey(o.name, ""), "", func(k Key, r Record) bool {
			_, from := parseCountKey(k)
			take(from, r.(*CountRecord))
			return true
		})
	}
	o.count = c
	return c
}

// source finds or makes a source of a count.
func (c *count) source(from Place) *source {
	i, found := slices.BinarySearchFunc(c.sources, from, func(s source, p Place) int { return strings.Compare(string(s.place), string(p)) })
	if !found {
		c.sources = slices.Insert(c.sources, i, source{place: from})
	}
	return &c.sources[i]
}

// merge keeps, for each session, the larger of what the source had and what
// it is told, and so for the sum of those that the list says are folded, and
// for what was kept of forgotten children. Moved: only how it is kept changed.
// Nothing changes if the sum would not fit.
func (c *count) merge(s *source, list []uint64, told Count) (changed, moved bool, err error) {
	pairs, ours, fits := fold(list, s.pairs)
	toldPairs, theirs, fits2 := fold(list, told.Pairs)
	if !fits || !fits2 {
		return false, false, c.tooLarge()
	}
	moved = len(pairs) < len(s.pairs)
	if ours, fits = ours.plus(s.folded); !fits {
		return false, false, c.tooLarge()
	}
	if theirs, fits = theirs.plus(told.Folded); !fits {
		return false, false, c.tooLarge()
	}
	folded, kept := ours.larger(theirs), s.kept.larger(told.Kept)
	changed = folded != ours || kept != s.kept
	total, fits := c.total.plus(Total{folded.Added - ours.Added, folded.Removed - ours.Removed})
	if !fits {
		return false, false, c.tooLarge()
	}
	cloned := false
	for _, p := range toldPairs {
		i, found := slices.BinarySearchFunc(pairs, p.Session, func(q Pair, session uint64) int { return cmp.Compare(q.Session, session) })
		var old Total
		if found {
			old = pairs[i].Total
		}
		larger := old.larger(p.Total)
		if found && larger == old {
			continue
		}
		var fits bool
		if total, fits = total.plus(Total{larger.Added - old.Added, larger.Removed - old.Removed}); !fits {
			return false, false, c.tooLarge()
		}
		if changed = true; !cloned {
			pairs, cloned = slices.Clone(pairs), true
		}
		if found {
			pairs[i].Total = larger
		} else {
			pairs = slices.Insert(pairs, i, Pair{p.Session, larger})
		}
	}
	s.pairs, s.folded, s.kept, c.total = pairs, folded, kept, total
	return changed, moved, nil
}

func (c *count) tooLarge() error {
	return fmt.Errorf("the total of %s would pass 2^64-1", c.object.name)
}

// changed gives a source's change its mark, writes it and queues it for the
// parent.
func (m *Machine) changed(c *count, s *source) {
	before := c.mark
	s.mark = m.nextMark()
	c.mark = s.mark
	m.record(c, s)
	c.object.tellWatchers()
	if m.cfg.Place != Root {
		m.noteChange(c.object.name, before)
		m.upper.dirty.push(c)
	}
}

// record writes down what a source counted.
func (m *Machine) record(c *count, s *source) {
	if s.key == "" {
		s.key = countKey(c.object.name, s.place)
	}
	m.write(s.key, s.record())
}

// Add counts delta at a leaf and returns the place's total.
func (m *Machine) Add(now limiter.Time, name Name, delta int64) (Total, error) {
	o, err := m.countable(now, name)
	if err != nil {
		return Total{}, err
	}
	if !m.cfg.Leaf {
		return Total{}, ErrNotLeaf
	}
	c := m.counted(o)
	if delta == 0 {
		return c.total, nil
	}
	return m.grow(c, delta)
}

// grow adds to what this session counted of a key.
func (m *Machine) grow(c *count, delta int64) (Total, error) {
	s := c.source("")
	own := Pair{Session: m.cfg.Session}
	if i := slices.IndexFunc(s.pairs, func(p Pair) bool { return p.Session == own.Session }); i >= 0 {
		own = s.pairs[i]
	}
	room := uint64(limiter.MaxTokens)
	if delta > 0 {
		if uint64(delta) > room-min(room, c.total.Added) {
			return Total{}, ErrTotalRange
		}
		own.Added += uint64(delta)
	} else {
		if uint64(-delta) > room-min(room, c.total.Removed) {
			return Total{}, ErrTotalRange
		}
		own.Removed += uint64(-delta)
	}
	if _, _, err := c.merge(s, m.folded(s.pairs), Count{Pairs: []Pair{own}}); err != nil {
		return Total{}, err
	}
	m.changed(c, s)
	return c.total, nil
}

// folded lists the sessions of this leaf that are folded: as its parent says,
// or if it has none, all before this one, since nobody asks for them.
func (m *Machine) folded(pairs []Pair) []uint64 {
	if m.cfg.Place != Root {
		return m.meta.Folded
	}
	var before []uint64
	for _, p := range pairs { // sorted
		if p.Session != m.cfg.Session {
			before = append(before, p.Session)
		}
	}
	return before
}

// countable returns the object of a name that may be counted.
func (m *Machine) countable(now limiter.Time, name Name) (*object, error) {
	s := m.spaces[name.Namespace]
	if s == nil || s.rule == nil {
		return nil, ErrUnknownNamespace
	}
	if len(s.rule.Limits) > 0 && !s.rule.Count {
		return nil, ErrLimited
	}
	return m.object(now, s, name.Key), nil
}

// Listed is one key of a List.
type Listed struct {
	Key   string
	Total Total
}

// List returns up to limit keys of a namespace that begin with prefix and
// are greater than after, in byte order, and whether there are more.
func (m *Machine) List(namespace, prefix, after string, limit int) (keys []Listed, more bool, err error) {
	if s := m.spaces[namespace]; s == nil || s.rule == nil {
		return nil, false, ErrUnknownNamespace
	}
	head := countPrefix + Key(namespace) + "/"
	from := Key("")
	if after != "" {
		from = head + Key(after) + "\x01" // past all sources of after: no key contains \x01
	}
	m.scan(head+Key(prefix), from, func(k Key, r Record) bool {
		name, from := parseCountKey(k)
		if n := len(keys); n == 0 || keys[n-1].Key != name.Key {
			if n == limit {
				more = true
				return false
			}
			keys = append(keys, Listed{Key: name.Key})
		}
		last := &keys[len(keys)-1]
		s := sourceOf(from, r.(*CountRecord))
		last.Total, _ = last.Total.plus(s.total())
		return true
	})
	return keys, more, m.err
}
