package objects

import (
	"context"
	"errors"
	"sync/atomic"
)

// object is one object in memory. Its fields belong to who has its turn, except those that say otherwise.
type object struct {
	turn   turn
	kind   *kind
	name   string
	state  any // what the kind's wake made; valid while awake
	last   uint64
	newest atomic.Pointer[layer] // heads the object's layers (commit.go)
	awake  bool                  // else the next operation wakes it
	dead   bool                  // no longer in its shard: look it up again

	// Guarded by the shard.
	size         int32
	used         uint32  // the shard's tick at the last use
	newer, older *object // in the order of use
	next         *object // with the same hash
}

// kind is what objects know of their Kind.
type kind struct {
	name   string
	hash   uint64
	alarms atomic.Pointer[alarmQueue] // nil without a handler
}

// acquire returns the object in the caller's turn, made if it is not in memory.
func (s *Store) acquire(ctx context.Context, k *kind, name string) (*object, error) {
	for {
		if err := s.commit.admit(); err != nil {
			if errors.Is(err, ErrOverloaded) {
				s.overloads.Add(1)
			}
			return nil, err
		}
		o, err := s.lookup(k, name)
		if err != nil {
			return nil, err
		}
		if !o.turn.tryLock() {
			if err := s.await(ctx, o); err != nil {
				return nil, err
			}
		}
		if !o.dead {
			return o, nil
		}
		s.unlock(o)
	}
}

// await waits for o's turn.
func (s *Store) await(ctx context.Context, o *object) error {
	if f := frameOf(ctx); f != nil {
		c, err := calls.enter(f, o)
		if err != nil {
			return err
		}
		defer calls.leave(c)
	}
	err := o.turn.lock(ctx, &s.waiters)
	if errors.Is(err, ErrStuck) {
		return stuckError(o, 0)
	}
	return err
}
