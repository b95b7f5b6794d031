package objects

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// object is one object in memory. Its fields belong to who has its turn, except those that say otherwise.
type object struct {
	turn  turn
	kind  *kind
	name  string
	state any  // what the kind's wake made; valid while awake
	awake bool // else the next operation wakes it
	dead  bool // no longer in its shard: look it up again
	last  uint64
	// newest heads the object's layers (commit.go).
	newest atomic.Pointer[layer]

	newer, older *object // in the order of use, guarded by the shard
}

type objectKey struct {
	kind *kind
	name string
}

// kind is what objects know of their Kind.
type kind struct {
	name string
}

// shard is a part of the objects in memory, in a ring in the order of use.
type shard struct {
	mu      sync.Mutex
	objects map[objectKey]*object
	ring    object // ring.older is the last used, ring.newer the least recently used
	limit   int
	started uint64
	_       [40]byte // shards do not share cache lines
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
		if err := o.turn.lock(ctx); err != nil {
			return nil, err
		}
		if !o.dead {
			return o, nil
		}
		o.turn.unlock()
	}
}

func (s *Store) lookup(k *kind, name string) (*object, error) {
	sh := s.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	sh.started++
	o := sh.objects[objectKey{k, name}]
	if o == nil {
		if err := checkName(name); err != nil {
			return nil, err
		}
		o = &object{kind: k, name: name}
		sh.objects[objectKey{k, name}] = o
		sh.use(o)
		sh.shrink(o, s.commit.durable.Load())
	} else if sh.ring.older != o {
		sh.use(o)
	}
	return o, nil
}

// use makes o the last used.
func (sh *shard) use(o *object) {
	if sh.ring.older == nil {
		sh.ring.older, sh.ring.newer = &sh.ring, &sh.ring
	}
	sh.unlinkFromRing(o)
	first := sh.ring.older
	o.newer, o.older = &sh.ring, first
	sh.ring.older, first.newer = o, o
}

func (sh *shard) unlinkFromRing(o *object) {
	if o.newer != nil {
		o.newer.older, o.older.newer = o.older, o.newer
		o.newer, o.older = nil, nil
	}
}

// shrink puts the least recently used objects to sleep, if there are too many. One with work in flight, running or
// waiting for the disk, stays: it looks at a few only, so that a crowd of busy ones costs little.
func (sh *shard) shrink(keep *object, durable uint64) {
	const looks = 8
	o := sh.ring.newer
	for i := 0; i < looks && len(sh.objects) > sh.limit && o != &sh.ring; i++ {
		next := o.newer
		if o != keep && o.turn.tryLock() {
			if o.last <= durable {
				sh.retire(o)
			}
			o.turn.unlock()
		}
		o = next
	}
}

// retire takes o out of memory. The caller has its turn, and holds mu.
func (sh *shard) retire(o *object) {
	o.dead, o.awake, o.state = true, false, nil
	sh.unlinkFromRing(o)
	delete(sh.objects, objectKey{o.kind, o.name})
}

// retireAll waits for every object's turn and takes it out of memory. No new ones come: closed is set.
func (s *Store) retireAll() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		all := make([]*object, 0, len(sh.objects))
		for _, o := range sh.objects {
			all = append(all, o)
		}
		sh.mu.Unlock()
		for _, o := range all {
			_ = o.turn.lock(context.Background())
			sh.mu.Lock()
			if !o.dead {
				sh.retire(o)
			}
			sh.mu.Unlock()
			o.turn.unlock()
		}
	}
}
