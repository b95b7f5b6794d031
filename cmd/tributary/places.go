package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/tributary-io/tributary/transport"
)

// PlacesCmd looks after the places below one.
type PlacesCmd struct {
	List   PlacesListCmd   `cmd:"" help:"List the places right below one, and how they are."`
	Forget PlacesForgetCmd `cmd:"" help:"Forget a place that left for good, and keep what it counted."`
}

// PlacesListCmd lists places.
type PlacesListCmd struct {
	clientFlags
}

// Help is the command's long help.
func (*PlacesListCmd) Help() string {
	return `Without --at, those below the root.

Examples:

    tributary places list
    tributary places list --at eu.de --json | jq '.places[] | select(.seen_ms > 5000)'`
}

// Run lists.
func (c *PlacesListCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.PlacesReply, error) {
		return client.Places(ctx)
	}, func(r transport.PlacesReply) {
		w := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "PLACE\tREPORTED\tSTARTS\tRULES\tBEHIND\tLINES\t")
		for _, p := range r.Places {
			seen, note := "not yet", p.Refused
			if p.SeenMS >= 0 {
				seen = (time.Duration(p.SeenMS) * time.Millisecond).String() + " ago"
			}
			if p.Forgotten {
				seen = "forgotten"
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\n", p.Place, seen, p.Starts, p.Rules, p.Behind, p.Lines, note)
		}
		_ = w.Flush()
	})
}

// PlacesForgetCmd forgets a place.
type PlacesForgetCmd struct {
	Place string `arg:"" help:"The place, such as eu.de.hamburg."`
	clientFlags
}

// Help is the command's long help.
func (*PlacesForgetCmd) Help() string {
	return `Its parent keeps what it counted, waits for its reports no longer, and refuses it from now on, with all that is below
it: give the next place there another name. Stop it first: a place that still reports is not forgotten.

Examples:

    tributary places forget eu.de.hamburg`
}

// Run forgets.
func (c *PlacesForgetCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.ForgetReply, error) {
		return client.Forget(ctx, c.Place)
	}, func(r transport.ForgetReply) {
		_, _ = fmt.Fprintf(app.Stdout, "%s is forgotten; what it counted is kept  (%s)\n", r.Child, r.Place)
	})
}

// ForfeitCmd ends what a place was lent.
type ForfeitCmd struct {
	Place string `arg:"" help:"The place, such as eu.de.berlin."`
	clientFlags
}

// Help is the command's long help.
func (*ForfeitCmd) Help() string {
	return `What a place was lent of budgets and quotas stays its own while it is cut off or down, until it starts again. This ends it:
what was out counts as spent, and is lent to nobody. What the place may still spend, since its lease runs, is forfeited
when that ends.

Examples:

    tributary forfeit eu.de.berlin`
}

// Run forfeits.
func (c *ForfeitCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.ForfeitReply, error) {
		return client.Forfeit(ctx, c.Place)
	}, func(r transport.ForfeitReply) {
		_, _ = fmt.Fprintf(app.Stdout, "%d shares of %s are forfeited: what was out of them counts as spent  (%s)\n", r.Lines, r.Child, r.Place)
	})
}

// JoinCmd joins a store to a world.
type JoinCmd struct {
	World string `arg:"" help:"The world, 16 hexadecimal digits, as a place that is refused logs them."`
	clientFlags
}

// Help is the command's long help.
func (*JoinCmd) Help() string {
	return `A root that lost its disk begins a new world, and the places of the old one refuse it: their log names both. This makes
the root's store a part of theirs. It starts again, is filled by their reports, and lends nothing until leases that the
lost root gave have ended. Of budgets and quotas it does not know what was spent: see reset --left.

Examples:

    tributary join 1f3a5c7e9b2d4f60`
}

// Run joins.
func (c *JoinCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.JoinReply, error) {
		return client.Join(ctx, c.World)
	}, func(r transport.JoinReply) {
		_, _ = fmt.Fprintf(app.Stdout, "the store of %s is of world %s, and the place starts again\n", r.Place, r.World)
	})
}
