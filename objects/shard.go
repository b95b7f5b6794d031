package objects

import (
	"context"
	"hash/maphash"
	"math"
	"strings"
	"sync"
)

// Sizer may be implemented by a kind's state, to tell how many bytes of memory it takes, about. It is asked after the
// state was woken, and after each operation that wrote. A state that does not say is taken for as large as what its
// waking read.
type Sizer interface{ MemoryBytes() int }

// objectBytes is what an object in memory takes beside its name and state: 128 for itself, 12 for its place in the
// table (measured by TestBytesPerAwakeObject).
const objectBytes = 140

// shard is a part of the objects in memory: a hash table, and a ring in the order of use.
type shard struct {
	mu      sync.Mutex
	table   []*object // by hash; a power of two
	ring    object    // ring.older is the last used, ring.newer the least recently used
	count   int
	size    int64 // of all objects, estimated
	limit   int64
	tick    uint32 // of the watch (stuck.go)
	started uint64
	_       [40]byte // shards do not share cache lines
}

func (s *Store) makeShards() {
	// One part, with an exact order of use, where there is little memory; many, with a lock each, where it matters less.
	n := 1
	if s.opts.Memory >= 1<<20 {
		n = 64
	}
	s.shards = make([]shard, n)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.table = make([]*object, 8)
		sh.ring.older, sh.ring.newer = &sh.ring, &sh.ring
		sh.limit = s.opts.Memory / int64(n)
		sh.tick = 1
	}
}

// shard returns the part an object is in, and its hash there.
func (s *Store) shard(k *kind, name string) (*shard, uint64) {
	h := maphash.String(hashSeed, name) ^ k.hash
	return &s.shards[h%uint64(len(s.shards))], h >> 8
}

func (s *Store) lookup(k *kind, name string) (*object, error) {
	sh, hash := s.shard(k, name)
	sh.mu.Lock()
	if s.closed.Load() {
		sh.mu.Unlock()
		return nil, ErrClosed
	}
	sh.started++
	o := sh.find(k, name, hash)
	if o != nil {
		if o.used = sh.tick; sh.ring.older != o {
			sh.use(o)
		}
		sh.mu.Unlock()
		return o, nil
	}
	if err := checkName(name); err != nil {
		sh.mu.Unlock()
		return nil, err
	}
	o = &object{kind: k, name: strings.Clone(name), size: int32(objectBytes + len(name))}
	sh.add(o, hash)
	held := sh.shrink(o, s.commit.told.Load())
	sh.mu.Unlock()
	if held {
		s.commit.hurry()
	}
	return o, nil
}

func (sh *shard) find(k *kind, name string, hash uint64) *object {
	o := sh.table[hash&uint64(len(sh.table)-1)]
	for o != nil && (o.kind != k || o.name != name) {
		o = o.next
	}
	return o
}

func (sh *shard) add(o *object, hash uint64) {
	if sh.count == len(sh.table) {
		old := sh.table
		sh.table = make([]*object, 2*len(old))
		for _, o := range old {
			for o != nil {
				next := o.next
				sh.put(o, (maphash.String(hashSeed, o.name)^o.kind.hash)>>8)
				o = next
			}
		}
	}
	sh.put(o, hash)
	sh.count++
	sh.size += int64(o.size)
	sh.use(o)
}

func (sh *shard) put(o *object, hash uint64) {
	head := &sh.table[hash&uint64(len(sh.table)-1)]
	o.next, *head = *head, o
}

// use makes o the last used.
func (sh *shard) use(o *object) {
	sh.unlinkFromRing(o)
	first := sh.ring.older
	o.newer, o.older = &sh.ring, first
	sh.ring.older, first.newer = o, o
	o.used = sh.tick
}

func (sh *shard) unlinkFromRing(o *object) {
	if o.newer != nil {
		o.newer.older, o.older.newer = o.older, o.newer
		o.newer, o.older = nil, nil
	}
}

// shrink puts the least recently used objects to sleep, if all take too much memory. One with work in flight, running
// or waiting for the disk, counts as used now: it looks at a few only, so that a crowd of busy ones costs little. It
// says whether some must wait for a commit first.
func (sh *shard) shrink(keep *object, told uint64) (held bool) {
	const looks = 8
	for i := 0; i < looks && sh.size > sh.limit; i++ {
		o := sh.ring.newer
		if o == &sh.ring {
			return held
		}
		if o != keep && o.turn.tryLock() {
			if o.last <= told {
				sh.retire(o)
				o.turn.unlock()
				continue
			}
			held = true
			o.turn.unlock()
		}
		sh.use(o)
	}
	return held
}

// retire takes o out of memory. The caller has its turn, and holds mu.
func (sh *shard) retire(o *object) {
	o.dead, o.awake, o.state = true, false, nil
	sh.unlinkFromRing(o)
	hash := (maphash.String(hashSeed, o.name) ^ o.kind.hash) >> 8
	for p := &sh.table[hash&uint64(len(sh.table)-1)]; *p != nil; p = &(*p).next {
		if *p == o {
			*p, o.next = o.next, nil
			break
		}
	}
	sh.count--
	sh.size -= int64(o.size)
}

// weigh notes what an object takes after an operation that woke it, wrote, or failed. The caller has its turn; read is
// what the waking read, negative if it was awake.
func (s *Store) weigh(o *object, read int) {
	size := objectBytes + len(o.name)
	if sizer, ok := o.state.(Sizer); ok {
		size += sizer.MemoryBytes()
	} else if o.awake {
		if read < 0 {
			return // as it was
		}
		size += read
	}
	size = min(max(size, 0), math.MaxInt32)
	if int32(size) == o.size { // only turns change it
		return
	}
	sh, _ := s.shard(o.kind, o.name)
	sh.mu.Lock()
	sh.size += int64(size) - int64(o.size)
	o.size = int32(size)
	held := sh.shrink(o, s.commit.told.Load())
	sh.mu.Unlock()
	if held {
		s.commit.hurry()
	}
}

// retireAll waits for every object's turn and takes it out of memory, but for those whose turn does not come, which it
// returns. No new ones come: closed is set.
func (s *Store) retireAll(ctx context.Context) (left []*object) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		all := make([]*object, 0, sh.count)
		for o := sh.ring.older; o != &sh.ring; o = o.older {
			all = append(all, o)
		}
		sh.mu.Unlock()
		for _, o := range all {
			if !o.turn.tryLock() && o.turn.lock(ctx, &s.waiters) != nil {
				left = append(left, o)
				continue
			}
			sh.mu.Lock()
			if !o.dead {
				sh.retire(o)
			}
			sh.mu.Unlock()
			s.unlock(o)
		}
	}
	return left
}
