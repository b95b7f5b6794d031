// Package wire holds the protobuf messages of wire.proto, and their
// conversion from and to the values of package tiers. What comes from
// outside is checked here: a message that converts can be given to a
// machine.
package wire

//go:generate protoc --go_out=. --go_opt=paths=source_relative wire.proto

// Version is the one version of the messages between places that is spoken.
const Version = 1

// Format is the one format of records that is written. Format 1 is read too:
// its limits of rates had other IDs, and its quotas may have (limiter.Limit).
const Format = 2

// formerFormat is the oldest that is read.
const formerFormat = 1
