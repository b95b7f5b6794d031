// Package tiers holds the places of the hierarchy as pure state machines:
// counts that flow up, shares of limits that flow down.
//
// A Machine is one place (one partition of it). It is stepped with a time
// and an input: a client's operation, a child's Report, its parent's Ack or
// Recall, a tick. It returns its effects as data: records to write, messages
// to send, decisions that were waited for, and when to wake it. Whoever runs
// it (package tiers/place) writes first and sends afterwards.
//
// A machine is put together from two halves. The upper half reports to a
// parent: totals of the keys that changed, demand for shares. The lower half
// merges the reports of children and lends them shares. A city has an upper
// half, on the limiter that clients spend from; the root has a lower half;
// what lies between has both.
//
// The package has no clock, no goroutine, no lock, no I/O of its own, and no
// iteration over a map reaches an output. It knows nothing of NATS, of
// Pebble, or of how a message is written down.
package tiers
