package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// PlacesCmd looks after the places below one.
type PlacesCmd struct {
	List   PlacesListCmd   `cmd:"" help:"List the places right below one, or all of the world, and how they are." group:"look"`
	Tree   PlacesTreeCmd   `cmd:"" help:"Show the places of the whole world as a tree, and how they are." group:"look"`
	Forget PlacesForgetCmd `cmd:"" help:"Forget a place that left for good, and keep what it counted." group:"operate"`
}

// PlacesListCmd lists places.
type PlacesListCmd struct {
	All         bool `help:"Ask every place for those below it, and list all." operand:""`
	clientFlags `set:"at=Place whose children to list, such as eu.de. Without it: the root."`
}

// Help is the command's long help.
func (*PlacesListCmd) Help() string {
	return `What is listed of a place is what the one above it knows:

    reported    when it reported last
    starts      how often it was started
    rules       the version of the rules that it follows
    lag         how old the newest total is of which the place above has all
    behind      how many places below it hold its totals back
    lines       how many shares it is lent

With --all, every place says itself what is below it, and a state says whether it does: see 'tributary places tree --help'.

Examples:

    tributary places list
    tributary places list --at eu.de --json | jq '.places[] | select(.seen_ms > 5000)'
    tributary places list --all`
}

// Run lists.
func (c *PlacesListCmd) Run(app *App) error {
	if c.All {
		return askWorld(app, &c.clientFlags, func(placeState) string { return "" })
	}
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.PlacesReply, error) {
		return client.Places(ctx)
	}, func(r transport.PlacesReply) {
		w := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "PLACE\tREPORTED\tSTARTS\tRULES\tLAG\tBEHIND\tLINES\t")
		for _, p := range r.Places {
			seen := reported(p)
			if p.Forgotten {
				seen = "forgotten"
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%s\n", p.Place, seen, p.Starts, p.Rules, lag(p), p.Behind, p.Lines, p.Refused)
		}
		_ = w.Flush()
	})
}

// lag is how old the newest total is of which the place above has all, for people.
func lag(p transport.ChildPlace) string {
	if p.LagMS < 0 {
		return "-"
	}
	return (time.Duration(p.LagMS) * time.Millisecond).String()
}

// PlacesTreeCmd shows the world.
type PlacesTreeCmd struct {
	clientFlags `set:"at=Place to begin with, such as eu. Without it: the root."`
}

// Help is the command's long help.
func (*PlacesTreeCmd) Help() string {
	return `Every place is asked for those below it. The state says how it answers, the rest is what the place above knows of it:

    state       serves; away (nobody listens there); silent (no answer came within --timeout); failing (it answers with an
                error); refused (the place above takes none of its reports); forgotten
    reported    when it reported last to the place above
    rules       the version of the rules that it follows
    lag         how old the newest total is of which the place above has all
    behind      how many places below it hold its totals back

It exits with 0 also where places are away: --json is for those who look for them.

Examples:

    tributary places tree
    tributary places tree --at eu
    tributary places tree --json | jq -r '.places[] | select(.state != "serves") | .place'`
}

// Run shows.
func (c *PlacesTreeCmd) Run(app *App) error {
	return askWorld(app, &c.clientFlags, func(p placeState) string { return p.branch })
}

// The states of a place.
const (
	stateServes    = "serves"
	stateAway      = "away"
	stateSilent    = "silent"
	stateFailing   = "failing"
	stateRefused   = "refused"
	stateForgotten = "forgotten"
)

// placeState is what is known of a place: by itself, and by the one above.
type placeState struct {
	transport.ChildPlace
	State string `json:"state"`
	Note  string `json:"note,omitzero"` // why it is not stateServes

	branch string // as the tree shows it
	below  []placeState
}

// worldState is what was found out, parents before children.
type worldState struct {
	Places []placeState `json:"places"`
	// Partial: there are more places than are asked.
	Partial bool `json:"partial,omitzero"`
}

// MarshalJSON is what --json prints.
func (w worldState) MarshalJSON() ([]byte, error) {
	type plain worldState
	return json.Marshal(plain(w), json.Deterministic(true))
}

// askWorld shows how the places are from one on downwards, each after its branch.
func askWorld(app *App, f *clientFlags, branch func(placeState) string) error {
	return ask(app, f, func(ctx context.Context, client *transport.Client) (worldState, error) {
		top, err := client.Places(ctx) // if nobody is there, it is said as everywhere
		if err != nil {
			return worldState{}, err
		}
		s := &surveyor{client: client, turns: make(chan struct{}, maxAsked), left: maxPlaces}
		root := placeState{ChildPlace: transport.ChildPlace{Place: top.Place, SeenMS: -1, LagMS: -1, Rules: top.Rules}, State: stateServes}
		s.survey(ctx, &root, top)
		s.asked.Wait()
		w := worldState{Partial: s.left < 0}
		root.gather(&w.Places, "", "")
		return w, ctx.Err()
	}, func(w worldState) { w.print(app.Stdout, branch) })
}

func (w worldState) print(out io.Writer, branch func(placeState) string) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "PLACE\tSTATE\tREPORTED\tRULES\tLAG\tBEHIND\t")
	for i, p := range w.Places {
		seen := reported(p.ChildPlace)
		if i == 0 {
			seen = "-" // to a place that was not asked, or to none
		}
		_, _ = fmt.Fprintf(t, "%s%s\t%s\t%s\t%d\t%s\t%d\t%s\n", branch(p), p.Place, p.State, seen, p.Rules, lag(p.ChildPlace), p.Behind, p.Note)
	}
	_ = t.Flush()
	if w.Partial {
		_, _ = fmt.Fprintf(out, "\nThere are more: only %d places are asked. Name one with --at.\n", maxPlaces)
	}
}

// gather lists a place, and all below it, with their branches.
func (p *placeState) gather(all *[]placeState, branch, below string) {
	p.branch = branch
	*all = append(*all, *p)
	for i := range p.below {
		if i == len(p.below)-1 {
			p.below[i].gather(all, below+"└─ ", below+"   ")
		} else {
			p.below[i].gather(all, below+"├─ ", below+"│  ")
		}
	}
}

const (
	// maxAsked is how many places are asked at the same time.
	maxAsked = 32
	// maxPlaces is how many are asked at all.
	maxPlaces = 10_000
)

// surveyor asks places for those below them, some at a time.
type surveyor struct {
	client *transport.Client
	turns  chan struct{}
	asked  sync.WaitGroup
	mu     sync.Mutex
	left   int // how many more may be asked; -1: there were more
}

// survey notes what a place says of those below it, and asks each of them.
func (s *surveyor) survey(ctx context.Context, p *placeState, reply transport.PlacesReply) {
	s.mu.Lock()
	children := slices.DeleteFunc(slices.Clone(reply.Places), func(c transport.ChildPlace) bool {
		name, err := tiers.ParsePlace(c.Place) // a place may say what it likes, and the tree stays one
		return err != nil || name == tiers.Root || string(name.Parent()) != p.Place
	})
	if len(children) > s.left {
		children, s.left = children[:max(0, s.left)], -1
	} else {
		s.left -= len(children)
	}
	s.mu.Unlock()
	p.below = make([]placeState, len(children))
	for i, child := range children {
		c := &p.below[i]
		if c.ChildPlace = child; child.Forgotten {
			c.State = stateForgotten
			continue
		}
		s.asked.Go(func() { s.ask(ctx, c) })
	}
}

// ask asks one place.
func (s *surveyor) ask(ctx context.Context, p *placeState) {
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	reply, err := s.client.At(p.Place).Places(ctx)
	refusal, refused := errors.AsType[*transport.Error](err)
	switch {
	case err == nil && p.Refused != "":
		p.State, p.Note, p.Rules = stateRefused, p.Refused, reply.Rules
	case err == nil:
		p.State, p.Rules = stateServes, reply.Rules
	case errors.Is(err, transport.ErrNoResponders):
		p.State, p.Note = stateAway, "nobody listens"
	case refused:
		p.State, p.Note = stateFailing, refusal.Message
	default:
		p.State, p.Note = stateSilent, "no answer came in time"
	}
	if err == nil {
		s.survey(ctx, p, reply)
	}
}
