package tiers

import (
	"fmt"
	"maps"
	"testing"

	"github.com/tributary-io/tributary/limiter"
)

// backlog is a leaf, its parent, and what is on its way between them.
type backlog struct {
	t            *testing.T
	cityDisk     memory
	parentDisk   memory
	city, parent *Machine
	now          limiter.Time
	report       *Report
	session      uint64
}

func newBacklog(t *testing.T) *backlog {
	b := &backlog{t: t, cityDisk: memory{}, parentDisk: memory{}, session: 9}
	b.city = start(t, b.cityDisk, "eu", true, 1)
	b.city.cfg.MaxAwake, b.city.cfg.MaxWalk = 4, 3
	b.parent = start(t, b.parentDisk, Root, false, b.session)
	return b
}

func (b *backlog) step(do func(m *Machine)) {
	b.now += limiter.Time(1e6)
	do(b.city)
	out := b.city.Output(b.now)
	b.cityDisk.apply(out.Writes)
	if out.Report != nil {
		b.report = out.Report
	}
}

func (b *backlog) add(keys int) {
	for i := range keys {
		b.step(func(m *Machine) {
			if _, err := m.Add(b.now, Name{"votes", fmt.Sprintf("%03d", i)}, 1); err != nil {
				b.t.Fatal(err)
			}
		})
	}
}

// exchange delivers the report that is under way, and its answer, if change lets it through.
func (b *backlog) exchange(change func(r *Report, a *Ack) bool) {
	r := b.report
	if r == nil {
		b.now += limiter.Time(1e9)
		b.step(func(m *Machine) { m.Tick(b.now) })
		return
	}
	b.report = nil
	a := b.parent.Reported(b.now, r)
	b.parentDisk.apply(b.parent.Output(b.now).Writes)
	if a == nil || change != nil && !change(r, a) {
		b.now += limiter.Time(1e10)
		b.step(func(m *Machine) { m.Tick(b.now) })
		return
	}
	b.step(func(m *Machine) { m.Acknowledged(b.now, a) })
}

// equal goes on until the parent has all, and fails if it does not come to that.
func (b *backlog) equal(keys int, each uint64) {
	b.t.Helper()
	for range 50 * keys {
		b.exchange(nil)
		if u := &b.city.upper; u.pass == nil && u.dirty.first == nil && u.acked == b.city.mark {
			break
		}
	}
	for i := range keys {
		n := Name{"votes", fmt.Sprintf("%03d", i)}
		if got := b.parent.counted(b.parent.object(b.now, b.parent.space(n.Namespace), n.Key)).total; got.Added != each {
			b.t.Errorf("%s: the parent has %d, want %d", n.Key, got.Added, each)
		}
	}
}

// TestBacklogLeavesMemory: more keys change than may be awake while the place
// is cut off. They sleep, and the parent is told of them from the disk.
func TestBacklogLeavesMemory(t *testing.T) {
	b := newBacklog(t)
	b.add(40)
	if s := b.city.Stats(b.now); s.Awake > 5 || s.Dirty > 2 {
		t.Errorf("%d are awake, %d changes in memory", s.Awake, s.Dirty)
	}
	b.equal(40, 1)
}

// TestBacklogGrowsWhileItIsTold: what changes meanwhile follows, however much.
func TestBacklogGrowsWhileItIsTold(t *testing.T) {
	b := newBacklog(t)
	b.add(20)
	for range 6 {
		b.exchange(nil)
	}
	b.add(20)
	for range 3 {
		b.exchange(nil)
	}
	b.add(20)
	b.equal(20, 3)
}

// TestBacklogSurvivesItsParentsDisk: the parent acknowledged the first part,
// and then runs on its disk of before.
func TestBacklogSurvivesItsParentsDisk(t *testing.T) {
	b := newBacklog(t)
	b.add(1)
	b.equal(1, 1) // so that it knows the city
	b.add(30)
	told := 0
	tell := func(parts int) {
		for told < parts {
			b.exchange(func(r *Report, _ *Ack) bool {
				if len(r.Counts) > 0 && r.To == r.From {
					told++
				}
				return true
			})
		}
	}
	tell(1)
	before := maps.Clone(b.parentDisk)
	tell(4)
	b.session++
	b.parentDisk = before
	b.parent = start(t, b.parentDisk, Root, false, b.session)
	b.add(1)
	for range 200 {
		b.exchange(nil)
	}
	for i := 1; i < 30; i++ {
		n := Name{"votes", fmt.Sprintf("%03d", i)}
		if got := b.parent.counted(b.parent.object(b.now, b.parent.space(n.Namespace), n.Key)).total; got.Added != 1 {
			t.Errorf("%s: the parent has %d", n.Key, got.Added)
		}
	}
}

// TestBacklogIsToldAgainWhereItsAnswerIsLost, and where the parent's disk was
// full.
func TestBacklogIsToldAgainWhereItsAnswerIsLost(t *testing.T) {
	b := newBacklog(t)
	b.add(20)
	lost := 0
	for range 60 {
		b.exchange(func(*Report, *Ack) bool {
			lost++
			return lost%3 != 0
		})
	}
	b.equal(20, 1)
	b.add(20)
	for range 40 {
		if r := b.report; r != nil && len(r.Counts) > 0 {
			r.Counts, r.To = nil, r.From // as place.Runner.Reported does
			b.exchange(func(_ *Report, a *Ack) bool { a.Full = true; return true })
		} else {
			b.exchange(nil)
		}
	}
	b.equal(20, 2)
}
