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

// Scan goes through the object's entries whose keys begin with prefix and lie after the key after (empty: from the
// first one), in byte order. It reads as it goes, so it may be left at any point of millions, and taken up there again
// by a later operation. It shows the object as it was when the loop began: what the loop's body puts or deletes does
// not show. An error ends the loop:
//
//	for e, err := range tx.Scan("member/", "") {
//		if err != nil {
//			return err
//		}
//		...
//	}
func (tx *Tx) Scan(prefix, after string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		left := false
		err := tx.scan(prefix, after, func(e Entry) bool {
			left = !yield(e, nil)
			return !left
		})
		if err != nil && !left {
			yield(Entry{}, err)
		}
	}
}

// change is a write that Pebble does not have, or hides.
type change struct {
	key, value []byte
	del        bool
}

func (tx *Tx) scan(prefix, after string, yield func(Entry) bool) (err error) {
	if tx.o == nil {
		return errTxDone
	}
	if len(prefix) > MaxKeyBytes || len(after) > MaxKeyBytes {
		return invalidf("the prefix %.40q or the key %.40q is longer than %d bytes", prefix, after, MaxKeyBytes)
	}
	// The changes first: what is unlinked from then on, the iterator sees.
	changes := tx.changes(prefix, after)

	object := appendPrefix(nil, tx.o.kind.name, tx.o.name)
	low := append(slices.Clone(object), prefix...)
	high := appendSuccessor(nil, low)
	if after >= prefix && after != "" {
		low = append(append(append(low[:0], object...), after...), 0) // the next key there can be
	}
	if bytes.Compare(low, high) >= 0 {
		return nil
	}
	it, err := tx.store.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return tx.errorf("scan", prefix, err)
	}
	defer func() {
		if cerr := it.Close(); cerr != nil && err == nil {
			err = tx.errorf("scan", prefix, cerr)
		}
	}()

	more := it.First()
	for more || len(changes) > 0 {
		order := 1
		switch {
		case len(changes) == 0:
			order = -1
		case more:
			order = bytes.Compare(it.Key()[len(object):], changes[0].key)
		}
		if order < 0 { // Pebble's is first
			value, err := it.ValueAndErr()
			if err != nil {
				return tx.errorf("scan", prefix, err)
			}
			if !yield(Entry{string(it.Key()[len(object):]), value}) {
				return nil
			}
			more = it.Next()
			continue
		}
		if order == 0 { // hidden
			more = it.Next()
		}
		c := changes[0]
		changes = changes[1:]
		if !c.del && !yield(Entry{string(c.key), c.value}) {
			return nil
		}
	}
	if err := it.Error(); err != nil {
		return tx.errorf("scan", prefix, err)
	}
	return nil
}

// changes returns the pending changes of keys in the range, the newest of each key, in byte order.
func (tx *Tx) changes(prefix, after string) []change {
	var all []change
	add := func(w *writes) {
		for i := range w.ents {
			e := &w.ents[i]
			if k := w.key(e); string(k) > after && len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix {
				all = append(all, change{k, w.value(e), e.del})
			}
		}
	}
	add(&tx.w)
	for i := range all { // the loop's body may write
		all[i].key, all[i].value = bytes.Clone(all[i].key), bytes.Clone(all[i].value)
	}
	for l := tx.o.newest.Load(); l != nil; l = l.older.Load() {
		add(&l.writes)
	}
	slices.SortStableFunc(all, func(a, b change) int { return bytes.Compare(a.key, b.key) })
	return slices.CompactFunc(all, func(a, b change) bool { return bytes.Equal(a.key, b.key) })
}
