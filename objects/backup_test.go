package objects

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// fill increments n objects.
func fill(t testing.TB, k *Kind[*counter], from, n int) {
	t.Helper()
	var wait sync.WaitGroup
	for i := range n {
		wait.Add(1)
		k.Submit(name(from+i), increment, func(err error) {
			if err != nil {
				t.Errorf("increment: %v", err)
			}
			wait.Done()
		})
	}
	wait.Wait()
}

// flush makes tables of what is in memory.
func flush(t testing.TB, s *Store) {
	t.Helper()
	must(t, s.db.Flush())
}

func restored(t testing.TB, backup string, fs vfs.FS) (*Store, *Kind[*counter]) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	if fs != nil {
		dir = fmt.Sprintf("restored-%d", rand.Uint64())
	}
	_, err := Restore(ctx, backup, dir, FolderOptions{FS: fs})
	must(t, err)
	report, err := Verify(ctx, dir, FolderOptions{FS: fs})
	must(t, err)
	must(t, report.Err())
	if !report.Restored {
		t.Error("the restored store is not marked")
	}
	s, err := Open(dir, Options{FS: fs}) // not open: the first store's goroutines come and go meanwhile
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, Register(s, "counter", wakeCounter)
}

func TestBackupIsIncrementalAndReplacesTheOneBefore(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	backup := filepath.Join(t.TempDir(), "deep", "backup")
	fill(t, k, 0, 2000)
	flush(t, s)
	first, err := s.Backup(ctx, backup, nil)
	must(t, err)
	fill(t, k, 0, 10)
	var last Progress
	second, err := s.Backup(ctx, backup, func(p Progress) { last = p })
	must(t, err)
	if second.Kept == 0 || second.Linked == 0 || second.Kept+second.Linked+second.Copied != second.Bytes {
		t.Errorf("the first: %+v, the second: %+v", first, second)
	}
	if last.Done != last.Total || last.Total < second.Bytes {
		t.Errorf("the last progress is %+v of %d bytes", last, second.Bytes)
	}
	files, err := os.ReadDir(filepath.Join(backup, backupFiles))
	must(t, err)
	if len(files) != second.Files {
		t.Errorf("the folder has %d files, and the backup %d", len(files), second.Files)
	}
	report, err := Verify(ctx, backup, FolderOptions{})
	must(t, err)
	must(t, report.Err())
	if report.Backup == nil || report.Backup.Files != second.Files || report.Store != s.ID() {
		t.Errorf("the report is %+v", report)
	}

	r, rk := restored(t, backup, nil)
	if got := [...]uint64{value(t, rk, name(0)), value(t, rk, name(10))}; got != [...]uint64{2, 1} {
		t.Errorf("restored counts are %d", got)
	}
	if !r.Restored() || s.Restored() || r.ID() != s.ID() {
		t.Errorf("restored: %t, the first one: %t", r.Restored(), s.Restored())
	}
	// Both go on, make files of the same names, and back up into the same folder in turn.
	fill(t, rk, 0, 3000)
	flush(t, r)
	fill(t, k, 5000, 3000)
	flush(t, s)
	_, err = s.Backup(ctx, backup, nil)
	must(t, err)
	_, err = r.Backup(ctx, backup, nil)
	must(t, err)
	_, rk2 := restored(t, backup, nil)
	if got := [...]uint64{value(t, rk2, name(0)), value(t, rk2, name(5000))}; got != [...]uint64{3, 0} {
		t.Errorf("restored counts are %d", got)
	}
}

func TestRestoredMarkStaysUntilCleared(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	backup := filepath.Join(t.TempDir(), "backup")
	_, err := s.Backup(ctx, backup, nil)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "restored")
	_, err = Restore(ctx, backup, dir, FolderOptions{})
	must(t, err)
	for i, want := range []bool{true, true, false} {
		r, err := Open(dir, Options{})
		must(t, err)
		if r.Restored() != want {
			t.Errorf("start %d: restored is %t", i, r.Restored())
		}
		if i == 1 {
			must(t, r.ClearRestored(ctx))
		}
		must(t, r.Close())
	}
	must(t, s.ClearRestored(ctx)) // nothing to clear
}

// TestBackupUnderLoad takes backups while counters are incremented as fast as the disk allows, some in pairs: all that
// was acknowledged before each is in it, nothing that was never begun is, and both of a pair or none.
func TestBackupUnderLoad(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		t.Run(fmt.Sprintf("disk=%t", onDisk), func(t *testing.T) {
			var fs vfs.FS = vfs.NewMem()
			dir, backup := "store", "backup"
			if onDisk {
				fs, dir, backup = nil, t.TempDir(), filepath.Join(t.TempDir(), "backup")
			}
			s := open(t, dir, Options{FS: fs, MemTableBytes: 256 << 10}) // so that logs come and go
			k := Register(s, "counter", wakeCounter)
			const writers = 8
			var begun, acknowledged [writers]atomic.Uint64
			stop, running := make(chan struct{}), sync.WaitGroup{}
			for w := range writers {
				running.Go(func() {
					flight := make(chan struct{}, 64)
					for i := uint64(1); ; i++ {
						select {
						case <-stop:
							for range cap(flight) {
								flight <- struct{}{}
							}
							return
						case flight <- struct{}{}:
						}
						begun[w].Store(i)
						k.Submit(name(w), func(tx *Tx, c *counter) error {
							c.n++
							if err := tx.Put("twin", number(c.n)); err != nil {
								return err
							}
							// Something that fills the log.
							if err := tx.Put(fmt.Sprintf("log-%03d", c.n%500), make([]byte, 100)); err != nil {
								return err
							}
							return tx.Put("n", number(c.n))
						}, func(err error) {
							if err != nil {
								t.Errorf("increment: %v", err)
							}
							acknowledged[w].Store(i)
							<-flight
						})
					}
				})
			}
			rounds := 4
			for range rounds {
				var before [writers]uint64
				for w := range writers {
					eventually(t, "the load", func() bool { before[w] = acknowledged[w].Load(); return before[w] > 100 })
				}
				_, err := s.Backup(ctx, backup, nil)
				must(t, err)
				_, rk := restored(t, backup, fs)
				for w := range writers {
					must(t, rk.Do(ctx, name(w), func(tx *Tx, c *counter) error {
						twin, _, err := tx.Get("twin")
						if string(twin) != string(number(c.n)) {
							t.Errorf("the operation is half there: %d and %x", c.n, twin)
						}
						if most := begun[w].Load(); c.n < before[w] || c.n > most {
							t.Errorf("writer %d: %d are in the backup, %d were acknowledged before it, %d begun", w, c.n, before[w], most)
						}
						return err
					}))
				}
			}
			close(stop)
			running.Wait()
		})
	}
}

// TestInterruptedBackupKeepsTheOneBefore lets everything that a backup does to files fail once, and crashes there: the
// folder restores to the backup before, or to the new one.
func TestInterruptedBackupKeepsTheOneBefore(t *testing.T) {
	tried := 0
	for at := 0; ; at++ {
		mem := vfs.NewCrashableMem()
		var left atomic.Int64
		left.Store(1 << 60)
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if strings.Contains(op.Path, backupFiles+"/") || strings.Contains(op.Path, backupList) || strings.Contains(op.Path, stageFolder) {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) < 0 {
					return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
				}
			}
			return nil
		}))
		s, err := Open("store", Options{FS: fs, MinFreeBytes: -1})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		fill(t, k, 0, 50)
		must(t, s.db.Flush())
		_, err = s.Backup(ctx, "backup", nil)
		must(t, err)
		fill(t, k, 0, 50)
		must(t, s.db.Flush())
		left.Store(int64(at))
		_, err = s.Backup(ctx, "backup", nil)
		ended := left.Load() >= 0
		if ended {
			must(t, err)
		} else {
			wantError(t, err, syscall.ENOSPC)
			tried++
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(at), 0))})
		left.Store(1 << 60)
		fill(t, k, 0, 1) // the store goes on
		must(t, s.Close())
		for _, fs := range []vfs.FS{crashed, mem} {
			_, err := Restore(ctx, "backup", "restored", FolderOptions{FS: fs})
			must(t, err)
			r, err := Open("restored", Options{FS: fs})
			must(t, err)
			rk := Register(r, "counter", wakeCounter)
			first := value(t, rk, name(0))
			for i := range 50 {
				if n := value(t, rk, name(i)); n != first || n < 1 || n > 2 || ended && n != 2 {
					t.Fatalf("failed at %d: object %d has %d, and the first %d", at, i, n, first)
				}
			}
			must(t, r.Close())
			// The next backup works, and leaves nothing behind.
			r, err = Open("store", Options{FS: fs})
			must(t, err)
			info, err := r.Backup(ctx, "backup", nil)
			must(t, err)
			files, err := fs.List("backup/files")
			must(t, err)
			if len(files) != info.Files {
				t.Errorf("failed at %d: %d files are left of a backup of %d", at, len(files), info.Files)
			}
			must(t, r.Close())
		}
		if ended {
			break
		}
	}
	if tried < 10 {
		t.Errorf("only %d points were tried", tried)
	}
}

// TestBackupOverFileSystems copies what cannot be linked, but not again.
func TestBackupOverFileSystems(t *testing.T) {
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpLink && strings.HasPrefix(op.Path, "store/"+stageFolder) {
			return syscall.EXDEV
		}
		return nil
	}))
	s := open(t, "store", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	fill(t, k, 0, 10_000)
	flush(t, s)
	first, err := s.Backup(ctx, "backup", nil)
	must(t, err)
	fill(t, k, 0, 3)
	second, err := s.Backup(ctx, "backup", nil)
	must(t, err)
	if first.Copied != first.Bytes || second.Linked != 0 || second.Copied > second.Bytes/2 {
		t.Errorf("the first: %+v, the second: %+v", first, second)
	}
	_, rk := restored(t, "backup", fs)
	if value(t, rk, name(0)) != 2 || value(t, rk, name(9999)) != 1 {
		t.Error("the counts are not those of the store")
	}
}

func TestBackupAndRestoreRefuse(t *testing.T) {
	s, other := open(t, t.TempDir(), Options{}), open(t, t.TempDir(), Options{})
	backup := filepath.Join(t.TempDir(), "backup")
	_, err := s.Backup(ctx, backup, nil)
	must(t, err)
	refused := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("got the error %v, want %q in it", err, words)
		}
	}
	_, err = other.Backup(ctx, backup, nil)
	refused(err, "holds a backup of another store")
	_, err = other.Backup(ctx, s.dir, nil)
	refused(err, "which is of no backup")
	_, err = Restore(ctx, backup, s.dir, FolderOptions{})
	refused(err, "is not empty")
	_, err = Restore(ctx, other.dir, filepath.Join(t.TempDir(), "x"), FolderOptions{})
	wantError(t, err, ErrNoStore)
	_, err = Open(backup, Options{})
	refused(err, "the folder holds a backup")
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Backup(ended, backup, nil)
	wantError(t, err, context.Canceled)

	// Each file of a backup is checked, and the list as well.
	files, err := os.ReadDir(filepath.Join(backup, backupFiles))
	must(t, err)
	paths := []string{filepath.Join(backup, backupList)}
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.Size() > 0 {
			paths = append(paths, filepath.Join(backup, backupFiles, f.Name()))
		}
	}
	for _, path := range paths {
		for _, harm := range []string{"flip", "remove"} {
			whole, err := os.ReadFile(path)
			must(t, err)
			if harm == "flip" {
				must(t, flip(path, int64(len(whole)/2)))
			} else {
				must(t, os.Remove(path))
			}
			dir := filepath.Join(t.TempDir(), "restored")
			_, err = Restore(ctx, backup, dir, FolderOptions{})
			refused(err, filepath.Base(path))
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s: something is left of a failed restore", path)
			}
			report, err := Verify(ctx, backup, FolderOptions{})
			if harm == "remove" && strings.HasSuffix(path, backupList) {
				continue // no backup any more
			}
			must(t, err)
			refused(report.Err(), filepath.Base(path))
			must(t, os.RemoveAll(path)) // what was flipped is a link no more
			must(t, os.WriteFile(path, whole, 0o600))
		}
		if strings.HasSuffix(path, backupList) {
			_, err := s.Backup(ctx, backup, nil)
			must(t, err)
		}
	}
}

// flip changes a byte of a file, in a copy of its own.
func flip(path string, at int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 0x10
	if err := os.Remove(path); err != nil { // other links to it stay as they are
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// TestCloseEndsABackup closes a store while a backup of it runs.
func TestCloseEndsABackup(t *testing.T) {
	gate := make(chan struct{})
	var once sync.Once
	entered := make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpLink && strings.HasPrefix(op.Path, "store/"+stageFolder) {
			once.Do(func() { close(entered) })
			<-gate
		}
		return nil
	}))
	s, err := Open("store", Options{FS: fs})
	must(t, err)
	fill(t, Register(s, "counter", wakeCounter), 0, 10)
	result := make(chan error, 1)
	go func() {
		_, err := s.Backup(ctx, "backup", nil)
		result <- err
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	eventually(t, "close to begin", s.closed.Load)
	close(gate)
	wantError(t, <-result, ErrClosed)
	must(t, <-closed)
	if _, err := Inspect("backup", FolderOptions{FS: fs}); err == nil {
		t.Error("a half backup is there")
	}
	_, err = s.Backup(ctx, "backup", nil)
	wantError(t, err, ErrClosed)
}
