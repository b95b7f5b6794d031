package objects

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// madeUp is a program of formats 2 to 4, each of which changes something.
func madeUp(newest int) *formats {
	add := func(from, to string) func(*pebble.DB, *pebble.Batch) error {
		return func(db *pebble.DB, b *pebble.Batch) error {
			text, _, err := getRuntime(db, from)
			if err != nil {
				return err
			}
			return b.Set([]byte(to), []byte(text+"+"), nil)
		}
	}
	f := &formats{newest: newest, steps: map[int]func(*pebble.DB, *pebble.Batch) error{}}
	for n := 2; n < newest; n++ {
		f.steps[n] = add(strings.Repeat("k", n), strings.Repeat("k", n+1))
	}
	return f
}

func TestOlderFormatIsUpgraded(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := Open("d", Options{FS: mem, formats: madeUp(2)})
	must(t, err)
	must(t, s.db.Set([]byte("kk"), []byte("old"), nil))
	must(t, s.Close())
	for range 2 { // the second time there is nothing to do
		s, err = Open("d", Options{FS: mem, formats: madeUp(4)})
		must(t, err)
		text, _, err := getRuntime(s.db, "kkkk")
		must(t, err)
		format, _, err := getRuntime(s.db, formatKey)
		must(t, err)
		if text != "old++" || format != "4" {
			t.Errorf("upgraded to %q, format %s", text, format)
		}
		must(t, s.Close())
	}
	_, err = Open("d", Options{FS: mem, formats: madeUp(3)})
	wantError(t, err, ErrFormat)
	if !strings.Contains(err.Error(), "format 4, and this program knows formats 2 to 3; use the program that wrote it, or a newer one") {
		t.Errorf("the error is %v", err)
	}
}

func TestTooOldFormatIsRefused(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Open("d", Options{FS: mem, formats: madeUp(2)})
	must(t, err)
	must(t, s.Close())
	f := madeUp(4)
	delete(f.steps, 2)
	_, err = Open("d", Options{FS: mem, formats: f})
	wantError(t, err, ErrFormat)
	if !strings.Contains(err.Error(), "format 2, and this program knows formats 3 to 4; open it once with a program in between") {
		t.Errorf("the error is %v", err)
	}
}

// TestOlderStoreGetsAnID: those made before there were ids.
func TestOlderStoreGetsAnID(t *testing.T) {
	mem := vfs.NewMem()
	s, err := Open("d", Options{FS: mem})
	must(t, err)
	must(t, s.db.Delete([]byte(storeKey), nil))
	must(t, s.Close())
	s = open(t, "d", Options{FS: mem})
	if len(s.ID()) != 16 {
		t.Errorf("the id is %q", s.ID())
	}
}

func TestCompactAndDiskStats(t *testing.T) {
	s := open(t, t.TempDir(), Options{MemTableBytes: 256 << 10})
	k := plain(s, "room")
	for i := range 2000 {
		put(t, k, name(i%20), name(i), strings.Repeat("x", 1000))
	}
	for i := range 20 {
		must(t, k.Do(ctx, name(i), func(tx *Tx, _ struct{}) error {
			for e, err := range tx.List(ListOptions{}) {
				if err != nil {
					return err
				}
				if err := tx.Delete(e.Key); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	before, err := s.Disk()
	must(t, err)
	if before.Flushes == 0 || before.WriteAmplification < 1 || before.LogWritten == 0 || before.Bytes == 0 || before.FreeBytes <= 0 {
		t.Errorf("before: %+v", before)
	}
	must(t, s.Compact(ctx, func(Progress) {}))
	after, err := s.Disk()
	must(t, err)
	if after.TableBytes > 10_000 || after.Compactions == 0 {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	must(t, s.Close())
	wantError(t, s.Compact(ctx, nil), ErrClosed)
}
