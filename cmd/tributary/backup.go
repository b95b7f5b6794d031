package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/transport"
)

// BackupCmd makes backups.
type BackupCmd struct {
	Folder string `arg:"" optional:"" name:"folder" help:"Where to, for stores that nobody serves. A running place has a folder of its own (serve --backups)." type:"path"`
	storeFlags
	clientFlags `set:"at=Running place to back up, such as eu.de.berlin. Without it: the stores of --data, which nobody serves."`
}

// Help is the command's long help.
func (*BackupCmd) Help() string {
	return `With --at a running place is asked, and writes to its own folder for backups, on its machine. It goes on meanwhile: all that
was acknowledged before is in the backup, and each operation wholly or not at all. Without --at the stores of --data are
backed up that nobody serves, each to a folder of its place's name.

A backup replaces the one before in its folder, in one step: what is interrupted leaves the old one. Files that are there
already are not copied again; on the stores' own file system they are linked, which costs no room, but is lost with that
disk. So have a copy elsewhere.

Examples:

    tributary backup --at eu.de.berlin
    tributary backup /mnt/backups --data /var/lib/tributary
    tributary backup /mnt/backups --place global --place eu --json`
}

// backupRecord is a backup as JSON shows it.
type backupRecord struct {
	Place       string    `json:"place"`
	Folder      string    `json:"folder"`
	Made        time.Time `json:"made"`
	Files       int       `json:"files"`
	Bytes       int64     `json:"bytes"`
	CopiedBytes int64     `json:"copied_bytes"`
	LinkedBytes int64     `json:"linked_bytes"`
	KeptBytes   int64     `json:"kept_bytes"`
}

// Run backs up.
func (c *BackupCmd) Run(app *App) error {
	switch {
	case c.Folder == "" && c.At == "":
		return errors.New("give --at for a running place, such as --at eu.de.berlin, or a folder for the backups of stores that nobody serves")
	case c.Folder == "":
		return c.running(app)
	}
	return c.each(app, func(s store, opened *objects.Store) error {
		to, m := filepath.Join(c.Folder, s.place), app.meter(s.place)
		info, err := opened.Backup(app.Context, to, m.show)
		m.end()
		if err != nil {
			return err
		}
		return c.print(app, backupRecord{s.place, to, info.Made, info.Files, info.Bytes, info.Copied, info.Linked, info.Kept})
	})
}

func (c *BackupCmd) running(app *App) error {
	m := app.meter(c.At)
	defer m.end()
	return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.BackupReply, error) {
		return client.Backup(ctx, func(r transport.BackupReply) {
			m.show(objects.Progress{Step: "copy", Done: r.DoneBytes, Total: r.TotalBytes})
		})
	}, func(r transport.BackupReply) {
		m.end()
		_ = c.print(app, backupRecord{r.Place, r.Folder, r.Made, r.Files, r.Bytes, r.CopiedBytes, r.LinkedBytes, r.KeptBytes})
	})
}

func (c *BackupCmd) print(app *App, r backupRecord) error {
	if c.JSON {
		return printRecord(app.Stdout, r)
	}
	_, err := fmt.Fprintf(app.Stdout, "%s  %s in %d files: %s copied, %s linked, %s were there  (%s)\n",
		r.Place, mebibytes(r.Bytes), r.Files, mebibytes(r.CopiedBytes), mebibytes(r.LinkedBytes), mebibytes(r.KeptBytes), r.Folder)
	return err
}

// RestoreCmd makes stores of backups.
type RestoreCmd struct {
	Folder string `arg:"" name:"folder" help:"The folder of the backups, with one for each place in it." type:"path"`
	storeFlags
	jsonFlag
}

// Help is the command's long help.
func (*RestoreCmd) Help() string {
	return `A place's store must not be there, or be empty: move the old one away. Every file is compared with the hash that the backup
has of it, then all of the store is read. What was restored says so to the place at its next start: counts go on where
the tiers know them to be; what the place lent of budgets and quotas since the backup nobody knows, so that a budget that
it owns waits for 'tributary reset --left', and a quota for its next window.

Never start a place on two disks, such as the old one and the restored one.

Examples:

    tributary restore /mnt/backups --data /var/lib/tributary
    tributary restore /mnt/backups --place eu.de.berlin`
}

type restoreRecord struct {
	Place string    `json:"place"`
	Dir   string    `json:"dir"`
	Made  time.Time `json:"made"`
	Files int       `json:"files"`
	Bytes int64     `json:"bytes"`
}

// Run restores.
func (c *RestoreCmd) Run(app *App) error {
	all, err := stores(c.Folder, c.Place, "backup", isBackup)
	if err != nil {
		return err
	}
	for _, s := range all { // before any is begun
		if entries, err := os.ReadDir(filepath.Join(c.Data, s.place)); err == nil && len(entries) > 0 {
			return fmt.Errorf("%s is there already: move it away, or name another folder with --data", filepath.Join(c.Data, s.place))
		}
	}
	for _, s := range all {
		to, m := filepath.Join(c.Data, s.place), app.meter(s.place)
		o := objects.FolderOptions{Progress: m.show}
		info, err := objects.Restore(app.Context, s.dir, to, o)
		var report objects.Report
		if err == nil {
			report, err = objects.Verify(app.Context, to, o)
		}
		m.end()
		if err == nil {
			err = report.Err()
		}
		if err != nil {
			return err
		}
		if c.JSON {
			err = printRecord(app.Stdout, restoreRecord{s.place, to, info.Made, info.Files, info.Bytes})
		} else {
			_, err = fmt.Fprintf(app.Stdout, "%s  as it was at %s, %s in %d files  (%s)\n", s.place, info.Made.Format(time.RFC3339), mebibytes(info.Bytes), info.Files, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
