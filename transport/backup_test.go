package transport

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// restoreFrom puts a place's backup in the place of its store.
func (w *tree) restoreFrom(p tiers.Place) {
	w.t.Helper()
	dir := filepath.Join(w.dir, string(p))
	if err := os.RemoveAll(dir); err != nil {
		w.t.Fatal(err)
	}
	if _, err := objects.Restore(w.t.Context(), filepath.Join(w.dir, "backups", string(p)), dir, objects.FolderOptions{}); err != nil {
		w.t.Fatal(err)
	}
	if report, err := objects.Verify(w.t.Context(), dir, objects.FolderOptions{}); err != nil || report.Err() != nil {
		w.t.Fatal(err, report.Err())
	}
}

// TestRestoredBackups takes backups of a city and of the root while they count and limit as fast as they can, goes on,
// and sets both back to them: every vote is counted once, the budget is not exceeded, and waits for its operator, and
// the rate lends nothing until old leases have ended.
func TestRestoredBackups(t *testing.T) {
	const rate, burst, budget = 100, 200, 100_000
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {}, "api": {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "100/s", Burst: new(int64(burst))}}},
		"tickets": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(budget))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t, rules)
	w.logs = &logs{}
	for _, p := range world4 {
		w.startOn(p, nil)
	}
	const root, city = tiers.Root, tiers.Place("eu.de.berlin")
	cities := world4[3:]
	admitted, stopChecks := w.check(cities...)
	defer stopChecks()
	var spent atomic.Int64
	spend := func(ctx context.Context, c *Client, hits int64) bool {
		r, err := c.Check(ctx, "tickets", "show", WithHits(hits), WithWait(50*time.Millisecond))
		if err == nil && r.Allowed {
			spent.Add(hits)
		}
		return err == nil && r.Allowed
	}
	load := func(f func()) int64 {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var voting []*voters
		ended := make(chan struct{}, len(cities))
		for _, c := range cities {
			voting = append(voting, w.vote(c, 8))
			client := w.client(c)
			go func() {
				for ctx.Err() == nil {
					spend(context.WithoutCancel(ctx), client, 3)
				}
				ended <- struct{}{}
			}()
		}
		f()
		cancel()
		for range cities {
			<-ended
		}
		var all int64
		for _, v := range voting {
			v.stop()
			v.wg.Wait()
			if v.unknown.Load() > 0 || v.other.Load() != nil {
				t.Fatalf("%d votes have no answer", v.unknown.Load())
			}
			all += v.acked.Load()
		}
		return all
	}
	var votes int64
	votes += load(func() {
		atRoot, atCity := w.client(root), w.client(city)
		for range 2 { // the second one is incremental
			time.Sleep(200 * time.Millisecond)
			for _, c := range []*Client{atRoot, atCity} {
				r := must[BackupReply](t)(c.Backup(t.Context(), nil))
				if !r.Done || r.Files == 0 || r.Bytes == 0 || r.DoneBytes != r.TotalBytes || !strings.HasPrefix(r.Folder, w.dir) {
					t.Errorf("%+v", r)
				}
			}
		}
	})
	votes += load(func() { time.Sleep(500 * time.Millisecond) })
	w.converges(votes)
	before := spent.Load()
	if before == 0 || before >= budget {
		t.Fatalf("%d of %d were spent", before, budget)
	}

	w.kill(root)
	w.kill(city)
	w.restoreFrom(root)
	w.restoreFrom(city)
	swapped := time.Now()
	w.startOn(root, nil)
	w.startOn(city, nil)
	eventually(t, "both say that they were restored", func() bool {
		const says, detail = "this store is not the place's last", "restored from a backup"
		return w.logs.has(root, says, detail) && w.logs.has(city, says, detail)
	})
	w.converges(votes)
	votes += load(func() { time.Sleep(300 * time.Millisecond) })
	w.converges(votes)
	for _, c := range cities {
		eventually(t, "checks are admitted at "+string(c), func() bool {
			return admitted.since(c, swapped.Add(lenderSide(faultLease))) >= 5
		})
	}
	stopChecks()
	once := slices.Concat(admitted.all[cities[0]], admitted.all[cities[1]])
	if worst, from, to := excess(once, rate, burst); worst > 0 {
		t.Errorf("%.1f checks of %d beyond the limit, from %s to %s after the backups", worst, len(once), from.Sub(swapped), to.Sub(swapped))
	}

	// What the cities still held they may spend; the root lends nothing.
	clients := []*Client{w.client(cities[0]), w.client(cities[1])}
	held := spent.Load() - before
	if spent.Load() > budget || held > budget/4 {
		t.Errorf("%d of %d were spent, %d of them after the root was set back", spent.Load(), budget, held)
	}
	if spend(t.Context(), clients[0], budget/4) {
		t.Error("a share of what nobody knows is lent")
	}
	// An operator's figure ends that.
	left := int64(500)
	must[ResetReply](t)(w.client(root).Left(t.Context(), "tickets", "show", left))
	start := spent.Load()
	denied := 0
	eventually(t, "the rest is spent", func() bool {
		if !spend(t.Context(), clients[1], 50) {
			denied++
		}
		return denied > 3 && spent.Load() > start
	})
	if got := spent.Load() - start; got > left {
		t.Errorf("%d were spent of the %d that were left", got, left)
	}

	// The mark is gone: the next start is as any other.
	w.kill(root)
	w.logs = &logs{}
	w.startOn(root, nil)
	if w.places[root].store.store.Restored() || w.logs.has(root, "this store is not the place's last", "") {
		t.Error("the root's second start is told that it was restored")
	}
	stats := must[StatsReply](t)(w.client(root).Stats(t.Context()))
	if stats.Place != "global" || stats.Commits == 0 || stats.DiskBytes == 0 || len(stats.Store) != 16 {
		t.Errorf("%+v", stats)
	}
}

func TestBackupIsRefusedWithoutAFolder(t *testing.T) {
	w := newTree(t, faultRules(t), tiers.Root)
	_, err := w.client(tiers.Root).Backup(t.Context(), nil)
	if !errors.Is(err, ErrNotServed) || !strings.Contains(err.Error(), "start it with --backups") {
		t.Errorf("%v", err)
	}
	// One that fails says so, and the next one may do.
	p := w.startOn("eu", nil)
	blocker := p.cfg.Backups
	if err := os.MkdirAll(filepath.Join(blocker, "something else"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = w.client("eu").Backup(t.Context(), nil)
	if !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), "which is of no backup") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(blocker, "something else")); err != nil {
		t.Fatal(err)
	}
	must[BackupReply](t)(w.client("eu").Backup(t.Context(), nil))
	_, err = admin[BackupRequest, BackupReply](t.Context(), w.client("eu"), VerbBackup, BackupRequest{ID: "other"})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("%v", err)
	}
}
