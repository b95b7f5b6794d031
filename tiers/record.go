package tiers

import "strings"

// A Key names a record of a place's store. Keys sort by kind, then by
// namespace, key and source, each in byte order.
type Key string

// A Record is one of *Meta, *ChildRecord, *CountRecord, *SavedBucket. A
// machine does not change one that it wrote or read.
type Record interface{ record() }

// Meta is what a store says of itself.
type Meta struct {
	World      uint64 // made once by the root; 0: not known yet
	Place      Place
	Partition  uint32
	Partitions uint32 // that the tree was made with
	Session    uint64 // the last one that ran on this store
	Number     uint64 // the highest session number that it was given
	Marks      uint64 // no change on this store has a higher mark
	Lease      int64  // the longest lease that was ever lent, ns
	Clean      bool   // the last session stopped in good order, with nothing lent
}

// ChildRecord is what a parent knows of a child.
type ChildRecord struct {
	Number   uint64 // of the newest session
	Sessions []ChildSession
}

// ChildSession is how far a parent has a child's changes, for one of the
// child's sessions.
type ChildSession struct {
	Session, Number uint64
	Acked           uint64
}

// CountRecord is what one source counted of one key: at a leaf the place
// itself, elsewhere a child.
type CountRecord struct {
	Mark  uint64 // of the last change
	Pairs []Pair // sorted by session
}

// SavedBucket is what was in an owner's bucket at a clean stop.
type SavedBucket struct {
	Tokens int64
}

func (*Meta) record()        {}
func (*ChildRecord) record() {}
func (*CountRecord) record() {}
func (*SavedBucket) record() {}

// A Write sets one record; a nil Record deletes it.
type Write struct {
	Key    Key
	Record Record
}

// Reader reads a place's store, every write of the machine's included.
type Reader interface {
	// Get returns nil if there is no such record.
	Get(Key) (Record, error)
	// Scan calls yield for the records whose keys begin with prefix and are
	// greater than after, in order of their keys, until yield returns false.
	Scan(prefix, after Key, yield func(Key, Record) bool) error
}

const (
	metaKey      Key = "meta"
	childPrefix  Key = "child/"
	countPrefix  Key = "count/"
	bucketPrefix Key = "bucket/"
)

func childKey(p Place) Key { return childPrefix + Key(p) }

// countKey ends the key with a byte that no key contains, so that keys sort
// in byte order whatever their sources.
func countKey(n Name, source Place) Key {
	return Key(string(countPrefix) + n.Namespace + "/" + n.Key + "\x00" + string(source))
}

func bucketKey(n Name, limit string) Key {
	return Key(string(bucketPrefix) + n.Namespace + "/" + n.Key + "\x00" + limit)
}

// parseCountKey is the inverse of countKey.
func parseCountKey(k Key) (n Name, source Place) {
	rest := string(k[len(countPrefix):])
	namespace, rest, _ := strings.Cut(rest, "/")
	key, from, _ := strings.Cut(rest, "\x00")
	return Name{namespace, key}, Place(from)
}
