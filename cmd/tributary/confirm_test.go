package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestOnlyAYesIsAgreement(t *testing.T) {
	for answer, agreed := range map[string]bool{
		"y\n": true, "Y\n": true, "yes\n": true, " Yes \n": true, "yes": true,
		"\n": false, "": false, "n\n": false, "no\n": false, "yes please\n": false, "yy\n": false, "\ny\n": false,
	} {
		var stdout, stderr bytes.Buffer
		app := &App{Context: t.Context(), Stdin: strings.NewReader(answer), Stdout: &stdout, Stderr: &stderr, Interactive: true}
		err := app.agree(yesFlag{}, "The sky falls.")
		if agreed && err != nil || !agreed && !errors.Is(err, errNotAgreed) {
			t.Errorf("%q: %v", answer, err)
		}
		if !strings.HasPrefix(stderr.String(), "The sky falls.\nGo on? [y/N] ") || stdout.Len() > 0 {
			t.Errorf("%q: it printed %q, %q", answer, stdout.String(), stderr.String())
		}
	}
}

func TestWhereNobodyCanBeAskedYesIsNeeded(t *testing.T) {
	var stderr bytes.Buffer
	app := &App{Context: t.Context(), Stdin: strings.NewReader("y\n"), Stderr: &stderr}
	if err := app.agree(yesFlag{}, "The sky falls."); !errors.Is(err, errNotAgreed) || !strings.Contains(err.Error(), "The sky falls. ") || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %v", err)
	}
	if err := app.agree(yesFlag{Yes: true}, "The sky falls."); err != nil {
		t.Errorf("with --yes: %v", err)
	}
	if stderr.Len() > 0 {
		t.Errorf("it printed %q", stderr.String())
	}
}

func TestInterruptEndsAQuestion(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent, keyboard := io.Pipe()
	defer func() { _ = keyboard.Close() }()
	app := &App{Context: ctx, Stdin: silent, Stderr: interruptor(cancel), Interactive: true}
	if err := app.agree(yesFlag{}, "The sky falls."); !errors.Is(err, errNotAgreed) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// interruptor is a terminal whose reader interrupts what is printed.
type interruptor context.CancelFunc

func (i interruptor) Write(p []byte) (int, error) {
	i()
	return len(p), nil
}
