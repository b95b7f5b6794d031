package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// The commands about stores work on the folder of serve --data while nobody serves it: each place has a store in a
// folder of its name.

// storeFlags say which stores.
type storeFlags struct {
	Data  string   `help:"Folder for the stores; each place has its own below it." default:"tributary-data" type:"path" placeholder:"DIR"`
	Place []string `help:"Place to work on, such as eu.de.berlin; repeat it for several. Without it: all that are there." placeholder:"PLACE" operand:""`
}

// jsonFlag is of commands that ask no place.
type jsonFlag struct {
	JSON bool `name:"json" help:"Print the results, one JSON object for each place, or the error."`
}

func (f *jsonFlag) wantsJSON() bool { return f.JSON }

// store is a place's folder.
type store struct{ place, dir string }

// stores are the places that were asked for, or all that are in a folder, each with what is said of it: by accept.
func stores(folder string, places []string, what string, accept func(dir string) bool) ([]store, error) {
	var found []store
	for _, p := range places {
		if _, err := tiers.ParsePlace(p); err != nil {
			return nil, err
		}
		s := store{p, filepath.Join(folder, p)}
		if !accept(s.dir) {
			return nil, fmt.Errorf("%s holds no %s of %s", folder, what, p)
		}
		found = append(found, s)
	}
	if len(places) > 0 {
		return found, nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("look for a %s: %w", what, err)
	}
	for _, e := range entries {
		if _, err := tiers.ParsePlace(e.Name()); err == nil && e.IsDir() && accept(filepath.Join(folder, e.Name())) {
			found = append(found, store{e.Name(), filepath.Join(folder, e.Name())})
		}
	}
	if len(found) == 0 {
		if accept(folder) {
			return nil, fmt.Errorf("%s is the %s of one place: give the folder above it, and --place %s", folder, what, filepath.Base(folder))
		}
		return nil, fmt.Errorf("%s holds no %s: each place has its own in a folder of its name", folder, what)
	}
	slices.SortFunc(found, func(a, b store) int { return strings.Compare(a.place, b.place) })
	return found, nil
}

func (f *storeFlags) stores() ([]store, error) { return stores(f.Data, f.Place, "store", isStore) }

// isStore takes what is left of one as well.
func isStore(dir string) bool {
	found, _ := objects.Exists(nil, dir)
	return found
}

func isBackup(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "BACKUP"))
	return err == nil
}

// each does something with each store while nobody else has it open.
func (f *storeFlags) each(app *App, do func(store, *objects.Store) error) error {
	all, err := f.stores()
	if err != nil {
		return err
	}
	for _, s := range all {
		if err := app.Context.Err(); err != nil {
			return err
		}
		opened, err := objects.Open(s.dir, objects.Options{})
		if err != nil {
			return adviseStore(err, s)
		}
		if err := errors.Join(do(s, opened), opened.Close()); err != nil {
			return adviseStore(err, s)
		}
	}
	return nil
}

// adviseStore says what to do about a store that cannot be used.
func adviseStore(err error, s store) error {
	switch {
	case errors.Is(err, objects.ErrInUse):
		return fmt.Errorf("%w: stop the process that serves %s; what works while it runs is 'tributary backup --at %s' and 'tributary stats --at %s'", err, s.place, s.place, s.place)
	case errors.Is(err, objects.ErrCorrupt):
		return fmt.Errorf("%w: see 'tributary verify', and 'tributary restore' a backup to another folder", err)
	}
	return err
}

// printRecord prints a result as a line of JSON.
func printRecord(w io.Writer, record any) error {
	return json.NewEncoder(w).Encode(record)
}

// meter shows how far something is: as a bar on a terminal, elsewhere in a line now and then.
type meter struct {
	out  io.Writer
	name string
	last time.Time
	step string

	bars *mpb.Progress
	bar  *mpb.Bar
}

// meterEach is how often a line is printed.
const meterEach = 5 * time.Second

func (a *App) meter(name string) *meter {
	m := &meter{out: a.Stderr, name: name, last: time.Now()}
	if terminal(a.Stderr) {
		m.bars = mpb.New(mpb.WithOutput(a.Stderr), mpb.WithWidth(64))
	}
	return m
}

// show is an objects progress callback.
func (m *meter) show(p objects.Progress) {
	if m.bars == nil {
		if now := time.Now(); now.Sub(m.last) >= meterEach {
			m.last = now
			_, _ = fmt.Fprintf(m.out, "%s: %s\n", m.name, far(p))
		}
		return
	}
	if m.bar == nil || p.Step != m.step {
		m.finish()
		m.step = p.Step
		m.bar = m.bars.AddBar(p.Total,
			mpb.PrependDecorators(decor.Name(m.name+"  "+p.Step, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Name("  "), decor.Percentage()))
	}
	m.bar.SetTotal(max(p.Total, p.Done)+1, false) // it ends when end says so
	m.bar.SetCurrent(p.Done)
}

func (m *meter) finish() {
	if m.bar != nil {
		m.bar.SetTotal(-1, true)
		m.bar = nil
	}
}

// end must be called before anything else is printed.
func (m *meter) end() {
	m.finish()
	if m.bars != nil {
		m.bars.Wait()
	}
}

func far(p objects.Progress) string {
	text := p.Step + " " + mebibytes(p.Done)
	if p.Total > 0 {
		text += fmt.Sprintf(" of %s (%d %%)", mebibytes(p.Total), min(100, 100*p.Done/p.Total))
	}
	return text
}

// mebibytes is a size for people.
func mebibytes(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 10<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
