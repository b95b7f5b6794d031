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
				if w.Key == rulesKey {
					err = putRules(tx, buffer)
				} else {
					err = tx.Put(string(w.Key), buffer)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, done)
}

// pieceBytes is how much of the rules stands under their key. What is more follows in pieces of as many bytes, under keys
// of their own, up to the first that has less.
const pieceBytes = objects.MaxValueBytes / 2

// rulesKey is the key of the rules.
const rulesKey tiers.Key = "rules"

func pieceKey(i int) string {
	if i == 0 {
		return string(rulesKey)
	}
	return fmt.Sprintf("%s+%03d", rulesKey, i)
}

// putRules writes rules down, which may be larger than a value of the store. Pieces of those before that are left over
// follow one that is not full, so nobody reads them; they are removed.
func putRules(tx *objects.Tx, record []byte) error {
	i := 0
	for full := true; full; i++ {
		piece := record[:min(len(record), pieceBytes)]
		if err := tx.Put(pieceKey(i), piece); err != nil {
			return err
		}
		record, full = record[len(piece):], len(piece) == pieceBytes
	}
	for ; ; i++ {
		key := pieceKey(i)
		if _, there, err := tx.Get(key); err != nil || !there {
			return err
		}
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
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
	for i, piece := 1, data; k == rulesKey && len(piece) == pieceBytes; i++ {
		if piece, ok, err = r.tx.Get(pieceKey(i)); err != nil || !ok {
			return nil, cmp.Or(err, fmt.Errorf("record %q: its piece %d is missing: see 'tributary verify'", k, i))
		}
		data = append(data, piece...)
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
