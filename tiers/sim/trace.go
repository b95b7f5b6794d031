package sim

import (
	"fmt"
	"strings"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// What messages look like in a trace.

func showReport(r *tiers.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d session %016x number %d changes (%d,%d]", r.Sequence, r.Session, r.Number, r.From, r.To)
	for _, c := range r.Counts {
		fmt.Fprintf(&b, " %s%s", c.Name, showPairs(c.Pairs))
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&b, " %s line %d returned %s", l.Name, l.Line, showShare(l.Returned.Tokens, l.Returned.Capacity, l.Returned.Rate))
		if l.Ended {
			b.WriteString(" ended")
		}
		fmt.Fprintf(&b, " wants %d/%d asks %d", l.Demand.Now, l.Demand.Peak, l.Demand.Ask)
	}
	if r.Bye {
		b.WriteString(" bye")
	}
	return b.String()
}

func showPairs(pairs []tiers.Pair) string {
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, " %04x:+%d-%d", p.Session>>48, p.Added, p.Removed)
	}
	return b.String()
}

func showShare(tokens, capacity, rate int64) string {
	return fmt.Sprintf("%d/%d +%d", tokens, capacity, rate)
}

func showAck(to tiers.Place, a *tiers.Ack) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s #%d number %d up to %d pause %s", to, a.Sequence, a.Number, a.Acked, a.Pause)
	if a.Refused != "" {
		fmt.Fprintf(&b, " REFUSED %s", a.Refused)
	}
	if a.Fenced {
		b.WriteString(" FENCED")
	}
	for _, c := range a.Pairs {
		fmt.Fprintf(&b, " back %s%s", c.Name, showPairs(c.Pairs))
	}
	showGrants(&b, a.Lines)
	return b.String()
}

func showGrants(b *strings.Builder, lines []tiers.Grant) {
	for _, g := range lines {
		fmt.Fprintf(b, " %s line %d lent %s for %s", g.Name, g.Line, showShare(g.Lent.Tokens, g.Lent.Capacity, g.Lent.Rate), g.Lease)
		if !g.Keep.All {
			fmt.Fprintf(b, " keep %d +%d", g.Keep.Capacity, g.Keep.Rate)
		}
	}
}

func showRecall(to tiers.Place, r *tiers.Recall) string {
	var b strings.Builder
	b.WriteString(string(to))
	fmt.Fprintf(&b, " #%d", r.Sequence)
	showGrants(&b, r.Lines)
	return b.String()
}

// showNamespace is what rules say of a namespace.
func showNamespace(spec limiter.Spec, name string) string {
	ns, there := spec.Namespaces[name]
	if !there {
		return "gone"
	}
	var limits []string
	for _, l := range ns.Limits {
		figure := l.Rate + l.Quota
		for kind, n := range map[string]*int64{" budget": l.Budget, " concurrency": l.Concurrency, " burst": l.Burst} {
			if n != nil {
				figure += fmt.Sprint(kind, " ", *n)
			}
		}
		limits = append(limits, l.Scope+" "+strings.TrimSpace(figure))
	}
	return strings.Join(limits, ", ")
}
