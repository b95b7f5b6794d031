package main

import (
	"context"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/transport"
)

// RulesGetCmd prints the rules that a place follows.
type RulesGetCmd struct {
	clientFlags `set:"at=Place whose rules to print, such as eu.de.berlin. Without it: the root."`
}

// Help is the command's long help.
func (*RulesGetCmd) Help() string {
	return `Without --at it asks the root. Version 0 means that the place was started with these rules and has not heard of the
root's yet. What is printed is JSON, which is YAML as well: it can be saved, edited and applied.

Examples:

    tributary rules get > rules.yaml
    tributary rules get --at eu.de.berlin --json | jq .version`
}

// Run asks the place.
func (c *RulesGetCmd) Run(app *App) error {
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.RulesReply, error) {
		return client.Rules(ctx)
	}, func(r transport.RulesReply) {
		_, _ = fmt.Fprintf(app.Stdout, "# %s follows version %d of the rules.\n", r.Place, r.Version)
		printSpec(app.Stdout, r.Rules)
	})
}

func printSpec(w io.Writer, spec limiter.Spec) {
	text, err := json.Marshal(spec, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		panic(err) // strings and numbers
	}
	_, _ = fmt.Fprintf(w, "%s\n", text)
}

// RulesApplyCmd makes a file the world's rules.
type RulesApplyCmd struct {
	File        string `arg:"" help:"Rules file, - for stdin."`
	clientFlags `set:"at=Place to ask. Only the root takes rules, and without the flag it is asked."`
}

// Help is the command's long help.
func (*RulesApplyCmd) Help() string {
	return `The rules are checked here, written down at the root under the next version, and flow down from there: a raised limit
holds everywhere after a round trip of the depth, a lowered one after one lease at most. A limit that stays keeps what
was spent of it. Rules that say the same as the root's change nothing.

Examples:

    tributary rules diff rules.yaml
    tributary rules apply rules.yaml`
}

// Run applies the file.
func (c *RulesApplyCmd) Run(app *App) error {
	rules, err := loadRules(c.File)
	if err != nil {
		return err
	}
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.RulesReply, error) {
		return client.ApplyRules(ctx, rules.Spec())
	}, func(r transport.RulesReply) {
		_, _ = fmt.Fprintf(app.Stdout, "version %d of the rules, %d namespaces  (%s)\n", r.Version, len(r.Rules.Namespaces), r.Place)
	})
}

// RulesDiffCmd compares a file with a place's rules.
type RulesDiffCmd struct {
	File        string `arg:"" help:"Rules file, - for stdin."`
	clientFlags `set:"at=Place whose rules to compare with, such as eu.de. Without it: the root."`
}

// Help is the command's long help.
func (*RulesDiffCmd) Help() string {
	return `It prints a line for each change, and nothing where the file says what the place follows already.

Examples:

    tributary rules diff rules.yaml
    tributary rules diff rules.yaml --at eu.de`
}

// rulesDiff is what a diff says.
type rulesDiff struct {
	Place   string           `json:"place"`
	Version uint64           `json:"version"`
	Changes []limiter.Change `json:"changes"`
}

// MarshalJSON is what --json prints.
func (d rulesDiff) MarshalJSON() ([]byte, error) {
	type plain rulesDiff
	return json.Marshal(plain(d))
}

// Run asks the place, and compares.
func (c *RulesDiffCmd) Run(app *App) error {
	rules, err := loadRules(c.File)
	if err != nil {
		return err
	}
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (rulesDiff, error) {
		r, err := client.Rules(ctx)
		if err != nil {
			return rulesDiff{}, err
		}
		theirs, err := limiter.Compile(r.Rules)
		if err != nil {
			return rulesDiff{}, fmt.Errorf("the rules of %s cannot be read: %w", r.Place, err)
		}
		return rulesDiff{r.Place, r.Version, limiter.Diff(theirs, rules)}, nil
	}, func(d rulesDiff) {
		for _, change := range d.Changes {
			_, _ = fmt.Fprintln(app.Stdout, change)
		}
	})
}
