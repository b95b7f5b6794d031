package wire

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

func fromRules(r *tiers.RulesRecord) (*RulesRecord, error) {
	if r == nil {
		return nil, nil
	}
	if r.Rules == nil {
		return nil, fmt.Errorf("the record of rules version %d holds no rules", r.Version)
	}
	m := &RulesRecord{Version: r.Version, Spec: r.Rules.JSON()}
	for _, h := range r.Holds {
		m.Holds = append(m.Holds, &LongHold{Namespace: h.Namespace, Limit: h.Limit, Hold: int64(h.Hold)})
	}
	return m, nil
}

// toRules compiles what it reads, so that a machine gets only rules that are
// such.
func toRules(r *RulesRecord, problem *error) *tiers.RulesRecord {
	if r == nil {
		return nil
	}
	wrong := func(err error) *tiers.RulesRecord {
		*problem = fmt.Errorf("rules version %d: %w", r.Version, err)
		return nil
	}
	if size := len(r.Spec); size > limiter.MaxWritten {
		return wrong(fmt.Errorf("they have %d bytes, at most %d are allowed", size, limiter.MaxWritten))
	}
	var spec limiter.Spec
	if err := json.Unmarshal(r.Spec, &spec); err != nil {
		return wrong(err)
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		return wrong(err)
	}
	record := &tiers.RulesRecord{Version: r.Version, Rules: rules}
	for _, h := range r.Holds {
		record.Holds = append(record.Holds, tiers.LongHold{Namespace: h.Namespace, Limit: h.Limit, Hold: time.Duration(h.Hold)})
	}
	return record
}

func fromHeld(h *tiers.RulesHeld) *RulesHeld {
	if h == nil {
		return nil
	}
	return &RulesHeld{Parts: h.Parts, Begun: uint32(h.Begun), Id: h.ID, Length: uint32(h.Length)}
}

func toHeld(h *RulesHeld) *tiers.RulesHeld {
	if h == nil {
		return nil
	}
	return &tiers.RulesHeld{Parts: h.Parts, Begun: int(h.Begun), ID: h.Id, Length: int(h.Length)}
}

func fromParts(p *tiers.RulesParts) *RulesParts {
	if p == nil {
		return nil
	}
	return &RulesParts{
		Id: p.ID, Lease: p.Lease, FoldAfter: p.FoldAfter,
		Pieces: each(p.Pieces, func(p tiers.RulesPiece) *RulesPiece {
			return &RulesPiece{Part: uint32(p.Part), Id: p.ID, Size: uint32(p.Size), Offset: uint32(p.Offset), Data: p.Data}
		}),
	}
}

// toParts checks nothing: the machine does, since it puts the pieces together.
func toParts(p *RulesParts) *tiers.RulesParts {
	if p == nil {
		return nil
	}
	return &tiers.RulesParts{
		ID: p.Id, Lease: p.Lease, FoldAfter: p.FoldAfter,
		Pieces: each(p.Pieces, func(p *RulesPiece) tiers.RulesPiece {
			return tiers.RulesPiece{Part: int(p.Part), ID: p.Id, Size: int(p.Size), Offset: int(p.Offset), Data: p.Data}
		}),
	}
}
