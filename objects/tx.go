package objects

import (
	"context"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Tx is one operation's view of its object's storage: reads see the object's earlier operations and the operation's
// own writes; the writes become durable together, or not at all. It belongs to the operation's goroutine, and must
// not be used after the operation has returned.
type Tx struct {
	ctx     context.Context
	store   *Store
	o       *object
	w       writes
	puts    bool   // it stored something: deletes alone are let through to a full disk
	reserve bool   // see UseReserve
	read    int    // bytes of values that were read
	woken   int    // of them, by the object's waking; negative if it was awake
	frame   *frame // made by Context

	alarm   *alarmChange
	ringing alarm // what a handler's operation handles; due is 0 in all others

	durability Durability
	effects    []func(error)

	looked bool
	below  []*layer         // see layers
	reader *pebble.Iterator // see lookup

	key []byte // scratch: the key for Pebble
	arg []byte // scratch: the key
}

var txs = sync.Pool{New: func() any { return new(Tx) }}

func newTx(ctx context.Context, s *Store, o *object) *Tx {
	tx := txs.Get().(*Tx)
	tx.ctx, tx.store, tx.o, tx.woken = ctx, s, o, -1
	return tx
}

func (tx *Tx) release() {
	tx.w.reset()
	if tx.reader != nil {
		_ = tx.reader.Close() // its errors were returned
		tx.reader = nil
	}
	clear(tx.below)
	tx.looked, tx.below = false, tx.below[:0]
	if tx.frame != nil {
		tx.frame.ended.Store(true)
	}
	tx.ctx, tx.store, tx.o, tx.frame = nil, nil, nil, nil
	tx.puts, tx.reserve, tx.read, tx.durability = false, false, 0, Sync
	tx.alarm, tx.ringing = nil, alarm{}
	tx.dropEffects()
	txs.Put(tx)
}

// Context ends when that does which Do was given (Submit: never). Operations pass it, or one made of it, to their calls
// of other objects; those may be made by several goroutines.
func (tx *Tx) Context() context.Context {
	if tx.o == nil {
		return context.Background()
	}
	if tx.frame == nil {
		tx.frame = &frame{Context: tx.ctx, parent: frameOf(tx.ctx), store: tx.store, obj: tx.o}
	}
	return tx.frame
}

// Kind returns the kind of the operation's object.
func (tx *Tx) Kind() string {
	if tx.o == nil {
		return ""
	}
	return tx.o.kind.name
}

// Name returns the name of the operation's object.
func (tx *Tx) Name() string {
	if tx.o == nil {
		return ""
	}
	return tx.o.name
}

// Get returns a copy of the key's value, and whether there is one.
func (tx *Tx) Get(key string) ([]byte, bool, error) {
	if err := tx.begin(key); err != nil {
		return nil, false, err
	}
	if value, there, known := tx.pending(tx.arg); known {
		if !there {
			return nil, false, nil
		}
		tx.read += len(value)
		return append(make([]byte, 0, len(value)), value...), true, nil
	}
	tx.key = append(appendPrefix(tx.key[:0], tx.o.kind.name, tx.o.name), key...)
	value, there, err := tx.lookup(tx.key)
	switch {
	case err != nil:
		return nil, false, tx.errorf("get", key, err)
	case !there:
		return nil, false, nil
	}
	tx.read += len(value)
	return append(make([]byte, 0, len(value)), value...), true, nil
}

// byFilter has Pebble ask the filters of all levels whether a key is there. Its Get does not ask those of the last one,
// where most keys are, and reads a block to find nothing: new objects are such a case.
var byFilter = &pebble.IterOptions{UseL6Filters: true, KeyTypes: pebble.IterKeyTypePointsOnly}

// lookup returns what Pebble has for a key; the value is valid until the next call. All of an operation's lookups are by
// one iterator, which costs more than they do.
func (tx *Tx) lookup(key []byte) (value []byte, there bool, err error) {
	tx.layers() // before the iterator: it sees what is unlinked from then on
	if tx.reader == nil {
		if tx.reader, err = tx.store.db.NewIter(byFilter); err != nil {
			return nil, false, err
		}
	}
	if !tx.reader.SeekPrefixGE(key) {
		return nil, false, tx.reader.Error()
	}
	value, err = tx.reader.ValueAndErr()
	return value, err == nil, err
}

// layers are what the object wrote that Pebble may not have, newest first. An operation looks once which there are: what
// is unlinked later, it sees here and, if it looks later, in Pebble too.
func (tx *Tx) layers() []*layer {
	if !tx.looked {
		tx.looked = true
		for l := tx.o.newest.Load(); l != nil; l = l.older.Load() {
			tx.below = append(tx.below, l)
		}
	}
	return tx.below
}

// pending returns what the key has by the writes that Pebble may not hold yet: the operation's own, then the object's
// layers, newest first. If it is not known, Pebble has it.
func (tx *Tx) pending(key []byte) (value []byte, there, known bool) {
	if value, there, known = tx.w.get(key); known {
		return value, there, known
	}
	for _, l := range tx.layers() {
		if value, there, known = l.get(key); known {
			break
		}
	}
	return value, there, known
}

// Put stores a copy of value under key.
func (tx *Tx) Put(key string, value []byte) error {
	if err := tx.begin(key); err != nil {
		return err
	}
	if len(value) > MaxValueBytes {
		return invalidf("the value of key %.40q is %d bytes long (at most %d)", key, len(value), MaxValueBytes)
	}
	if tx.w.bytes+len(key)+len(value) > MaxOpBytes {
		return invalidf("the operation writes more than %d bytes", MaxOpBytes)
	}
	tx.puts = true
	tx.w.put(tx.arg, value, false)
	return nil
}

// UseReserve lets the operation store something while the disk has less than Options.MinFreeBytes of room, which is kept
// for it: for what is small, and must not be refused. Whoever calls for it looks at Store.Full before.
func (tx *Tx) UseReserve() { tx.reserve = true }

// Delete removes key, which need not be there.
func (tx *Tx) Delete(key string) error {
	if err := tx.begin(key); err != nil {
		return err
	}
	if tx.w.bytes+len(key) > MaxOpBytes {
		return invalidf("the operation writes more than %d bytes", MaxOpBytes)
	}
	tx.w.put(tx.arg, nil, true)
	return nil
}

func (tx *Tx) begin(key string) error {
	if tx.o == nil {
		return errTxDone
	}
	if err := checkKey(key); err != nil {
		return err
	}
	tx.arg = append(tx.arg[:0], key...)
	return nil
}

func (tx *Tx) errorf(what, key string, err error) error {
	return fmt.Errorf("objects: %s %.40q of %s %.40q: %w", what, key, tx.o.kind.name, tx.o.name, corrupt(err))
}
