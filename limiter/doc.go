// Package limiter holds the one bucket that every limit is made of, the
// shares that it is cut into, and the rules that say what a namespace asks
// for.
//
// It is pure: time is an argument, there is no clock, no I/O and no
// goroutine, and no value is safe for concurrent use. (Compiling a rule with
// a time zone reads the zone's data: the machine's, or else that built in.) Quantities are
// integers. It knows nothing of places, messages or disks; package tiers
// moves shares between places, package limiter says what a share is worth.
//
// Invariants, for a Bucket at every instant:
//
//   - 0 ≤ tokens ≤ capacity, fractions of a token included;
//   - tokens come from refill, and from shares that were cut off another
//     bucket, and from nowhere else;
//   - cutting a share off and adding it elsewhere keeps the sums of capacity
//     and of rate, and never raises the sum of tokens.
package limiter
