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
// one, which says that everything up to the pass's mark is told, to a session
// of the parent that it names. What a parent acknowledged on the way it could
// lose with its disk unseen: when another session of it answers, the pass begins
// anew, and that session takes no word for what only the one before was told.
type pass struct {
	to    uint64 // the mark of the last change that it tells
	after Key    // the records up to this one are told
	next  Key    // and up to this one are in the report
	last  bool   // which is the last one,
	sent  uint64 // and has this number
	fresh bool   // begun in a step whose own writes are not on the disk yet
	again bool   // another one follows: too much changed meanwhile

	told    int // keys that it told, and were acknowledged
	telling int // those in the report that have not changed since it began
	later   int // keys that changed since it began
	walked  int // keys up to after
	within  int // keys between after and next
	created int // keys that were counted for the first time since it began
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
	p.next, p.sent, p.last, p.within, p.telling = p.after, r.Sequence, false, 0, 0
	found, walked, to, ended := m.changedAfter(p.after, p.to)
	for _, f := range found {
		c := m.counted(m.object(now, m.space(f.name.Namespace), f.name.Key))
		if len(u.firsts) == maxFirsts || !m.fillCount(r, c) {
			return
		}
		if c.mark <= p.to {
			p.telling++
		}
		p.next, p.within = f.last, f.walked
	}
	p.within = walked
	if p.next = to; ended {
		p.last, r.To = true, p.to
		if p.after != "" {
			r.Rest = u.parent
		}
		u.full = p.to == m.mark
	}
}

// foundChange is a count that changed, the last of its records, and how many
// keys the walk had come by, it included.
type foundChange struct {
	name   Name
	last   Key
	walked int
}

// changedAfter walks through the records after a key, as far as one report
// goes, for counts that changed after what the parent has, up to a mark. To
// is how far it came: all records of a count, or none; by so many keys. Ended:
// to the end.
func (m *Machine) changedAfter(after Key, mark uint64) (found []foundChange, walked int, to Key, ended bool) {
	var name Name
	var newest uint64
	records := 0
	to = after
	count := func(last Key) {
		if name != (Name{}) {
			walked++
		}
		if newest > m.upper.acked && newest <= mark {
			found = append(found, foundChange{name, last, walked})
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
	return found, walked, to, ended
}

// passed notes that the parent has what a report of the pass said.
func (m *Machine) passed(r *Report, a *Ack) {
	u := &m.upper
	p := u.pass
	switch {
	case p.sent != r.Sequence || a.Full || a.MorePairs:
	case !p.last:
		p.after = p.next
		p.told += p.telling
		p.walked += p.within
		u.lacks = max(p.later, u.lacks-p.telling)
	case u.acked < p.to:
		m.retellPass() // it did not take the whole
	default:
		m.keys = min(m.keys, p.walked+p.within+p.created)
		u.lacks = p.later
		if u.pass = nil; p.again {
			m.beginPass()
		} else if m.noted > u.lacks+2*markBlock {
			m.write(metaKey, m.saved()) // the next start shall not think that so much waits
		}
	}
}

// retellPass begins a pass anew: what it told may be lost.
func (m *Machine) retellPass() {
	u := &m.upper
	p := u.pass
	u.lacks += p.told
	p.after, p.sent, p.told, p.walked = "", 0, 0, 0
}

// A Backlog is what a store remembers of how much its parent lacks.
type Backlog struct {
	Keys  uint64 // that are counted, at most
	Lacks uint64 // of those, that the parent lacks changes of, at most
	Acked uint64 // up to which mark it had them
	Mark  uint64 // changes up to this one are in these figures
}

// The backlog is how many keys have changes that the parent is not known to
// have. It is kept as it changes, and exact while all of them are in memory.
// While a pass tells of those that only the disk knows it is never too small,
// and too large by what no longer counts of these: keys that change between a
// report and its answer; where a start does not know exactly what was told
// before a crash, up to markBlock; and where the parent's disk was lost, keys
// that this one counts and the parent knows from before. The end of the pass
// makes it exact again.

// startBacklog takes up what the disk says of it.
func (m *Machine) startBacklog() {
	b := m.prior.Backlog
	switch {
	case m.isNew:
	case b == nil: // of a version that did not count: each key has a mark of its own
		m.keys, m.upper.lacks = int(m.mark), int(m.mark)
	default:
		after := int(m.mark - min(m.mark, b.Mark)) // changes that may have come before the crash
		m.keys, m.upper.lacks, m.upper.told = int(min(b.Keys, m.mark))+after, int(min(b.Lacks, m.mark))+after, b.Acked
	}
}

// backlog is what the next start will find: it is written with the rest of
// Meta, as each block of marks is begun.
func (m *Machine) backlog() *Backlog {
	u := &m.upper
	acked, lacks := u.told, u.lacks
	if u.joined {
		acked = u.acked
	}
	if u.pass != nil { // another one begins after acked
		lacks += u.pass.told
	}
	m.noted = lacks
	return &Backlog{Keys: uint64(m.keys), Lacks: uint64(lacks), Acked: acked, Mark: m.mark}
}

// noteChange counts a key among those that the parent lacks, unless it is one
// of them; before is the mark of its last change, 0 if it is new.
func (m *Machine) noteChange(n Name, before uint64) {
	u := &m.upper
	known := u.acked // who changed last by then is none of them
	if !u.joined && u.number == 0 {
		known = u.start // or may be none: it has not been heard yet what the parent has
	}
	if before == 0 {
		m.keys++
	}
	if p := u.pass; p != nil {
		if before == 0 {
			p.created++
		}
		if before <= p.to {
			p.later++
		}
		if p.tells(n, u.inFlight) {
			known = p.to
		}
	}
	if before <= known {
		u.lacks++
	}
}

// tells says that a pass has told a key's changes, or does so in the report
// that is under way.
func (p *pass) tells(n Name, inFlight *Report) bool {
	to := p.after
	if inFlight != nil && inFlight.Sequence == p.sent {
		to = p.next
	}
	return to != "" && countKey(n, "") <= to
}

// lacksFrom counts anew when the parent has said up to which mark it has the
// changes, and the rest is to be told from the disk.
func (m *Machine) lacksFrom(acked uint64) {
	u := &m.upper
	if u.pass != nil {
		u.lacks += u.pass.told
	}
	had := u.told
	if u.joined {
		had = u.acked
	}
	if acked < had { // of what lies between only the number of all keys is known
		u.lacks = m.keys
	}
	u.lacks = min(u.lacks, m.keys, int(m.mark-acked))
}
