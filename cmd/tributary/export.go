package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// ExportCmd writes a store as lines of JSON.
type ExportCmd struct {
	File string `arg:"" name:"file" help:"Where to; - is the standard output."`
	storeFlags
	jsonFlag
}

// Help is the command's long help.
func (*ExportCmd) Help() string {
	return `The store of one place that nobody serves is written as lines of JSON: a header, a line for each entry, and a line that
counts them. The file is there when all of it is. Of a running place, export a backup that was restored elsewhere.

Examples:

    tributary export berlin.jsonl --place eu.de.berlin
    tributary export - --place global | gzip > global.jsonl.gz`
}

type exportRecord struct {
	Place   string `json:"place"`
	File    string `json:"file"`
	Objects int64  `json:"objects"`
	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// Run exports.
func (c *ExportCmd) Run(app *App) error {
	all, err := c.stores()
	if err != nil {
		return err
	}
	if len(all) != 1 {
		return fmt.Errorf("%s holds %d stores, and a file one: name its place, such as --place %s", c.Data, len(all), all[0].place)
	}
	return c.each(app, func(s store, opened *objects.Store) error {
		m := app.meter(s.place)
		var info objects.ExportInfo
		err := writeWhole(app.Stdout, c.File, func(w io.Writer) (err error) {
			info, err = opened.Export(app.Context, w, m.show)
			return err
		})
		m.end()
		if err != nil {
			return err
		}
		return printMoved(app, c.JSON, c.File == "-", "exported", exportRecord{s.place, c.File, info.Objects, info.Entries, info.Bytes})
	})
}

// writeWhole writes a file that is there when all of it is.
func writeWhole(stdout io.Writer, name string, write func(io.Writer) error) (err error) {
	if name == "-" {
		return write(stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".unfinished-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// printMoved says what was exported or imported: not where the lines go.
func printMoved(app *App, asJSON, stderr bool, what string, r exportRecord) error {
	w := app.Stdout
	if stderr {
		w = app.Stderr
	}
	if asJSON {
		return printRecord(w, r)
	}
	_, err := fmt.Fprintf(w, "%s  %d objects with %d entries %s, %s  (%s)\n", r.Place, r.Objects, r.Entries, what, mebibytes(r.Bytes), r.File)
	return err
}

// ImportCmd makes a store of lines of JSON.
type ImportCmd struct {
	File  string `arg:"" name:"file" help:"What 'tributary export' wrote; - is the standard input."`
	Data  string `help:"Folder for the stores; each place has its own below it." default:"tributary-data" type:"path" placeholder:"DIR"`
	Place string `help:"Place whose store it becomes: the one that was exported." placeholder:"PLACE" operand:"" required:""`
	Merge bool   `help:"Change a store that is there: objects of the file replace those in it, others stay." operand:""`
	yesFlag
	jsonFlag
}

// Help is the command's long help.
func (*ImportCmd) Help() string {
	return `The place's store must not be there, or be empty, and is there when all of the file is in it; a file that is not whole is
refused, with the number of the line that is wrong. With --merge the store that is there is changed: if that is interrupted,
it does not open until it is done again, so make a backup first.

What was imported counts as restored: see 'tributary restore --help'.

Examples:

    tributary import berlin.jsonl --place eu.de.berlin
    gunzip < global.jsonl.gz | tributary import - --place global --data elsewhere`
}

// Run imports.
func (c *ImportCmd) Run(app *App) error {
	if _, err := tiers.ParsePlace(c.Place); err != nil {
		return err
	}
	s := store{c.Place, filepath.Join(c.Data, c.Place)}
	if c.Merge {
		if c.File == "-" && !c.Yes {
			return errors.New("the standard input is what is imported, so it cannot say whether --merge is meant: add --yes if it is")
		}
		if err := app.agree(c.yesFlag, fmt.Sprintf("Objects of %s replace those of the same name in %s, for ever.", c.File, s.dir)); err != nil {
			return err
		}
	}
	in, o := app.Stdin, objects.ImportOptions{Merge: c.Merge}
	if c.File != "-" {
		f, err := openFile(c.File)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
		if info, err := f.Stat(); err == nil {
			o.Size = info.Size()
		}
	}
	m := app.meter(s.place)
	o.Progress = m.show
	info, err := objects.Import(app.Context, in, s.dir, o)
	m.end()
	if err != nil {
		if line, ok := errors.AsType[*objects.LineError](err); ok {
			return fmt.Errorf("%s:%d: %s; nothing was imported", c.File, line.Line, strings.TrimPrefix(line.Err.Error(), objects.ErrInvalid.Error()+": "))
		}
		return adviseStore(err, s)
	}
	return printMoved(app, c.JSON, false, "imported", exportRecord{s.place, c.File, info.Objects, info.Entries, info.Bytes})
}
