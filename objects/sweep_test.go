package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	sweepObjects = 8
	sweepCount   = 12 // of the first; the others have 1
)

// sweepStore makes a small store with tables, a manifest of several edits, and a log, and returns its files as they are
// after a crash, or a clean stop.
func sweepStore(t *testing.T, stopped bool) map[string][]byte {
	t.Helper()
	mem := vfs.NewCrashableMem()
	s, err := Open("d", Options{FS: mem})
	must(t, err)
	fill(t, Register(s, "counter", wakeCounter), 0, sweepObjects/2)
	must(t, s.Close())
	s, err = Open("d", Options{FS: mem})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	fill(t, k, sweepObjects/2, sweepObjects)
	flush(t, s)
	for range sweepCount - 1 {
		must(t, k.Do(ctx, name(0), increment))
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	must(t, s.Close())
	if stopped {
		return filesOf(t, mem)
	}
	return filesOf(t, crashed)
}

func filesOf(t *testing.T, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("d")
	must(t, err)
	files := map[string][]byte{}
	for _, name := range names {
		if files[name], err = readFile(fs, fs.PathJoin("d", name)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// sweepOpen opens what the files are, one of them changed, and says what there is of the first object's count: all, or
// less, or an error.
func sweepOpen(t *testing.T, files map[string][]byte, changed string, data []byte) (uint64, error) {
	t.Helper()
	mem := vfs.NewMem()
	must(t, mem.MkdirAll("d", 0o700))
	for name, whole := range files {
		if name == changed {
			whole = data
		}
		f, err := mem.Create(mem.PathJoin("d", name), vfs.WriteCategoryUnspecified)
		must(t, err)
		_, err = f.Write(whole)
		must(t, errors.Join(err, f.Close()))
	}
	s, err := Open("d", Options{FS: mem, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, MinFreeBytes: -1, StuckAfter: -1})
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close() }() // what is damaged may fail it
	k := Register(s, "counter", wakeCounter)
	var first uint64
	for i := range sweepObjects {
		err := k.Do(ctx, name(i), func(_ *Tx, c *counter) error {
			switch {
			case i == 0:
				first = c.n
			case c.n != 1:
				t.Errorf("object %d is %d", i, c.n)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return first, nil
}

// TestEveryCutAndFlipIsFoundOrHarmless cuts each file of a store at every length, and flips a bit of it at 2,000 places:
// the store then opens with all that was acknowledged, or is refused, at the start or when it is read, with an error that
// names the file. Only of the log after a crash the last groups may be missing, and never one in their midst.
func TestEveryCutAndFlipIsFoundOrHarmless(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty thousand openings of a store, one after the other, are nothing for the race detector")
	}
	const flips = 2000
	for _, stopped := range []bool{true, false} {
		files := sweepStore(t, stopped)
		names := []string{}
		for name := range files {
			names = append(names, name)
		}
		slices.Sort(names)
		kinds := map[string]bool{}
		for _, changed := range names {
			whole := files[changed]
			if len(whole) == 0 {
				continue
			}
			kinds[strings.Trim(changed, "-0123456789")] = true
			t.Run(fmt.Sprintf("stopped=%v/%s", stopped, changed), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(1, uint64(len(whole))))
				used := len(whole) // the log's end is zeros, each as good as the other
				if path.Ext(changed) == ".log" {
					used = len(strings.TrimRight(string(whole), "\x00"))
				}
				opened, refused, less := 0, 0, 0
				try := func(what string, data []byte) {
					first, err := sweepOpen(t, files, changed, data)
					switch {
					case err == nil && first == sweepCount:
						opened++
					case err == nil && !stopped && path.Ext(changed) == ".log" && first < sweepCount:
						less++
					case err == nil:
						t.Errorf("%s: it opens, with %d of %d", what, first, sweepCount)
					case !errors.Is(err, ErrCorrupt):
						t.Errorf("%s: it is not called damaged: %v", what, err)
					case !strings.Contains(err.Error(), strings.TrimSuffix(changed, path.Ext(changed))):
						t.Errorf("%s: the file is not named: %v", what, err)
					default:
						refused++
					}
				}
				for n := range used {
					try(fmt.Sprintf("cut to %d", n), whole[:n])
				}
				for n := used; n < len(whole); n += 8191 {
					try(fmt.Sprintf("cut to %d", n), whole[:n])
				}
				for range flips {
					at, bit := rng.IntN(used), rng.IntN(8)
					data := slices.Clone(whole)
					data[at] ^= 1 << bit
					try(fmt.Sprintf("bit %d of byte %d of %d flipped", bit, at, len(whole)), data)
				}
				t.Logf("%d bytes, %d used: %d opened with all, %d with less, %d were refused", len(whole), used, opened, less, refused)
			})
		}
		for _, kind := range []string{"MANIFEST", "OPTIONS", ".log", ".sst", inventoryFile} {
			if !kinds[kind] {
				t.Errorf("stopped=%v: the store has no %s, but %v", stopped, kind, names)
			}
		}
	}
}

// manglingFile changes what it is given to write, as a vfs.File may.
type manglingFile struct{ vfs.File }

func (f manglingFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	clear(p)
	return n, err
}

// TestInventoryHasWhatWasGivenToWrite: the hash of a manifest is of what Pebble wrote, whatever the file system makes of
// its buffer.
func TestInventoryHasWhatWasGivenToWrite(t *testing.T) {
	fs := vfs.NewMem()
	file, err := fs.Create("MANIFEST-000001", "")
	must(t, err)
	manifest := &running{name: "MANIFEST-000001", hash: sha256.New()}
	f := &fenceFile{File: manglingFile{file}, fs: &fenceFS{FS: fs, guard: &guard{}}, manifest: manifest}
	for _, text := range []string{"the first edit, ", "and another"} {
		_, err := f.Write([]byte(text))
		must(t, err)
	}
	want, err := hashOf(fs, "MANIFEST-000001", manifest.size)
	must(t, err)
	if got := hex.EncodeToString(manifest.hash.Sum(nil)); got != want {
		t.Errorf("the hash is %s, and the file's is %s", got, want)
	}
}
