package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/objects"
)

// The admin verbs about a place's store.
const (
	// VerbBackup makes a backup of the store while the place runs, in a folder of its machine.
	VerbBackup Verb = "admin.backup"
	// VerbStats says what the store holds and does.
	VerbStats Verb = "admin.stats"
)

// BackupRequest begins a backup, or asks how far it is.
type BackupRequest struct {
	// ID is of a backup that was begun; empty begins one, or finds the one that runs.
	ID string `json:"id,omitzero"`
}

// BackupReply says how far a backup is, and in the end what is in it. The folder is on the place's machine.
type BackupReply struct {
	Place  string `json:"place"`
	ID     string `json:"id"`
	Folder string `json:"folder"`
	Done   bool   `json:"done"`
	// DoneBytes of TotalBytes are read; both are 0 before it is known how many there are.
	DoneBytes  int64 `json:"done_bytes"`
	TotalBytes int64 `json:"total_bytes"`
	// What follows is there when it is done.
	Made        time.Time `json:"made,omitzero"` // all that was acknowledged before is in it
	Files       int       `json:"files,omitzero"`
	Bytes       int64     `json:"bytes,omitzero"`
	CopiedBytes int64     `json:"copied_bytes,omitzero"`
	LinkedBytes int64     `json:"linked_bytes,omitzero"`
	KeptBytes   int64     `json:"kept_bytes,omitzero"` // were there from an earlier backup
}

// MarshalJSON writes the reply as it travels.
func (r BackupReply) MarshalJSON() ([]byte, error) {
	type plain BackupReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// StatsRequest asks for a store's figures.
type StatsRequest struct{}

// StatsReply is a store's figures; what is counted is counted since its process opened it.
type StatsReply struct {
	Place string `json:"place"`
	StoreStats
	KeysAwake int `json:"keys_awake"` // in memory; 0 of a store that nobody serves
}

// MarshalJSON writes the reply as it travels.
func (r StatsReply) MarshalJSON() ([]byte, error) {
	type plain StatsReply
	return json.Marshal(plain(r), json.Deterministic(true))
}

// StoreStats are figures of objects.Stats and objects.DiskStats.
type StoreStats struct {
	Store              string       `json:"store"`
	Format             int          `json:"format"`
	Awake              int          `json:"awake"`
	Operations         int64        `json:"operations"` // that wrote
	Commits            uint64       `json:"commits"`
	WrittenBytes       int64        `json:"written_bytes"` // keys and values of operations
	Pending            int64        `json:"pending"`
	PendingBytes       int64        `json:"pending_bytes"`
	Refused            int64        `json:"refused"` // for a full disk, or too much that waits for it
	Panics             int64        `json:"panics"`
	DiskBytes          int64        `json:"disk_bytes"`
	FreeBytes          int64        `json:"free_bytes"` // -1: not known
	LogBytes           int64        `json:"log_bytes"`
	TableBytes         int64        `json:"table_bytes"`
	Tables             int64        `json:"tables"`
	Levels             []LevelStats `json:"levels"`
	Flushes            int64        `json:"flushes"`
	Compactions        int64        `json:"compactions"`
	CompactionDebt     int64        `json:"compaction_debt_bytes"`
	WriteAmplification float64      `json:"write_amplification"` // 0: nothing was written
	ReadAmplification  int          `json:"read_amplification"`
	CacheBytes         int64        `json:"cache_bytes"`
	CacheHits          int64        `json:"cache_hits"`
	CacheMisses        int64        `json:"cache_misses"`
	MemTableBytes      int64        `json:"memtable_bytes"`
}

// LevelStats are those of a level of the store's tree.
type LevelStats struct {
	Level  int   `json:"level"`
	Tables int64 `json:"tables"`
	Bytes  int64 `json:"bytes"`
}

// StatsOf returns a store's figures.
func StatsOf(s *objects.Store) (StoreStats, error) {
	d, err := s.Disk()
	if err != nil {
		return StoreStats{}, err
	}
	o := s.Stats()
	stats := StoreStats{
		Store: s.ID(), Format: objects.Format, Awake: o.Awake, Operations: o.Ops, Commits: o.Commits, WrittenBytes: o.Bytes, Pending: o.Pending,
		PendingBytes: o.PendingBytes, Refused: o.Refused + o.Overloaded, Panics: o.Panics, DiskBytes: d.Bytes, FreeBytes: d.FreeBytes,
		LogBytes: d.LogBytes, TableBytes: d.TableBytes, Tables: d.Tables, Levels: []LevelStats{}, Flushes: d.Flushes, Compactions: d.Compactions,
		CompactionDebt: d.CompactionDebt, WriteAmplification: d.WriteAmplification, ReadAmplification: d.ReadAmplification,
		CacheBytes: d.CacheBytes, CacheHits: d.CacheHits, CacheMisses: d.CacheMisses, MemTableBytes: d.MemTableBytes,
	}
	for _, l := range d.Levels {
		stats.Levels = append(stats.Levels, LevelStats(l))
	}
	return stats, nil
}

// backupJob is the backup of a place that runs, or ran last.
type backupJob struct {
	mu    sync.Mutex
	reply BackupReply
	err   error
	made  atomic.Pointer[time.Time] // the last one's consistent point; nil: there is none
}

// Backup is [Admin.Backup].
func (b backend) Backup(q BackupRequest, done func(BackupReply, *Error)) {
	if b.cfg.Backups == "" {
		done(BackupReply{}, ErrNotServed.Errorf("%s has no folder for backups: start it with --backups", b.cfg.Place))
		return
	}
	job := &b.backup
	job.mu.Lock()
	defer job.mu.Unlock()
	switch {
	case q.ID == "" && (job.reply.ID == "" || job.reply.Done || job.err != nil):
		job.reply = BackupReply{Place: string(b.cfg.Place), ID: fmt.Sprintf("%016x", random()), Folder: b.cfg.Backups}
		job.err = nil
		go b.runBackup(job)
	case q.ID != "" && q.ID != job.reply.ID:
		done(BackupReply{}, ErrConflict.Errorf("%s knows no backup %s: it has started again since, or began another", b.cfg.Place, quote(q.ID)))
		return
	}
	if job.err != nil {
		done(BackupReply{}, b.backupError(job.err))
		return
	}
	done(job.reply, nil)
}

func (b backend) runBackup(job *backupJob) {
	// The store's end ends it as well.
	info, err := b.store.store.Backup(context.Background(), b.cfg.Backups, func(p objects.Progress) {
		job.mu.Lock()
		defer job.mu.Unlock()
		job.reply.DoneBytes, job.reply.TotalBytes = p.Done, p.Total
	})
	job.mu.Lock()
	defer job.mu.Unlock()
	if job.err = err; err != nil {
		b.log.Error().Err(err).Msg("a backup failed")
		return
	}
	job.made.Store(&info.Made)
	r := &job.reply
	r.Done, r.Made, r.Files, r.Bytes = true, info.Made, info.Files, info.Bytes
	r.CopiedBytes, r.LinkedBytes, r.KeptBytes = info.Copied, info.Linked, info.Kept
	b.log.Info().Str("folder", b.cfg.Backups).Int64("bytes", info.Bytes).Int64("copied_bytes", info.Copied).Msg("a backup was made")
}

func (b backend) backupError(err error) *Error {
	if errors.Is(err, objects.ErrClosed) {
		return ErrNotReady.Errorf("%s stopped before its backup was made: begin it again", b.cfg.Place)
	}
	return ErrStorage.Errorf("the backup of %s failed, and the one before is as it was: %v", b.cfg.Place, err)
}

// Stats is [Admin.Stats].
func (b backend) Stats(_ StatsRequest, done func(StatsReply, *Error)) {
	stats, err := StatsOf(b.store.store)
	if err != nil {
		done(StatsReply{}, b.wireError(err))
		return
	}
	done(StatsReply{string(b.cfg.Place), stats, b.runner.Stats().Awake}, nil)
}

// backupPoll is how often a client asks how far a backup is.
const backupPoll = 100 * time.Millisecond

// Backup makes a backup of the store of the client's place, or without one of the root, in the folder that the place has
// for it, and returns when it is done. One that runs is followed. progress hears how far it is; it may be nil. When ctx
// ends, the backup goes on.
func (c *Client) Backup(ctx context.Context, progress func(BackupReply)) (BackupReply, error) {
	q := BackupRequest{}
	for {
		reply, err := admin[BackupRequest, BackupReply](ctx, c, VerbBackup, q)
		if err != nil {
			return reply, err
		}
		if progress != nil {
			progress(reply)
		}
		if reply.Done {
			return reply, nil
		}
		q.ID = reply.ID
		select {
		case <-ctx.Done():
			return reply, ctx.Err()
		case <-time.After(backupPoll):
		}
	}
}

// Stats returns figures of the store of the client's place, or without one of the root.
func (c *Client) Stats(ctx context.Context) (StatsReply, error) {
	return admin[StatsRequest, StatsReply](ctx, c, VerbStats, StatsRequest{})
}
