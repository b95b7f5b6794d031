package transport

import (
	"context"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// VerbRules is the admin verb that reads the rules of a place, and applies new ones at the root.
const VerbRules Verb = "admin.rules"

// RulesRequest asks for the rules that a place follows. With Apply, at the root, those become the world's.
type RulesRequest struct {
	Apply *limiter.Spec `json:"apply,omitzero"`
}

// RulesReply says which rules a place follows, and under which version. Version 0: the place was started with them, and
// has not heard of the root's.
type RulesReply struct {
	Place   string       `json:"place"`
	Version uint64       `json:"version"`
	Rules   limiter.Spec `json:"rules"`
}

// MarshalJSON writes the reply as it travels.
func (r RulesReply) MarshalJSON() ([]byte, error) {
	type plain RulesReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// Rules is [Admin.Rules].
func (b backend) Rules(q RulesRequest, done func(RulesReply, *Error)) {
	if q.Apply == nil {
		rules, version := b.runner.Rules()
		done(RulesReply{Place: string(b.cfg.Place), Version: version, Rules: rules.Spec()}, nil)
		return
	}
	if b.cfg.Place != tiers.Root {
		done(RulesReply{}, ErrNotServed.Errorf("rules are applied at the root, %s, and flow to %s from there", tiers.Root, b.cfg.Place))
		return
	}
	rules, err := limiter.Compile(*q.Apply)
	if err != nil {
		done(RulesReply{}, ErrOutOfRange.Errorf("the rules are wrong: %v", err))
		return
	}
	if text, err := json.Marshal(rules.Spec()); err != nil || len(text) > wire.MaxRules {
		done(RulesReply{}, ErrOutOfRange.Errorf("the rules are %d bytes long as JSON: at most %d are allowed", len(text), wire.MaxRules))
		return
	}
	b.runner.Apply(rules, func(version uint64, err error) {
		if err != nil {
			done(RulesReply{}, b.wireError(err))
			return
		}
		done(RulesReply{Place: string(b.cfg.Place), Version: version, Rules: rules.Spec()}, nil)
	})
}

// Rules returns the rules that the client's place follows; without one, the root's.
func (c *Client) Rules(ctx context.Context) (RulesReply, error) {
	return admin[RulesRequest, RulesReply](ctx, c, VerbRules, RulesRequest{})
}

// ApplyRules makes rules the world's, at its root. They are durable there when it returns, and flow down from there.
func (c *Client) ApplyRules(ctx context.Context, rules limiter.Spec) (RulesReply, error) {
	return admin[RulesRequest, RulesReply](ctx, c, VerbRules, RulesRequest{Apply: &rules})
}
