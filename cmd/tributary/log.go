package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/tributary-io/tributary/transport"
)

// newLogger returns the program's log: for people on a terminal, JSON lines elsewhere, unless told.
func newLogger(w io.Writer, level, format string) zerolog.Logger {
	if format == "console" || format == "auto" && terminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal(w)}
	}
	least, err := zerolog.ParseLevel(level)
	if err != nil {
		least = zerolog.InfoLevel // the flag takes only levels
	}
	return zerolog.New(w).Level(least).With().Timestamp().Logger()
}

// discreet hides the secrets of URLs in what is logged, and in errors: whoever made the text may have quoted one, as a
// command line's parser does.
type discreet struct{ io.Writer }

// Write takes a text whole.
func (d discreet) Write(p []byte) (int, error) {
	_, err := io.WriteString(d.Writer, transport.Redact(string(p)))
	return len(p), err
}

// terminal reports whether a reader or writer is one.
func terminal(stream any) bool {
	if d, ok := stream.(discreet); ok {
		stream = d.Writer
	}
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
