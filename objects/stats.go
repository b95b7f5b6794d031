package objects

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// DiskStats are figures of a store's files at one moment. What is counted is counted since Open.
type DiskStats struct {
	Bytes      int64 // of all files
	TableBytes int64
	Tables     int64
	LogBytes   int64        // of the write-ahead log that an Open would read
	FreeBytes  int64        // on the file system; -1: it does not tell
	Levels     []LevelStats // those that hold tables

	Flushes, Compactions     int64
	CompactionDebt           int64 // bytes that compactions are behind, about
	LogWritten, TableWritten int64
	// WriteAmplification is how many bytes were written to disk, log included, for each byte that operations wrote.
	WriteAmplification float64
	// ReadAmplification is how many places a read of a cold key looks into, at most.
	ReadAmplification int
	CacheBytes        int64
	CacheHits         int64
	CacheMisses       int64
	MemTableBytes     int64
}

// LevelStats are those of a level of the tree; the deeper, the older and larger.
type LevelStats struct {
	Level         int
	Tables, Bytes int64
}

// Disk returns figures of the store's files.
func (s *Store) Disk() (DiskStats, error) {
	m := s.Metrics()
	if m == nil {
		return DiskStats{}, ErrClosed
	}
	d := DiskStats{
		Bytes: int64(m.DiskSpaceUsage()), LogBytes: int64(m.WAL.Size), FreeBytes: -1,
		Flushes: m.Flush.Count, Compactions: m.Compact.Count, CompactionDebt: int64(m.Compact.EstimatedDebt),
		LogWritten: int64(m.WAL.BytesWritten), ReadAmplification: m.ReadAmp(),
		CacheBytes: m.BlockCache.Size, CacheHits: m.BlockCache.Hits, CacheMisses: m.BlockCache.Misses,
		MemTableBytes: int64(m.MemTable.Size),
	}
	for i := range m.Levels {
		l := &m.Levels[i]
		d.TableWritten += int64(l.TableBytesFlushed + l.TableBytesCompacted)
		if l.TablesCount > 0 {
			d.Levels = append(d.Levels, LevelStats{i, l.TablesCount, l.TablesSize})
			d.Tables += l.TablesCount
			d.TableBytes += l.TablesSize
		}
	}
	if in := s.commit.bytes.Load(); in > 0 {
		d.WriteAmplification = float64(d.LogWritten+d.TableWritten) / float64(in)
	}
	if usage, err := s.opts.FS.GetDiskUsage(s.dir); err == nil {
		d.FreeBytes = int64(min(usage.AvailBytes, 1<<62))
	}
	return d, nil
}

// Compact rewrites the tables, so that what was deleted or overwritten takes no room any more, while operations go on.
// The store does that by itself as it is written to; this does all of it now. It needs room for what it rewrites.
func (s *Store) Compact(ctx context.Context, progress func(Progress)) error {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed.Load() {
		return ErrClosed
	}
	if err := s.commit.failure(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	before := compacted(s.db.Metrics())
	total := int64(s.db.Metrics().DiskSpaceUsage())
	// Every key begins with something in between (keys.go), those that are deleted included.
	go func() {
		done <- s.unlessBroken(func() error { return s.db.Compact(ctx, []byte{0}, []byte{0xff}, true) })
	}()
	tick := time.NewTicker(compactTick)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("objects: compact %s: %w", s.dir, corrupt(err))
			}
			if progress != nil {
				progress(Progress{Step: "compact", Done: total, Total: total})
			}
			return nil
		case <-tick.C:
			if s.closed.Load() {
				cancel() // Close does not wait for the end of it
			}
			if s.guard.gone.Load() {
				continue
			}
			if progress != nil {
				progress(Progress{Step: "compact", Done: min(total, compacted(s.db.Metrics())-before), Total: total})
			}
		}
	}
}

const compactTick = 100 * time.Millisecond

func compacted(m *pebble.Metrics) (bytes int64) {
	for i := range m.Levels {
		bytes += int64(m.Levels[i].TableBytesRead)
	}
	return bytes
}
