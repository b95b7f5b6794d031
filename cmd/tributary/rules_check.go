package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// RulesCmd holds the commands about rules.
type RulesCmd struct {
	Check RulesCheckCmd `cmd:"" help:"Check rules files, and say how they read."`
	Get   RulesGetCmd   `cmd:"" help:"Print the rules that a place follows."`
	Apply RulesApplyCmd `cmd:"" help:"Make a rules file the world's, at its root."`
	Diff  RulesDiffCmd  `cmd:"" help:"Say what applying a rules file would change."`
}

// RulesCheckCmd checks rules files.
type RulesCheckCmd struct {
	File []string `arg:"" optional:"" help:"Rules files, - for stdin. Without any: the rules of a world that is given none."`
	JSON bool     `name:"json" help:"Print one JSON object a file."`
}

// Help is the command's long help.
func (*RulesCheckCmd) Help() string {
	return `It exits 0 if every file is right, and 1 with everything that is wrong, by file and line, if not.

Examples:

    tributary rules check rules.yaml
    tributary rules check --json rules.yaml | jq .problems
    tributary rules check`
}

// checkedRules is what is said of one file.
type checkedRules struct {
	File       string             `json:"file"`
	Valid      bool               `json:"valid"`
	Lease      string             `json:"lease,omitempty"`
	FoldAfter  string             `json:"fold_after,omitempty"`
	Namespaces []checkedNamespace `json:"namespaces,omitempty"`
	Problems   problems           `json:"problems,omitempty"`
}

type checkedNamespace struct {
	Namespace string           `json:"namespace"`
	Limits    []checkedLimit   `json:"limits"`
	Shadow    bool             `json:"shadow,omitempty"`
	Count     bool             `json:"count,omitempty"`
	Dedupe    string           `json:"dedupe,omitempty"`
	Wait      string           `json:"wait,omitempty"`
	Weights   map[string]int64 `json:"weights,omitempty"`

	Durability string `json:"durability,omitempty"`
}

// checkedLimit has the fields of the file, with the defaults of those that it leaves out.
type checkedLimit struct {
	Scope       string `json:"scope"`
	Rate        string `json:"rate,omitempty"`
	Quota       string `json:"quota,omitempty"`
	Budget      int64  `json:"budget,omitempty"`
	Concurrency int64  `json:"concurrency,omitempty"`
	Burst       int64  `json:"burst,omitempty"`
	Hold        string `json:"hold,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Mode        string `json:"mode,omitempty"` // soft, or left out
	Reads       string `json:"reads"`
}

// Run checks the files.
func (c *RulesCheckCmd) Run(app *App) error {
	files := c.File
	if len(files) == 0 {
		files = []string{""}
	}
	var wrong error
	for i, file := range files {
		checked, err := checkRules(app, file)
		if err != nil {
			wrong = codeError(exitError)
		}
		switch {
		case c.JSON:
			if err := json.NewEncoder(app.Stdout).Encode(checked); err != nil {
				return err
			}
		case err != nil:
			_, _ = fmt.Fprintln(app.Stderr, "tributary: "+err.Error())
		default:
			if i > 0 {
				_, _ = fmt.Fprintln(app.Stdout)
			}
			checked.print(app.Stdout)
		}
	}
	return wrong
}

func checkRules(app *App, file string) (checkedRules, error) {
	checked := checkedRules{File: file}
	var (
		rules *limiter.Rules
		err   error
	)
	switch file {
	case "":
		checked.File, rules = "built-in rules", defaultRules()
	default:
		checked.File, rules, err = app.loadRules(file)
	}
	if err != nil {
		if !errors.As(err, &checked.Problems) {
			checked.Problems = problems{{File: checked.File, Text: err.Error()}}
		}
		return checked, err
	}
	checked.fill(rules)
	return checked, nil
}

// fill says what the rules say. What a file leaves out is shown of a limit, whose figures work together, and of nothing
// else.
func (c *checkedRules) fill(rules *limiter.Rules) {
	c.Valid = true
	if rules.Lease != limiter.DefaultLease {
		c.Lease = limiter.FormatDuration(rules.Lease)
	}
	if rules.FoldAfter != limiter.DefaultFoldAfter {
		c.FoldAfter = limiter.FormatDuration(rules.FoldAfter)
	}
	for _, name := range rules.Namespaces() {
		rule := rules.Rule(name)
		n := checkedNamespace{Namespace: name, Limits: []checkedLimit{}, Shadow: rule.Shadow, Count: rule.Count, Weights: rules.Spec().Namespaces[name].Weights}
		if rule.Dedupe > 0 {
			n.Dedupe = limiter.FormatDuration(rule.Dedupe)
		}
		if rule.Wait >= 0 {
			n.Wait = limiter.FormatDuration(rule.Wait)
		}
		if rule.Async {
			n.Durability = "async"
		}
		for _, l := range rule.Limits {
			n.Limits = append(n.Limits, checkLimit(&l))
		}
		c.Namespaces = append(c.Namespaces, n)
	}
}

func checkLimit(l *limiter.Limit) checkedLimit {
	c := checkedLimit{Scope: l.Scope.String(), Reads: readLimit(l)}
	switch l.Kind {
	case limiter.Rate:
		c.Rate, c.Burst = fmt.Sprintf("%d/%s", l.Figure(), periodName(l.Written)[:1]), l.Burst
	case limiter.Quota:
		c.Quota, c.Zone = fmt.Sprintf("%d/%s", l.Burst, l.Window.Unit), l.Window.Zone.String()
	case limiter.Budget:
		c.Budget = l.Burst
	case limiter.Concurrency:
		c.Concurrency, c.Hold = l.Burst, limiter.FormatDuration(l.Hold)
	}
	if l.Soft {
		c.Mode = "soft"
	}
	return c
}

func (c *checkedRules) print(w io.Writer) {
	head := fmt.Sprintf("%d namespaces", len(c.Namespaces))
	if len(c.Namespaces) == 1 {
		head = "1 namespace"
	}
	if c.Lease != "" {
		head += ", leases of " + c.Lease
	}
	if c.FoldAfter != "" {
		head += ", counts of ended sessions folded after " + c.FoldAfter
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", c.File, head)
	width := 0
	for _, n := range c.Namespaces {
		width = max(width, len(n.Namespace))
	}
	indent := "\n" + strings.Repeat(" ", width+4)
	for _, n := range c.Namespaces {
		_, _ = fmt.Fprintf(w, "  %-*s  %s\n", width, n.Namespace, strings.Join(n.lines(), indent))
	}
}

// lines say what a namespace asks for.
func (n *checkedNamespace) lines() []string {
	lines := []string{"counted, not limited"}
	for i, l := range n.Limits {
		if i == 0 {
			lines = []string{"each key: " + l.Reads}
		} else {
			lines = append(lines, "     and: "+l.Reads)
		}
	}
	if n.Count && len(n.Limits) > 0 {
		lines = append(lines, "counted as well")
	}
	if n.Shadow {
		lines = append(lines, "shadow: decided, but nothing is denied")
	}
	if n.Dedupe != "" {
		lines = append(lines, "request ids are remembered for "+n.Dedupe)
	}
	if n.Wait != "" {
		lines = append(lines, "a check waits up to "+n.Wait+", unless it says how long")
	}
	if n.Durability != "" {
		lines = append(lines, "adds are answered before they are durable")
	}
	if len(n.Weights) > 0 {
		var weights []string
		for _, place := range slices.Sorted(maps.Keys(n.Weights)) {
			weights = append(weights, fmt.Sprintf("%s %d", place, n.Weights[place]))
		}
		lines = append(lines, "weights: "+strings.Join(weights, ", "))
	}
	return lines
}

// readLimit says what a limit means.
func readLimit(l *limiter.Limit) (reads string) {
	where := "in each " + l.Scope.String()
	if l.Scope == limiter.Global {
		where = "in the whole world"
	}
	switch l.Kind {
	case limiter.Rate:
		reads = fmt.Sprintf("%d a %s %s, %d at once", l.Figure(), periodName(l.Written), where, l.Burst)
	case limiter.Quota:
		reads = fmt.Sprintf("%d a %s %s, by the calendar of %s", l.Burst, l.Window.Unit, where, l.Window.Zone)
	case limiter.Budget:
		reads = fmt.Sprintf("%d %s, ever", l.Burst, where)
	case limiter.Concurrency:
		reads = fmt.Sprintf("%d in flight %s, a permit ends after %s unless it is renewed", l.Burst, where, limiter.FormatDuration(l.Hold))
	}
	if l.Soft {
		reads += "; soft: rather open than exact"
	}
	return reads
}

func periodName(d time.Duration) string {
	switch d {
	case time.Second:
		return "second"
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	}
	return "day"
}
