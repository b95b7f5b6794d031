package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// ResetCmd fills a key's limits again.
type ResetCmd struct {
	Key  target  `arg:"" name:"namespace/key" help:"Whose limits to reset, such as api/user-42."`
	Left *amount `help:"How much is left of a budget or quota whose owner lost its disk, and that waits to be told." placeholder:"N" operand:""`
	yesFlag
	clientFlags `set:"at=Place whose limits to reset, such as eu.de.berlin. Without it: the root."`
}

// Help is the command's long help.
func (*ResetCmd) Help() string {
	return `A place resets the limits that it owns: the root those of global scope, and without --at it is asked; a region, country or
city those of its own scope. One that owns none names those that do. Cities that hold a part of the limit hear of it in a
moment. Of a concurrency nothing is reset: its permits are released, or end.

A budget or quota whose owner lost its disk lends nothing, since nobody knows what was spent: --left says how much is
left of it.

Examples:

    tributary reset api/user-42
    tributary reset api/user-42 --at eu.de.berlin
    tributary reset api/user-42 --yes
    tributary reset tokens/tenant-7 --left 120000`
}

// Run resets.
func (c *ResetCmd) Run(app *App) error {
	happens := fmt.Sprintf("All that was spent of the limits of %s that %s owns is forgotten, and can be spent again.", c.Key, cmp.Or(c.At, string(tiers.Root)))
	if c.Left != nil {
		happens = fmt.Sprintf("%s takes it that %d are left of the budgets and quotas of %s that it lost count of.", cmp.Or(c.At, string(tiers.Root)), *c.Left, c.Key)
	}
	return ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.ResetReply, error) {
		if err := app.agree(c.yesFlag, happens); err != nil {
			return transport.ResetReply{}, err
		}
		if c.Left != nil {
			return client.Left(ctx, c.Key.namespace, c.Key.key, int64(*c.Left))
		}
		return client.Reset(ctx, c.Key.namespace, c.Key.key)
	}, func(r transport.ResetReply) {
		for _, limit := range r.Limits {
			_, _ = fmt.Fprintf(app.Stdout, "%s  %s  reset  (%s)\n", c.Key, limit, r.Place)
		}
	})
}
