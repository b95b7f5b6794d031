// Package objects is a small durable-object runtime on Pebble: named, serial, durable units of state, in the process
// that uses them.
//
// An object is a kind and a name in one [Store], a folder. It is created by its first use, and runs one operation at
// a time, in the order of their arrival; different objects run in parallel. An operation is a function. It gets the
// object's state in memory, which the kind's wake function built from storage, and a transaction ([Tx]) on the
// object's own keys:
//
//	store, err := objects.Open("data", objects.Options{})
//	counters := objects.Register(store, "counter", wake)
//	err = counters.Do(ctx, "alice", func(tx *objects.Tx, c *counter) error {
//		c.n++
//		return tx.Put("n", binary.BigEndian.AppendUint64(nil, c.n))
//	})
//
// The wake function reads what the state in memory needs, and no more; a kind without state in memory returns nothing
// and works on its keys:
//
//	func wake(tx *objects.Tx) (*counter, error) {
//		v, ok, err := tx.Get("n")
//		if err != nil || !ok {
//			return &counter{}, err // a new one
//		}
//		return &counter{n: binary.BigEndian.Uint64(v)}, nil
//	}
//
// Three whole programs are among the examples: a counter, a store of sessions that end, and a chat room.
//
// # Storage
//
// An object's keys, up to [MaxKeyBytes], and values, up to [MaxValueBytes], are its own. [Tx.Get], [Tx.Put],
// [Tx.Delete], [Tx.DeleteAll] and [Tx.List] (by prefix and range, either way, so many) see what the operation itself
// wrote. The writes of an operation are durable together or not at all. An operation that returns an error or panics
// writes nothing; since it may have half-changed the state in memory, that is dropped and woken again from storage,
// unless the error says by [Refuse] that it left the state alone.
//
// # When an outcome leaves
//
// [Kind.Do] returns, or [Kind.Submit] calls done, when everything that the operation wrote, and everything that it
// saw, is durable: this is the output gate. Its messages, and whatever other effects it has, leave then, too, if it gives
// them to [Tx.OnDurable]: in the order of the object's operations, and never if the operation failed. Until then the
// object goes on with its next operations. An operation that saw nothing pending never waits for the disk, whatever
// others write.
//
// The writes of all objects go to disk together, one sync for all that came while the one before it ran. A key that was
// written many times meanwhile is written once. After a crash, everything acknowledged is there.
//
// An operation that need not wait says so ([Tx.SetDurability]). With [Async] it returns at once, and its writes are
// durable within [Options].AsyncWithin; with [None], with whatever is next. A crash then loses the last moments, but
// never an earlier write without all later ones; and a [Sync] operation that sees such a write waits for it.
//
// # Alarms
//
// An object may have one alarm ([Tx.SetAlarm]), stored with its keys, at which the kind's handler ([Kind.OnAlarm]) runs
// as an operation of the object: at least once, never early, in the next process if this one ends, and again, ever
// later, when it fails. A pending alarm costs its two keys on disk and nothing in memory.
//
// # Objects that use others
//
// An operation calls other objects with [Tx.Context]. Each is an operation of its own: there are no transactions over
// several objects, and what a called object did stays, if the caller fails. A call that would wait for itself, in one
// chain or in a ring of several, is refused with [ErrCycle], which says where; the operations around it go on. (Only
// calls made with their own operation's context are known. A ring of others waits until a context ends, or until its
// objects are stuck.)
//
// An operation cannot be stopped, but its context can end, and it should heed that. If it runs for
// [Options].StuckAfter, its object is marked: whoever waits for it, and whoever comes, gets [ErrStuck], until it returns
// after all. Other objects go on.
//
// # Memory
//
// Objects fall asleep, least recently used first, when all together take more than [Options].Memory; never one with
// work in flight. A sleeping object costs its keys on disk and nothing else; an awake one about 140 bytes beside its
// name and its state ([Sizer]); no object costs a goroutine. Waking reads what the wake function reads.
//
// # Operations
//
// [Store.Backup] makes a consistent copy while operations go on; [Restore] makes a store of one, which says so
// ([Store.Restored]) until its owner has acted on it. [Verify] reads a whole store or backup and reports damage;
// [Store.Export] and [Import] write and read it as lines of JSON; [Store.Compact], [Store.Stats] and [Store.Disk] do what
// they say. What is damaged is never served: it is [ErrCorrupt], from Open or from the read that meets it. A store of an
// older format is upgraded by Open, a newer one is [ErrFormat].
//
// # Limits and failures
//
// Everything has a limit: names, keys, values, what an operation writes, what may wait. Beyond it comes an error,
// [ErrInvalid], [ErrOverloaded] or, when the disk has little room left, [ErrFull].
//
// If a sync fails, or an invariant of the runtime does not hold, the store fails: nothing is acknowledged any more, and
// everything returns [ErrFailed] until the folder is opened again.
//
// The store knows nothing of other machines.
//
// # Tests
//
// A store on an in-memory file system (Options.FS: vfs.NewMem()) works in a bubble of testing/synctest, where alarms and
// intervals take no time. vfs.NewCrashableMem loses what was not synced.
//
// # Where to read on
//
// commit.go explains the protocol of commits and the output gate, turn.go an object's turn, calls.go cycles, scheduler.go
// alarms, keys.go what is on disk, inventory.go how a store knows that its files are all there.
package objects
