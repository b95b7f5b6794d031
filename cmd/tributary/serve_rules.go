package main

import (
	"fmt"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/cmd/tributary/internal/world"
	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// startRules are the rules of places whose stores have none: those of the file, or the built-in ones.
func (c *ServeCmd) startRules() (*limiter.Rules, error) {
	if c.Rules == "" {
		return defaultRules(), nil
	}
	return loadRules(c.Rules)
}

// source is where the start's rules are from, for people.
func (c *ServeCmd) source() string {
	if c.Rules == "" {
		return "built in; see them with: tributary rules check"
	}
	return c.Rules
}

// sayRules logs which rules each place follows, and why those. It returns where the rules of the place nearest to the
// root are from, and whether they are those of the start.
func (c *ServeCmd) sayRules(log zerolog.Logger, w *world.World, start *limiter.Rules) (source string, starts bool) {
	source, starts = c.source(), true
	for i, n := range w.Nodes() { // parents first
		p := n.Running()
		if p == nil {
			continue // it broke meanwhile, and says so itself
		}
		rules, version := p.Runner().Rules()
		e, why := log.Info(), "follows the rules that it was started with, until it hears of the root's"
		same := rules.Hash == start.Hash
		switch {
		case version > 0 && same:
			why = "follows the root's rules, which are those that it was started with"
		case version > 0 && c.Rules == "":
			why = "follows the rules in its store; the built-in ones are for a new world"
		case version > 0:
			why = "follows the rules in its store; those of --rules are others, and are for a store without any"
			if n.Place == tiers.Root {
				e = log.Warn().Int("changes", len(limiter.Diff(rules, start)))
				why = fmt.Sprintf("follows the rules in its store, which --rules %s does not change: see 'tributary rules diff %s', and make it the world's with 'tributary rules apply %s'", c.Rules, c.Rules, c.Rules)
			}
		}
		e.Str("place", string(n.Place)).Uint64("version", version).Int("namespaces", len(rules.Namespaces())).Msg(why)
		if i == 0 && version > 0 && !same {
			source, starts = fmt.Sprintf("version %d, from the store; see them with: tributary rules get --at %s", version, n.Place), false
		}
	}
	return source, starts
}
