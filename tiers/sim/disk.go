package sim

import (
	"maps"
	"slices"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// disk is a store whose commits take time, and are lost by a crash before.
type disk struct {
	world   *World
	durable map[tiers.Key]tiers.Record
	visible map[tiers.Key]tiers.Record
	keys    []tiers.Key // of visible, sorted
	pending []commit
	syncing bool
	instant bool // a commit is durable at once
	life    int
}

type commit struct {
	writes []tiers.Write
	done   func(error)
}

func (d *disk) open() {
	d.visible = maps.Clone(d.durable)
	d.keys = slices.Sorted(maps.Keys(d.visible))
}

func (d *disk) crash() {
	d.pending, d.syncing = nil, false
	d.life++
}

// Writable is nil: this disk is never full.
func (d *disk) Writable() error { return nil }

// Update runs step; everything pending is committed by one sync at a time.
func (d *disk) Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	writes, err := step(d)
	if err != nil {
		done(err)
		return
	}
	for _, w := range writes {
		i, found := slices.BinarySearch(d.keys, w.Key)
		switch {
		case w.Record == nil:
			delete(d.visible, w.Key)
			if found {
				d.keys = slices.Delete(d.keys, i, i+1)
			}
			continue
		case !found:
			d.keys = slices.Insert(d.keys, i, w.Key)
		}
		d.visible[w.Key] = w.Record
	}
	switch {
	case d.instant:
		d.apply(commit{writes, done})
	case len(writes) == 0 && len(d.pending) == 0 && !d.syncing:
		done(nil)
	default:
		d.pending = append(d.pending, commit{writes, done})
		d.sync()
	}
}

func (d *disk) sync() {
	if d.syncing || len(d.pending) == 0 {
		return
	}
	group := d.pending
	d.pending, d.syncing = nil, true
	life := d.life
	d.world.After(d.world.between(d.world.Faults.Sync), func() {
		if d.life != life {
			return
		}
		d.syncing = false
		for _, c := range group {
			if d.life == life {
				d.apply(c)
			}
		}
		d.sync()
	})
}

func (d *disk) apply(c commit) {
	for _, w := range c.writes {
		if w.Record == nil {
			delete(d.durable, w.Key)
		} else {
			d.durable[w.Key] = w.Record
		}
	}
	c.done(nil)
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
