package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// VerbRules is the admin verb that reads the rules of a place, and applies new ones at the root.
const VerbRules Verb = "admin.rules"

// RulesRequest asks for the rules that a place follows. With Apply, at the root, those become the world's.
//
// Rules that are larger than a message travel in several. To read them, Pages asks for as many namespaces as an answer
// holds, those that come after After. To apply them, each request but the last says More, and all name the same Upload
// and say which Piece they are, from 0 on; the root puts them together.
type RulesRequest struct {
	Pages bool   `json:"pages,omitzero"`
	After string `json:"after,omitzero"`

	Apply *limiter.Spec `json:"apply,omitzero"`
	// IfVersion applies the rules only where those before are of this version: 409 conflict where somebody has changed them
	// meanwhile.
	IfVersion *uint64 `json:"if_version,omitzero"`
	Upload    string  `json:"upload,omitzero"`
	Piece     int     `json:"piece,omitzero"`
	More      bool    `json:"more,omitzero"`
}

// RulesReply says which rules a place follows, and under which version. Version 0: the place was started with them, and
// has not heard of the root's.
type RulesReply struct {
	Place   string       `json:"place"`
	Version uint64       `json:"version"`
	Rules   limiter.Spec `json:"rules"`
	More    bool         `json:"more,omitzero"` // namespaces follow after the last of these
}

// MarshalJSON writes the reply as it travels.
func (r RulesReply) MarshalJSON() ([]byte, error) {
	type plain RulesReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// replyRoom is what a reply takes beside its namespaces, at most.
const replyRoom = 1 << 10

// Rules is [Admin.Rules].
func (b backend) Rules(q RulesRequest, done func(RulesReply, *Error)) {
	reply := RulesReply{Place: string(b.cfg.Place)}
	room := int(b.cfg.Conn.MaxPayload()) - headerRoom - replyRoom
	switch {
	case q.Apply == nil:
		rules, version := b.runner.Rules()
		reply.Version, reply.Rules = version, rules.Spec()
		if q.Pages {
			reply.Rules, reply.More = page(rules, q.After, room)
		}
		done(reply, nil)
		return
	case b.cfg.Place != tiers.Root:
		done(reply, ErrNotServed.Errorf("rules are applied at the root, %s, and flow to %s from there", tiers.Root, b.cfg.Place))
		return
	}
	spec := *q.Apply
	if q.Upload != "" {
		whole, refused := b.uploads.take(q, room)
		if refused != nil || whole == nil {
			done(reply, refused)
			return
		}
		spec = *whole
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		done(reply, ErrOutOfRange.Errorf("the rules are wrong: %v", err))
		return
	}
	applied := func(version uint64, err error) {
		switch {
		case errors.Is(err, tiers.ErrVersion):
			done(reply, ErrConflict.Errorf("the rules are of version %d, not %d: somebody has changed them; look at what is different now, and apply again", version, *q.IfVersion))
		case errors.Is(err, tiers.ErrManyHolds):
			done(reply, ErrConflict.Errorf("%v: keep the limits, or apply in steps", err))
		case err != nil:
			done(reply, b.wireError(err))
		default:
			reply.Version = version
			if rules.Size() <= room {
				reply.Rules = rules.Spec()
			}
			done(reply, nil)
		}
	}
	if q.IfVersion != nil {
		b.runner.ApplyIf(*q.IfVersion, rules, applied)
	} else {
		b.runner.Apply(rules, applied)
	}
}

// page returns the rules with the namespaces after a name, as many as have room, and whether more follow.
func page(rules *limiter.Rules, after string, room int) (limiter.Spec, bool) {
	all := rules.Spec()
	names := rules.Namespaces()
	from, found := slices.BinarySearch(names, after)
	if found {
		from++
	}
	spec := limiter.Spec{Lease: all.Lease, FoldAfter: all.FoldAfter}
	var rest []string
	spec.Namespaces, rest = some(all.Namespaces, names[from:], room)
	return spec, len(rest) > 0
}

// some takes as many of the named namespaces as have room, at least one, and returns the names of the others.
func some(all map[string]limiter.NamespaceSpec, names []string, room int) (taken map[string]limiter.NamespaceSpec, rest []string) {
	taken = map[string]limiter.NamespaceSpec{}
	for i, name := range names {
		text, err := json.Marshal(all[name], json.Deterministic(true))
		if err != nil {
			panic(err) // strings and numbers
		}
		if room -= len(name) + len(text) + len(`"":,`); room < 0 && i > 0 {
			return taken, names[i:]
		}
		taken[name] = all[name]
	}
	return taken, nil
}

// Rules returns the rules that the client's place follows; without one, the root's.
func (c *Client) Rules(ctx context.Context) (RulesReply, error) {
	whole, err := admin[RulesRequest, RulesReply](ctx, c, VerbRules, RulesRequest{})
	if !errors.Is(err, ErrTooLarge) {
		return whole, err
	}
	for range maxReads {
		whole, err = c.pages(ctx)
		if !errors.Is(err, ErrConflict) {
			break
		}
	}
	return whole, err
}

// maxReads is how often rules are read that change meanwhile.
const maxReads = 5

// pages reads rules that are larger than a message.
func (c *Client) pages(ctx context.Context) (whole RulesReply, err error) {
	for q := (RulesRequest{Pages: true}); ; {
		next, err := admin[RulesRequest, RulesReply](ctx, c, VerbRules, q)
		switch {
		case err != nil:
			return whole, err
		case q.After == "":
			whole = next
		case next.Version != whole.Version:
			return whole, ErrConflict.Errorf("the rules of %s change while they are read: ask again", whole.Place)
		}
		for name, spec := range next.Rules.Namespaces {
			whole.Rules.Namespaces[name] = spec
			q.After = max(q.After, name)
		}
		if whole.More = next.More; !next.More || len(next.Rules.Namespaces) == 0 {
			return whole, nil
		}
	}
}

// ApplyRules makes rules the world's, at its root. They are durable there when it returns, and flow down from there.
func (c *Client) ApplyRules(ctx context.Context, rules limiter.Spec) (RulesReply, error) {
	return c.apply(ctx, RulesRequest{Apply: &rules})
}

// ApplyRulesIf is ApplyRules where the root's rules are still of a version, as [Client.Rules] told. Otherwise nothing is
// done, and the error is [ErrConflict].
func (c *Client) ApplyRulesIf(ctx context.Context, version uint64, rules limiter.Spec) (RulesReply, error) {
	return c.apply(ctx, RulesRequest{Apply: &rules, IfVersion: &version})
}

// apply sends rules, in several messages if need be. The answer has them where it could not hold them.
func (c *Client) apply(ctx context.Context, q RulesRequest) (reply RulesReply, err error) {
	rules := *q.Apply
	room := int(c.nc.MaxPayload()) - headerRoom - replyRoom
	compiled, err := limiter.Compile(rules)
	if err == nil && compiled.Size() > room {
		reply, err = c.upload(ctx, q, compiled.Namespaces(), room)
	} else { // what is wrong in them the root says
		reply, err = admin[RulesRequest, RulesReply](ctx, c, VerbRules, q)
	}
	if err == nil && len(reply.Rules.Namespaces) == 0 {
		reply.Rules = rules
	}
	return reply, err
}

func (c *Client) upload(ctx context.Context, q RulesRequest, names []string, room int) (reply RulesReply, err error) {
	rules := *q.Apply
	for q.Upload, q.More = rand.Text(), true; q.More; q.Piece++ {
		piece := limiter.Spec{Lease: rules.Lease, FoldAfter: rules.FoldAfter}
		piece.Namespaces, names = some(rules.Namespaces, names, room)
		q.Apply, q.More = &piece, len(names) > 0
		if reply, err = admin[RulesRequest, RulesReply](ctx, c, VerbRules, q); err != nil {
			break
		}
	}
	return reply, err
}
