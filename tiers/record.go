package tiers

import (
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A Key names a record of a place's store. Keys sort by kind, then by
// namespace, key and source, each in byte order.
type Key string

// A Record is one of *Meta, *ChildRecord, *CountRecord, *SavedBucket,
// *RulesRecord, *WindowRecord, *RequestRecord. A machine does not change one
// that it wrote or read.
type Record interface{ record() }

// Meta is what a store says of itself.
type Meta struct {
	World      uint64 // made once by the root; 0: not known yet
	Place      Place
	Partition  uint32
	Partitions uint32         // that the tree was made with
	Session    uint64         // the last one that ran on this store
	Number     uint64         // the highest session number that it was given; the root numbers its own
	Marks      uint64         // no change on this store has a higher mark
	Lease      int64          // the longest lease by which something may still be lent, ns
	Clean      bool           // the last session stopped in good order, with nothing lent
	Lost       uint32         // how often an earlier disk of this owner was lost, or this one set back: what it lent of budgets by then is not known
	Folded     []uint64       // sorted: at a leaf its sessions whose counts are folded, elsewhere which children were forgotten
	Leaf       bool           // it was a leaf's
	Witness    Witness        // of a place whose parent is the root
	Asleep     []AsleepRecord // limits that left the rules; after a clean stop all that are not simply full
	Backlog    *Backlog       // nil: of a version that did not count
}

// ChildRecord is what a parent knows of a child.
type ChildRecord struct {
	Number    uint64 // of the newest session
	Sessions  []ChildSession
	Ended     []EndedSession // those with counts that are neither the newest nor folded, the longest known first
	Folded    []uint64       // what the child's Meta.Folded should have
	Forgotten bool           // its counts are kept by the place itself
	Leaving   bool           // or are going to be: some still stand under its name
}

// ChildSession is how far a parent has a child's changes, for one of the
// child's sessions.
type ChildSession struct {
	Session, Number uint64
	Acked           uint64
}

// EndedSession is a session that is not the newest, and how long the parent
// ran since it was first seen to be so.
type EndedSession struct {
	Session uint64
	For     time.Duration
}

// CountRecord is what one source counted of one key: at a leaf the place
// itself, elsewhere a child.
type CountRecord struct {
	Mark   uint64 // of the last change
	Pairs  []Pair // sorted by session
	Folded Total  // what folded sessions counted, of a leaf
	Kept   Total  // what forgotten children counted, of an interior place; its pair has it too
}

// SavedBucket is what was in an owner's bucket at a clean stop; of a budget
// or quota what may still be lent or spent.
type SavedBucket struct {
	Tokens int64  // below 0: so much more was spent than the limit, once lowered, allows
	Burst  int64  // of the limit then; 0: not written by that version
	Window int64  // of a quota: the window that it belongs to
	Fills  bool   // it was a rate's, or a concurrency's: neither a budget's nor a quota's, and of a version that says so
	Known  uint32 // Meta.Lost when it was written, if what is left is known: an operator's figure, or what became of it, on a disk that lost what was lent
}

// left is what is left of a budget, quota or concurrency that was written down,
// as its limit is now: what was spent, or out, when its figure was another is so
// still, and may be more than there is now.
func (b *SavedBucket) left(l *limiter.Limit) int64 {
	if b.Burst == 0 {
		return min(b.Tokens, l.Burst)
	}
	return min(l.Burst, l.Burst-(b.Burst-b.Tokens))
}

// RulesRecord is a version of the rules.
type RulesRecord struct {
	Version uint64
	Rules   *limiter.Rules
	Holds   []LongHold // of earlier rules, sorted
}

// WindowRecord is the window that a quota's owner opened last.
type WindowRecord struct {
	Begin int64
	Lost  bool // what was lent of it is not known where nothing is written of a key
}

// RequestRecord is a request that was carried out, and its answer.
type RequestRecord struct {
	Session  uint64 // that carried it out
	Key      string
	Add      bool
	Hits     int64    // of a check; the delta of an add
	Total    Total    // the answer of an add
	Decision Decision // the answer of a check
}

func (*Meta) record()          {}
func (*ChildRecord) record()   {}
func (*CountRecord) record()   {}
func (*SavedBucket) record()   {}
func (*RulesRecord) record()   {}
func (*WindowRecord) record()  {}
func (*RequestRecord) record() {}

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
	metaKey       Key = "meta"
	childPrefix   Key = "child/"
	countPrefix   Key = "count/"
	bucketPrefix  Key = "bucket/"
	rulesKey      Key = "rules"
	windowPrefix  Key = "window/"
	requestPrefix Key = "request/"
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
