package wire

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// ErrVersion says that a message is of a version that is not known here.
var ErrVersion = errors.New("unknown version")

func checkVersion(v uint32) error {
	if v != Version {
		return fmt.Errorf("%w %d of a message between places; this program speaks %d: run the same version everywhere", ErrVersion, v, Version)
	}
	return nil
}

// each converts a list.
func each[A, B any](list []A, f func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// MarshalReport writes a report down.
func MarshalReport(r *tiers.Report) ([]byte, error) {
	return proto.Marshal(&Report{
		Version: Version, Child: string(r.Child), World: r.World, RulesVersion: r.Rules, Rules: r.Hash, Newest: r.Newest, Session: r.Session, Number: r.Number,
		Highest: r.Highest, Previous: r.Previous, Folded: r.Folded, Sequence: r.Sequence, From: r.From, To: r.To,
		Counts: each(r.Counts, fromCount),
		Lines: each(r.Lines, func(l tiers.LineReport) *LineReport {
			return &LineReport{
				Name: fromName(l.Name), Limit: l.Limit, Lender: l.Lender, Line: l.Line, Returned: fromShare(l.Returned),
				Ended: l.Ended, DemandNow: l.Demand.Now, DemandPeak: l.Demand.Peak, DemandAsk: l.Demand.Ask, DemandSingle: l.Demand.Single,
				DemandUntil: int64(l.Demand.Until), DemandWeight: l.Demand.Weight, Resets: l.Resets,
			}
		}),
		Watch: each(r.Watch, fromName), Fresh: uint32(r.Fresh), Age: int64(r.Age), Behind: uint32(r.Behind), Echo: int64(r.Echo), EchoOf: r.EchoOf, Got: r.Got, Bye: r.Bye,
		Witness: fromWitness(r.Witness), Longest: int64(r.Longest), Parts: fromHeld(r.Parts), Rest: r.Rest,
	})
}

// UnmarshalReport reads a report.
func UnmarshalReport(data []byte) (*tiers.Report, error) {
	var r Report
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if err := checkVersion(r.Version); err != nil {
		return nil, err
	}
	child, err := tiers.ParsePlace(r.Child)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if r.Session == 0 || r.To < r.From {
		return nil, fmt.Errorf("report of %s: session %d, changes (%d, %d] are out of range", child, r.Session, r.From, r.To)
	}
	var problem error
	out := &tiers.Report{
		Child: child, World: r.World, Rules: r.RulesVersion, Hash: r.Rules, Newest: r.Newest, Session: r.Session, Number: r.Number,
		Highest: r.Highest, Previous: r.Previous, Folded: r.Folded, Sequence: r.Sequence, From: r.From, To: r.To,
		Counts: each(r.Counts, func(c *Count) tiers.Count { return toCount(c, &problem) }),
		Lines: each(r.Lines, func(l *LineReport) tiers.LineReport {
			return tiers.LineReport{
				Name: toName(l.Name, &problem), Limit: l.Limit, Lender: l.Lender, Line: l.Line,
				Returned: toShare(l.Returned, &problem), Ended: l.Ended, Demand: toDemand(l), Resets: l.Resets,
			}
		}),
		Watch: each(r.Watch, func(n *Name) tiers.Name { return toName(n, &problem) }),
		Fresh: int(r.Fresh), Age: time.Duration(r.Age), Behind: int(r.Behind), Echo: limiter.Time(r.Echo), EchoOf: r.EchoOf, Got: r.Got, Bye: r.Bye,
		Witness: toWitness(r.Witness), Longest: time.Duration(r.Longest), Parts: toHeld(r.Parts), Rest: r.Rest,
	}
	if problem != nil {
		return nil, fmt.Errorf("report of %s: %w", child, problem)
	}
	return out, nil
}

func fromWitness(w tiers.Witness) *Witness {
	if w == (tiers.Witness{}) {
		return nil
	}
	return &Witness{Session: w.Session, Number: w.Number}
}

func toWitness(w *Witness) tiers.Witness {
	return tiers.Witness{Session: w.GetSession(), Number: w.GetNumber()}
}

// MarshalAck writes an answer down.
func MarshalAck(a *tiers.Ack) ([]byte, error) {
	rules, err := fromRules(a.Rules)
	if err != nil {
		return nil, fmt.Errorf("ack: %w", err)
	}
	return proto.Marshal(&Ack{
		Version: Version, World: a.World, RulesVersion: a.Version, Rules: a.Hash, NewRules: rules, Parts: fromParts(a.Parts), Session: a.Session, Sequence: a.Sequence,
		Parent: a.Parent, Root: a.Root, Number: a.Number, Longest: int64(a.Longest), Acked: a.Acked, Refused: a.Refused, Fenced: a.Fenced, Full: a.Full,
		Pause: int64(a.Pause), Folded: a.Folded, MorePairs: a.MorePairs, MoreLines: a.MoreLines, Partial: a.Partial, Anew: a.Anew,
		Pairs: each(a.Pairs, fromCount),
		Lines: each(a.Lines, fromGrant),
		Above: each(a.Above, func(w tiers.Watermark) *Watermark {
			return &Watermark{Place: string(w.Place), Age: int64(w.Age), Behind: uint32(w.Behind)}
		}),
		Views: each(a.Views, func(v tiers.Totals) *Totals {
			return &Totals{Name: fromName(v.Name), Totals: each(v.Totals, fromTotal), Unwatched: v.Unwatched}
		}),
		Stamp: int64(a.Stamp),
	})
}

// UnmarshalAck reads an answer.
func UnmarshalAck(data []byte) (*tiers.Ack, error) {
	var a Ack
	if err := proto.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("ack: %w", err)
	}
	if err := checkVersion(a.Version); err != nil {
		return nil, err
	}
	var problem error
	out := &tiers.Ack{
		World: a.World, Version: a.RulesVersion, Hash: a.Rules, Rules: toRules(a.NewRules, &problem), Parts: toParts(a.Parts), Session: a.Session, Sequence: a.Sequence,
		Parent: a.Parent, Root: a.Root, Number: a.Number, Longest: time.Duration(a.Longest), Acked: a.Acked, Refused: a.Refused, Fenced: a.Fenced, Full: a.Full,
		Pause: time.Duration(a.Pause), Folded: a.Folded, MorePairs: a.MorePairs, MoreLines: a.MoreLines, Partial: a.Partial, Anew: a.Anew,
		Pairs: each(a.Pairs, func(c *Count) tiers.Count { return toCount(c, &problem) }),
		Lines: each(a.Lines, func(g *Grant) tiers.Grant { return toGrant(g, &problem) }),
		Above: each(a.Above, func(w *Watermark) tiers.Watermark {
			return tiers.Watermark{Place: toPlace(w.Place, &problem), Age: time.Duration(w.Age), Behind: int(w.Behind)}
		}),
		Views: each(a.Views, func(v *Totals) tiers.Totals {
			return tiers.Totals{Name: toName(v.Name, &problem), Totals: each(v.Totals, toTotal), Unwatched: v.Unwatched}
		}),
		Stamp: limiter.Time(a.Stamp),
	}
	if problem != nil {
		return nil, fmt.Errorf("ack: %w", problem)
	}
	return out, nil
}

// MarshalRecall writes a recall down.
func MarshalRecall(r *tiers.Recall) ([]byte, error) {
	return proto.Marshal(&Recall{Version: Version, Parent: r.Parent, Session: r.Session, Sequence: r.Sequence, Lines: each(r.Lines, fromGrant)})
}

// UnmarshalRecall reads a recall.
func UnmarshalRecall(data []byte) (*tiers.Recall, error) {
	var r Recall
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("recall: %w", err)
	}
	if err := checkVersion(r.Version); err != nil {
		return nil, err
	}
	var problem error
	out := &tiers.Recall{
		Parent: r.Parent, Session: r.Session, Sequence: r.Sequence,
		Lines: each(r.Lines, func(g *Grant) tiers.Grant { return toGrant(g, &problem) }),
	}
	if problem != nil {
		return nil, fmt.Errorf("recall: %w", problem)
	}
	return out, nil
}

func fromGrant(g tiers.Grant) *Grant {
	return &Grant{
		Name: fromName(g.Name), Limit: g.Limit, Line: g.Line, Lent: fromShare(g.Lent), Lease: int64(g.Lease), Keep: fromKeep(g.Keep),
		Wait: int64(g.Wait), Window: g.Window, Resets: g.Resets,
	}
}

func toGrant(g *Grant, problem *error) tiers.Grant {
	return tiers.Grant{
		Name: toName(g.Name, problem), Limit: g.Limit, Line: g.Line, Lent: toShare(g.Lent, problem),
		Lease: time.Duration(max(0, g.Lease)), Keep: toKeep(g.Keep), Wait: time.Duration(max(0, g.Wait)),
		Window: toWindow(g.Window, problem), Resets: g.Resets,
	}
}

func fromName(n tiers.Name) *Name { return &Name{Namespace: n.Namespace, Key: n.Key} }

// toName checks what a store's keys depend on: names that hold a separator
// would be mistaken for others.
func toName(n *Name, problem *error) tiers.Name {
	name := tiers.Name{Namespace: n.GetNamespace(), Key: n.GetKey()}
	if err := limiter.CheckNamespace(name.Namespace); err != nil {
		*problem = err
	}
	if err := tiers.CheckKey(name.Key); err != nil {
		*problem = err
	}
	return name
}

func toPlace(s string, problem *error) tiers.Place {
	p, err := tiers.ParsePlace(s)
	if err != nil {
		*problem = err
	}
	return p
}

func fromCount(c tiers.Count) *Count {
	return &Count{Name: fromName(c.Name), Pairs: each(c.Pairs, fromPair), Folded: fromSum(c.Folded), Kept: fromSum(c.Kept), First: c.First, After: c.After, Upto: c.Upto}
}

func toCount(c *Count, problem *error) tiers.Count {
	return tiers.Count{Name: toName(c.Name, problem), Pairs: each(c.Pairs, toPair), Folded: toTotal(c.Folded), Kept: toTotal(c.Kept), First: c.First, After: c.After, Upto: c.Upto}
}

func fromPair(p tiers.Pair) *Pair {
	return &Pair{Session: p.Session, Added: p.Added, Removed: p.Removed}
}

func toPair(p *Pair) tiers.Pair {
	return tiers.Pair{Session: p.Session, Total: tiers.Total{Added: p.Added, Removed: p.Removed}}
}

func fromTotal(t tiers.Total) *Total { return &Total{Added: t.Added, Removed: t.Removed} }

// fromSum is fromTotal for a field that is left out when nothing was counted.
func fromSum(t tiers.Total) *Total {
	if t == (tiers.Total{}) {
		return nil
	}
	return fromTotal(t)
}

func toTotal(t *Total) tiers.Total {
	return tiers.Total{Added: t.GetAdded(), Removed: t.GetRemoved()}
}

func toDemand(l *LineReport) tiers.Demand {
	return tiers.Demand{
		Now: max(0, l.DemandNow), Peak: max(0, l.DemandPeak), Ask: max(0, l.DemandAsk), Single: max(0, l.DemandSingle),
		Until: time.Duration(max(0, l.DemandUntil)), Weight: max(0, l.DemandWeight),
	}
}

// lastSecond ends the year 9999: no calendar is asked what comes after it.
const lastSecond = 253402300799

func toWindow(begin int64, problem *error) int64 {
	if begin < -lastSecond || begin > lastSecond {
		*problem = fmt.Errorf("window %d is out of range (Unix seconds, %d to %d)", begin, -lastSecond, lastSecond)
	}
	return begin
}

func fromShare(s limiter.Share) *Share {
	return &Share{Tokens: s.Tokens, Capacity: s.Capacity, Rate: s.Rate}
}

func toShare(s *Share, problem *error) limiter.Share {
	out := limiter.Share{Tokens: s.GetTokens(), Capacity: s.GetCapacity(), Rate: s.GetRate()}
	if !out.Covers(limiter.Share{}) {
		*problem = fmt.Errorf("share %+v is negative", out)
	}
	return out
}

func fromKeep(k tiers.Keep) *Keep {
	if k.All {
		return nil
	}
	return &Keep{Capacity: k.Capacity, Rate: k.Rate}
}

func toKeep(k *Keep) tiers.Keep {
	if k == nil {
		return tiers.Keep{All: true}
	}
	return tiers.Keep{Capacity: max(0, k.Capacity), Rate: max(0, k.Rate)}
}
