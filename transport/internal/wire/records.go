package wire

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// AppendRecord writes a record down, after what b holds.
func AppendRecord(b []byte, r tiers.Record) ([]byte, error) {
	var m proto.Message
	switch r := r.(type) {
	case *tiers.CountRecord:
		return appendCountRecord(b, r), nil
	case *tiers.Meta:
		m = &Meta{
			Format: Format, World: r.World, Place: string(r.Place), Partition: r.Partition, Partitions: r.Partitions, Session: r.Session,
			Number: r.Number, Marks: r.Marks, Lease: r.Lease, Clean: r.Clean, Lost: r.Lost, Folded: r.Folded, Leaf: r.Leaf,
			Witness: fromWitness(r.Witness), Backlog: fromBacklog(r.Backlog),
			Asleep: each(r.Asleep, func(a tiers.AsleepRecord) *Asleep {
				return &Asleep{Namespace: a.Namespace, Limit: a.Limit, Tokens: a.Tokens, Burst: a.Burst, Rate: a.Rate, Left: a.Left}
			}),
		}
	case *tiers.ChildRecord:
		m = &Child{
			Number: r.Number, Folded: r.Folded, Forgotten: r.Forgotten, Leaving: r.Leaving,
			Sessions: each(r.Sessions, func(s tiers.ChildSession) *ChildSession {
				return &ChildSession{Session: s.Session, Number: s.Number, Acked: s.Acked}
			}),
			Ended: each(r.Ended, func(s tiers.EndedSession) *EndedSession {
				return &EndedSession{Session: s.Session, For: int64(s.For)}
			}),
		}
	case *tiers.SavedBucket:
		m = &SavedBucket{Tokens: r.Tokens, Burst: r.Burst, Window: r.Window, Known: r.Known, Fills: r.Fills}
	case *tiers.RulesRecord:
		rules, err := fromRules(r)
		if err != nil {
			return nil, err
		}
		m = rules
	case *tiers.WindowRecord:
		m = &WindowRecord{Begin: r.Begin, Lost: r.Lost}
	case *tiers.RequestRecord:
		m = &RequestRecord{
			Session: r.Session, Key: r.Key, Add: r.Add, Hits: r.Hits, Total: fromSum(r.Total), Decision: fromDecision(r.Decision),
		}
	default:
		return nil, fmt.Errorf("record of unknown type %T", r)
	}
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// appendCountRecord writes a CountRecord field by field: each add writes one, and to make its message first would take
// several times as long.
func appendCountRecord(b []byte, r *tiers.CountRecord) []byte {
	var room [32]byte // for what is in a field, at most
	b = AppendVarint(b, 1, r.Mark)
	for _, p := range r.Pairs {
		pair := room[:0]
		if p.Session != 0 {
			pair = protowire.AppendFixed64(protowire.AppendTag(pair, 1, protowire.Fixed64Type), p.Session)
		}
		pair = AppendVarint(AppendVarint(pair, 2, p.Total.Added), 3, p.Total.Removed)
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), pair)
	}
	for i, t := range [...]tiers.Total{r.Folded, r.Kept} {
		if t != (tiers.Total{}) {
			sum := AppendVarint(AppendVarint(room[:0], 1, t.Added), 2, t.Removed)
			b = protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(3+i), protowire.BytesType), sum)
		}
	}
	return b
}

// AppendVarint writes a field that is left out when it is 0.
func AppendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
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
		if m.Format < formerFormat || m.Format > Format {
			return nil, fmt.Errorf("the store is of format %d, this program knows %d to %d: use the version that wrote it, or a newer one", m.Format, formerFormat, Format)
		}
		// What a place of a former format wrote of rates when it was stopped in good order has IDs that no limit has now:
		// it starts as after a crash, once.
		return &tiers.Meta{
			World: m.World, Place: tiers.Place(m.Place), Partition: m.Partition, Partitions: m.Partitions, Session: m.Session,
			Number: m.Number, Marks: m.Marks, Lease: m.Lease, Clean: m.Clean && m.Format == Format, Lost: m.Lost, Folded: m.Folded, Leaf: m.Leaf,
			Witness: toWitness(m.Witness), Backlog: toBacklog(m.Backlog),
			Asleep: each(m.Asleep, func(a *Asleep) tiers.AsleepRecord {
				return tiers.AsleepRecord{Namespace: a.Namespace, Limit: a.Limit, Tokens: a.Tokens, Burst: a.Burst, Rate: a.Rate, Left: a.Left}
			}),
		}, nil
	case "child":
		var c Child
		if err := parse(&c); err != nil {
			return nil, err
		}
		return &tiers.ChildRecord{
			Number: c.Number, Folded: c.Folded, Forgotten: c.Forgotten, Leaving: c.Leaving,
			Sessions: each(c.Sessions, func(s *ChildSession) tiers.ChildSession {
				return tiers.ChildSession{Session: s.Session, Number: s.Number, Acked: s.Acked}
			}),
			Ended: each(c.Ended, func(s *EndedSession) tiers.EndedSession {
				return tiers.EndedSession{Session: s.Session, For: time.Duration(s.For)}
			}),
		}, nil
	case "count":
		var c CountRecord
		if err := parse(&c); err != nil {
			return nil, err
		}
		return &tiers.CountRecord{Mark: c.Mark, Pairs: each(c.Pairs, toPair), Folded: toTotal(c.Folded), Kept: toTotal(c.Kept)}, nil
	case "bucket":
		var b SavedBucket
		if err := parse(&b); err != nil {
			return nil, err
		}
		return &tiers.SavedBucket{Tokens: b.Tokens, Burst: b.Burst, Window: b.Window, Known: b.Known, Fills: b.Fills}, nil
	case "rules":
		var r RulesRecord
		if err := parse(&r); err != nil {
			return nil, err
		}
		var problem error
		rules := toRules(&r, &problem)
		if problem != nil {
			return nil, fmt.Errorf("record %q: %w", k, problem)
		}
		return rules, nil
	case "window":
		var w WindowRecord
		if err := parse(&w); err != nil {
			return nil, err
		}
		return &tiers.WindowRecord{Begin: w.Begin, Lost: w.Lost}, nil
	case "request":
		var r RequestRecord
		if err := parse(&r); err != nil {
			return nil, err
		}
		decision, err := toDecision(r.Decision)
		if err != nil {
			return nil, fmt.Errorf("record %q: %w", k, err)
		}
		return &tiers.RequestRecord{Session: r.Session, Key: r.Key, Add: r.Add, Hits: r.Hits, Total: toTotal(r.Total), Decision: decision}, nil
	}
	return nil, fmt.Errorf("record %q is of no kind that this program knows", k)
}

func fromDecision(d tiers.Decision) *Decision {
	if d == (tiers.Decision{}) {
		return nil
	}
	return &Decision{
		Allowed: d.Allowed, Limited: d.Limited, Shadow: d.Shadow, Reason: string(d.Reason), Scope: uint32(d.Scope), Kind: uint32(d.Kind),
		Limit: d.Limit, Remaining: d.Remaining, RetryAfter: int64(d.RetryAfter), ResetAfter: int64(d.Reset), Permit: d.Permit, Session: d.Session, Hold: int64(d.Hold),
	}
}

// toDecision refuses a scope or kind that has no name.
func toDecision(d *Decision) (tiers.Decision, error) {
	if scope, kind := d.GetScope(), d.GetKind(); scope > uint32(limiter.City) || kind > uint32(limiter.Concurrency) {
		return tiers.Decision{}, fmt.Errorf("a decision has scope %d and kind %d, which this program does not know: use the version that wrote it, or a newer one", scope, kind)
	}
	return tiers.Decision{
		Allowed: d.GetAllowed(), Limited: d.GetLimited(), Shadow: d.GetShadow(), Reason: tiers.Reason(d.GetReason()),
		Scope: limiter.Scope(d.GetScope()), Kind: limiter.Kind(d.GetKind()), Limit: d.GetLimit(), Remaining: d.GetRemaining(),
		RetryAfter: time.Duration(d.GetRetryAfter()), Reset: time.Duration(d.GetResetAfter()), Permit: d.GetPermit(), Session: d.GetSession(), Hold: time.Duration(d.GetHold()),
	}, nil
}

func fromBacklog(b *tiers.Backlog) *Backlog {
	if b == nil {
		return nil
	}
	return &Backlog{Keys: b.Keys, Lacks: b.Lacks, Acked: b.Acked, Mark: b.Mark}
}

func toBacklog(b *Backlog) *tiers.Backlog {
	if b == nil {
		return nil
	}
	return &tiers.Backlog{Keys: b.Keys, Lacks: b.Lacks, Acked: b.Acked, Mark: b.Mark}
}
