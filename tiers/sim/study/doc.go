// Package study measures how well a limit is used: simulated worlds without
// faults, each with one limit, one shape of demand and one tree, and beside
// Tributary three other ways to keep the same limit over the same checks: one
// bucket without distance, equal static shares, and hits that are broadcast
// later.
//
// A cell is one such world. Its seed decides all of it, so that two runs of
// the study write the same document. The package knows nothing of how shares
// are divided: what it says of cells that use less than they should is said
// of classes of cells, and the figures are measured.
package study
