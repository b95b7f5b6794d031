package tiers

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

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
	b.setBack(before)
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

// restart starts the city anew on its disk, after a clean stop or a crash.
func (b *backlog) restart(clean bool) {
	if clean {
		b.city.Stop(b.now)
		b.city.Close(b.now)
		b.cityDisk.apply(b.city.Output(b.now).Writes)
	}
	number := b.city.cfg.Session + 1
	walk, awake := b.city.cfg.MaxWalk, b.city.cfg.MaxAwake
	b.city = start(b.t, b.cityDisk, "eu", true, number)
	b.city.cfg.MaxWalk, b.city.cfg.MaxAwake = walk, awake
	b.report = nil
}

// lacks is how many keys the city's disk knows more of than its parent's.
func (b *backlog) lacks() (n int) {
	for k, r := range b.cityDisk {
		if c, ok := r.(*CountRecord); ok {
			name, _ := parseCountKey(k)
			at, _ := b.parentDisk[countKey(name, "eu")].(*CountRecord)
			ours := sourceOf("", c)
			if at == nil {
				n++
			} else if theirs := sourceOf("eu", at); theirs.total() != ours.total() {
				n++
			}
		}
	}
	return n
}

// settle delivers so many messages.
func (b *backlog) settle(messages int) {
	b.t.Helper()
	for range messages {
		b.exchange(nil)
	}
	if n := b.lacks(); n != 0 {
		b.t.Errorf("the parent lacks %d keys", n)
	}
}

// setBack starts the parent anew on an older copy of its disk.
func (b *backlog) setBack(disk memory) {
	b.session++
	b.parentDisk = maps.Clone(disk)
	b.parent = start(b.t, b.parentDisk, Root, false, b.session)
}

// TestRestThatAnotherSessionWasTold: the last report of a pass comes to a
// session of the parent that runs on a disk of before the others.
func TestRestThatAnotherSessionWasTold(t *testing.T) {
	b := newBacklog(t)
	b.add(4)
	b.exchange(nil) // hello
	before := maps.Clone(b.parentDisk)
	b.exchange(nil)
	if r := b.report; r == nil || r.To == r.From || len(r.Counts) == 4 {
		t.Fatalf("it is not the last of several parts: %+v", r)
	}
	b.setBack(before)
	b.settle(50)
}

// TestBacklogIsCounted: also what only the disk knows, and over starts.
func TestBacklogIsCounted(t *testing.T) {
	b := newBacklog(t)
	is := func(when string, least, most int) {
		t.Helper()
		if got := b.city.Stats(b.now).Backlog; got < least || got > most {
			t.Errorf("%s, the backlog is %d, want %d to %d", when, got, least, most)
		}
	}
	is("of a new place", 0, 0)
	b.add(40)
	is("of 40 keys that changed while the place was cut off", 40, 40)
	b.add(40)
	is("when they changed again", 40, 40)
	b.restart(true)
	is("after a clean stop", 40, 40)
	b.add(50)
	is("when they changed again, and ten more", 50, 90) // whether the parent has those of before is not known yet
	b.restart(false)
	is("after a crash", 50, 90+markBlock)
	b.add(50)
	before := b.city.Stats(b.now).Backlog
	for range 20 {
		b.exchange(nil)
	}
	if u := &b.city.upper; u.pass == nil || u.pass.told == 0 {
		t.Fatalf("the pass is at %+v", u.pass)
	}
	is("when a part was told", b.lacks(), before-1)
	b.settle(200)
	is("when all was told", 0, 0)
	if b.city.keys != 50 {
		t.Errorf("it counts %d keys", b.city.keys)
	}
	b.add(1)
	is("of one more", 1, 1)
	b.settle(10)
	b.restart(false)
	is("after a crash with nothing to tell", 0, 4*markBlock)
	b.settle(100)
	is("of it in the end", 0, 0)
}

// TestBacklogOfALostDisk: what a parent had and lost is counted, as soon as it
// says so.
func TestBacklogOfALostDisk(t *testing.T) {
	b := newBacklog(t)
	b.add(30)
	b.equal(30, 1)
	for range 3 {
		b.add(5) // more changes than keys
	}
	b.equal(5, 4)
	b.setBack(memory{})
	b.parent.meta.World = b.city.meta.World
	b.add(1)
	for b.city.upper.parent != b.session {
		b.exchange(nil)
	}
	if got := b.city.Stats(b.now).Backlog; got < b.lacks() || b.lacks() < 29 || got > 31 {
		t.Errorf("the backlog is %d, and the parent lacks %d", got, b.lacks())
	}
	b.equal(1, 5)
	if got := b.city.Stats(b.now).Backlog; got != 0 {
		t.Errorf("the backlog is %d in the end", got)
	}
}

// TestBacklogIsNeverTooSmall, whatever is lost, and in whatever order things
// happen; and in the end it is nothing.
func TestBacklogIsNeverTooSmall(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBacklog(t)
		heard := true // that the parent has another disk
		var old memory
		for range rapid.IntRange(1, 120).Draw(rt, "steps") {
			switch rapid.IntRange(0, 12).Draw(rt, "step") {
			case 0, 1, 2, 3, 4:
				name := Name{"votes", fmt.Sprintf("%02d", rapid.IntRange(0, 25).Draw(rt, "key"))}
				b.step(func(m *Machine) {
					if _, err := m.Add(b.now, name, 1); err != nil {
						rt.Fatal(err)
					}
				})
			case 5, 6, 7, 8:
				b.exchange(nil)
			case 9:
				b.exchange(func(*Report, *Ack) bool { return false })
			case 10:
				b.restart(rapid.Bool().Draw(rt, "clean"))
			case 11:
				old = maps.Clone(b.parentDisk)
			case 12:
				if old == nil {
					old = b.parentDisk
				}
				b.setBack(old)
				heard = false
			}
			u := &b.city.upper
			heard = heard || u.parent == b.session && u.joined
			if got := b.city.Stats(b.now).Backlog; heard && got < b.lacks() {
				rt.Fatalf("the backlog is %d, and the parent lacks %d", got, b.lacks())
			}
		}
		for range 400 {
			b.exchange(nil)
		}
		if got := b.city.Stats(b.now).Backlog; got != 0 || b.lacks() != 0 {
			rt.Fatalf("in the end the backlog is %d, and the parent lacks %d", got, b.lacks())
		}
	})
}
