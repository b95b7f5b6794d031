package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// The answers as people read them. What a place says in full is in --json.

func printCheck(w io.Writer, r transport.CheckReply) {
	limit := r.Scope
	if r.Kind != "" {
		limit += " " + r.Kind
	}
	limit += fmt.Sprintf(" %d", r.Limit)
	text := "allowed  no limits"
	switch {
	case r.Shadow:
		text = "allowed  by its rule, which only looks on: " + whyDenied(r.Reason) + " (" + limit + ")"
	case r.Allowed && r.Scope != "":
		text = fmt.Sprintf("allowed  %s, %d remaining here", limit, r.Remaining)
	case !r.Allowed:
		text = "denied   " + whyDenied(r.Reason) + " (" + limit + ")"
		if r.Reason == transport.DeniedBurst || r.Reason == transport.DeniedSpent {
			text += ", never retry"
		} else if r.RetryAfter > 0 {
			text += ", retry in " + waitFor(r.RetryAfter)
		}
	}
	_, _ = fmt.Fprintf(w, "%s  (%s)\n", text, r.Place)
	if r.Permit != "" {
		_, _ = fmt.Fprintf(w, "permit   %s, held for %s\n", r.Permit, limiter.FormatDuration(r.Hold))
	}
}

func printRelease(w io.Writer, r transport.ReleaseReply) {
	text := "released"
	switch {
	case !r.Done:
		text = "there is no such permit, or not any more"
	case r.Renew:
		text = "renewed"
	}
	_, _ = fmt.Fprintf(w, "%s  (%s)\n", text, r.Place)
}

func printRefund(w io.Writer, key target, r transport.RefundReply) {
	_, _ = fmt.Fprintf(w, "%s  %d refunded  (%s)\n", key, r.Refunded, r.Place)
}

func whyDenied(reason string) string {
	switch reason {
	case transport.DeniedLimit:
		return "limit is spent"
	case transport.DeniedShare:
		return "no share of the limit is here"
	case transport.DeniedBurst:
		return "more hits than the limit ever holds"
	case transport.DeniedSpent:
		return "too little is left of the budget"
	}
	return reason // a place newer than this client has more
}

func printAdd(w io.Writer, key target, r transport.AddReply) {
	_, _ = fmt.Fprintf(w, "%s  %s  (%s)\n", key, r.Total, r.Place)
}

func printGet(w io.Writer, key target, r transport.GetReply) {
	_, _ = fmt.Fprintf(w, "%s  %s  (%s)\n", key, r.Total, r.Place)
	if len(r.Views) == 0 {
		if r.Place != string(tiers.Root) {
			note := "no view of the tiers above has come yet; this asked for them: ask again"
			if r.Unwatched {
				note = "no view of the tiers above comes: more keys are asked for than a place watches, each in turn"
			}
			_, _ = fmt.Fprintln(w, "\n"+note)
		}
		return
	}
	rows := [][]string{{"place", "total", "age", "behind"}}
	for _, v := range r.Views {
		rows = append(rows, []string{v.Place, v.Total.String(), milliseconds(v.Age), strconv.Itoa(v.Behind)})
	}
	_, _ = fmt.Fprintln(w)
	printTable(w, rows)
	if r.Unwatched {
		_, _ = fmt.Fprintln(w, "\nnot all of them are kept up to date: more keys are asked for than a place watches, each in turn")
	}
}

func printList(w, notes io.Writer, namespace string, r transport.ListReply) {
	if len(r.Keys) == 0 {
		_, _ = fmt.Fprintf(notes, "no keys of %s  (%s)\n", namespace, r.Place)
		return
	}
	rows := make([][]string, len(r.Keys))
	for i, k := range r.Keys {
		rows[i] = []string{k.Key, k.Total.String()}
	}
	printTable(w, rows)
	if r.More {
		_, _ = fmt.Fprintf(notes, "more follow: --after %s\n", shellQuote(r.Keys[len(r.Keys)-1].Key))
	}
}

// printTable aligns the first column to the left, and the figures after it to the right.
func printTable(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			fmt.Fprintf(&b, "  %*s", widths[i+1], cell)
		}
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(w, b.String())
}

// shellQuote is a word as a shell takes it.
func shellQuote(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./:@%+=,", c)
	}
	if s != "" && !strings.ContainsFunc(s, func(c rune) bool { return !plain(c) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// waitFor is a duration for people who wait for its end: it is not told shorter than it is.
func waitFor(d time.Duration) string {
	unit := time.Second
	if d <= 10*time.Second-time.Millisecond {
		unit = time.Millisecond
	}
	return milliseconds((d + unit - 1).Truncate(unit))
}

// milliseconds is a duration for people.
func milliseconds(d time.Duration) string {
	if d < 10*time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return d.Round(time.Second).String()
}
