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
// # What holds
//
//   - All or nothing: the writes of an operation are durable together or not at all. An operation that returns an
//     error or panics writes nothing; since it may have half-changed the state in memory, that is dropped and woken
//     again from storage, unless the error says by [Refuse] that it left the state alone.
//   - The output gate: an operation's outcome leaves, by [Kind.Do] returning or [Kind.Submit]'s done being called, when
//     everything it wrote, and everything it read, is durable. Until then the object goes on with its next operations.
//     An operation that saw nothing pending never waits for the disk, whatever others write.
//   - Group commit: the writes of all objects go to disk together, one sync for all that came while the one before
//     it ran. A key that was written many times meanwhile is written once.
//   - After a crash, everything acknowledged is there. If a sync fails, the store fails: nothing is acknowledged any
//     more, and everything returns [ErrFailed] until the folder is opened again.
//   - Idle objects fall asleep when many are awake ([Options].MaxAwake), never one with work in flight. A sleeping
//     object costs its storage and nothing else; no object costs a goroutine.
//   - Everything has a limit: names, keys, values, what an operation writes, what may wait. Beyond it comes an error,
//     [ErrInvalid], [ErrOverloaded] or, when the disk has little room left, [ErrFull].
//
// # Operations
//
// [Store.Backup] makes a consistent copy while operations go on; [Restore] makes a store of one, which says so
// ([Store.Restored]) until its owner has acted on it. [Verify] reads a whole store or backup and reports damage;
// [Store.Export] and [Import] write and read it as lines of JSON; [Store.Compact], [Store.Stats] and [Store.Disk] do what
// they say. What is damaged is never served: it is [ErrCorrupt], from Open or from the read that meets it. A store of an
// older format is upgraded by Open, a newer one is [ErrFormat].
//
// # What does not
//
// There are no transactions over several objects: an operation that uses a second object sees it change on its own.
// Operations that wait for each other's objects in a ring wait until their contexts end. The store knows nothing of
// other machines.
//
// The code is best read from commit.go, which explains the protocol.
package objects
