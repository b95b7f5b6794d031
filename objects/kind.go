package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Kind is the handle on all objects of one kind, whose state in memory is an S. An S is usually a pointer: operations
// get it by value, so what they change must be behind it.
type Kind[S any] struct {
	kind
	store *Store
	wake  func(tx *Tx) (S, error)
}

// Register makes a kind known to the store and returns its handle. The name, [a-z0-9-] and at most 32 bytes, is part
// of every stored key. wake builds the state of an object from its storage, at its first use and after sleep or a
// failed operation; it runs in the transaction of the operation that needs it, and may write there. It must not keep
// the Tx. Register panics if the name is invalid or taken.
func Register[S any](s *Store, name string, wake func(tx *Tx) (S, error)) *Kind[S] {
	if err := checkKind(name); err != nil {
		panic(err.Error())
	}
	if _, taken := s.kinds.LoadOrStore(name, struct{}{}); taken {
		panic(fmt.Sprintf("objects: kind %q is registered already", name))
	}
	return &Kind[S]{kind: kind{name: name, hash: maphash.String(hashSeed, name)}, store: s, wake: wake}
}

// Name returns the kind's name.
func (k *Kind[S]) Name() string { return k.name }

// Do runs op on the named object, after all operations that came before it, and returns when everything that op wrote
// or read is durable. If op returns an error, Do returns it, and nothing is written.
//
// When ctx ends, Do returns its error: if that was before op's turn came, op was not run; if Do waited for the disk,
// op was done and may be, or become, durable.
//
// An operation may use other objects: with its transaction's Context, by which a call that would wait for itself is
// found and refused with ErrCycle.
func (k *Kind[S]) Do(ctx context.Context, name string, op func(tx *Tx, state S) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g, err := k.run(ctx, name, op, nil, 0)
	if g == nil {
		return err
	}
	if failed := g.wait(ctx); failed != nil {
		return failed
	}
	return err
}

// Submit runs op on the named object in the caller's goroutine, after all operations that came before it, and returns
// when it has run. done is called once, with what Do would return: before Submit returns if there is nothing to wait
// for, else later from the committer's goroutine, in the order of commits. It is called without any lock, but all that
// wait share that goroutine: done must be quick, and must not wait for an object or for Close; if it panics there, the
// store fails. It may be nil. Operations use other objects by Do, not by Submit.
//
// So one goroutine can have thousands of operations in flight, and their order on an object is the order of its calls.
func (k *Kind[S]) Submit(name string, op func(tx *Tx, state S) error, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	if g, err := k.run(context.Background(), name, op, done, 0); g == nil {
		done(err)
	}
}

// run runs op and publishes its writes. If it returns a group, the outcome is known when that is settled: done is
// attached to it, and if there is none the caller waits on the group, then returns the group's error or else the one
// returned here. If rings is not 0, op handles the alarm that is due then, and is not run if the object's is another.
func (k *Kind[S]) run(
	ctx context.Context, name string, op func(*Tx, S) error, done func(error), rings int64,
) (g *group, err error) {
	s := k.store
	o, err := s.acquire(ctx, &k.kind, name)
	if err != nil {
		return nil, err
	}
	tx := newTx(ctx, s, o)
	exiting := true // by runtime.Goexit in op, which no recover stops
	defer func() {
		if exiting {
			err := fmt.Errorf("%w: it ended its goroutine", ErrPanicked)
			if g, err := s.finish(tx, err, done); g == nil && done != nil {
				done(err)
			}
		}
	}()
	ours := true
	if rings != 0 {
		ours, err = tx.ring(rings)
	}
	if ours && err == nil {
		err = k.call(tx, o, op)
	}
	exiting = false
	return s.finish(tx, err, done)
}

// call wakes the object if need be, and runs op; a panic becomes an error.
func (k *Kind[S]) call(tx *Tx, o *object, op func(*Tx, S) error) (err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s %q: %v\n%s", ErrPanicked, o.kind.name, o.name, r, debug.Stack())
			k.store.panics.Add(1)
			if f := k.store.opts.Events.OnPanic; f != nil {
				f(o.kind.name, o.name, err)
			}
		}
	}()
	if !o.awake {
		state, err := k.wake(tx)
		tx.woken = tx.read
		if err != nil {
			returned = true
			return fmt.Errorf("objects: wake %s %.40q: %w", o.kind.name, o.name, err)
		}
		o.state, o.awake = state, true
	}
	state, _ := o.state.(S) // a nil interface, if S is one
	err = op(tx, state)
	returned = true
	return err
}

// List returns the names of objects of the kind that have something stored, in byte order, from the first one after
// the given name, and at most limit of them. It sees what was committed when it was called, and returns when that is
// durable.
func (k *Kind[S]) List(ctx context.Context, after string, limit int) ([]string, error) {
	s := k.store
	names, num, err := k.list(after, limit)
	if err != nil {
		return nil, err
	}
	g, err := s.commit.gate(num, nil, nil)
	if err != nil || g == nil {
		return names, err
	}
	if err := g.wait(ctx); err != nil {
		return nil, err
	}
	return names, nil
}

// list also returns the number of the group that must be durable before the names may be told.
func (k *Kind[S]) list(after string, limit int) (names []string, num uint64, err error) {
	s := k.store
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed.Load() {
		return nil, 0, ErrClosed
	}
	if err := s.commit.failure(); err != nil {
		return nil, 0, err
	}
	base := append([]byte(k.name), 0) // every key of the kind begins with it
	lower := base
	if after != "" {
		lower = successor(appendPrefix(nil, k.name, after))
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: successor(base)})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	num = s.commit.applied()
	next := slices.Clone(lower)
	for ok := it.First(); ok && len(names) < limit; ok = it.SeekGE(next) {
		key := it.Key()
		n := bytes.IndexByte(key[len(base):], 0)
		if n < 0 {
			return nil, 0, fmt.Errorf("objects: the stored key %.60q has no name in it", key)
		}
		names = append(names, string(key[len(base):len(base)+n]))
		next = append(append(next[:0], key[:len(base)+n]...), 1)
	}
	return names, num, it.Error()
}
