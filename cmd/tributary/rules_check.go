package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// RulesCmd holds the commands about rules.
type RulesCmd struct {
	Check RulesCheckCmd `cmd:"" help:"Check rules files, and say how they read."`
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
	Namespaces []checkedNamespace `json:"namespaces,omitempty"`
	Problems   problems           `json:"problems,omitempty"`
}

type checkedNamespace struct {
	Namespace string         `json:"namespace"`
	Limits    []checkedLimit `json:"limits"`
}

type checkedLimit struct {
	Scope string `json:"scope"`
	Rate  string `json:"rate"`
	Burst int64  `json:"burst"`
	Reads string `json:"reads"`
}

// Run checks the files.
func (c *RulesCheckCmd) Run(app *App) error {
	files := c.File
	if len(files) == 0 {
		files = []string{""}
	}
	var wrong error
	for i, file := range files {
		checked, err := checkRules(app.Stdin, file)
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

func checkRules(stdin io.Reader, file string) (checkedRules, error) {
	checked := checkedRules{File: file}
	var (
		rules *limiter.Rules
		err   error
	)
	switch file {
	case "":
		checked.File, rules = "built-in rules", defaultRules()
	case "-":
		checked.File = "stdin"
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(stdin, maxFile)); err == nil {
			rules, err = parseRules(checked.File, data)
		}
	default:
		rules, err = loadRules(file)
	}
	if err != nil {
		if !errors.As(err, &checked.Problems) {
			checked.Problems = problems{{File: checked.File, Text: err.Error()}}
		}
		return checked, err
	}
	checked.Valid = true
	for _, name := range rules.Namespaces() {
		n := checkedNamespace{Namespace: name, Limits: []checkedLimit{}}
		for _, l := range rules.Rule(name).Limits {
			n.Limits = append(n.Limits, checkedLimit{
				Scope: l.Scope.String(),
				Rate:  fmt.Sprintf("%d/%s", l.Rate, periodName(l.Period)[:1]),
				Burst: l.Burst,
				Reads: readLimit(l),
			})
		}
		checked.Namespaces = append(checked.Namespaces, n)
	}
	return checked, nil
}

func (c *checkedRules) print(w io.Writer) {
	count := fmt.Sprintf("%d namespaces", len(c.Namespaces))
	if len(c.Namespaces) == 1 {
		count = "1 namespace"
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", c.File, count)
	width := 0
	for _, n := range c.Namespaces {
		width = max(width, len(n.Namespace))
	}
	for _, n := range c.Namespaces {
		lines := []string{"counted, not limited"}
		for i, l := range n.Limits {
			if i == 0 {
				lines = []string{"each key: " + l.Reads}
			} else {
				lines = append(lines, "     and: "+l.Reads)
			}
		}
		indent := "\n" + strings.Repeat(" ", width+4)
		_, _ = fmt.Fprintf(w, "  %-*s  %s\n", width, n.Namespace, strings.Join(lines, indent))
	}
}

// readLimit says what a limit means.
func readLimit(l limiter.Limit) string {
	where := "in each " + l.Scope.String()
	if l.Scope == limiter.Global {
		where = "in the whole world"
	}
	return fmt.Sprintf("%d a %s %s, %d at once", l.Rate, periodName(l.Period), where, l.Burst)
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
