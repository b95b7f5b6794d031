package main

import (
	"fmt"

	"github.com/tributary-io/tributary/objects"
)

// VerifyCmd checks stores and backups.
type VerifyCmd struct {
	Folder string `arg:"" optional:"" name:"folder" help:"The stores or backups to check, one for each place in it. Without it: those of --data." type:"path"`
	storeFlags
	jsonFlag
}

// Help is the command's long help.
func (*VerifyCmd) Help() string {
	return `It reads all of it, and changes nothing. Of a store that nobody serves it checks that it opens, the checksum of every block,
that the files fit together, and every entry; of a backup the hash of every file, and the blocks. It exits 0 if all is
well, and 1 if not: then it names what is damaged, and where.

Examples:

    tributary verify --data /var/lib/tributary
    tributary verify /mnt/backups --json`
}

type verifyRecord struct {
	Place    string       `json:"place"`
	Dir      string       `json:"dir"`
	Backup   bool         `json:"backup"`
	Restored bool         `json:"restored"` // and not started since
	Format   int          `json:"format"`
	Tables   int          `json:"tables"`
	Bytes    int64        `json:"bytes"`
	Kinds    []kindRecord `json:"kinds"`
	Problems []string     `json:"problems"`
	More     int          `json:"more"` // problems that are not listed
}

type kindRecord struct {
	Kind    string `json:"kind"`
	Objects int64  `json:"objects"`
	Keys    int64  `json:"keys"`
	Bytes   int64  `json:"bytes"`
}

// Run checks.
func (c *VerifyCmd) Run(app *App) error {
	folder := c.Folder
	if folder == "" {
		folder = c.Data
	}
	all, err := stores(folder, c.Place, "store or backup", func(dir string) bool { return isStore(dir) || isBackup(dir) })
	if err != nil {
		return err
	}
	bad := 0
	for _, s := range all {
		m := app.meter(s.place)
		report, err := objects.Verify(app.Context, s.dir, objects.FolderOptions{Progress: m.show})
		m.end()
		if err != nil {
			return adviseStore(err, s)
		}
		if report.Err() != nil {
			bad++
		}
		if err := c.print(app, s, &report); err != nil {
			return err
		}
	}
	if bad == 0 {
		return nil
	}
	if !c.JSON {
		_, _ = fmt.Fprintf(app.Stderr, "tributary: %d of %d are damaged: restore a backup that is not to another folder, and keep these for a look at what happened\n", bad, len(all))
	}
	return codeError(exitError)
}

func (c *VerifyCmd) print(app *App, s store, r *objects.Report) error {
	record := verifyRecord{
		Place: s.place, Dir: s.dir, Backup: r.Backup != nil, Restored: r.Restored, Format: r.Format, Tables: r.Tables, Bytes: r.Bytes,
		Kinds: []kindRecord{}, Problems: []string{}, More: r.More,
	}
	for _, k := range r.Kinds {
		record.Kinds = append(record.Kinds, kindRecord(k))
	}
	for _, p := range r.Problems {
		record.Problems = append(record.Problems, p.String())
	}
	if c.JSON {
		return printRecord(app.Stdout, record)
	}
	what := "store"
	if record.Backup {
		what = "backup"
	}
	verdict := "ok"
	if len(record.Problems) > 0 {
		verdict = "DAMAGED"
	}
	_, err := fmt.Fprintf(app.Stdout, "%s  %s: %s of %s in %d tables, format %d\n", s.place, verdict, what, mebibytes(r.Bytes), r.Tables, r.Format)
	if record.Restored && err == nil {
		_, err = fmt.Fprintf(app.Stdout, "  restored or imported, and not started since\n")
	}
	for _, k := range record.Kinds {
		if err == nil {
			_, err = fmt.Fprintf(app.Stdout, "  %s: %d objects, %d entries, %s\n", k.Kind, k.Objects, k.Keys, mebibytes(k.Bytes))
		}
	}
	for _, p := range record.Problems {
		if err == nil {
			_, err = fmt.Fprintf(app.Stdout, "  %s\n", p)
		}
	}
	if record.More > 0 && err == nil {
		_, err = fmt.Fprintf(app.Stdout, "  and %d more\n", record.More)
	}
	return err
}
