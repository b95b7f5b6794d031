package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-io/tributary/transport"
)

// ExplainCmd says why a check is denied.
type ExplainCmd struct {
	Key         target `arg:"" name:"namespace/key" help:"What to explain, such as api/user-42."`
	Hits        amount `help:"Of how many hits the check would be." default:"1" placeholder:"N" operand:""`
	clientFlags `set:"at=Place to explain it at, such as eu.de.berlin. It is needed."`
}

// Help is the command's long help.
func (*ExplainCmd) Help() string {
	return `It says how the city that --at names would answer a check that does not wait, and why: for each limit, what the city has
of it, and what each place above lends to the one below. No check is carried out. --at may name a place above, too: then
there is no verdict.

    holds    what the place has of the limit, lent on or not: how much at once, and what it gains
    here     tokens that are there now, of how many
    lease    how long it may use them unless the place above renews that
    wanted   what checks asked for at and below the place, of late at most, and how many tokens they wait for
    lends    what of it the place below has, and for how long that is reserved

Examples:

    tributary explain api/user-42 --at eu.de.berlin
    tributary explain api/user-42 --at eu.de.berlin --hits 100 --json | jq .path[0].verdict`
}

// Run asks.
func (c *ExplainCmd) Run(app *App) error {
	if c.At == "" {
		return transport.ErrOutOfRange.Errorf("--at is missing: what there is to explain differs from place to place; name a city, such as --at eu.de.berlin")
	}
	return ask(app, c.about(c.Key.namespace), func(ctx context.Context, client *transport.Client) (transport.Explanation, error) {
		return client.Explain(ctx, c.Key.namespace, c.Key.key, int64(c.Hits))
	}, func(e transport.Explanation) { printExplanation(app.Stdout, &e) })
}

func printExplanation(w io.Writer, e *transport.Explanation) {
	first := e.Path[0]
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s at %s: %s\n", e.Namespace, e.Key, first.Place, verdict(e))
	fmt.Fprintf(&b, "\nversion %d of the rules\n", first.Version)
	for _, note := range placeNotes(e) {
		fmt.Fprintln(&b, note)
	}
	for i := range first.Limits {
		limit := first.Limits[i].Limit
		fmt.Fprintf(&b, "\n%s\n\n", limit)
		rows := [][]string{{"place", "holds", "here", "lease", "wanted", "lends", "for"}}
		var notes []string
		for n, p := range e.Path {
			if l := limitAt(p, limit); l != nil {
				rows = append(rows, limitRow(p.Place, l, n == 0))
				notes = append(notes, limitNotes(p.Place, l)...)
			}
		}
		table(&b, rows)
		if len(notes) > 0 {
			fmt.Fprintf(&b, "\n%s\n", strings.Join(notes, "\n"))
		}
	}
	_, _ = io.WriteString(w, b.String())
}

// verdict is how a check would be answered, in one sentence.
func verdict(e *transport.Explanation) string {
	p := e.Path[0]
	v := p.Verdict
	switch {
	case len(p.Rule.Limits) == 0:
		return "every check is allowed: " + e.Namespace + " has no limits"
	case v == nil && len(p.Limits) == 0:
		return "no limit of " + e.Namespace + " is lent or owned here: each place below owns its own"
	case v == nil:
		return "no check is decided here, this place lends to those below"
	}
	l := &p.Limits[v.Limit]
	check := fmt.Sprintf("a check of %d is ", v.Hits)
	switch {
	case !v.Allowed:
		return fmt.Sprintf("%sdenied: %s (%s): %s", check, v.Reason, l.Limit, whyNot(e, l))
	case v.Shadow:
		return fmt.Sprintf("%sallowed by its rule, which only looks on; else denied: %s (%s): %s", check, v.Reason, l.Limit, whyNot(e, l))
	}
	return fmt.Sprintf("%sallowed: nearest is %s, %d left here", check, l.Limit, v.Remaining)
}

// whyNot says why a limit has not what is asked for.
func whyNot(e *transport.Explanation, l *transport.LimitExplanation) string {
	p := e.Path[0]
	v := p.Verdict
	what := "the share here"
	if l.Owner == p.Place {
		what = "the limit"
	}
	switch v.Reason {
	case transport.DeniedBurst:
		return "it never holds so many, never retry"
	case transport.DeniedSpent:
		return fmt.Sprintf("%s has %d tokens, and gains none, never retry", what, l.Here.Tokens)
	case transport.DeniedLimit:
		text := fmt.Sprintf("%s has %d of %d tokens", what, l.Here.Tokens, l.Here.Capacity)
		switch {
		case l.Spent:
			text += ", and its owner has no more"
		case v.RetryAfterMS > 0:
			text += ", enough in " + waitFor(time.Duration(v.RetryAfterMS)*time.Millisecond)
		case l.Out > 0:
			text += fmt.Sprintf(", %d are out", l.Out)
		case v.Waits:
			text += ", more is asked for"
		}
		return text
	case transport.DeniedShare:
		text := "no share of it is here: " + whyNoShare(e, l)
		if v.Waits {
			text += "; a check that may wait asks for it, and waits"
		}
		return text
	}
	return "for a reason that this program does not know"
}

// whyNoShare looks up the path for what keeps a share away.
func whyNoShare(e *transport.Explanation, l *transport.LimitExplanation) string {
	p := e.Path[0]
	switch {
	case p.Fenced:
		return "a newer process serves this place"
	case p.Refused != "":
		return "the parent refuses this place's reports"
	}
	for _, above := range e.Path {
		at := limitAt(above, l.Limit)
		switch {
		case above.Unanswered != "":
			return above.Place + " does not answer"
		case at == nil:
		case at.NeedsReset:
			return above.Place + " lost its disk, and does not know what is left; tributary reset says that all is"
		case at.SilentMS > 0:
			return fmt.Sprintf("%s was not stopped cleanly, and lends nothing for %s", above.Place, fromMS(at.SilentMS))
		}
	}
	switch {
	case p.Unconfirmed:
		return "the parent has not confirmed yet that this place is the only one of its name"
	case l.Spent:
		return "its owner has no more"
	case l.Borrowed != nil:
		return "its lease is over"
	case !p.Awake:
		return "nobody asked for it lately"
	}
	return "it is asked for"
}

// placeNotes say what is odd at the places of the path.
func placeNotes(e *transport.Explanation) (notes []string) {
	for i, p := range e.Path {
		switch {
		case p.Unanswered != "":
			notes = append(notes, p.Place+" does not answer: "+p.Unanswered)
			continue
		case p.Fenced:
			notes = append(notes, p.Place+" is fenced: a newer process serves it")
		case p.Refused != "":
			notes = append(notes, p.Place+": the parent refuses its reports: "+p.Refused)
		case p.Unconfirmed:
			notes = append(notes, p.Place+" has not heard from its parent yet")
		}
		if v := e.Path[0].Version; p.Version != v {
			notes = append(notes, fmt.Sprintf("%s follows version %d of the rules", p.Place, p.Version))
		}
		if i == 0 && !p.Awake && len(p.Limits) > 0 {
			notes = append(notes, "the key was not in memory at "+p.Place+": its own limits are as full as its disk says, and of others it holds nothing")
		}
	}
	return notes
}

func limitAt(p transport.PlaceExplanation, limit string) *transport.LimitExplanation {
	if p.ExplainReply == nil {
		return nil
	}
	i := slices.IndexFunc(p.Limits, func(l transport.LimitExplanation) bool { return l.Limit == limit })
	if i < 0 {
		return nil
	}
	return &p.Limits[i]
}

// limitRow is what one place has of a limit, and lends to the one below it.
func limitRow(place string, l *transport.LimitExplanation, first bool) []string {
	share := func(s transport.ShareFigures) string {
		text := strconv.FormatInt(s.Capacity, 10)
		if s.Rate > 0 {
			text += " +" + perPeriod(s.Rate, l.PeriodMS)
		}
		return text
	}
	row := []string{place, share(l.Holds), fmt.Sprintf("%d of %d", l.Here.Tokens, l.Here.Capacity), "owner", "nothing", "", ""}
	switch {
	case l.Owner == place:
	case l.Borrowed == nil:
		row[3] = "none"
	case l.Borrowed.Ended || l.Borrowed.LeaseMS == 0:
		row[3] = "over"
	default:
		row[3] = fromMS(l.Borrowed.LeaseMS)
	}
	if d := l.Demand; d.Now > 0 || d.Peak > 0 || d.Ask > 0 {
		row[4] = perPeriod(max(d.Now, d.Peak), max(l.PeriodMS, 1000))
		switch asks := fmt.Sprintf("waits for %d", d.Ask); {
		case d.Ask > 0 && d.Now == 0 && d.Peak == 0:
			row[4] = asks
		case d.Ask > 0:
			row[4] += ", " + asks
		}
	}
	if first {
		return row
	}
	row[5] = "nothing"
	if n := len(l.Lines); n > 0 { // the newest session's, if an older one's has not ended yet
		line := &l.Lines[n-1]
		row[5], row[6] = share(line.Lent), fromMS(line.LeaseMS)
	}
	return row
}

// limitNotes say what else there is to say of a limit at a place.
func limitNotes(place string, l *transport.LimitExplanation) (notes []string) {
	note := func(format string, args ...any) { notes = append(notes, place+": "+fmt.Sprintf(format, args...)) }
	if r := l.Recall; r != nil {
		what := "there is more to be had"
		if r.Keep != nil {
			what = fmt.Sprintf("keep %d", r.Keep.Capacity)
			if l.PeriodMS > 0 {
				what += " +" + perPeriod(r.Keep.Rate, l.PeriodMS)
			}
		}
		note("the last recall came %s ago, of %d: %s", fromMS(r.AgoMS), r.Count, what)
	}
	if l.Waiting > 0 {
		note("%d checks wait", l.Waiting)
	}
	if l.Out > 0 {
		note("%d permits are out", l.Out)
	}
	if n := l.Children - len(l.Lines); n > 0 {
		note("it lends to others too, %d in all", l.Children)
	}
	if l.Pooled {
		note("too little to be divided: it lends single tokens to those that ask")
	}
	if l.SilentMS > 0 {
		note("it was not stopped cleanly, and lends nothing for %s", fromMS(l.SilentMS))
	}
	if l.NeedsReset {
		note("its disk was lost, so it does not know what is left; tributary reset says that all is")
	}
	if !l.Window.IsZero() {
		note("the window began at %s", l.Window.Format(time.RFC3339))
	}
	return notes
}

// perPeriod is a rate as rules write it.
func perPeriod(n, periodMS int64) string {
	return fmt.Sprintf("%d/%s", n, periodName(time.Duration(periodMS) * time.Millisecond)[:1])
}

func fromMS(ms int64) string { return milliseconds(time.Duration(ms) * time.Millisecond) }

// table prints rows aligned, without blanks at their ends, and without the columns that only their head has.
func table(b *strings.Builder, rows [][]string) {
	for last := len(rows[0]) - 1; !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[last] != "" }); last-- {
		for i := range rows {
			rows[i] = rows[i][:last]
		}
	}
	var text strings.Builder
	printTable(&text, rows)
	for line := range strings.Lines(text.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}
