// Package place runs one machine of package tiers: it gives each input to
// the machine, commits what the machine writes, and only then sends what it
// says. The process and the simulated world both run it, each with its own
// Store and Sender; it has no clock and no goroutine of its own.
package place
