package objects

import (
	"bytes"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Entry is a key of an object with its value.
type Entry struct {
	Key string
	// Value is valid until the loop's next step, and must not be changed.
	Value []byte
}

// ListOptions say which of an object's entries Tx.List goes through, and how. The zero value is all of them, in byte
// order.
type ListOptions struct {
	Prefix  string // only keys that begin with it
	Start   string // only this key and those after it; to go on after a key, append "\x00" to it
	End     string // only keys before it; empty: to the last
	Limit   int    // at most so many entries; 0: all
	Reverse bool   // from the last to the first
}

// List goes through the object's entries. It reads as it goes, so it may be left at any point of millions, and taken up
// there again by a later operation. It shows the object as it was when the loop began: what the loop's body puts or
// deletes does not show. An error ends the loop:
//
//	for e, err := range tx.List(objects.ListOptions{Prefix: "member/"}) {
//		if err != nil {
//			return err
//		}
//		...
//	}
func (tx *Tx) List(o ListOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		left := false
		err := tx.list(&o, func(e Entry) bool {
			left = !yield(e, nil)
			return !left
		})
		if err != nil && !left {
			yield(Entry{}, err)
		}
	}
}

// DeleteAll removes everything that the object has stored, its alarm too. What the operation puts afterwards stays.
func (tx *Tx) DeleteAll() error {
	// Few keys are deleted one by one: a range tombstone each, for a million small objects, would slow down Pebble's
	// reads.
	const few = 64
	keys := make([]string, 0, few)
	for e, err := range tx.List(ListOptions{Limit: few + 1}) {
		if err != nil {
			return err
		}
		keys = append(keys, e.Key)
	}
	if err := tx.changeAlarm(alarm{}); err != nil {
		return err
	}
	if len(keys) > few {
		tx.w.clear()
		return nil
	}
	for _, k := range keys {
		tx.arg = append(tx.arg[:0], k...)
		tx.w.put(tx.arg, nil, true)
	}
	return nil
}

func (o *ListOptions) check() error {
	for _, k := range []string{o.Prefix, o.Start, o.End} {
		if len(k) > MaxKeyBytes+1 {
			return invalidf("the prefix or key %.40q is %d bytes long (at most %d)", k, len(k), MaxKeyBytes)
		}
	}
	if o.Limit < 0 {
		return invalidf("the limit is %d (0, for none, or more)", o.Limit)
	}
	return nil
}

func (o *ListOptions) includes(key []byte) bool {
	return string(key) >= o.Start && (o.End == "" || string(key) < o.End) && bytes.HasPrefix(key, []byte(o.Prefix))
}

// bounds returns the range of Pebble's keys, of which object begins each.
func (o *ListOptions) bounds(object []byte) (low, high []byte) {
	low = append(slices.Clone(object), max(o.Prefix, o.Start, "\x00")...) // no key is empty
	high = successor(append(slices.Clone(object), o.Prefix...))
	if o.End != "" {
		if end := append(slices.Clone(object), o.End...); bytes.Compare(end, high) < 0 {
			high = end
		}
	}
	return low, high
}

// change is a write that Pebble does not have, or hides.
type change struct {
	key, value []byte
	del        bool
}

func (tx *Tx) list(o *ListOptions, yield func(Entry) bool) (err error) {
	if tx.o == nil {
		return errTxDone
	}
	if err := o.check(); err != nil {
		return err
	}
	left := o.Limit
	give := func(e Entry) bool {
		left--
		tx.read += len(e.Key) + len(e.Value)
		return yield(e) && left != 0
	}
	// The changes first: what is unlinked from then on, the iterator sees.
	changes, hidden := tx.changes(o)
	object := appendPrefix(nil, tx.o.kind.name, tx.o.name)
	low, high := o.bounds(object)
	if bytes.Compare(low, high) >= 0 {
		return nil
	}
	if hidden {
		for _, c := range changes {
			if !c.del && !give(Entry{string(c.key), c.value}) {
				break
			}
		}
		return nil
	}
	it, err := tx.store.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return tx.errorf("list", o.Prefix, err)
	}
	defer func() {
		if cerr := it.Close(); cerr != nil && err == nil {
			err = tx.errorf("list", o.Prefix, cerr)
		}
	}()

	first, next := it.First, it.Next
	if o.Reverse {
		first, next = it.Last, it.Prev
	}
	more := first()
	for more || len(changes) > 0 {
		order := 1
		switch {
		case len(changes) == 0:
			order = -1
		case more:
			order = o.compare(it.Key()[len(object):], changes[0].key)
		}
		if order < 0 { // Pebble's is first
			value, err := it.ValueAndErr()
			if err != nil {
				return tx.errorf("list", o.Prefix, err)
			}
			if !give(Entry{string(it.Key()[len(object):]), value}) {
				return nil
			}
			more = next()
			continue
		}
		if order == 0 { // replaced
			more = next()
		}
		c := changes[0]
		changes = changes[1:]
		if !c.del && !give(Entry{string(c.key), c.value}) {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return tx.errorf("list", o.Prefix, err)
	}
	return nil
}

func (o *ListOptions) compare(a, b []byte) int {
	if o.Reverse {
		a, b = b, a
	}
	return bytes.Compare(a, b)
}

// changes returns the pending changes of what o includes, the newest of each key, in o's order; and whether they hide
// all that Pebble has.
func (tx *Tx) changes(o *ListOptions) (all []change, hidden bool) {
	add := func(w *writes) {
		for i := range w.ents {
			if e := &w.ents[i]; o.includes(w.key(e)) {
				all = append(all, change{w.key(e), w.value(e), e.del})
			}
		}
	}
	add(&tx.w)
	for i := range all { // the loop's body may write
		all[i].key, all[i].value = bytes.Clone(all[i].key), bytes.Clone(all[i].value)
	}
	hidden = tx.w.cleared
	for _, l := range tx.layers() {
		if hidden {
			break
		}
		add(&l.writes)
		hidden = l.cleared
	}
	slices.SortStableFunc(all, func(a, b change) int { return o.compare(a.key, b.key) })
	return slices.CompactFunc(all, func(a, b change) bool { return bytes.Equal(a.key, b.key) }), hidden
}
