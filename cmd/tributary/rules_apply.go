package main

import (
	"context"
	"fmt"
	"io"
	"strings"

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

// rulesDiff is what a file would change at a place.
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

// print prints a line for each change.
func (d *rulesDiff) print(w io.Writer) {
	for _, change := range d.Changes {
		_, _ = fmt.Fprintln(w, change)
	}
}

// losses says what is lost by the changes, in words; nothing where nothing is.
func (d *rulesDiff) losses() string {
	var namespaces, limits, forgotten int
	gone := map[string]bool{}
	for _, c := range d.Changes {
		switch {
		case c.New != "":
		case c.What == "namespace":
			namespaces++
			gone[c.Namespace] = true
		case c.What == "limit" && !gone[c.Namespace]:
			limits++
		}
		if c.Forgets {
			forgotten++
		}
	}
	var lost []string
	say := func(n int, one, more string) {
		switch {
		case n == 1:
			lost = append(lost, one)
		case n > 1:
			lost = append(lost, fmt.Sprintf(more, n))
		}
	}
	say(namespaces, "1 namespace is removed, and answered with 404", "%d namespaces are removed, and answered with 404")
	say(limits, "1 limit is removed from a namespace that stays", "%d limits are removed from namespaces that stay")
	say(forgotten, "what was spent of 1 limit is forgotten", "what was spent of %d limits is forgotten")
	if len(lost) == 0 {
		return ""
	}
	text := strings.Join(lost, "; ") + "."
	return strings.ToUpper(text[:1]) + text[1:]
}

// diffRules compares rules with those of the client's place.
func diffRules(ctx context.Context, client *transport.Client, rules *limiter.Rules) (rulesDiff, error) {
	r, err := client.Rules(ctx)
	if err != nil {
		return rulesDiff{}, err
	}
	theirs, err := limiter.Compile(r.Rules)
	if err != nil {
		return rulesDiff{}, fmt.Errorf("the rules of %s cannot be read: %w", r.Place, err)
	}
	return rulesDiff{r.Place, r.Version, limiter.Diff(theirs, rules)}, nil
}

// RulesApplyCmd makes a file the world's rules.
type RulesApplyCmd struct {
	File      string  `arg:"" help:"Rules file, - for stdin."`
	IfVersion *uint64 `help:"Apply it only where the root's rules are of this version, as 'rules diff --json' and 'rules get' say. Without it: of the version that it compared the file with." placeholder:"N" operand:""`
	yesFlag
	clientFlags `set:"at=Place to ask. Only the root takes rules, and without the flag it is asked."`
}

// Help is the command's long help.
func (*RulesApplyCmd) Help() string {
	return `The file is all of the rules: a namespace that it lacks is removed. What it changes is shown first. Where a namespace or
a limit is removed, or what was spent is forgotten, it asks on a terminal, and elsewhere needs --yes. Rules that somebody
else has changed since they were compared are not overwritten: that is an error (409 conflict).

The rules are checked here, written down at the root under the next version, and flow down from there: a raised limit
holds everywhere after a round trip of the depth, a lowered one after one lease at most. A limit that stays keeps what
was spent of it. Rules that say the same as the root's change nothing.

Examples:

    tributary rules diff rules.yaml
    tributary rules apply rules.yaml
    tributary rules apply rules.yaml --if-version 7 --yes
    generate-rules | tributary rules apply - --yes`
}

// Run applies the file.
func (c *RulesApplyCmd) Run(app *App) error {
	file, rules, err := app.loadRules(c.File)
	if err != nil {
		return err
	}
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.RulesReply, error) {
		diff, err := diffRules(ctx, client, rules)
		if err != nil {
			return transport.RulesReply{}, err
		}
		if c.IfVersion != nil && *c.IfVersion != diff.Version {
			return transport.RulesReply{}, transport.ErrConflict.Errorf("the rules of %s are of version %d, not %d: see what is different with 'tributary rules diff %s'", diff.Place, diff.Version, *c.IfVersion, c.File)
		}
		out := app.Stdout
		if c.JSON {
			out = app.Stderr // what was asked for is the answer
		}
		diff.print(out)
		if losses := diff.losses(); losses != "" {
			if err := app.agree(c.yesFlag, fmt.Sprintf("%s becomes the rules of the whole world. %s", file, losses)); err != nil {
				return transport.RulesReply{}, err
			}
		}
		return client.ApplyRulesIf(ctx, diff.Version, rules.Spec())
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
    tributary rules diff rules.yaml --at eu.de
    tributary rules diff rules.yaml --json | jq .version`
}

// Run asks the place, and compares.
func (c *RulesDiffCmd) Run(app *App) error {
	_, rules, err := app.loadRules(c.File)
	if err != nil {
		return err
	}
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (rulesDiff, error) {
		return diffRules(ctx, client, rules)
	}, func(d rulesDiff) { d.print(app.Stdout) })
}
