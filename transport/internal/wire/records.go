package wire

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/tiers"
)

// AppendRecord writes a record down, after what b holds.
func AppendRecord(b []byte, r tiers.Record) ([]byte, error) {
	var m proto.Message
	switch r := r.(type) {
	case *tiers.Meta:
		m = &Meta{
			Format: Format, World: r.World, Place: string(r.Place), Partition: r.Partition, Partitions: r.Partitions, Session: r.Session,
			Number: r.Number, Marks: r.Marks, Lease: r.Lease, Clean: r.Clean,
		}
	case *tiers.ChildRecord:
		m = &Child{Number: r.Number, Sessions: each(r.Sessions, func(s tiers.ChildSession) *ChildSession {
			return &ChildSession{Session: s.Session, Number: s.Number, Acked: s.Acked}
		})}
	case *tiers.CountRecord:
		m = &CountRecord{Mark: r.Mark, Pairs: each(r.Pairs, fromPair)}
	case *tiers.SavedBucket:
		m = &SavedBucket{Tokens: r.Tokens}
	default:
		return nil, fmt.Errorf("record of unknown type %T", r)
	}
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// ParseRecord reads the record of a key.
func ParseRecord(k tiers.Key, data []byte) (tiers.Record, error) {
	kind, _, _ := strings.Cut(string(k), "/")
	parse := func(m proto.Message) error {
		if err := proto.Unmarshal(data, m); err != nil {
			return fmt.Errorf("record %q: %w", k, err)
		}
		return nil
	}
	switch kind {
	case "meta":
		var m Meta
		if err := parse(&m); err != nil {
			return nil, err
		}
		if m.Format != Format {
			return nil, fmt.Errorf("the store is of format %d, this program knows %d: use the version that wrote it, or a newer one", m.Format, Format)
		}
		return &tiers.Meta{
			World: m.World, Place: tiers.Place(m.Place), Partition: m.Partition, Partitions: m.Partitions, Session: m.Session,
			Number: m.Number, Marks: m.Marks, Lease: m.Lease, Clean: m.Clean,
		}, nil
	case "child":
		var c Child
		if err := parse(&c); err != nil {
			return nil, err
		}
		return &tiers.ChildRecord{Number: c.Number, Sessions: each(c.Sessions, func(s *ChildSession) tiers.ChildSession {
			return tiers.ChildSession{Session: s.Session, Number: s.Number, Acked: s.Acked}
		})}, nil
	case "count":
		var c CountRecord
		if err := parse(&c); err != nil {
			return nil, err
		}
		return &tiers.CountRecord{Mark: c.Mark, Pairs: each(c.Pairs, toPair)}, nil
	case "bucket":
		var b SavedBucket
		if err := parse(&b); err != nil {
			return nil, err
		}
		return &tiers.SavedBucket{Tokens: b.Tokens}, nil
	}
	return nil, fmt.Errorf("record %q is of no kind that this program knows", k)
}
