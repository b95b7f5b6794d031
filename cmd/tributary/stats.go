package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/transport"
)

// StatsCmd shows stores' figures.
type StatsCmd struct {
	storeFlags
	clientFlags `set:"at=Running place to ask, such as eu.de.berlin. Without it: the stores of --data, which nobody serves."`
}

// Help is the command's long help.
func (*StatsCmd) Help() string {
	return `With --at a running place is asked, and what is counted is counted since it started. Without --at it is about the stores of
--data that nobody serves.

Examples:

    tributary stats --at eu.de.berlin
    tributary stats --data /var/lib/tributary --json | jq .disk_bytes`
}

// Run shows figures.
func (c *StatsCmd) Run(app *App) error {
	if c.At != "" {
		return ask(app, &c.clientFlags, func(ctx context.Context, client *transport.Client) (transport.StatsReply, error) {
			return client.Stats(ctx)
		}, func(r transport.StatsReply) { printStats(app.Stdout, &r, true) })
	}
	return c.each(app, func(s store, opened *objects.Store) error {
		stats, err := transport.StatsOf(opened)
		if err != nil {
			return err
		}
		r := transport.StatsReply{Place: s.place, StoreStats: stats}
		if c.JSON {
			printJSON(app.Stdout, r)
		} else {
			printStats(app.Stdout, &r, false)
		}
		return nil
	})
}

// printStats prints figures: those of what happened only of a place that runs.
func printStats(w io.Writer, r *transport.StatsReply, runs bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  store %s, format %d\n", r.Place, r.Store, r.Format)
	fmt.Fprintf(&b, "  disk    %s in %d tables, and %s of log", mebibytes(r.TableBytes), r.Tables, mebibytes(r.LogBytes))
	if r.FreeBytes >= 0 {
		fmt.Fprintf(&b, "; %s are free", mebibytes(r.FreeBytes))
	}
	b.WriteByte('\n')
	for _, l := range r.Levels {
		fmt.Fprintf(&b, "  level %d %s in %d tables\n", l.Level, mebibytes(l.Bytes), l.Tables)
	}
	if runs {
		fmt.Fprintf(&b, "  writes  %d operations in %d commits, %s of keys and values; each byte cost %.1f on disk\n", r.Operations, r.Commits, mebibytes(r.WrittenBytes), r.WriteAmplification)
		fmt.Fprintf(&b, "  waiting %d operations, %s; %d were refused, %d panicked\n", r.Pending, mebibytes(r.PendingBytes), r.Refused, r.Panics)
		fmt.Fprintf(&b, "  behind  %s to compact; %d flushes, %d compactions\n", mebibytes(r.CompactionDebt), r.Flushes, r.Compactions)
		fmt.Fprintf(&b, "  memory  %d objects and %d keys awake, %s of cache (%s of reads hit it), %s of memtables\n", r.Awake, r.KeysAwake, mebibytes(r.CacheBytes), share(r.CacheHits, r.CacheMisses), mebibytes(r.MemTableBytes))
	}
	_, _ = io.WriteString(w, b.String())
}

func share(part, rest int64) string {
	if part+rest == 0 {
		return "none"
	}
	return fmt.Sprintf("%d %%", 100*part/(part+rest))
}

// CompactCmd compacts stores.
type CompactCmd struct {
	storeFlags
	jsonFlag
}

// Help is the command's long help.
func (*CompactCmd) Help() string {
	return `Stores that nobody serves are rewritten without what was deleted or overwritten. They do that by themselves while they are
written to, so this is for a store that was large and is to be small now. It needs as much room again as the largest part
that it rewrites.

Examples:

    tributary compact --data /var/lib/tributary --place eu.de.berlin`
}

type compactRecord struct {
	Place       string `json:"place"`
	BeforeBytes int64  `json:"before_bytes"`
	AfterBytes  int64  `json:"after_bytes"`
}

// Run compacts.
func (c *CompactCmd) Run(app *App) error {
	return c.each(app, func(s store, opened *objects.Store) error {
		before, err := opened.Disk()
		if err != nil {
			return err
		}
		m := app.meter(s.place)
		err = opened.Compact(app.Context, m.show)
		m.end()
		if err != nil {
			return err
		}
		after, err := opened.Disk()
		if err != nil {
			return err
		}
		r := compactRecord{s.place, before.TableBytes + before.LogBytes, after.TableBytes + after.LogBytes}
		if c.JSON {
			return printRecord(app.Stdout, r)
		}
		_, err = fmt.Fprintf(app.Stdout, "%s  %s, before %s\n", r.Place, mebibytes(r.AfterBytes), mebibytes(r.BeforeBytes))
		return err
	})
}
