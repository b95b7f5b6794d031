package tiers

import (
	"fmt"
	"maps"
	"testing"
	"time"
)

// fitting is a backlog whose places have so little room, and fails on a
// message that has more.
func fitting(t *testing.T, city, parent int) (*backlog, func(r *Report, a *Ack) bool) {
	b := newBacklog(t)
	b.city.cfg.MaxAwake, b.city.cfg.MaxWalk = DefaultMaxAwake, DefaultMaxWalk
	b.city.SetMaxMessage(city)
	b.parent.SetMaxMessage(parent)
	return b, func(r *Report, a *Ack) bool {
		if r.Size() > city || a.Size() > parent {
			t.Fatalf("a report of %d bytes and an answer of %d, where %d and %d are the most", r.Size(), a.Size(), city, parent)
		}
		return true
	}
}

func longKey(i int) string { return fmt.Sprintf("%0*d", MaxKey, i) }

// TestBacklogFitsItsMessages: however many long keys changed, all are told in
// messages that fit, and lines are told beside them.
func TestBacklogFitsItsMessages(t *testing.T) {
	const keys = 400
	b, fits := fitting(t, LeastMessage, LeastMessage)
	for i := range keys {
		b.step(func(m *Machine) {
			if _, err := m.Add(b.now, Name{"votes", longKey(i)}, 1); err != nil {
				t.Fatal(err)
			}
		})
	}
	for i := range keys {
		b.step(func(m *Machine) {
			if _, _, err := m.Check(b.now, Name{"api", longKey(i)}, 1, b.now.Add(time.Minute), uint64(i+1)); err != nil {
				t.Fatal(err)
			}
		})
	}
	counted, held := 0, map[int]bool{}
	for range 10 * keys {
		b.exchange(fits)
		counted = 0
		for i := range keys {
			if o := b.parent.spaces["votes"].objects[longKey(i)]; o != nil && o.count.total.Added == 1 {
				counted++
			}
			if p := b.city.spaces["api"].objects[longKey(i)].pools[0]; p.held.number != 0 && p.held.expires > b.now {
				held[i] = true
			}
		}
		if counted == keys && len(held) == keys {
			return
		}
	}
	t.Errorf("of %d keys %d are counted above, and %d had a share", keys, counted, len(held))
}

// TestCountOfManySessionsIsToldInParts: a key was counted by more sessions than
// a message has room for, and some at the parent by others than here. Both come to know
// all, also when the parent starts again on the way, on an older disk; whether
// the city tells it from its memory, or from its disk, as at a start.
func TestCountOfManySessionsIsToldInParts(t *testing.T) {
	for _, test := range []struct{ fromDisk, restart, others bool }{
		{false, false, true},
		{false, true, true},
		{false, true, false},
		{true, false, true},
		{true, true, false},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			const sessions = 3000
			b, fits := fitting(t, LeastMessage, LeastMessage)
			name := Name{"votes", "alice"}
			pairs := func(of uint64) (all []Pair) {
				for i := range uint64(sessions) {
					all = append(all, Pair{10 + 2*i + of, Total{1, 0}})
				}
				return all
			}
			for !test.fromDisk && (b.city.upper.pass != nil || b.city.upper.number == 0) {
				b.exchange(fits)
			}
			b.cityDisk[countKey(name, "")] = &CountRecord{Mark: 1, Pairs: pairs(0)}
			want := uint64(sessions + 1)
			if test.others {
				want += sessions
				b.parentDisk[countKey(name, "eu")] = &CountRecord{Mark: 1, Pairs: pairs(1)}
			}
			old := maps.Clone(b.parentDisk)
			b.step(func(m *Machine) {
				if _, err := m.Add(b.now, name, 1); err != nil {
					t.Fatal(err)
				}
			})
			at := func(m *Machine) uint64 {
				return m.counted(m.object(b.now, m.space("votes"), "alice")).total.Added
			}
			parts, started := 0, false
			for range 1000 {
				b.exchange(func(r *Report, a *Ack) bool {
					if len(r.Counts) == 1 && r.Counts[0].Upto != 0 {
						parts++
					}
					return fits(r, a)
				})
				if parts == 3 && test.restart && !started {
					started, b.parentDisk = true, old
					b.parent = start(t, old, Root, false, 8)
					b.parent.SetMaxMessage(LeastMessage)
				}
				if c := b.city.spaces["votes"].objects["alice"].count; at(b.city) == want && at(b.parent) == want && c.handed == b.city.upper.handings {
					break
				}
			}
			if at(b.city) != want || at(b.parent) != want || parts < 4 {
				t.Errorf("the city knows %d, its parent %d, want %d; %d parts were told", at(b.city), at(b.parent), want, parts)
			}
		})
	}
}

// TestAllIsHandedBackHoweverMuch: an answer has no room for what the parent
// knows of all the keys that a city on a new disk counts.
func TestAllIsHandedBackHoweverMuch(t *testing.T) {
	const keys, sessions = 40, 60
	b, fits := fitting(t, LeastMessage, LeastMessage)
	for i := range keys {
		r := &CountRecord{Mark: 1}
		for s := range uint64(sessions) {
			r.Pairs = append(r.Pairs, Pair{10 + s, Total{1, 0}})
		}
		b.parentDisk[countKey(Name{"votes", fmt.Sprintf("%03d", i)}, "eu")] = r
	}
	b.add(keys)
	b.equal(keys, sessions+1)
	for range keys {
		b.exchange(fits)
	}
	for i := range keys {
		if c := b.city.counted(b.city.object(b.now, b.city.space("votes"), fmt.Sprintf("%03d", i))); c.total.Added != sessions+1 {
			t.Fatalf("key %d: the city knows %d, want %d", i, c.total.Added, sessions+1)
		}
	}
}

// TestLinesWithoutRoomAreAskedForAgain: the parent's messages are smaller than
// the child's, so that an answer holds a part of what a report asks. All have
// their shares, and keep them for longer than a lease.
func TestLinesWithoutRoomAreAskedForAgain(t *testing.T) {
	b, fits := fitting(t, DefaultMaxMessage, LeastMessage)
	const keys = 100
	for i := range keys {
		b.step(func(m *Machine) {
			if _, _, err := m.Check(b.now, Name{"api", longKey(i)}, 1, b.now.Add(time.Minute), uint64(i+1)); err != nil {
				t.Fatal(err)
			}
		})
	}
	cut := 0
	for b.now.Sub(0) < 8*time.Second {
		b.exchange(func(r *Report, a *Ack) bool {
			if a.MoreLines {
				cut++
			}
			return fits(r, a)
		})
		held := 0
		for i := range keys {
			if p := b.city.spaces["api"].objects[longKey(i)].pools[0]; p.held.number != 0 && p.held.expires > b.now {
				held++
			}
		}
		if held < keys && b.now.Sub(0) > 2*time.Second {
			t.Fatalf("after %v %d of %d keys have a share", b.now.Sub(0), held, keys)
		}
	}
	if cut == 0 {
		t.Error("every answer had room for all its lines")
	}
}

// TestRecallsFit: a parent that has much to say to one child says it in several
// Recalls.
func TestRecallsFit(t *testing.T) {
	m := start(t, memory{}, Root, false, 2)
	m.SetMaxMessage(LeastMessage)
	limit := m.rules.Rule("api").Limits[0].ID
	report := func(child Place) {
		for part := range 4 {
			r := &Report{Child: child, Witness: witness(m), Session: 5, Number: 1, Sequence: uint64(part + 1), Hash: m.rules.Hash, Rules: m.version, Got: uint64(part)}
			for i := range 25 {
				r.Lines = append(r.Lines, LineReport{Name: Name{"api", longKey(25*part + i)}, Limit: limit, Demand: Demand{Now: 1000, Peak: 1000, Weight: 1}})
			}
			if a := m.Reported(1, r); a == nil || a.Refused != "" || a.MoreLines || a.Size() > LeastMessage {
				t.Fatalf("%+v", a)
			}
		}
	}
	report("eu")
	m.Output(1)
	report("us")
	recalls, lines := 0, 0
	for _, c := range m.Output(1).Recalls {
		if c.Recall.Size() > LeastMessage {
			t.Errorf("a Recall of %d bytes", c.Recall.Size())
		}
		if c.Child == "eu" {
			recalls++
			lines += len(c.Recall.Lines)
		}
	}
	if recalls < 2 || lines != 100 {
		t.Errorf("%d lines in %d Recalls", lines, recalls)
	}
}

// TestNeedsMessageGrowsWithItsLists: they go whole.
func TestNeedsMessageGrowsWithItsLists(t *testing.T) {
	m := start(t, memory{}, Root, false, 2)
	if n := m.NeedsMessage(); n != LeastMessage {
		t.Errorf("a new place needs %d", n)
	}
	m.addChild("eu", &ChildRecord{Folded: make([]uint64, 1000)})
	if n := m.NeedsMessage(); n != LeastMessage+8000 {
		t.Errorf("with 1000 folded sessions of a child it needs %d", n)
	}
}

// TestPairsAreHandedBackBesideALongList: an answer with what NeedsMessage says
// has room for both, and for lines.
func TestPairsAreHandedBackBesideALongList(t *testing.T) {
	disk := memory{countKey(Name{"votes", "alice"}, "eu"): &CountRecord{Mark: 1, Pairs: []Pair{{1 << 40, Total{1, 0}}}}}
	m := start(t, disk, Root, false, 2)
	folded := make([]uint64, 2*maxFolded)
	for i := range folded {
		folded[i] = uint64(i + 1)
	}
	m.addChild("eu", &ChildRecord{Folded: folded})
	m.SetMaxMessage(m.NeedsMessage())
	a := m.Reported(1, &Report{
		Child: "eu", Session: 1 << 50, Number: 1, Sequence: 1, To: 1, Hash: m.rules.Hash, Rules: m.version,
		Counts: []Count{{Name: Name{"votes", "alice"}, Pairs: []Pair{{1 << 50, Total{1, 0}}}, First: true}},
		Lines:  []LineReport{{Name: Name{"api", longKey(1)}, Limit: m.rules.Rule("api").Limits[0].ID, Demand: Demand{Now: 1, Weight: 1}}},
	})
	if a == nil || a.MorePairs || a.MoreLines || len(a.Pairs) != 1 || len(a.Folded) != len(folded) || a.Acked != 1 || a.Size() > m.NeedsMessage() {
		t.Errorf("more pairs %v, more lines %v, %d pairs, %d folded, %d bytes of %d", a.MorePairs, a.MoreLines, len(a.Pairs), len(a.Folded), a.Size(), m.NeedsMessage())
	}
}
