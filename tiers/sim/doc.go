// Package sim is a simulated world: the machines of package tiers, run by
// the runner of package tiers/place as in the real process, on simulated
// disks, clocks and networks that fail. Everything happens on one thread, in
// an order that the seed decides, so a failure is found again by its seed.
//
// Checkers watch what clients see: totals against what was counted (Law 1),
// admitted checks, in true time, against one bucket of the limit (Law 2).
package sim
