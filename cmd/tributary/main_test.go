package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/transport"
)

func TestNegativeDelta(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"check a/b -3":                  "check a/b -3",
		"add a/b -3":                    "add a/b --delta=-3",
		"add -12 a/b":                   "add --delta=-12 a/b",
		"add a/b --delta -3":            "add a/b --delta -3",
		"add a/b --delta=-3":            "add a/b --delta=-3",
		"add a/b --delta":               "add a/b --delta",
		"add a/b -- -3":                 "add a/b -- -3",
		"add a/b -3x -h -":              "add a/b -3x -h -",
		"add a/b 3":                     "add a/b 3",
		"--config f add a/b -3 --at eu": "--config f add a/b --delta=-3 --at eu",
	} {
		if got := strings.Join(negativeDelta(strings.Fields(in)), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestErrorsAsTheyAreShown(t *testing.T) {
	timeout := fmt.Errorf("tributary.check: no answer: %w", context.DeadlineExceeded)
	for _, c := range []struct {
		err      error
		sentence string
		code     int
		reason   string
	}{
		{errors.New("boom"), "boom", 500, "failed"},
		{timeout, timeout.Error(), 504, "timeout"},
		{context.Canceled, "interrupted: context canceled", 499, "interrupted"},
		{&unreachableError{errors.New("no server")}, "no server", 503, "unreachable"},
		{&settingsError{errors.New("x is no setting")}, "x is no setting", 400, "settings"},
		{&usageError{errors.New("no"), "Run more."}, "no\nRun more.", 400, "usage"},
		{fmt.Errorf("wrapped: %w", transport.ErrNotCounted), "the namespace is limited, not counted (409 not_counted)", 409, "not_counted"},
	} {
		if got := sentence(c.err); got != c.sentence {
			t.Errorf("got  %s\nwant %s", got, c.sentence)
		}
		if got := wireError(c.err); got.Code != c.code || got.Reason != c.reason || got.Message == "" {
			t.Errorf("%v: got %d %s %q, want %d %s", c.err, got.Code, got.Reason, got.Message, c.code, c.reason)
		}
	}
}

// The first signal ends what waits, also a connection that nobody takes up.
func TestInterruptEndsAConnection(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := silent.Accept(); err == nil {
			defer func() { _ = c.Close() }()
			cancel()
			<-t.Context().Done()
		}
	}()
	var stdout, stderr bytes.Buffer
	started := time.Now()
	code := run(ctx, []string{"get", "votes/a", "--timeout", "30s", "--nats", "nats://" + silent.Addr().String()}, nil, nil, &stdout, &stderr)
	if code != exitError || !strings.HasPrefix(stderr.String(), "tributary: interrupted: ") || stdout.Len() > 0 {
		t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestInterruptEndsARequest(t *testing.T) {
	server := startNATS(t)
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := nc.Subscribe("tributary.get", func(*nats.Msg) { cancel() }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"get", "votes/a", "--timeout", "30s", "--json", "--nats", server.ClientURL()}, nil, nil, &stdout, &stderr)
	if code != exitError || !strings.Contains(stdout.String(), `"reason":"interrupted"`) || stderr.Len() > 0 {
		t.Errorf("exit %d, %q, %q", code, stdout.String(), stderr.String())
	}
}

// Every flag says what it is, and has one meaning in all commands: they share the environment and the file.
func TestFlagsAreDescribed(t *testing.T) {
	var c cli
	parser := newParser(&c, nil, nil, nil)
	names, operands := settingNames(parser.Model.Node)
	for _, name := range names {
		if slices.Contains(operands, name) {
			t.Errorf("--%s is a setting in one command, and belongs to one command line in another", name)
		}
	}
	for _, leaf := range parser.Model.Leaves(true) {
		for _, flag := range leaf.Flags {
			if !strings.HasSuffix(flag.Help, ".") {
				t.Errorf("%s --%s: the help is no sentence: %q", leaf.Path(), flag.Name, flag.Help)
			}
		}
		if !strings.HasSuffix(leaf.Help, ".") {
			t.Errorf("%s: the help is no sentence: %q", leaf.Path(), leaf.Help)
		}
	}
}

// Only what any city can answer says that any city is asked without --at.
func TestAtIsDescribedForEachCommand(t *testing.T) {
	anyCity := []string{"check", "add", "get", "list"}
	seen := 0
	for _, leaf := range newParser(&cli{}, nil, nil, nil).Model.Leaves(true) {
		for _, flag := range leaf.Flags {
			if flag.Name != "at" {
				continue
			}
			seen++
			if (flag.Help == atAnyCity) != slices.Contains(anyCity, leaf.Path()) {
				t.Errorf("%s: --at is described as %q", leaf.Path(), flag.Help)
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d commands have --at", seen)
	}
}

// The commands are found in groups of what belongs together.
func TestCommandsAreGrouped(t *testing.T) {
	for _, leaf := range newParser(&cli{}, nil, nil, nil).Model.Leaves(true) {
		if group := leaf.ClosestGroup(); group == nil || group.Title == "" || group.Title == group.Key {
			t.Errorf("%s: is in no group with a title", leaf.Path())
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"limit", "limits", 1}, {strings.Repeat("x", 65), "x", 65}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
