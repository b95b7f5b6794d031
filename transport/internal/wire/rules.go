package wire

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// MaxRules is how many bytes rules may have as JSON. They travel whole in one
// message, which NATS bounds to 1 MiB unless it is told otherwise.
const MaxRules = 256 << 10

func fromRules(r *tiers.RulesRecord) (*RulesRecord, error) {
	if r == nil {
		return nil, nil
	}
	if r.Rules == nil {
		return nil, fmt.Errorf("the record of rules version %d holds no rules", r.Version)
	}
	spec, err := json.Marshal(r.Rules.Spec(), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("rules version %d: %w", r.Version, err)
	}
	if err := checkRulesSize(r.Version, len(spec)); err != nil {
		return nil, err
	}
	m := &RulesRecord{Version: r.Version, Spec: spec}
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
	if err := checkRulesSize(r.Version, len(r.Spec)); err != nil {
		*problem = err
		return nil
	}
	var spec limiter.Spec
	if err := json.Unmarshal(r.Spec, &spec); err != nil {
		*problem = fmt.Errorf("rules version %d: %w", r.Version, err)
		return nil
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		*problem = fmt.Errorf("rules version %d: %w", r.Version, err)
		return nil
	}
	record := &tiers.RulesRecord{Version: r.Version, Rules: rules}
	for _, h := range r.Holds {
		record.Holds = append(record.Holds, tiers.LongHold{Namespace: h.Namespace, Limit: h.Limit, Hold: time.Duration(h.Hold)})
	}
	return record
}

func checkRulesSize(version uint64, size int) error {
	if size > MaxRules {
		return fmt.Errorf("rules version %d take %d bytes, at most %d are allowed: write fewer namespaces, limits or weights", version, size, MaxRules)
	}
	return nil
}
