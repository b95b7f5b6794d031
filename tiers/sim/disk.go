package sim

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tributary-io/tributary/tiers"
)

// disk is a store whose commits take time, and are lost by a crash before.
type disk struct {
	node    *Node
	durable map[tiers.Key]tiers.Record
	visible map[tiers.Key]tiers.Record
	keys    []tiers.Key // of visible, sorted
	pending []commit
	group   []commit // being synced
	syncing bool
	life    int
	number  int           // of the disk: one that is lost or old is another
	lost    bool          // one before it was
	other   bool          // it is another than when its process ran last
	instant bool          // a commit is durable at once
	slow    time.Duration // a sync takes up to this long; 0: as the world's
	full    bool          // nothing should be written
	refused bool          // something was refused therefore
	busy    float64       // chance that a step is refused
	failing float64       // chance that a sync fails
	failed  error         // why one did: what follows may have read what was lost, and fails too
}

type commit struct {
	process *process
	writes  []tiers.Write
	done    func(error)
}

var (
	errBusy   = errors.New("too much waits for the disk")
	errFailed = errors.New("the disk failed")
)

func (d *disk) open() {
	d.visible = maps.Clone(d.durable)
	d.keys = slices.Sorted(maps.Keys(d.visible))
}

// copied is what a copy of the disk would hold that is made now.
func (d *disk) copied() map[tiers.Key]tiers.Record { return maps.Clone(d.durable) }

// crash forgets what is not durable. Of a torn log the first commits are
// there, and nobody was told.
func (d *disk) crash() {
	w := d.node.world
	waiting := append(d.group, d.pending...)
	torn := w.Faults.Torn && d.failed == nil
	d.pending, d.group, d.syncing, d.failed = nil, nil, false, nil
	d.life++
	if len(waiting) == 0 {
		return
	}
	kept := 0
	if torn {
		kept = w.rng.IntN(len(waiting) + 1)
	}
	for _, c := range waiting[:kept] {
		d.apply(c)
	}
	if kept < len(waiting) {
		w.hurt[Unsynced]++
	}
}

// update runs step; everything pending is committed by one sync at a time.
func (d *disk) update(p *process, step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	w := d.node.world
	if !d.instant && w.chance(d.busy) {
		w.hurt[BusyDisk]++
		done(errBusy)
		return
	}
	writes, err := step(d)
	if err != nil {
		done(err)
		return
	}
	for _, write := range writes {
		i, found := slices.BinarySearch(d.keys, write.Key)
		if w.laws != nil {
			w.laws.wrote(d.node, write)
		}
		switch {
		case write.Record == nil:
			delete(d.visible, write.Key)
			if found {
				d.keys = slices.Delete(d.keys, i, i+1)
			}
			continue
		case !found:
			d.keys = slices.Insert(d.keys, i, write.Key)
		}
		d.visible[write.Key] = write.Record
	}
	switch {
	case d.instant:
		d.apply(commit{p, writes, done})
		done(nil)
	case len(writes) == 0 && len(d.pending) == 0 && !d.syncing:
		if p.effect() {
			done(nil)
		} else {
			done(errDead)
		}
	default:
		d.pending = append(d.pending, commit{p, writes, done})
		d.sync()
	}
}

func (d *disk) sync() {
	if d.syncing || len(d.pending) == 0 {
		return
	}
	w := d.node.world
	d.group, d.pending, d.syncing = d.pending, nil, true
	life, longest := d.life, w.Faults.Sync
	if d.slow > 0 {
		w.hurt[SlowDisk]++
		longest = d.slow
	}
	var synced func()
	synced = func() {
		if d.life != life {
			return
		}
		if d.node.asleep > w.now {
			w.at(d.node.asleep, synced)
			return
		}
		if d.failed == nil && w.chance(d.failing) {
			w.hurt[FailingDisk]++
			d.failed = errFailed
		}
		for len(d.group) > 0 {
			c := d.group[0]
			if !c.process.effect() {
				return
			}
			d.group = d.group[1:]
			if d.failed == nil {
				d.apply(c)
			}
			if !c.process.effect() {
				return
			}
			c.done(d.failed)
			if d.life != life {
				return
			}
		}
		d.syncing = false
		d.sync()
	}
	w.After(w.between(longest), synced)
}

// settle ends all commits that wait, at once.
func (d *disk) settle() {
	life := d.life
	for d.life == life && len(d.group)+len(d.pending) > 0 {
		if len(d.group) == 0 {
			d.group, d.pending = d.pending, nil
		}
		c := d.group[0]
		d.group = d.group[1:]
		if d.failed == nil {
			d.apply(c)
		}
		c.done(d.failed)
	}
}

func (d *disk) apply(c commit) {
	for _, w := range c.writes {
		if d.node.world.laws != nil {
			d.node.world.laws.durable(d.node, c.process, w, d.durable[w.Key])
		}
		if w.Record == nil {
			delete(d.durable, w.Key)
		} else {
			d.durable[w.Key] = w.Record
		}
	}
	if d.node.world.laws != nil {
		d.node.world.laws.committed(d.node)
	}
}

// Get implements tiers.Reader.
func (d *disk) Get(k tiers.Key) (tiers.Record, error) { return d.visible[k], nil }

// Scan implements tiers.Reader.
func (d *disk) Scan(prefix, after tiers.Key, yield func(tiers.Key, tiers.Record) bool) error {
	i, _ := slices.BinarySearch(d.keys, max(prefix, after))
	for _, k := range d.keys[i:] {
		if !strings.HasPrefix(string(k), string(prefix)) {
			if k > prefix {
				break
			}
			continue
		}
		if k > after && !yield(k, d.visible[k]) {
			break
		}
	}
	return nil
}
