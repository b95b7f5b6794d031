package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// reported says when a place reported last, as its parent knows it.
func reported(p transport.ChildPlace) string {
	if p.SeenMS < 0 {
		return "not yet"
	}
	return (time.Duration(p.SeenMS) * time.Millisecond).String() + " ago"
}

// ofParent has a place's parent asked.
func (f serverFlags) ofParent(place string) (*clientFlags, error) {
	p, err := tiers.ParsePlace(place)
	if err != nil {
		return nil, err
	}
	if p == tiers.Root {
		return nil, fmt.Errorf("%s has no parent", p)
	}
	return &clientFlags{At: string(p.Parent()), serverFlags: f}, nil
}

// knownChild is what the client's place knows of one right below it. Who mistyped it hears what is there.
func knownChild(ctx context.Context, client *transport.Client, place string) (transport.ChildPlace, error) {
	reply, err := client.Places(ctx)
	if err != nil {
		return transport.ChildPlace{}, err
	}
	names := make([]string, 0, len(reply.Places))
	for _, child := range reply.Places {
		if child.Place == place {
			return child, nil
		}
		names = append(names, child.Place)
	}
	hint := "; no place ever did"
	if len(names) > 0 {
		hint = instead(place, names)
	}
	return transport.ChildPlace{}, transport.ErrUnknownPlace.Errorf("%s never reported to %s%s", place, reply.Place, hint)
}

// PlacesForgetCmd forgets a place.
type PlacesForgetCmd struct {
	Place string `arg:"" help:"The place, such as eu.de.hamburg."`
	yesFlag
	serverFlags
}

// Help is the command's long help.
func (*PlacesForgetCmd) Help() string {
	return `Its parent keeps what it counted, waits for its reports no longer, and refuses it from now on, with all that is below
it: give the next place there another name. Stop it first: a place that still reports is not forgotten.

Examples:

    tributary places forget eu.de.hamburg
    tributary places forget eu.de.hamburg --yes`
}

// Run forgets.
func (c *PlacesForgetCmd) Run(app *App) error {
	parent, err := c.ofParent(c.Place)
	if err != nil {
		return err
	}
	return ask(app, parent, func(ctx context.Context, client *transport.Client) (transport.ForgetReply, error) {
		child, err := knownChild(ctx, client, c.Place)
		if err == nil {
			err = app.agree(c.yesFlag, fmt.Sprintf("%s, which reported %s, is refused for ever, with all that is below it. What it counted is kept.", c.Place, reported(child)))
		}
		if err != nil {
			return transport.ForgetReply{}, err
		}
		return client.Forget(ctx, c.Place)
	}, func(r transport.ForgetReply) {
		_, _ = fmt.Fprintf(app.Stdout, "%s is forgotten; what it counted is kept  (%s)\n", r.Child, r.Place)
	})
}

// ForfeitCmd ends what a place was lent.
type ForfeitCmd struct {
	Place string `arg:"" help:"The place, such as eu.de.berlin."`
	yesFlag
	serverFlags
}

// Help is the command's long help.
func (*ForfeitCmd) Help() string {
	return `What a place was lent of budgets and quotas stays its own while it is cut off or down, until it starts again. This ends it:
what was out counts as spent, and is lent to nobody. What the place may still spend, since its lease runs, is forfeited
when that ends.

Examples:

    tributary forfeit eu.de.berlin
    tributary forfeit eu.de.berlin --yes`
}

// Run forfeits.
func (c *ForfeitCmd) Run(app *App) error {
	parent, err := c.ofParent(c.Place)
	if err != nil {
		return err
	}
	return ask(app, parent, func(ctx context.Context, client *transport.Client) (transport.ForfeitReply, error) {
		child, err := knownChild(ctx, client, c.Place)
		if err == nil {
			err = app.agree(c.yesFlag, fmt.Sprintf("All that %s, which reported %s, was lent of budgets and quotas counts as spent, for ever.", c.Place, reported(child)))
		}
		if err != nil {
			return transport.ForfeitReply{}, err
		}
		return client.Forfeit(ctx, c.Place)
	}, func(r transport.ForfeitReply) {
		_, _ = fmt.Fprintf(app.Stdout, "%d shares of %s are forfeited: what was out of them counts as spent  (%s)\n", r.Lines, r.Child, r.Place)
	})
}

// worldName is 16 hexadecimal digits.
type worldName string

// UnmarshalText is what kong calls.
func (w *worldName) UnmarshalText(text []byte) error {
	if n, err := strconv.ParseUint(string(text), 16, 64); err != nil || n == 0 || len(text) != 16 {
		return fmt.Errorf("%q is no world: it is 16 hexadecimal digits, as a place that is refused logs them", text)
	}
	*w = worldName(text)
	return nil
}

// JoinCmd joins a store to a world.
type JoinCmd struct {
	World worldName `arg:"" help:"The world, 16 hexadecimal digits, as a place that is refused logs them."`
	Force bool      `help:"Join it although places of its present world deal with it: they are cut off." operand:""`
	yesFlag
	clientFlags `set:"at=Place whose store to join. Without it: the root."`
}

// Help is the command's long help.
func (*JoinCmd) Help() string {
	return `A root that lost its disk begins a new world, and the places of the old one refuse it: their log names both. This makes
the root's store a part of theirs. It starts again, is filled by their reports, and lends nothing until leases that the
lost root gave have ended. Of budgets and quotas it does not know what was spent: see reset --left.

A root that has places of its world around it is not the one that lost its disk. It refuses, unless it is forced.

Examples:

    tributary join 1f3a5c7e9b2d4f60
    tributary join 1f3a5c7e9b2d4f60 --yes`
}

// Run joins.
func (c *JoinCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.JoinReply, error) {
		known, err := client.Places(ctx)
		if err == nil {
			err = app.agree(c.yesFlag, c.consequences(known))
		}
		if err != nil {
			return transport.JoinReply{}, err
		}
		return client.Join(ctx, string(c.World), c.Force)
	}, func(r transport.JoinReply) {
		_, _ = fmt.Fprintf(app.Stdout, "the store of %s is of world %s, and the place starts again\n", r.Place, r.World)
	})
}

// consequences says what joining does.
func (c *JoinCmd) consequences(known transport.PlacesReply) string {
	text := fmt.Sprintf("The store of %s becomes a part of world %s. It starts again, lends nothing for a lease, and nothing of budgets and quotas until it is told what is left.", known.Place, c.World)
	for _, p := range known.Places {
		if !p.Forgotten && p.Refused == "" {
			text += fmt.Sprintf("\n%s, which reported %s, is of its present world: it is cut off, with all that is below it.", p.Place, reported(p))
		}
	}
	return text
}
