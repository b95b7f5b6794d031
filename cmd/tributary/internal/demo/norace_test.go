//go:build !race

package demo

// raced says that the race detector watches, and takes most of the machine.
const raced = false
