package tiers

import (
	"maps"
	"slices"
	"strings"
)

// memory is a store in which every write is durable at once.
type memory map[Key]Record

func (d memory) apply(writes []Write) {
	for _, w := range writes {
		if w.Record == nil {
			delete(d, w.Key)
		} else {
			d[w.Key] = w.Record
		}
	}
}

// Get implements Reader.
func (d memory) Get(k Key) (Record, error) { return d[k], nil }

// Scan implements Reader.
func (d memory) Scan(prefix, after Key, yield func(Key, Record) bool) error {
	for _, k := range slices.Sorted(maps.Keys(d)) {
		if strings.HasPrefix(string(k), string(prefix)) && k > after && !yield(k, d[k]) {
			break
		}
	}
	return nil
}
