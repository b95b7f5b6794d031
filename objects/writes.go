package objects

import (
	"bytes"
	"hash/maphash"
	"slices"
)

// writes is a set of puts and deletes, the last of each key: what one operation wrote, or what all operations of one
// object wrote into one group. Keys and values live in one buffer and entries hold no pointers, so that a set of a
// hundred thousand costs the collector nothing; a hash table is built only when a walk would be slow.
type writes struct {
	cleared bool // everything was deleted before what is in the set
	buf     []byte
	ents    []entry
	table   []int32 // open addressing: index into ents plus one; nil while the set is small
	bytes   int     // keys and values that were put, those since replaced included
}

func (w *writes) empty() bool { return len(w.ents) == 0 && !w.cleared }

// get returns the key's value and whether it has one, if known: the set says something about the key.
func (w *writes) get(key []byte) (value []byte, there, known bool) {
	if e := w.find(key); e != nil {
		return w.value(e), !e.del, true
	}
	return nil, false, w.cleared
}

type entry struct {
	key, keyLen uint32
	val, valLen uint32
	del         bool
}

// smallSet is how many entries are searched one by one.
const smallSet = 8

var hashSeed = maphash.MakeSeed()

func (w *writes) key(e *entry) []byte   { return w.buf[e.key : e.key+e.keyLen : e.key+e.keyLen] }
func (w *writes) value(e *entry) []byte { return w.buf[e.val : e.val+e.valLen : e.val+e.valLen] }

// find returns the key's entry, or nil.
func (w *writes) find(key []byte) *entry {
	if w.table == nil {
		for i := range w.ents {
			if bytes.Equal(w.key(&w.ents[i]), key) {
				return &w.ents[i]
			}
		}
		return nil
	}
	if i := w.table[w.slot(key)]; i != 0 {
		return &w.ents[i-1]
	}
	return nil
}

// slot returns where in the table the key is, or would be. The table is never full.
func (w *writes) slot(key []byte) uint64 {
	mask := uint64(len(w.table) - 1)
	for s := maphash.Bytes(hashSeed, key) & mask; ; s = (s + 1) & mask {
		i := w.table[s]
		if i == 0 || bytes.Equal(w.key(&w.ents[i-1]), key) {
			return s
		}
	}
}

// inKeyOrder appends the indices of the entries to order, by their keys.
func (w *writes) inKeyOrder(order []int32) []int32 {
	for i := range w.ents {
		order = append(order, int32(i))
	}
	if len(order) > 1 { // most are of one
		slices.SortFunc(order, func(a, b int32) int { return bytes.Compare(w.key(&w.ents[a]), w.key(&w.ents[b])) })
	}
	return order
}

func (w *writes) put(key, value []byte, del bool) {
	w.bytes += len(key) + len(value)
	if e := w.find(key); e != nil {
		e.del = del
		if len(value) <= int(e.valLen) {
			copy(w.buf[e.val:], value)
		} else {
			e.val = uint32(len(w.buf))
			w.buf = append(w.buf, value...)
		}
		e.valLen = uint32(len(value))
		return
	}
	e := entry{key: uint32(len(w.buf)), keyLen: uint32(len(key)), valLen: uint32(len(value)), del: del}
	w.buf = append(w.buf, key...)
	e.val = uint32(len(w.buf))
	w.buf = append(w.buf, value...)
	w.ents = append(w.ents, e)
	switch n := len(w.ents); {
	case w.table != nil && 2*n <= len(w.table):
		w.table[w.slot(key)] = int32(n)
	case n > smallSet:
		w.rehash()
	}
}

func (w *writes) rehash() {
	size := 4 * smallSet
	for size < 4*len(w.ents) {
		size *= 2
	}
	w.table = make([]int32, size)
	for i := range w.ents {
		w.table[w.slot(w.key(&w.ents[i]))] = int32(i + 1)
	}
}

// clear deletes everything.
func (w *writes) clear() {
	clear(w.table)
	w.buf, w.ents, w.cleared = w.buf[:0], w.ents[:0], true
}

// merge applies o's writes after w's own.
func (w *writes) merge(o *writes) {
	if o.cleared {
		w.clear()
	}
	for i := range o.ents {
		e := &o.ents[i]
		w.put(o.key(e), o.value(e), e.del)
	}
}

// reset empties the set and keeps its memory, unless that has grown large.
func (w *writes) reset() {
	const keepBuf, keepTable = 64 << 10, 1 << 10
	if cap(w.buf) > keepBuf || len(w.table) > keepTable {
		*w = writes{}
		return
	}
	clear(w.table)
	w.buf, w.ents, w.bytes, w.cleared = w.buf[:0], w.ents[:0], 0, false
}
