// Package tributarypb holds the messages of tributary.proto: what machines may send to a place instead of JSON. The
// service itself reads and writes them field by field; this package is for programs that ask, in Go or, from the file,
// in any other language.
package tributarypb

//go:generate protoc --go_out=. --go_opt=paths=source_relative tributary.proto
