package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// yesFlag is what every command has that destroys something which nobody else can bring back.
type yesFlag struct {
	Yes bool `name:"yes" short:"y" help:"Do it without asking. It is needed where there is no terminal to ask on, as in a script." operand:""`
}

// errNotAgreed ends a command that was not told to go on. Nothing was done.
var errNotAgreed = errors.New("nothing was done")

// agree says what will happen if a command goes on, and asks on the terminal whether it shall; --yes answers beforehand.
// Where nobody can be asked it is an error: a script has to say that it means it. Nothing but y and yes is a yes.
func (a *App) agree(f yesFlag, whatHappens string) error {
	if f.Yes {
		return nil
	}
	if !a.Interactive {
		return fmt.Errorf("%s There is no terminal to ask on whether this is meant: add --yes if it is; %w", whatHappens, errNotAgreed)
	}
	screen := a.Stderr
	if f, ok := a.Stdin.(*os.File); ok && !terminal(a.Stderr) {
		screen = f // the errors go elsewhere, and the question must be seen
	}
	if _, err := fmt.Fprintf(screen, "%s\nGo on? [y/N] ", whatHappens); err != nil {
		return fmt.Errorf("the question whether to go on cannot be shown: add --yes if this is meant; %w: %w", errNotAgreed, err)
	}
	type line struct {
		text string
		err  error
	}
	answered := make(chan line, 1) // it has room: who interrupts the question does not wait for its answer
	go func() {
		text, err := bufio.NewReader(io.LimitReader(a.Stdin, maxAnswer)).ReadString('\n')
		answered <- line{text, err}
	}()
	select {
	case <-a.Context.Done():
		_, _ = fmt.Fprintln(screen)
		return fmt.Errorf("%w: %w", errNotAgreed, a.Context.Err())
	case got := <-answered:
		switch strings.ToLower(strings.TrimSpace(got.text)) {
		case "y", "yes":
			return nil
		}
		if got.err != nil { // the terminal was closed, so the cursor still stands behind the question
			_, _ = fmt.Fprintln(screen)
		}
		return errNotAgreed
	}
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 10
