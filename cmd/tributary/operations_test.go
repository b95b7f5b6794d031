//go:build !windows

package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Masks of what differs from run to run in docs/operations.md.
var operationsMasks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(?m)^\S+: \w+ [0-9.]+ [KMG]?i?B( of .* %\))?\n`), ""}, // how far a slow machine is
	{regexp.MustCompile(`/\S*/(tributary-data|backups)`), "$1"},
	{regexp.MustCompile(`\b[0-9.]+ [KMG]?i?B\b`), "SIZE"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "STORE"},
	{regexp.MustCompile(`reported \S+ ago`), "reported TIME ago"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b\d+ (files|tables|entries)\b`), "N $1"}, // a machine that is slow reports differently
}

// TestOperationsDocument runs what docs/operations.md shows, and compares what comes.
func TestOperationsDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	sections := strings.Split(string(data), "\n## ")
	run := func(t *testing.T, section string, least int, environ ...string) {
		commands := 0
		for _, s := range sections {
			title, text, _ := strings.Cut(s, "\n")
			if title != section {
				continue
			}
			for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(text, -1) {
				for _, shown := range strings.Split("\n"+block[1], "\n$ ")[1:] {
					command, want, _ := strings.Cut(shown, "\n")
					commands++
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					c := exec.CommandContext(ctx, "sh", "-c", command)
					c.Env = plainEnviron(environ...)
					out, _ := c.CombinedOutput()
					cancel()
					if !shows(maskOperations(want), maskOperations(string(out))) {
						t.Errorf("%s says\n%s\nand docs/operations.md\n%s", command, out, want)
					}
				}
			}
		}
		if commands < least {
			t.Errorf("section %q shows %d commands", section, commands)
		}
	}
	t.Run("running", func(t *testing.T) {
		url, _ := serveForReaders(t)
		run(t, "While it runs", 6, "TRIBUTARY_NATS="+url)
		run(t, "What only an operator can say", 4, "TRIBUTARY_NATS="+url)
	})
	t.Run("stopped", func(t *testing.T) { run(t, "When it is stopped", 6) })
	// What was restored starts, and counts on.
	t.Run("restored", func(t *testing.T) {
		url, _ := serveForReaders(t)
		try(t, example{"tributary get votes/alice --at global", "votes/alice  3  (global)"}, "TRIBUTARY_NATS="+url)
		try(t, example{"tributary add votes/alice 2 --at eu.de.berlin", "votes/alice  5  (eu.de.berlin)"}, "TRIBUTARY_NATS="+url)
		try(t, example{"tributary get votes/alice --at global", "votes/alice  5  (global)"}, "TRIBUTARY_NATS="+url)
	})
}

func maskOperations(text string) string {
	for _, m := range operationsMasks {
		text = m.pattern.ReplaceAllString(text, m.with)
	}
	return text
}
