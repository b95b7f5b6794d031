package transport

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/tiers"
)

// What an operator asks about the places below one, and says of what nobody else knows.
const (
	// VerbPlaces is the admin verb that lists the places below one.
	VerbPlaces Verb = "admin.places"
	// VerbForget is the admin verb that drops a place that left for good, asked of its parent.
	VerbForget Verb = "admin.forget"
	// VerbForfeit is the admin verb that ends what a place was lent of budgets and quotas, asked of its parent.
	VerbForfeit Verb = "admin.forfeit"
	// VerbJoin is the admin verb that makes a place's store a part of another world.
	VerbJoin Verb = "admin.join"
)

// PlacesRequest asks for the places below one.
type PlacesRequest struct {
	// After is the place after which the list begins; it may be empty.
	After string `json:"after,omitzero"`
}

// PlacesReply is what a place knows of those below it, sorted by name.
type PlacesReply struct {
	Place  string       `json:"place"`
	Rules  uint64       `json:"rules"` // the version of the rules that it follows itself
	Places []ChildPlace `json:"places"`
	// More says that places follow: ask again After the last one.
	More bool `json:"more,omitzero"`
}

// shorter has the first half of the places.
func (r PlacesReply) shorter() (PlacesReply, bool) {
	half := len(r.Places) / 2
	r.Places, r.More = r.Places[:half], true
	return r, half > 0
}

// MarshalJSON writes the reply as it travels.
func (r PlacesReply) MarshalJSON() ([]byte, error) {
	type plain PlacesReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// ChildPlace is what a place knows of one below it.
type ChildPlace struct {
	Place string `json:"place"`
	// SeenMS is how long ago it reported last; -1: not since this place started.
	SeenMS int64 `json:"seen_ms"`
	// Starts is how often it was started, as far as this place knows.
	Starts uint64 `json:"starts"`
	// Rules is the version of the rules that it follows.
	Rules uint64 `json:"rules"`
	// LagMS is how old the newest total of it is of which this place has all; -1: that is not known.
	LagMS int64 `json:"lag_ms"`
	// Behind counts places below it that its totals wait for.
	Behind int `json:"behind"`
	// Lines counts the shares that it is lent.
	Lines int `json:"lines"`
	// Refused says why its reports are refused, if they are.
	Refused string `json:"refused,omitzero"`
	// Forgotten: it left for good, and its counts are kept.
	Forgotten bool `json:"forgotten,omitzero"`
}

// ChildRequest names a place below the one that is asked.
type ChildRequest struct {
	Child string `json:"child"`
}

// ForgetReply says that a place was forgotten.
type ForgetReply struct {
	Place string `json:"place"` // that answers
	Child string `json:"child"`
}

// MarshalJSON writes the reply as it travels.
func (r ForgetReply) MarshalJSON() ([]byte, error) {
	type plain ForgetReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// ForfeitReply says how many shares were forfeited.
type ForfeitReply struct {
	Place string `json:"place"` // that answers
	Child string `json:"child"`
	Lines int    `json:"lines"`
}

// MarshalJSON writes the reply as it travels.
func (r ForfeitReply) MarshalJSON() ([]byte, error) {
	type plain ForfeitReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// JoinRequest names a world: 16 hexadecimal digits, as the log of a refused place says it.
type JoinRequest struct {
	World string `json:"world"`
	// Force joins it although places of its present world deal with it, which refuse it from then on.
	Force bool `json:"force,omitzero"`
}

// JoinReply says that a place's store is of a world. The place starts again.
type JoinReply struct {
	Place string `json:"place"`
	World string `json:"world"`
}

// MarshalJSON writes the reply as it travels.
func (r JoinReply) MarshalJSON() ([]byte, error) {
	type plain JoinReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// Places is [Admin.Places].
func (b backend) Places(q PlacesRequest, done func(PlacesReply, *Error)) {
	_, version := b.runner.Rules()
	reply := PlacesReply{Place: string(b.cfg.Place), Rules: version, Places: []ChildPlace{}}
	for _, c := range b.runner.Children() {
		if string(c.Place) <= q.After {
			continue
		}
		p := ChildPlace{
			Place: string(c.Place), SeenMS: -1, LagMS: -1, Starts: c.Number, Rules: c.Rules, Behind: c.Behind, Lines: c.Lines,
			Refused: c.Refused, Forgotten: c.Forgotten,
		}
		if c.Reported {
			p.SeenMS = milliseconds(c.Seen)
		}
		if c.Lag >= 0 {
			p.LagMS = milliseconds(c.Lag)
		}
		reply.Places = append(reply.Places, p)
	}
	done(reply, nil)
}

// child reads the name of a place below this one.
func (b backend) child(name string) (tiers.Place, *Error) {
	p, err := tiers.ParsePlace(name)
	switch {
	case err != nil:
		return "", ErrOutOfRange.Errorf("child: %v", err)
	case p == tiers.Root || p.Parent() != b.cfg.Place:
		return "", ErrOutOfRange.Errorf("%s is not right below %s: ask its parent", p, b.cfg.Place)
	}
	return p, nil
}

// Forget is [Admin.Forget].
func (b backend) Forget(q ChildRequest, done func(ForgetReply, *Error)) {
	child, refused := b.child(q.Child)
	if refused != nil {
		done(ForgetReply{}, refused)
		return
	}
	b.runner.Forget(child, func(err error) {
		if err != nil {
			done(ForgetReply{}, b.childError(child, err))
			return
		}
		done(ForgetReply{Place: string(b.cfg.Place), Child: q.Child}, nil)
	})
}

// Forfeit is [Admin.Forfeit].
func (b backend) Forfeit(q ChildRequest, done func(ForfeitReply, *Error)) {
	child, refused := b.child(q.Child)
	if refused != nil {
		done(ForfeitReply{}, refused)
		return
	}
	b.runner.Forfeit(child, func(lines int, err error) {
		if err != nil {
			done(ForfeitReply{}, b.childError(child, err))
			return
		}
		done(ForfeitReply{Place: string(b.cfg.Place), Child: q.Child, Lines: lines}, nil)
	})
}

func (b backend) childError(child tiers.Place, err error) *Error {
	switch {
	case errors.Is(err, tiers.ErrNoChild):
		return ErrUnknownPlace.Errorf("%s never reported to %s: list those that did with admin.places.%s", child, b.cfg.Place, b.cfg.Place)
	case errors.Is(err, tiers.ErrReports):
		return ErrConflict.Errorf("%s still reports to %s: stop it, and forget it a few heartbeats later", child, b.cfg.Place)
	}
	return b.wireError(err)
}

// Join is [Admin.Join].
func (b backend) Join(q JoinRequest, done func(JoinReply, *Error)) {
	world, err := strconv.ParseUint(q.World, 16, 64)
	if err != nil || world == 0 || len(q.World) != 16 {
		done(JoinReply{}, ErrOutOfRange.Errorf("world %s: it is 16 hexadecimal digits, as a place that is refused logs them", quote(q.World)))
		return
	}
	b.runner.Join(world, q.Force, func(err error) {
		switch {
		case errors.Is(err, tiers.ErrServes):
			done(JoinReply{}, ErrConflict.Errorf("%s is no root on a new disk: %v, and would be cut off; \"force\":true joins it to world %s all the same", b.cfg.Place, err, q.World))
			return
		case err != nil:
			done(JoinReply{}, b.wireError(err))
			return
		}
		done(JoinReply{Place: string(b.cfg.Place), World: q.World}, nil)
	})
}

// At is the client, asking a place.
func (c *Client) At(place string) *Client {
	at := *c
	at.place = place
	return &at
}

// Places lists the places right below the client's place; without one, below the root.
func (c *Client) Places(ctx context.Context) (PlacesReply, error) {
	all, err := admin[PlacesRequest, PlacesReply](ctx, c, VerbPlaces, PlacesRequest{})
	for page := all; err == nil && page.More && len(page.Places) > 0; {
		page, err = admin[PlacesRequest, PlacesReply](ctx, c, VerbPlaces, PlacesRequest{After: page.Places[len(page.Places)-1].Place})
		all.Places = append(all.Places, page.Places...)
	}
	all.More = false
	return all, err
}

// Forget drops a place that left for good: its parent keeps what it counted, waits for it no longer, and refuses it from
// now on. It is an error while the place still reports.
func (c *Client) Forget(ctx context.Context, place string) (ForgetReply, error) {
	at, err := c.parentOf(place)
	if err != nil {
		return ForgetReply{}, err
	}
	return admin[ChildRequest, ForgetReply](ctx, at, VerbForget, ChildRequest{place})
}

// Forfeit ends what a place was lent of budgets and quotas, which else stays lent until it starts again: what was out of
// them counts as spent.
func (c *Client) Forfeit(ctx context.Context, place string) (ForfeitReply, error) {
	at, err := c.parentOf(place)
	if err != nil {
		return ForfeitReply{}, err
	}
	return admin[ChildRequest, ForfeitReply](ctx, at, VerbForfeit, ChildRequest{place})
}

// Join makes the store of the client's place, or without one of the root, a part of a world: that of places which a root
// on a new disk cannot serve, since its world is another. The place starts again, and lends nothing of its own limits
// until leases that the lost root gave have ended. It is [ErrConflict] where places of its present world deal with it,
// unless it is forced: they would be cut off.
func (c *Client) Join(ctx context.Context, world string, force bool) (JoinReply, error) {
	return admin[JoinRequest, JoinReply](ctx, c, VerbJoin, JoinRequest{world, force})
}

// parentOf is the client, asking a place's parent.
func (c *Client) parentOf(place string) (*Client, error) {
	p, err := tiers.ParsePlace(place)
	if err != nil {
		return nil, err
	}
	if p == tiers.Root {
		return nil, fmt.Errorf("%s has no parent", p)
	}
	return c.At(string(p.Parent())), nil
}
