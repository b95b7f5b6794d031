package tiers

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tributary-io/tributary/limiter"
)

// A pass sends changes that only the disk knows, in the order of keys. The
// list in memory (upper.dirty) holds as many as it may; when there are more,
// since the place is cut off, or when it is not known which the parent lacks,
// since either starts or the parent's disk was lost, all that changed by then
// leaves the list, and is found by walking through the records.
//
// A report of a pass says nothing of marks (its To is its From) until the last
// one, which says that everything up to the pass's mark is told. What a parent
// acknowledged on the way it could lose with its disk unseen: when another
// session of it answers, the pass begins anew.
type pass struct {
	to    uint64 // the mark of the last change that it tells
	after Key    // the records up to this one are told
	next  Key    // and up to this one are in the report
	last  bool   // which is the last one,
	sent  uint64 // and has this number
	fresh bool   // begun in a step whose own writes are not on the disk yet
	again bool   // another one follows: too much changed meanwhile
}

// maxDirty is how many changes are known in memory.
func (m *Machine) maxDirty() int { return m.cfg.MaxAwake / 2 }

// beginPass tells all that changed by now from the disk.
func (m *Machine) beginPass() {
	m.upper.dirty.clear()
	m.upper.pass = &pass{to: m.mark, fresh: slices.ContainsFunc(m.out.Writes, func(w Write) bool {
		return strings.HasPrefix(string(w.Key), string(countPrefix))
	})}
}

// overflow is called at the end of a step: what is written by now will be on
// the disk in the next one.
func (m *Machine) overflow() {
	u := &m.upper
	if u.dirty.length > m.maxDirty() {
		if p := u.pass; p == nil {
			m.beginPass()
		} else {
			p.again = true
			u.dirty.clear()
		}
	}
	if u.pass != nil {
		u.pass.fresh = false
	}
}

// fillFromDisk puts the next changes of the pass into r.
func (m *Machine) fillFromDisk(now limiter.Time, r *Report) {
	u := &m.upper
	p := u.pass
	if p.fresh {
		return
	}
	p.next, p.sent, p.last = p.after, r.Sequence, false
	found, to, ended := m.changedAfter(p.after, p.to)
	for _, f := range found {
		if len(u.firsts) == maxFirsts || !m.fillCount(r, m.counted(m.object(now, m.space(f.name.Namespace), f.name.Key))) {
			return
		}
		p.next = f.last
	}
	if p.next = to; ended {
		p.last, r.To = true, p.to
		u.full = p.to == m.mark
	}
}

// foundChange is a count that changed, and the last of its records.
type foundChange struct {
	name Name
	last Key
}

// changedAfter walks through the records after a key, as far as one report
// goes, for counts that changed after what the parent has, up to a mark. To
// is how far it came: all records of a count, or none. Ended: to the end.
func (m *Machine) changedAfter(after Key, mark uint64) (found []foundChange, to Key, ended bool) {
	var name Name
	var newest uint64
	records := 0
	to = after
	count := func(last Key) {
		if newest > m.upper.acked && newest <= mark {
			found = append(found, foundChange{name, last})
		}
	}
	ended = true
	at := after
	m.scan(countPrefix, after, func(k Key, rec Record) bool {
		n, _ := parseCountKey(k)
		if n != name {
			count(at)
			to = at
			if records >= cmp.Or(m.cfg.MaxWalk, DefaultMaxWalk) || len(found) >= maxEntries {
				ended = false
				return false
			}
			name, newest = n, 0
		}
		newest = max(newest, rec.(*CountRecord).Mark)
		at = k
		records++
		return true
	})
	if ended {
		count(at)
		to = at
	}
	return found, to, ended
}

// passed notes that the parent has what a report of the pass said.
func (m *Machine) passed(r *Report, a *Ack) {
	u := &m.upper
	p := u.pass
	switch {
	case p == nil || p.sent != r.Sequence || a.Full || a.MorePairs:
	case !p.last:
		p.after = p.next
	case u.acked < p.to:
		p.after = "" // it did not take the whole
	case p.again:
		m.beginPass()
	default:
		u.pass = nil
	}
}
