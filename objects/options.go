package objects

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Defaults.
const (
	// DefaultMemTableBytes is between what suits new keys, few flushes, and what suits hot ones, a small list to find them
	// in. A memtable begins with 256 KiB and doubles when it is full, so a store that writes little has small ones. Open
	// replays a few memtables of log at most.
	DefaultMemTableBytes = 8 << 20
	// DefaultCacheBytes has room for the filters of fifty million keys, which say of new ones that they are not there.
	DefaultCacheBytes = 64 << 20
	// DefaultMinFreeBytes is room for the log and the flushes of what is pending when writes are first refused, and
	// for compactions to finish.
	DefaultMinFreeBytes = 64 << 20
	// DefaultMemory is about a million and a half small objects.
	DefaultMemory = 256 << 20
	// DefaultStuckAfter is far more than an operation takes that waits for nothing but its disk and a few calls.
	DefaultStuckAfter = time.Minute
	// DefaultAsyncWithin costs an idle store ten syncs a second at most.
	DefaultAsyncWithin = 100 * time.Millisecond
	// MaxPending bounds the operations that wait for the disk. Past ten thousand in flight a disk gives only more
	// latency; this leaves room for bursts.
	MaxPending = 1 << 16
	// MaxPendingBytes bounds the writes held in memory until they are committed.
	MaxPendingBytes = 64 << 20
)

// Options of a store. The zero value is good.
type Options struct {
	// FS is the file system; nil is the machine's.
	FS vfs.FS
	// Events tell what happens inside, for metrics and logs.
	Events Events
	// CacheBytes is the size of the block cache; 0 is DefaultCacheBytes.
	CacheBytes int64
	// MemTableBytes is the size that a memtable grows to; 0 is DefaultMemTableBytes. Two are in use as a rule, and up to
	// four while flushes are behind; they come on top of the cache.
	MemTableBytes int64
	// MinFreeBytes is how much room the disk must have for an operation that stores something, else it is refused
	// with ErrFull: before Pebble, which cannot go on without its log, is in trouble. It is looked at about once a
	// second, and Tx.UseReserve lets an operation pass. 0 is DefaultMinFreeBytes, negative is off.
	MinFreeBytes int64
	// Memory is how many bytes the objects in memory may take, by their states' count (Sizer) and 140 for each and its
	// name; beyond it idle ones fall asleep, least recently used first (in each of 64 parts, from 1 MiB on). Objects
	// with work in flight stay all the same. 0 is DefaultMemory. Caches and pending writes come on top.
	Memory int64
	// StuckAfter is how long an operation may run before its object is marked stuck: those who wait for the object,
	// and who come later, are refused with ErrStuck until it returns. Close waits as long for operations that run. The
	// mark may come half as much later. 0 is DefaultStuckAfter, negative is off.
	StuckAfter time.Duration
	// AsyncWithin is how long what an Async operation wrote may take to be durable. Its commit begins after half of
	// that at most; the other half is the disk's. 0 is DefaultAsyncWithin.
	AsyncWithin time.Duration

	formats   *formats // in tests
	importing bool     // an import goes on (import.go)
}

// Events is a set of callbacks; each may be nil. They run inside the store's or Pebble's goroutines: they must be
// quick, and must not call the store.
type Events struct {
	// OnCommit follows every durable commit: how many operations and how many bytes of keys and values it held, and
	// how long it took from its start to the end of its sync.
	OnCommit func(ops, bytes int, took time.Duration)
	// OnFailure is called once, when the store fails (see Store.Err), after all that waited were told.
	OnFailure func(err error)
	// OnBackgroundError reports what Pebble could not do, such as a flush to a full disk, which it goes on trying. A
	// failing flush would report thousands a second: at most one a second is passed on, with the number of errors
	// since the last.
	OnBackgroundError func(err error, times int)
	// OnPanic reports an operation that panicked; err holds the stack.
	OnPanic func(kind, name string, err error)
	// OnAlarmError reports that a handler failed, for the how manieth time, and will be tried again.
	OnAlarmError func(kind, name string, attempt int, err error)
	// OnStuck reports that an object is stuck in an operation, or that this has returned after all.
	OnStuck func(kind, name string, stuck bool)
	// OnFull reports that writes begin (full) or cease to be refused with ErrFull, and the room on the disk.
	OnFull func(full bool, freeBytes int64)
	// OnWriteStall reports that commits begin or cease to wait for Pebble's flushes and compactions.
	OnWriteStall func(stalled bool, reason string)
	// OnSlowDisk reports a disk operation that takes suspiciously long.
	OnSlowDisk func(path string, took time.Duration)
}

func (o Options) withDefaults() Options {
	if o.FS == nil || o.FS == vfs.Default {
		o.FS = disk
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = DefaultMinFreeBytes
	}
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if o.StuckAfter == 0 {
		o.StuckAfter = DefaultStuckAfter
	}
	if o.AsyncWithin <= 0 {
		o.AsyncWithin = DefaultAsyncWithin
	}
	return o
}
