// Package transport speaks NATS for Tributary: the names of its subjects, the JSON that callers send and read, the
// service of a place as NATS micro endpoints, the Go client, and the embedded nats-server. It also serves objects of
// other kinds than ours ([ServeObjects]), which have nothing to do with counting.
//
// The wire is fixed (see the README): a field keeps its name, type and meaning; replies may gain fields. Requests are
// read strictly, so that a typing error is a 400 that names it and never a request for something else; replies are
// read leniently. What the service asks of the place behind it is the [Backend] interface; this part of the package
// knows nothing of buckets, totals or disks.
//
// Invariants: each request is answered once, whatever the backend does; a handler never waits for the backend; what
// is in flight is bounded; after [Service.Stop] has returned the backend is not called again.
package transport
