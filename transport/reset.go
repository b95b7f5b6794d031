package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// VerbReset is the admin verb that fills a key's limits again, at the place that owns them.
const VerbReset Verb = "admin.reset"

// ResetRequest asks a place to take all that was spent of a key's limits as not spent: of those that it owns.
type ResetRequest struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
	// Left, where it is given, is how much is left of those budgets and quotas whose owner's disk was lost, and that
	// wait for this figure: nothing else is reset.
	Left *int64 `json:"left,omitzero"`
}

// ResetReply says what was reset. It is durable there; what cities hold of it is filled as they hear of it, in a moment.
type ResetReply struct {
	Place  string   `json:"place"`
	Limits []string `json:"limits"` // such as "global rate 1000/s burst 2000"
}

// MarshalJSON writes the reply as it travels.
func (r ResetReply) MarshalJSON() ([]byte, error) {
	type plain ResetReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// Reset is [Admin.Reset].
func (b backend) Reset(q ResetRequest, done func(ResetReply, *Error)) {
	if err := checkName(q.Namespace, q.Key); err != nil {
		done(ResetReply{}, err)
		return
	}
	name := tiers.Name{Namespace: q.Namespace, Key: q.Key}
	if q.Left != nil {
		b.figure(name, *q.Left, done)
		return
	}
	b.runner.Reset(name, func(err error) {
		rule := b.runner.Current().Rule(q.Namespace)
		switch {
		case errors.Is(err, tiers.ErrNotOwner):
			done(ResetReply{}, ErrNotOwner.Errorf("%s owns no limit of %s: %s", b.cfg.Place, q.Namespace, owners(rule, b.cfg.Place)))
			return
		case err != nil:
			done(ResetReply{}, b.wireError(err))
			return
		}
		reply := ResetReply{Place: string(b.cfg.Place), Limits: []string{}}
		if rule != nil { // it may have left the rules since
			for i := range rule.Limits {
				if l := &rule.Limits[i]; b.cfg.Place.Owns(l, b.cfg.Leaf) {
					reply.Limits = append(reply.Limits, l.String())
				}
			}
		}
		done(reply, nil)
	})
}

// figure takes an operator's word for what is left.
func (b backend) figure(name tiers.Name, left int64, done func(ResetReply, *Error)) {
	if left < 0 || left > limiter.MaxTokens {
		done(ResetReply{}, ErrOutOfRange.Errorf("left is %d: 0 to %d is allowed", left, int64(limiter.MaxTokens)))
		return
	}
	b.runner.Figure(name, left, func(err error) {
		switch {
		case errors.Is(err, tiers.ErrNothingWaits):
			done(ResetReply{}, ErrNotOwner.Errorf("no budget or quota of %s/%s waits for a figure at %s: it owns none, or knows what is left; leave \"left\" out to fill it again", name.Namespace, name.Key, b.cfg.Place))
		case err != nil:
			done(ResetReply{}, b.wireError(err))
		default:
			done(ResetReply{Place: string(b.cfg.Place), Limits: []string{fmt.Sprintf("%d left", left)}}, nil)
		}
	})
}

// owners says which places own a rule's limits, as one of them that owns none sees it.
func owners(rule *limiter.Rule, at tiers.Place) string {
	var all []string
	if rule != nil {
		for i := range rule.Limits {
			who := fmt.Sprintf("each %s below it", rule.Limits[i].Scope)
			if depth := int(rule.Limits[i].Scope); depth <= at.Depth() {
				who = string(at.Ancestor(depth))
			}
			if !slices.Contains(all, who) {
				all = append(all, who)
			}
		}
	}
	if len(all) == 0 {
		return "that namespace has no limits"
	}
	return "ask " + strings.Join(all, ", and ")
}

// Reset fills a key's limits again that the client's place owns: what was spent of them counts as not. Without a place
// the root is asked, which owns those of global scope.
func (c *Client) Reset(ctx context.Context, namespace, key string) (ResetReply, error) {
	if err := checkName(namespace, key); err != nil {
		return ResetReply{}, err
	}
	return admin[ResetRequest, ResetReply](ctx, c, VerbReset, ResetRequest{Namespace: namespace, Key: key})
}

// Left says how much is left of a key's budgets and quotas at the client's place, which owns them, lost its disk, and
// waits for this figure.
func (c *Client) Left(ctx context.Context, namespace, key string, left int64) (ResetReply, error) {
	if err := checkName(namespace, key); err != nil {
		return ResetReply{}, err
	}
	return admin[ResetRequest, ResetReply](ctx, c, VerbReset, ResetRequest{Namespace: namespace, Key: key, Left: &left})
}
