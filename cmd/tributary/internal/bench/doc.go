// Package bench measures what docs/benchmarks.md says: the object runtime at
// the size of a city, and adds over NATS beside Redis, raw Pebble and a bare
// echo, which take turns in one run. Times of a shared machine are noisy:
// what counts is the ratio.
package bench
