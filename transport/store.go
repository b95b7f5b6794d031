package transport

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// placeStore keeps a machine's records in an object store: a place's
// partition is one object, so its steps run one at a time, each is all or
// nothing, and what a step says leaves through the store's output gate.
type placeStore struct {
	store *objects.Store
	trees *objects.Kind[struct{}]
	name  string // of the object: the partition
	room  room
}

func openPlaceStore(dir string, partition uint32, o objects.Options) (*placeStore, error) {
	// The place itself refuses adds while there is little room, and says so.
	// What a machine writes all the same is small, and must not be refused
	// after the machine has acted on it.
	least := cmp.Or(o.MinFreeBytes, objects.DefaultMinFreeBytes)
	o.MinFreeBytes = -1
	store, err := objects.Open(dir, o)
	if err != nil {
		return nil, err
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	return &placeStore{
		store: store,
		trees: objects.Register(store, "tree", func(*objects.Tx) (struct{}, error) { return struct{}{}, nil }),
		name:  fmt.Sprint(partition),
		room:  room{fs: o.FS, dir: dir, least: least, onFull: o.Events.OnFull},
	}, nil
}

// Update implements place.Store.
func (s *placeStore) Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	s.trees.Submit(s.name, func(tx *objects.Tx, _ struct{}) error {
		writes, err := step(txReader{tx})
		if err != nil {
			return objects.Refuse(err)
		}
		var buffer []byte
		for _, w := range writes {
			if w.Record == nil {
				err = tx.Delete(string(w.Key))
			} else if buffer, err = wire.AppendRecord(buffer[:0], w.Record); err == nil {
				err = tx.Put(string(w.Key), buffer)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, done)
}

// Writable implements place.Store.
func (s *placeStore) Writable() error {
	if err := s.store.Err(); err != nil {
		return err
	}
	return s.room.check()
}

type txReader struct{ tx *objects.Tx }

func (r txReader) Get(k tiers.Key) (tiers.Record, error) {
	data, ok, err := r.tx.Get(string(k))
	if err != nil || !ok {
		return nil, err
	}
	return wire.ParseRecord(k, data)
}

func (r txReader) Scan(prefix, after tiers.Key, yield func(tiers.Key, tiers.Record) bool) error {
	for e, err := range r.tx.List(objects.ListOptions{Prefix: string(prefix), Start: string(after) + "\x00"}) {
		if err != nil {
			return err
		}
		record, err := wire.ParseRecord(tiers.Key(e.Key), e.Value)
		if err != nil {
			return err
		}
		if !yield(tiers.Key(e.Key), record) {
			break
		}
	}
	return nil
}

// room looks, once a second, whether the disk has room for adds.
type room struct {
	fs    vfs.FS
	dir   string
	least int64
	next  atomic.Int64 // when to look again, Unix ns
	free  atomic.Int64
	full  atomic.Bool

	onFull func(full bool, free int64) // may be nil
}

func (r *room) check() error {
	if now := time.Now().UnixNano(); now >= r.next.Load() {
		r.next.Store(now + int64(time.Second))
		r.free.Store(1 << 62) // a file system that cannot tell
		if usage, err := r.fs.GetDiskUsage(r.dir); err == nil {
			r.free.Store(int64(min(usage.AvailBytes, 1<<62)))
		}
	}
	free := r.free.Load()
	full := r.least >= 0 && free < r.least
	if r.full.Swap(full) != full && r.onFull != nil {
		r.onFull(full, free)
	}
	if full {
		return fmt.Errorf("%w: %s has %d MiB left, and adds need %d MiB: make room", objects.ErrFull, r.dir, free>>20, r.least>>20)
	}
	return nil
}
