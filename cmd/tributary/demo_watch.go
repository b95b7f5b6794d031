package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/tributary-io/tributary/cmd/tributary/internal/demo"
)

// watch prints one living line a second, until the end, or until nobody reads it any more.
func (c *DemoCmd) watch(app *App, d *demo.Demo) error {
	ctx := app.Context
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	say := func(line string) error {
		_, err := fmt.Fprintln(app.Stdout, line)
		return err
	}
	if f, ok := app.Stdout.(*os.File); ok && terminal(f) {
		say = func(line string) error {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && len(line) >= width {
				line = line[:width-1] // one that wraps is not written over by the next
			}
			_, err := fmt.Fprint(f, "\r\x1b[K", line)
			return err
		}
		defer func() { _, _ = fmt.Fprintln(f) }()
	}
	started := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var before standing
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.World.Fatal():
			return err
		case <-ticker.C:
		}
		now, err := look(ctx, d)
		var line string
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			line = fmt.Sprintf("the root does not answer: %v", err)
		default:
			line = now.since(before)
			before = now
		}
		if err := say(fmt.Sprintf("%4.0fs  %s", time.Since(started).Seconds(), line)); err != nil {
			return fmt.Errorf("the demo ends, since nobody reads what it prints: %w", err)
		}
	}
}

// standing is how the demo stands at an instant.
type standing struct {
	at                        time.Time
	cast, unanswered, counted int64
	offered, admitted, bound  int64
}

// lookWithin is how long the root may take to say how it stands.
const lookWithin = time.Second

func look(ctx context.Context, d *demo.Demo) (s standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	if s.counted, err = d.Counted(ctx); err != nil {
		return s, err
	}
	votes := d.Votes()
	s.at, s.cast, s.unanswered = time.Now(), votes.Cast, votes.Unanswered
	s.offered, s.admitted, s.bound = d.Limit()
	return s, nil
}

// since is the living line. What matters most fits on 80 columns.
func (s standing) since(before standing) string {
	rate := func(now, then int64) float64 { return float64(now - then) }
	if seconds := s.at.Sub(before.at).Seconds(); !before.at.IsZero() {
		rate = func(now, then int64) float64 { return float64(now-then) / seconds }
	}
	broken := ""
	if s.admitted > s.bound {
		broken = " BROKEN"
	}
	return fmt.Sprintf("%d votes (+%.0f/s); limit %d/s%s: %.0f of %.0f asked admitted; %d votes under way",
		s.counted, rate(s.cast, before.cast), demo.Rate, broken, rate(s.admitted, before.admitted), rate(s.offered, before.offered), max(0, s.cast-s.counted))
}

const (
	settleWithin = 3 * time.Second       // how long the summary waits for votes that are under way
	settleEach   = 10 * time.Millisecond // how often it looks
)

// summarize ends the voting, and says what came of it all. A promise that was broken is an error.
func summarize(app *App, d *demo.Demo) error {
	took := d.StopPeople()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(app.Context), settleWithin) // it was interrupted, most likely
	defer cancel()
	var s standing
	for s.at.IsZero() || s.counted < s.cast {
		if now, err := look(ctx, d); err == nil {
			s = now
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(settleEach)
	}
	if s.at.IsZero() {
		_, err := fmt.Fprintln(app.Stdout, "\nThe root does not answer any more, so there is no summary.")
		return err
	}
	text, broken := s.summary(took, len(d.World.Nodes()))
	_, err := fmt.Fprintf(app.Stdout, "\n%s", text)
	return errors.Join(err, broken)
}

// summary is what is said in the end.
func (s standing) summary(took time.Duration, places int) (text string, broken error) {
	votes := fmt.Sprintf("all %d votes are counted", s.cast)
	switch under := s.cast - s.counted; {
	case under > 0:
		votes = fmt.Sprintf("%d of %d votes are counted, and %d under way, as where a link is cut", s.counted, s.cast, under)
	case -under > s.unanswered:
		votes = fmt.Sprintf("%d votes were cast, and %d are counted", s.cast, s.counted)
		broken = errors.New("votes were counted twice")
	case under < 0:
		votes += fmt.Sprintf(", and %d whose voters got no answer", -under)
	}
	kept := "kept"
	if s.admitted > s.bound {
		kept = "BROKEN"
		broken = errors.Join(broken, errors.New("more was admitted than the limit allows"))
	}
	return fmt.Sprintf("In %s %d places: %s. Limit of %d/s, burst %d, %s: %d of %d asked admitted, at most %d allowed.\n",
		took.Round(time.Second), places, votes, demo.Rate, demo.Burst, kept, s.admitted, s.offered, s.bound), broken
}
