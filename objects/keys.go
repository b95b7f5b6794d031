package objects

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// Limits on what one operation names and stores.
const (
	// MaxNameBytes is the longest name of an object: a tenant, a namespace and a key fit in it with room to spare,
	// and it is part of every stored key.
	MaxNameBytes = 1 << 10
	// MaxKeyBytes is the longest key (Durable Objects' limit).
	MaxKeyBytes = 2 << 10
	// MaxValueBytes is the largest value (Durable Objects' limit). Larger things belong into several keys.
	MaxValueBytes = 2 << 20
	// MaxOpBytes bounds what one operation writes in all, because it is committed as one piece, and held in memory
	// until then.
	MaxOpBytes = 16 << 20

	maxKindBytes = 32
)

// On disk a key is
//
//	kind 0x00 name 0x00 key
//
// A kind is [a-z0-9-], and a name holds no control character, so neither holds a 0x00: no two (kind, name, key) share
// an encoding, an object's keys lie together, in byte order, and so do a kind's objects. The runtime's own keys begin
// with 0x00, where no kind does: the format's version, and the index of alarms (scheduler.go). An object's own keys are
// not empty: under its empty key lies its alarm (alarm.go).
const formatKey = "\x00format"

func appendPrefix(dst []byte, kind, name string) []byte {
	dst = append(dst, kind...)
	dst = append(dst, 0)
	dst = append(dst, name...)
	return append(dst, 0)
}

// successor returns the smallest key that is greater than every key that begins with prefix. The prefix must
// hold a byte below 0xff; every encoded prefix does (its separators).
func successor(prefix []byte) []byte {
	n := len(prefix)
	for n > 0 && prefix[n-1] == 0xff {
		n--
	}
	after := slices.Clone(prefix[:n])
	after[n-1]++
	return after
}

func checkKind(kind string) error {
	if len(kind) == 0 || len(kind) > maxKindBytes {
		return invalidf("kind %.40q is %d bytes long (1 to %d)", kind, len(kind), maxKindBytes)
	}
	for _, c := range []byte(kind) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return invalidf("kind %q holds %q (a-z, 0-9 and - only)", kind, c)
		}
	}
	return nil
}

func checkName(name string) error {
	if len(name) == 0 || len(name) > MaxNameBytes {
		return invalidf("object name %.40q is %d bytes long (1 to %d)", name, len(name), MaxNameBytes)
	}
	if !utf8.ValidString(name) {
		return invalidf("object name %.40q is not UTF-8", name)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return invalidf("object name %.40q holds the control character %U", name, r)
		}
	}
	return nil
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return invalidf("key %.40q is %d bytes long (1 to %d)", key, len(key), MaxKeyBytes)
	}
	return nil
}
