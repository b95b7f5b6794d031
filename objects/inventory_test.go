package objects

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestCutManifestIsNoNewStore cuts the manifest of a store whose counts are in tables, at every length: the store is
// refused, Verify says so, and the tables stay.
func TestCutManifestIsNoNewStore(t *testing.T) {
	for _, kept := range []bool{true, false} {
		dir, _ := crashedStore(t)
		if !kept { // as a program of earlier leaves it
			must(t, os.Remove(filepath.Join(dir, inventoryFile)))
			for _, log := range files(t, dir, "*.log") {
				must(t, os.Truncate(log, 0)) // what is lost is not in there
			}
		}
		manifest := files(t, dir, "MANIFEST-*")[0]
		whole, err := os.ReadFile(manifest)
		must(t, err)
		tables := files(t, dir, "*.sst")
		until := len(whole)
		if !kept {
			until = 100 // of the first record
		}
		for n := 0; n < until; n += 1 + n/20 {
			must(t, os.WriteFile(manifest, whole[:n], 0o600))
			_, err := Open(dir, Options{})
			wantError(t, err, ErrCorrupt)
			if kept && !strings.Contains(err.Error(), filepath.Base(manifest)) {
				t.Errorf("cut to %d: the error is %v", n, err)
			}
		}
		if kept {
			report, err := Verify(ctx, dir, FolderOptions{})
			must(t, err)
			if err := report.Err(); err == nil || !strings.Contains(err.Error(), filepath.Base(manifest)) {
				t.Errorf("Verify says %v", err)
			}
		}
		if !slices.Equal(tables, files(t, dir, "*.sst")) {
			t.Error("tables are gone")
		}
	}
}

// TestStoppedStoreHasAllItsFilesAndNoOther removes a file of each kind of a store that was closed, and adds one.
func TestStoppedStoreHasAllItsFilesAndNoOther(t *testing.T) {
	dir, objects := crashedStore(t)
	_, err := readAll(t, dir, objects) // and closes it
	must(t, err)
	for _, pattern := range []string{"*.sst", "*.log", "MANIFEST-*", "OPTIONS-*"} {
		names := files(t, dir, pattern)
		name := names[len(names)-1]
		whole, err := os.ReadFile(name)
		must(t, err)
		refused := func(what, named string) {
			t.Helper()
			_, err := Open(dir, Options{})
			wantError(t, err, ErrCorrupt)
			report, verr := Verify(ctx, dir, FolderOptions{})
			must(t, verr)
			for _, err := range []error{err, report.Err()} {
				if err == nil || !strings.Contains(err.Error(), named) {
					t.Errorf("%s is %s: %v", name, what, err)
				}
			}
		}
		must(t, os.Remove(name))
		refused("missing", filepath.Base(name))
		must(t, os.WriteFile(name, whole, 0o600))
	}
	must(t, os.WriteFile(filepath.Join(dir, "000001.sst"), nil, 0o600))
	_, err = Open(dir, Options{})
	wantError(t, err, ErrCorrupt)
	must(t, os.Remove(filepath.Join(dir, "000001.sst")))
	_, err = readAll(t, dir, objects)
	must(t, err)
}

// TestStoreThatAnEarlierProgramUsedOpens: that keeps no inventory, and leaves one of before, or none.
func TestStoreThatAnEarlierProgramUsedOpens(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir, objects := crashedStore(t)
		kept := filepath.Join(dir, inventoryFile)
		if clean {
			_, err := readAll(t, dir, objects)
			must(t, err)
		}
		before, err := os.ReadFile(kept)
		must(t, err)
		_, err = readAll(t, dir, objects)
		must(t, err)
		must(t, os.WriteFile(kept, before, 0o600))
		_, err = readAll(t, dir, objects)
		must(t, err)
		must(t, os.Remove(kept))
		first, err := readAll(t, dir, objects)
		must(t, err)
		if _, err := os.Stat(kept); err != nil || first != 21 {
			t.Errorf("the first has %d, the inventory: %v", first, err)
		}
	}
}

func TestBackupOfACutManifestIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	fill(t, Register(s, "counter", wakeCounter), 0, 10)
	flush(t, s)
	manifests := files(t, dir, "MANIFEST-*")
	manifest := manifests[len(manifests)-1]
	stat, err := os.Stat(manifest)
	must(t, err)
	must(t, os.Truncate(manifest, stat.Size()/2))
	_, err = s.Backup(ctx, t.TempDir(), nil)
	wantError(t, err, ErrCorrupt)
}

func TestNewerPebbleFormatIsNoDamage(t *testing.T) {
	dir, _ := crashedStore(t)
	marker := files(t, dir, "marker.format-version.*")[0]
	must(t, os.Rename(marker, strings.TrimSuffix(marker, filepath.Ext(marker))+".999"))
	_, err := Open(dir, Options{})
	wantError(t, err, ErrFormat)
	if !strings.Contains(err.Error(), "999") || !strings.Contains(err.Error(), "newer") {
		t.Errorf("the error is %v", err)
	}
	if _, err := Verify(ctx, dir, FolderOptions{}); err == nil {
		t.Error("Verify says nothing")
	} else {
		wantError(t, err, ErrFormat)
	}
}

func TestFullDiskAtStartIsCalledThat(t *testing.T) {
	for from := range 30 {
		var on atomic.Bool
		var changes atomic.Int64
		fs, _ := faults(&on, syscall.ENOSPC, func(op errorfs.Op) bool {
			return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose && changes.Add(1) > int64(from)
		})
		on.Store(true)
		s, err := Open("d", Options{FS: fs})
		on.Store(false)
		if err == nil {
			_ = s.Close()
			if from < 10 {
				t.Errorf("it opens after %d changes", from)
			}
			continue
		}
		wantError(t, err, ErrFull)
		if strings.Contains(err.Error(), ErrCorrupt.Error()) || !strings.Contains(err.Error(), "make some") {
			t.Errorf("the error is %v", err)
		}
	}
}

// TestStoresBelongToTheirOwner: nobody else reads a store, one that was there before, a backup, or what is restored.
func TestStoresBelongToTheirOwner(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no modes there")
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "store"), 0o755)) //nolint:gosec // as a program of earlier made it
	s, err := Open(filepath.Join(dir, "store"), Options{})
	must(t, err)
	fill(t, Register(s, "counter", wakeCounter), 0, 10)
	flush(t, s)
	_, err = s.Backup(ctx, filepath.Join(dir, "new", "backup"), nil)
	must(t, err)
	must(t, s.Close())
	_, err = Restore(ctx, filepath.Join(dir, "new", "backup"), filepath.Join(dir, "restored"), FolderOptions{})
	must(t, err)
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return err
	}))
}
