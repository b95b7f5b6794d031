package transport

import (
	"cmp"
	"fmt"

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
}

func openPlaceStore(dir string, partition uint32, o objects.Options) (*placeStore, error) {
	store, err := objects.Open(dir, o)
	if err != nil {
		return nil, err
	}
	trees := objects.Register(store, "tree", func(*objects.Tx) (struct{}, error) { return struct{}{}, nil })
	return &placeStore{store, trees, fmt.Sprint(partition)}, nil
}

// Update implements place.Store. The place itself refuses adds while there is
// little room; what its machine writes all the same is small, and must not be
// refused after the machine has acted on it.
func (s *placeStore) Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error)) {
	s.trees.Submit(s.name, func(tx *objects.Tx, _ struct{}) error {
		tx.UseReserve()
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
	return cmp.Or(s.store.Err(), s.store.Full())
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
