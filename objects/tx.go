package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Tx is one operation's view of its object's storage: reads see the object's earlier operations and the operation's
// own writes; the writes become durable together, or not at all. It belongs to the operation's goroutine, and must
// not be used after the operation has returned.
type Tx struct {
	ctx   context.Context
	store *Store
	o     *object
	w     writes
	puts  bool   // it stored something: deletes alone are let through to a full disk
	woke  bool   // the object was woken for it
	key   []byte // scratch: the key for Pebble
	arg   []byte // scratch: the key
}

var txs = sync.Pool{New: func() any { return new(Tx) }}

func newTx(ctx context.Context, s *Store, o *object) *Tx {
	tx := txs.Get().(*Tx)
	tx.ctx, tx.store, tx.o = ctx, s, o
	return tx
}

func (tx *Tx) release() {
	tx.w.reset()
	tx.ctx, tx.store, tx.o, tx.puts, tx.woke = nil, nil, nil, false, false
	txs.Put(tx)
}

// Context is what Do was given (Submit: the background). Operations pass it on when they use other objects.
func (tx *Tx) Context() context.Context {
	if tx.ctx == nil {
		return context.Background()
	}
	return tx.ctx
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
	if e := tx.w.find(tx.arg); e != nil {
		return copyOf(&tx.w, e)
	}
	if l, e := tx.o.find(tx.arg); e != nil {
		return copyOf(&l.writes, e)
	}
	tx.key = append(appendPrefix(tx.key[:0], tx.o.kind.name, tx.o.name), key...)
	value, closer, err := tx.store.db.Get(tx.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, tx.errorf("get", key, err)
	}
	value = append(make([]byte, 0, len(value)), value...)
	if err := closer.Close(); err != nil {
		return nil, false, tx.errorf("get", key, err)
	}
	return value, true, nil
}

func copyOf(w *writes, e *entry) ([]byte, bool, error) {
	if e.del {
		return nil, false, nil
	}
	return append(make([]byte, 0, e.valLen), w.value(e)...), true, nil
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
