package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
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

// terminal reports whether a reader or writer is one.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
