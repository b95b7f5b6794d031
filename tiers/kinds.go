package tiers

import (
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file holds what the kinds of limits have of their own: what a budget
// or quota keeps on disk, when a quota's windows open, and the permits of a
// concurrency. All else is one bucket.

// A vault is what a leaf may not spend yet of a budget or quota that it owns.
// No check waits for a disk: a part is written off it ahead, and spent once
// that is durable.
type vault struct {
	rest   int64  // on disk
	coming int64  // being written off
	commit uint64 // number of the write that is under way; 0: none
}

// chunkOf is how much is written off at a time: a sixteenth, so that a crash
// loses little, and enough that writes are few.
func chunkOf(rest int64) int64 { return max(1, min(rest/16, 1000)) }

// whole is what is left of a durable limit here, spendable or not.
func (p *pool) whole() int64 { return p.vault.rest + p.vault.coming + p.bucket.Tokens() }

// stock adds what is left of a durable limit to its owner.
func (p *pool) stock(now limiter.Time, tokens int64) {
	if p.object.space.leaf {
		p.vault.rest += tokens
	} else {
		p.bucket.Add(now, limiter.Share{Tokens: tokens})
	}
}

// forget makes a durable limit wait for an operator's figure: its owner has
// learned that its disk does not know what was lent.
func (p *pool) forget(now limiter.Time) {
	p.waits, p.debt, p.vault = true, 0, vault{}
	p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{Capacity: p.bucket.Capacity()}, now)
}

// save writes down what an owner may still lend or spend of a durable limit.
func (m *Machine) save(p *pool) {
	tokens := p.vault.rest
	if !m.cfg.Leaf {
		tokens = p.bucket.Tokens()
	}
	saved := &SavedBucket{Tokens: tokens - p.debt, Burst: p.limit.Burst, Window: p.window, Known: m.meta.Lost}
	if p.waits {
		saved.Known = 0
	}
	m.write(p.savedKey(), saved)
}

// draw takes a part off the vault, if need is more than what is at hand, or
// little is.
func (m *Machine) draw(p *pool, need int64) {
	v := &p.vault
	chunk := chunkOf(v.rest)
	if v.rest == 0 || v.commit != 0 || p.bucket.Tokens() >= max(need, (chunk+1)/2) {
		return
	}
	v.coming = min(v.rest, max(need, chunk))
	v.rest -= v.coming
	m.save(p)
	m.commits++
	v.commit = m.commits
	m.drawing = append(m.drawing, p)
	m.stirred = true
}

// Committed says that the writes of an Output are durable, and those of all
// before: n is its Commit.
func (m *Machine) Committed(now limiter.Time, n uint64) {
	left := m.drawing[:0]
	for _, p := range m.drawing {
		m.current(now, p.object)
		v := &p.vault
		if v.commit == 0 || v.commit > n {
			if v.commit > 0 {
				left = append(left, p)
			}
			continue
		}
		p.bucket.Add(now, limiter.Share{Tokens: v.coming})
		v.coming, v.commit = 0, 0
		m.decideAll(p.object, now)
		m.arm(now, p.object)
	}
	m.drawing = left
}

// SetWall tells the machine what the wall clock shows, in Unix nanoseconds.
// Only windows of quotas ask for it.
func (m *Machine) SetWall(now limiter.Time, unix int64) { m.wallAt, m.wall = now, unix }

// unix is what the wall clock shows, in seconds.
func (m *Machine) unix(now limiter.Time) int64 {
	return (m.wall + int64(now.Sub(m.wallAt))) / int64(time.Second)
}

// untilEnd is how long a window stays open, as the wall clock runs now.
func (m *Machine) untilEnd(now limiter.Time, c *calendar) time.Duration {
	return time.Duration(c.end*int64(time.Second) - m.wall - int64(now.Sub(m.wallAt)))
}

// A calendar is the window of one quota that is open at its owner.
type calendar struct {
	begin, end int64
	lost       bool // it was open when a disk was lost: keys that nothing is known of have nothing left
	read       bool
}

func windowKey(namespace string, l *limiter.Limit) Key {
	return windowPrefix + Key(fmt.Sprintf("%s/%016x", namespace, l.ID))
}

// calendarOf returns the window that is open. It only goes forward, whatever
// the wall clock does, and is written down before it is lent from.
func (m *Machine) calendarOf(now limiter.Time, s *space, l *limiter.Limit) *calendar {
	c := s.windows[l.ID]
	if c == nil {
		c = &calendar{}
		if s.windows == nil {
			s.windows = map[uint64]*calendar{}
		}
		s.windows[l.ID] = c
	}
	if !c.read {
		c.read = true
		r, _ := m.read(windowKey(s.name, l)).(*WindowRecord)
		if former := *l; r == nil && l.FormerID != 0 {
			former.ID = l.FormerID
			if r, _ = m.read(windowKey(s.name, &former)).(*WindowRecord); r != nil {
				m.write(windowKey(s.name, &former), nil)
				m.write(windowKey(s.name, l), r)
			}
		}
		if r != nil {
			c.begin, c.end, c.lost = r.Begin, l.Window.End(r.Begin), r.Lost
		}
	}
	t := m.unix(now)
	if t < c.end {
		return c
	}
	c.begin, c.end, c.lost = l.Window.Begin(t), l.Window.End(t), false
	m.write(windowKey(s.name, l), &WindowRecord{Begin: c.begin})
	m.stirred = true
	return c
}

// lose notes that this place lost its disk, or that it was set back: what it
// lent of budgets is not known, nor is any figure that an operator gave before.
// The caller writes meta.
func (m *Machine) lose(now limiter.Time) {
	m.meta.Lost++
	m.loseWindows(now)
}

// loseWindows notes that what was lent of the windows that are open is not
// known.
func (m *Machine) loseWindows(now limiter.Time) {
	for _, name := range m.rules.Namespaces() {
		s := m.spaces[name]
		for i := range s.rule.Limits {
			if l := &s.rule.Limits[i]; l.Kind == limiter.Quota && m.owns(l) {
				c := m.calendarOf(now, s, l)
				c.lost = true
				m.write(windowKey(s.name, l), &WindowRecord{Begin: c.begin, Lost: true})
			}
		}
	}
}

// owns says that this place owns a limit.
func (m *Machine) owns(l *limiter.Limit) bool { return m.cfg.Place.Owns(l, m.cfg.Leaf) }

// turn opens the next window of a quota at its owner, if its time has come:
// all is there again, and what was lent of the last one is void.
func (m *Machine) turn(now limiter.Time, p *pool) {
	if p.limit.Kind != limiter.Quota || !p.owner {
		return
	}
	c := m.calendarOf(now, p.object.space, p.limit)
	p.endsAt = now.Add(m.untilEnd(now, c)) // as the wall clock runs now: it may have been set since
	if c.begin == p.window {
		return
	}
	p.touch()
	for _, l := range p.lines {
		if l.number != 0 {
			m.event(EventWindow, l.child.place, fmt.Sprintf("a window of %s closed while it was lent", p.object.name))
			l.close()
		}
	}
	p.drop(now)
	p.window, p.spent, p.waits, p.credit = c.begin, 0, false, 0
	p.vault, p.debt = vault{}, 0
	p.own.Capacity = p.limit.Burst
	p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{Capacity: p.limit.Burst}, now)
	if m.young() {
		p.credit = p.limit.Burst
	} else {
		p.stock(now, p.limit.Burst)
	}
}

// A permit is one check's part of a concurrency, until it is released or was
// not renewed for a hold.
type permit struct {
	hits  int64
	until limiter.Time
	of    int // how many of the key's limits it is a part of
}

// permits are those of one key at one leaf, of one line.
type permits struct {
	out   int64 // sum of hits
	held  map[uint64]permit
	queue []permitEnd // by time; one that was renewed or released stands in it too
	first int
}

type permitEnd struct {
	serial uint64
	at     limiter.Time
}

func (s *permits) add(serial uint64, hits int64, until limiter.Time) {
	if s.held == nil {
		s.held = map[uint64]permit{}
	}
	s.held[serial] = permit{hits: hits, until: until}
	s.ends(serial, until)
	s.out += hits
}

// ends puts a permit's end into the queue: last, unless the hold was longer.
func (s *permits) ends(serial uint64, until limiter.Time) {
	at, _ := slices.BinarySearchFunc(s.queue[s.first:], until, func(e permitEnd, t limiter.Time) int {
		if e.at <= t {
			return -1
		}
		return 1
	})
	s.queue = slices.Insert(s.queue, s.first+at, permitEnd{serial, until})
}

// take takes a permit out; 0: there is none.
func (s *permits) take(serial uint64) int64 {
	hits := s.held[serial].hits
	delete(s.held, serial)
	s.out -= hits
	return hits
}

// next is when the next permit ends, if it is neither renewed nor released.
func (s *permits) next() limiter.Time {
	for s.first < len(s.queue) {
		e := s.queue[s.first]
		if p, there := s.held[e.serial]; there && p.until == e.at {
			return e.at
		}
		s.first++
	}
	s.queue, s.first = s.queue[:0], 0
	return limiter.Never
}

// expire takes out what ended by now.
func (s *permits) expire(now limiter.Time) (hits int64) {
	for s.next() <= now {
		hits += s.take(s.queue[s.first].serial)
	}
	return hits
}

// admit spends from a pool that has enough.
func (p *pool) admit(now limiter.Time, hits int64, serial uint64) {
	if p.limit.Kind == limiter.Concurrency && hits > 0 {
		p.bucket.Cut(now, limiter.Share{Tokens: hits, Capacity: hits}) // out, until it comes back whole
		p.permits.add(serial, hits, now.Add(p.limit.Hold))
		return
	}
	p.bucket.Spend(hits)
	if p.promised != nil {
		p.promised.Settle(now)
		p.promised.Spend(hits)
	}
	p.spent = saturate(p.spent, hits)
}

// free brings permits back.
func (p *pool) free(now limiter.Time, hits int64) {
	p.bucket.Add(now, limiter.Share{Tokens: hits, Capacity: hits})
}

// frozen is what a line that ended had out: its permits may run on until then.
type frozen struct {
	capacity int64
	until    limiter.Time
}

func (p *pool) freeze(capacity int64, until limiter.Time) {
	if capacity > 0 {
		p.frozen = append(p.frozen, frozen{capacity, max(until, p.runOn)})
	}
}

// stayFrozen has all that is frozen stay so until then, at least.
func (p *pool) stayFrozen(until limiter.Time) {
	for i := range p.frozen {
		p.frozen[i].until = max(p.frozen[i].until, until)
	}
}

// thaw brings back what is frozen until now, and n of the rest.
func (p *pool) thaw(now limiter.Time, n int64) (back int64) {
	left := p.frozen[:0]
	for _, f := range p.frozen {
		part := f.capacity
		if f.until > now {
			part = min(part, n)
			n -= part
		}
		back += part
		if f.capacity -= part; f.capacity > 0 {
			left = append(left, f)
		}
	}
	p.frozen = left
	p.free(now, back)
	return back
}

// Release gives back a permit of a check that was admitted in this session.
// False: there is no such permit, or it ended.
func (m *Machine) Release(now limiter.Time, name Name, serial uint64) (released bool, err error) {
	o, err := m.limited(now, name)
	if o == nil {
		return false, err
	}
	for _, p := range o.pools {
		m.expirePermits(now, p)
		if hits := p.permits.take(serial); hits > 0 {
			p.free(now, hits)
			released = true
			m.relend(now, p)
		}
	}
	if released {
		m.decideAll(o, now)
		m.arm(now, o)
	}
	return released, nil
}

// join notes of how many limits a permit is a part.
func (o *object) join(serial uint64) {
	of := o.parts(serial)
	for _, p := range o.pools {
		if got, there := p.permits.held[serial]; there {
			got.of = of
			p.permits.held[serial] = got
		}
	}
}

// parts is how many limits have a permit.
func (o *object) parts(serial uint64) (n int) {
	for _, p := range o.pools {
		if _, there := p.permits.held[serial]; there {
			n++
		}
	}
	return n
}

// Renew begins the hold of a permit anew. False: there is no such permit, it
// ended, or the place's own lease did, of one of its limits: who has ended a
// part of it may have given that to another.
func (m *Machine) Renew(now limiter.Time, name Name, serial uint64) (renewed bool, err error) {
	o, err := m.limited(now, name)
	if o == nil {
		return false, err
	}
	for _, p := range o.pools {
		m.expirePermits(now, p)
	}
	parts := o.parts(serial)
	for _, p := range o.pools {
		if got, there := p.permits.held[serial]; there && (!p.usable(now) || got.of != parts) {
			return false, nil
		}
	}
	for _, p := range o.pools {
		if got, there := p.permits.held[serial]; there {
			got.until = now.Add(p.limit.Hold)
			p.permits.held[serial] = got
			p.permits.ends(serial, got.until)
			renewed = true
		}
	}
	m.arm(now, o)
	return renewed, nil
}

func (m *Machine) expirePermits(now limiter.Time, p *pool) {
	if hits := p.permits.expire(now); hits > 0 {
		p.free(now, hits)
		m.relend(now, p)
	}
}

// relend acts on permits that came back at a leaf: others may want them.
func (m *Machine) relend(now limiter.Time, p *pool) {
	if p.owner {
		m.shrink(now, p)
	} else {
		m.giveBack(now, p)
	}
}

// Refund takes back what a check spent here, at most what was admitted, and
// nothing while a share that it was spent from is not here. Permits are
// released instead.
func (m *Machine) Refund(now limiter.Time, name Name, hits int64) (refunded int64, err error) {
	o, err := m.limited(now, name)
	if o == nil || hits <= 0 {
		return 0, err
	}
	spends := false
	refunded = hits
	for _, p := range o.pools {
		if p.limit.Kind == limiter.Concurrency {
			continue
		}
		spends = true
		m.turn(now, p)
		if refunded = min(refunded, p.spent); !p.usable(now) {
			refunded = 0
		}
	}
	if !spends || refunded == 0 {
		return 0, nil
	}
	for _, p := range o.pools {
		if p.limit.Kind != limiter.Concurrency {
			p.spent -= refunded
			p.bucket.Add(now, limiter.Share{Tokens: p.owed(refunded)})
			if p.promised != nil {
				p.promised.Add(now, limiter.Share{Tokens: refunded})
			}
		}
	}
	m.decideAll(o, now)
	m.arm(now, o)
	return refunded, nil
}

// owed is what of a refund comes back: what the limit was lowered by vanishes
// first, and what an operator's reset brought is there already. Of other buckets
// the capacity sees to that.
func (p *pool) owed(refunded int64) int64 {
	if !p.owner || !p.limit.Durable() {
		return refunded
	}
	paid := min(p.debt, refunded)
	p.debt -= paid
	return max(0, min(refunded-paid, p.limit.Burst-p.whole()))
}

// limited returns the object of a limited key that is awake at a leaf, or nil.
func (m *Machine) limited(now limiter.Time, name Name) (*object, error) {
	s := m.spaces[name.Namespace]
	switch {
	case s == nil || s.rule == nil:
		return nil, ErrUnknownNamespace
	case !m.cfg.Leaf:
		return nil, ErrNotLeaf
	}
	return m.awakeObject(now, name), nil
}

// keepSpare is how long a soft limit remembers what it let pass while its
// share was away: one that is cut off again and again gains no more.
const keepSpare = time.Hour

// refill fills what is here of a limit that an operator reset, and tells
// children to do so.
func (m *Machine) refill(now limiter.Time, p *pool) {
	if p.limit.Kind == limiter.Concurrency {
		return // permits are out, whatever an operator says
	}
	p.bucket.Settle(now)
	have := p.bucket.Share()
	have.Tokens = have.Capacity
	p.bucket = limiter.NewBucket(p.limit.Period, have, now)
	p.nextAt = 0
	for _, l := range p.lines {
		l.resets++
		if l.number != 0 {
			m.call(now, p, l)
		}
	}
}

// Reset fills a key's limits that this place owns: everything that was spent
// counts as not. What is lent is filled when its holder hears of it.
func (m *Machine) Reset(now limiter.Time, name Name) error {
	s := m.spaces[name.Namespace]
	if s == nil || s.rule == nil {
		return ErrUnknownNamespace
	}
	o := s.objects[name.Key]
	if o == nil {
		o = m.object(now, s, name.Key)
	}
	m.idle.touch(o)
	m.catchUp(o)
	owned := false
	for _, p := range o.pools {
		if !p.owner {
			continue
		}
		owned = true
		m.turn(now, p)
		p.waits, p.promised, p.credit, p.debt = false, nil, 0, 0
		if p.limit.Durable() && m.cfg.Leaf { // spent from when that is written
			p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{Capacity: p.limit.Burst}, now)
			p.vault = vault{rest: p.limit.Burst}
			m.save(p)
		} else {
			m.refill(now, p)
		}
		if p.limit.Durable() && !m.cfg.Leaf { // beyond a lowered figure is only what is lent
			m.shrink(now, p)
			p.debt = p.excess().Capacity
			m.save(p)
		}
	}
	m.decideAll(o, now) // when all are whole: what waits spends from none before
	for _, p := range o.pools {
		m.balance(now, p, nil)
	}
	m.arm(now, o)
	if !owned {
		return ErrNotOwner
	}
	return nil
}

// use counts what checks admitted where a limited namespace is counted as
// well. No check waits for that: it is written with what is next.
func (m *Machine) use(now limiter.Time, o *object, hits int64) {
	if o.used == 0 {
		if len(m.used) == 0 {
			m.usedAt = now.Add(useEach)
			m.stirred = true
		}
		m.used = append(m.used, o)
	}
	o.used += hits
}

// useEach is how long admitted checks may wait to be counted.
const useEach = 100 * time.Millisecond

// countUsed counts them, some at a time.
func (m *Machine) countUsed(now limiter.Time) {
	n := min(len(m.used), m.maxStep())
	for _, o := range m.used[:n] {
		m.work++
		m.countUse(o)
	}
	clear(m.used[:n])
	if m.used, m.usedAt = m.used[n:], now; len(m.used) == 0 {
		m.used, m.usedAt = nil, limiter.Never
	}
}

// countUse counts those of one key.
func (m *Machine) countUse(o *object) {
	if o.used == 0 {
		return
	}
	if _, err := m.grow(m.counted(o), o.used); err != nil {
		m.event(EventOverflow, m.cfg.Place, err.Error())
	}
	o.used = 0
}
