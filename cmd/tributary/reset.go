package main

import (
	"context"
	"fmt"

	"github.com/tributary-io/tributary/transport"
)

// ResetCmd fills a key's limits again.
type ResetCmd struct {
	Key target `arg:"" name:"namespace/key" help:"Whose limits to reset, such as api/user-42."`
	clientFlags
}

// Help is the command's long help.
func (*ResetCmd) Help() string {
	return `A place resets the limits that it owns: the root those of global scope, and without --at it is asked; a region, country or
city those of its own scope. One that owns none names those that do. Cities that hold a part of the limit hear of it in a
moment. Of a concurrency nothing is reset: its permits are released, or end.

Examples:

    tributary reset api/user-42
    tributary reset api/user-42 --at eu.de.berlin`
}

// Run resets.
func (c *ResetCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.ResetReply, error) {
		return client.Reset(ctx, c.Key.namespace, c.Key.key)
	}, func(r transport.ResetReply) {
		for _, limit := range r.Limits {
			_, _ = fmt.Fprintf(app.Stdout, "%s  %s  reset  (%s)\n", c.Key, limit, r.Place)
		}
	})
}
