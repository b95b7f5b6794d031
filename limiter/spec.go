package limiter

// Spec is what a rules file says, before it is checked. Its JSON is the form
// in which rules are stored and sent: names are kept, fields are only added.
type Spec struct {
	Lease      string                   `json:"lease,omitzero"`      // how long owners lend: "5s"
	FoldAfter  string                   `json:"fold_after,omitzero"` // when the counts of an ended session are folded: "24h"
	Namespaces map[string]NamespaceSpec `json:"namespaces,omitzero"`
}

// NamespaceSpec is one namespace of a Spec. Durations are as in Go: "250ms".
type NamespaceSpec struct {
	Limits  []LimitSpec      `json:"limits,omitzero"`
	Shadow  bool             `json:"shadow,omitzero"`
	Count   bool             `json:"count,omitzero"` // without limits it is counted anyway
	Dedupe  string           `json:"dedupe,omitzero"`
	Wait    string           `json:"wait,omitzero"`
	Weights map[string]int64 `json:"weights,omitzero"` // by place

	Durability string `json:"durability,omitzero"` // sync or async
}

// LimitSpec is one limit of a Spec: one of rate, quota, budget and
// concurrency. Empty fields have their defaults: burst is one second of rate
// and at least 1, hold 30s, zone UTC, mode hard.
type LimitSpec struct {
	Scope       string `json:"scope,omitzero"`
	Rate        string `json:"rate,omitzero"`  // "1000/s": a whole number, and s, m, h or d
	Quota       string `json:"quota,omitzero"` // "10000/day": a whole number, and minute, hour, day, week or month
	Budget      *int64 `json:"budget,omitzero"`
	Concurrency *int64 `json:"concurrency,omitzero"`
	Burst       *int64 `json:"burst,omitzero"` // of a rate
	Hold        string `json:"hold,omitzero"`  // of a concurrency
	Zone        string `json:"zone,omitzero"`  // of a quota: "Europe/Berlin"
	Mode        string `json:"mode,omitzero"`  // hard or soft
	// Ordinal says which it is, from 1 on, of the namespace's limits of one
	// kind and scope (and unit, if they are quotas). The root sets it where
	// rules follow others (see [Succeed]); a rules file leaves it out.
	Ordinal int `json:"ordinal,omitzero"`
}
