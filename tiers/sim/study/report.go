package study

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A class is cells that use less than they could for one reason.
type class struct {
	name, reason string
	has          func(*Result) bool
}

// few is how many whole tokens a city's part must have to be cut off: see
// leastPart in tiers/lend.go.
const few = 40

// partGains is for how long what a part gains counts as its own, as there.
const partGains = 5 * time.Second

// classes are looked at in order: the first that has a cell is its class. The
// reasons are of the design, not of a run: which cells are below 95 %, and by
// how much, is measured.
var classes = []class{
	{
		"Nothing is lost by distance",
		"One bucket in one place admits no more of the same checks: they are few, at 5/min a token is 2.5 % of what is admitted in the time measured, and some come while the bucket is empty, or too late to spend what it has gained.",
		func(r *Result) bool {
			return r.Tributary.Utilisation >= r.One.Utilisation && r.Tributary.Early >= r.One.Early
		},
	},
	{
		"Few whole tokens for each city that asks",
		"With what they gain in 5 s, there are less than about 40 tokens for each city. Such a limit stays pooled above, and whole tokens are lent to single checks, which wait for them: an ask takes one message for each tier up, its token one for each tier down, and what can hold the next one comes back as it went. In five tiers that is 8 messages until a check is admitted, of 11 ms in the mean, and a report that is under way holds up the next.",
		func(r *Result) bool { return r.part() < few },
	},
	{
		"Demand that moves",
		"Law 3 speaks of steady demand. When demand moves, rate has to be given back where it was and lent where it is asked for, tier by tier, and what is under way refills nobody; what a city no longer asks for is found out over some windows of its meter, 250 ms each.",
		func(r *Result) bool { return !r.Shape.Steady() },
	},
	{
		"Cities that differ",
		"Law 3 is kept: what is lost is a part of the first burst. Which cities have enough and which go short shows when each was heard for some windows of its meter; until then, the first burst is lent by what the first windows say, and what cities hold of it that have enough comes back to those that go short tier by tier. Utilisation after that is in the table of all cells.",
		func(r *Result) bool { return r.Shape == Zipf },
	},
	{"Unexplained", "No class of the study has these cells.", func(*Result) bool { return true }},
}

// part is what a city's equal part of the limit is worth, in tokens.
func (c *Cell) part() int64 {
	l := &c.Limit.rules().Rule(key.Namespace).Limits[0]
	return (l.Burst + int64(float64(l.Rate)*partGains.Seconds()/l.Period.Seconds())) / c.askers()
}

const enough = 0.95

// low says that less than enough is used, from some time on.
func (r *Result) low() bool { return min(r.Tributary.Utilisation, r.Tributary.Early) < enough }

// A Document is a study, written down.
type Document struct {
	Seed    uint64
	Results []Result
}

// Write writes it as Markdown.
func (d *Document) Write(w io.Writer) error {
	p := &printer{}
	d.head(p)
	d.summary(p)
	d.below(p)
	d.speed(p)
	d.beside(p)
	d.all(p)
	_, err := io.WriteString(w, p.String())
	return err
}

type printer struct{ strings.Builder }

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *printer) table(heads ...string) {
	p.line("| %s |", strings.Join(heads, " | "))
	p.line("|%s", strings.Repeat(" --- |", len(heads)))
}

func (p *printer) row(cells ...string) { p.line("| %s |", strings.Join(cells, " | ")) }

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func index(x float64) string {
	if x == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
}

// lasts says how long something took, also in round trips.
func lasts(d time.Duration, t Tree) string {
	switch d {
	case never:
		return "not reached"
	case unmeasurable:
		return "–"
	}
	return fmt.Sprintf("%d ms (%.1f)", d.Milliseconds(), float64(d)/float64(t.roundTrip()))
}

func (d *Document) head(p *printer) {
	p.line("# How well a limit is used")
	p.line("")
	p.line("`tributary sim --study` wrote this page, from simulated worlds without faults: run it again after a change, and compare. The seed is %d, and the same seed writes the same page.", d.Seed)
	p.line("")
	p.line("- **A cell** is one world: a limit of scope `global` on one key, a tree of places, a shape of demand, and a load (demand, in limits). There are %d.", len(d.Results))
	p.line("- A message takes %d to %d ms from a place to its parent or back, a commit up to %d ms. A **round trip** is the longest from a city to the root and back: %d ms for each tier below the root.",
		(delay / 10).Milliseconds(), delay.Milliseconds(), commit.Milliseconds(), (2 * delay).Milliseconds())
	p.line("- A limit's burst is its figure: 5 for 5/min. Checks wait for a share for up to 1 s where the limit is by the minute, else 250 ms. Of 1000000/s each check asks for 1000 hits.")
	p.line("- A city's checks come evenly, each anywhere in a slot of its own. **Zipf**: the *n*th city asks for 1/*n*. **Flash crowd**: uniform, but one city asks for %d times as much for 5 s (1 min where the limit is by the minute). **Moving with the sun**: a quarter of the cities asks for %d times as much as the others, each quarter for %d s.", crowdTimes, sunTimes, int(sunStays.Seconds()))
	p.line("- **Utilisation** is what is admitted of the lesser of demand and limit, over 10 s to 8 min, after a warm-up of 3 round trips and the time that the first burst may take; where demand moves it is measured throughout. A little more than 100 %% is what had been saved. **Early** begins at 3 round trips, and counts what is left of the burst then as a part of the limit.")
	p.line("- **Fairness** is Jain's index, over the cities, of what each was admitted of its due, a max-min fair part of the limit: 1 is fair. It is left out where a city is due fewer than %d checks.", fewest)
	p.line("")
}

func (d *Document) summary(p *printer) {
	covered, kept, early, atBest, beyond := 0, 0, 0, 0, int64(0)
	broken := 0
	for i := range d.Results {
		r := &d.Results[i]
		beyond += r.Tributary.Beyond
		if r.Broken != nil {
			broken++
		}
		if !r.covered() {
			continue
		}
		covered++
		switch t, one := &r.Tributary, &r.One; {
		case min(t.Utilisation, t.Law) >= enough:
			kept++
		case t.Utilisation >= one.Utilisation && t.Law >= one.Law:
			atBest++
		}
		if r.Tributary.Early >= min(enough, r.One.Early) {
			early++
		}
	}
	p.line("## What came out")
	p.line("")
	p.line("- **Beyond a limit** Tributary admitted %d tokens in all cells together. The simulation's oracle found a breach of Law 2 in %d cells.", beyond, broken)
	p.line("- **Law 3** (at least 95 %% within a few round trips, with steady demand) covers the %d cells of the shapes uniform, Zipf and one city. Of these %d reach it from 3 round trips on, and keep it when the first burst is spent; in %d that do not, one bucket without distance admits no more. With what is left of the burst at 3 round trips as a part of the limit (*early*), which the law does not ask for, %d reach as much, or what one bucket does.", covered, kept, atBest, early)
	p.line("- The other %d cells are of demand that moves, and the law promises nothing there.", len(d.Results)-covered)
	p.line("")
	p.line("Utilisation: the least and the median over trees and loads.")
	p.line("")
	heads := []string{"limit"}
	for _, s := range Shapes {
		heads = append(heads, s.String())
	}
	p.table(heads...)
	for _, l := range Limits {
		row := []string{l.Rate}
		for _, s := range Shapes {
			values := d.values(func(r *Result) (float64, bool) {
				return r.Tributary.Utilisation, r.Limit.Rate == l.Rate && r.Shape == s
			})
			row = append(row, fmt.Sprintf("%s, %s", percent(values[0]), percent(values[len(values)/2])))
		}
		p.row(row...)
	}
	p.line("")
	p.line("![Utilisation by limit, of Tributary and of the other ways](utilisation.svg)")
	p.line("")
}

// values are of those results that count, in order.
func (d *Document) values(of func(*Result) (float64, bool)) (values []float64) {
	for i := range d.Results {
		if v, counts := of(&d.Results[i]); counts {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	if len(values) == 0 {
		return []float64{0}
	}
	return values
}

func (d *Document) below(p *printer) {
	p.line("## Cells below 95 %%")
	p.line("")
	lists := make([][]*Result, len(classes))
	for i := range d.Results {
		r := &d.Results[i]
		if r.low() {
			c := slices.IndexFunc(classes, func(c class) bool { return c.has(r) })
			lists[c] = append(lists[c], r)
		}
	}
	none := true
	for i, c := range classes {
		if len(lists[i]) == 0 {
			continue
		}
		none = false
		p.line("### %s", c.name)
		p.line("")
		p.line("%s", c.reason)
		p.line("")
		p.table("limit", "demand", "tree", "load", "Law 3", "utilisation", "early", "one bucket", "early")
		for _, r := range lists[i] {
			law := "no"
			if r.covered() {
				law = "yes"
			}
			p.row(r.Limit.Rate, r.Shape.String(), r.Tree.String(), fmt.Sprint(r.Load), law, percent(r.Tributary.Utilisation), percent(r.Tributary.Early), percent(r.One.Utilisation), percent(r.One.Early))
		}
		p.line("")
	}
	if none {
		p.line("None.")
		p.line("")
	}
}

func (d *Document) speed(p *printer) {
	p.line("## How fast a share follows a flash crowd")
	p.line("")
	p.line("From the instant at which one city asks for %d times as much until it is admitted 95 %% of its max-min fair due over the 250 ms that follow (or over 40 checks, if they take longer), in ms and in round trips. Left out are loads at which the crowd is due no more than before, since every city asks for more than an equal part, and limits with too few tokens to tell.", crowdTimes)
	p.line("")
	p.table("limit", "tree", "load", "Tributary", "equal shares", "broadcast")
	for i := range d.Results {
		if r := &d.Results[i]; r.Shape == Crowd && r.Tributary.Reaction != unmeasurable {
			p.row(r.Limit.Rate, r.Tree.String(), fmt.Sprint(r.Load), lasts(r.Tributary.Reaction, r.Tree), lasts(r.Static.Reaction, r.Tree), lasts(r.Broadcast.Reaction, r.Tree))
		}
	}
	p.line("")
	p.line("![A flash crowd in one city: what it asks for, is due and is admitted](crowd.svg)")
	p.line("")
}

func (d *Document) beside(p *printer) {
	p.line("## Beside other ways")
	p.line("")
	p.line("Each with the same checks, and the same delay between a city and the root:")
	p.line("")
	p.line("- **one bucket**: the limit in one place, and no distance: the best there can be, first come, first served;")
	p.line("- **equal shares**: each city has its part of the limit for itself, with a burst of at least one check, and nobody sends anything;")
	p.line("- **broadcast**: as in Gubernator's `GLOBAL` behaviour. A city admits while what it last heard of the owner's bucket, less what it admitted since, is enough. It tells the owner every %d ms what it admitted, and the owner tells all cities what remains. Where the original leaves something open, the better for the limit is taken.", syncEvery.Milliseconds())
	p.line("")
	p.line("Means over trees, as utilisation, and for the broadcast also what it admits beyond the limit, of the lesser of demand and limit.")
	p.line("")
	p.table("limit", "demand", "load", "one bucket", "Tributary", "equal shares", "broadcast", "beyond the limit", "most beyond")
	for _, l := range Limits {
		for _, s := range Shapes {
			for _, load := range Loads {
				var one, ours, static, broad, over, most, n float64
				for i := range d.Results {
					if r := &d.Results[i]; r.Limit.Rate == l.Rate && r.Shape == s && r.Load == load && r.Tree.Leaves() < thousand.Leaves() {
						one, ours, static = one+r.One.Utilisation, ours+r.Tributary.Utilisation, static+r.Static.Utilisation
						broad, over, most, n = broad+r.Broadcast.Utilisation, over+r.Broadcast.Over, max(most, r.Broadcast.Over), n+1
					}
				}
				if n > 0 {
					p.row(l.Rate, s.String(), fmt.Sprint(load), percent(one/n), percent(ours/n), percent(static/n), percent(broad/n), percent(over/n), percent(most))
				}
			}
		}
	}
	p.line("")
	p.line("![Admitted beyond the limit by the broadcast, by the number of cities](beyond.svg)")
	p.line("")
	p.line("![Messages per second by the number of places](messages.svg)")
	p.line("")
}

func (d *Document) all(p *printer) {
	p.line("## All cells")
	p.line("")
	p.line("Messages are reports, acknowledgements and recalls, each second: in all, by place, and of the place that sends most. A place that nobody asks still reports once a second. *Start* is the time from a world's first check until 95 %% of what is due are admitted, as above.")
	for _, l := range Limits {
		p.line("")
		p.line("### %s", l.Rate)
		p.line("")
		p.table("demand", "tree", "load", "utilisation", "early", "fairness", "start", "messages/s", "by place", "busiest", "equal shares", "broadcast", "its messages/s")
		for i := range d.Results {
			r := &d.Results[i]
			if r.Limit.Rate != l.Rate {
				continue
			}
			t := &r.Tributary
			p.row(r.Shape.String(), r.Tree.String(), fmt.Sprint(r.Load), percent(t.Utilisation), percent(t.Early), index(t.Fairness), lasts(t.Start, r.Tree),
				fmt.Sprintf("%.0f", t.Messages), fmt.Sprintf("%.1f", t.Messages/float64(r.Tree.Places())), fmt.Sprintf("%.0f", t.Busiest),
				percent(r.Static.Utilisation), fmt.Sprintf("%s + %s", percent(r.Broadcast.Utilisation), percent(r.Broadcast.Over)), fmt.Sprintf("%.0f", r.Broadcast.Messages))
		}
	}
}

// Broken are the cells in which Tributary admitted too much, worst first.
func (d *Document) Broken() (broken []Result) {
	for _, r := range d.Results {
		if r.Broken != nil || r.Tributary.Beyond > 0 {
			broken = append(broken, r)
		}
	}
	slices.SortStableFunc(broken, func(a, b Result) int { return cmp.Compare(b.Tributary.Beyond, a.Tributary.Beyond) })
	return broken
}
