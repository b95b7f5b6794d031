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
	if size := len(r.Spec); size > limiter.MaxSize {
		return wrong(fmt.Errorf("they have %d bytes, at most %d are allowed", size, limiter.MaxSize))
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
