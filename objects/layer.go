package objects

import (
	"bytes"
	"slices"
	"strings"
	"sync/atomic"
)

// layer is what one object wrote in one group.
type layer struct {
	writes
	obj   *object
	group uint64
	older atomic.Pointer[layer] // cut by the committer; read by the object's operations
	newer *layer                // guarded by committer.mu
	alarm *alarmChange          // nil if it was left alone
	first [1]entry              // the entries of a layer of one, as most are
}

func inKeyOrder(a, b *layer) int {
	if a.obj.kind != b.obj.kind {
		return strings.Compare(a.obj.kind.name, b.obj.kind.name)
	}
	return strings.Compare(a.obj.name, b.obj.name)
}

// slab is where a group's layers, and what they hold at first, are made: many at once, which spares the allocator. It
// lives as long as the last of them, a moment longer than the group.
type slab struct {
	layers []layer
	buf    []byte
}

const (
	slabLayers = 32
	slabBytes  = 4 << 10
)

func (sl *slab) layer() *layer {
	if len(sl.layers) == 0 {
		sl.layers = make([]layer, slabLayers)
	}
	l := &sl.layers[0]
	sl.layers = sl.layers[1:]
	return l
}

func (sl *slab) copy(b []byte) []byte {
	if len(b) > slabBytes/8 {
		return bytes.Clone(b)
	}
	if len(sl.buf)+len(b) > cap(sl.buf) {
		sl.buf = make([]byte, 0, slabBytes)
	}
	n := len(sl.buf)
	sl.buf = append(sl.buf, b...)
	return sl.buf[n:len(sl.buf):len(sl.buf)]
}

// adopt makes w's content the layer's, in memory of the size it needs.
func (l *layer) adopt(w *writes, sl *slab) {
	l.bytes, l.cleared = w.bytes, w.cleared
	l.buf = sl.copy(w.buf)
	l.ents = append(l.first[:0], w.ents...)
	if len(w.ents) > smallSet {
		l.table = slices.Clone(w.table)
	}
}
