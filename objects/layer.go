package objects

import (
	"slices"
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

// adopt makes w's content the layer's, in memory of the size it needs.
func (l *layer) adopt(w *writes) {
	l.bytes, l.cleared = w.bytes, w.cleared
	l.buf = append(make([]byte, 0, len(w.buf)), w.buf...)
	l.ents = append(l.first[:0], w.ents...)
	if len(w.ents) > smallSet {
		l.table = slices.Clone(w.table)
	}
}
