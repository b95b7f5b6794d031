package objects

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// crashedStore makes a store with tables and a log, as a crash leaves it, and returns a copy of its folder.
func crashedStore(t *testing.T) (dir string, k int) {
	t.Helper()
	const objects = 3000
	live := t.TempDir()
	s, err := Open(live, Options{})
	must(t, err)
	kind := Register(s, "counter", wakeCounter)
	fill(t, kind, 0, objects)
	flush(t, s)
	for range 20 { // groups of their own
		must(t, kind.Do(ctx, name(0), increment))
	}
	dir = filepath.Join(t.TempDir(), "crashed")
	must(t, os.CopyFS(dir, os.DirFS(live)))
	must(t, s.Close())
	return dir, objects
}

func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	must(t, err)
	if len(names) == 0 {
		t.Fatalf("%s holds no %s", dir, pattern)
	}
	slices.Sort(names)
	return names
}

// readAll opens a store and reads every counter, up to the first error. It fails on a wrong count.
func readAll(t *testing.T, dir string, objects int) (first uint64, err error) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close() }()
	k := Register(s, "counter", wakeCounter)
	for i := range objects {
		if derr := k.Do(ctx, name(i), func(_ *Tx, c *counter) error {
			if i == 0 {
				first = c.n
			} else if c.n != 1 {
				t.Errorf("object %d has %d", i, c.n)
			}
			return nil
		}); derr != nil {
			return first, derr // the next ones would be as slow: Pebble looks for the flipped bit
		}
	}
	return first, err
}

func TestCrashedStoreIsWhole(t *testing.T) {
	dir, objects := crashedStore(t)
	report, err := Verify(ctx, dir, FolderOptions{})
	must(t, err)
	must(t, report.Err())
	if len(report.Kinds) != 1 || report.Kinds[0].Objects != int64(objects) || report.Kinds[0].Keys != int64(objects) || report.Tables == 0 || report.Runtime != 2 {
		t.Errorf("the report is %+v", report)
	}
	first, err := readAll(t, dir, objects)
	must(t, err)
	if first != 21 {
		t.Errorf("the first has %d", first)
	}
}

// TestDamagedTableIsFoundAndNotServed flips a byte in many places of the table: Verify names the file, and reads give
// the error or what was written.
func TestDamagedTableIsFoundAndNotServed(t *testing.T) {
	dir, objects := crashedStore(t)
	table := files(t, dir, "*.sst")[0]
	whole, err := os.ReadFile(table)
	must(t, err)
	served := 0
	for i := range int64(8) {
		must(t, flip(table, (2*i+1)*int64(len(whole))/16))
		report, err := Verify(ctx, dir, FolderOptions{})
		must(t, err)
		if err := report.Err(); err == nil || !strings.Contains(err.Error(), filepath.Base(table)) {
			t.Errorf("part %d: Verify says %v", i, err)
		}
		copied := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		if _, err := readAll(t, copied, objects); err != nil {
			wantError(t, err, ErrCorrupt)
		} else {
			served++
		}
		must(t, os.WriteFile(table, whole, 0o600))
	}
	if served > 3 { // what is damaged there no read of a single key needs
		t.Errorf("%d damaged stores answered everything", served)
	}
}

// TestDamagedLog flips a byte of the log. What is followed by whole records is found; the last record of all cannot be
// told from one that a crash has torn, and is taken for that: then nothing but what was last is missing.
func TestDamagedLog(t *testing.T) {
	dir, objects := crashedStore(t)
	logs := files(t, dir, "*.log")
	log := logs[len(logs)-1]
	whole, err := os.ReadFile(log)
	must(t, err)
	used := int64(len(bytes.TrimRight(whole, "\x00")))
	for _, at := range []int64{used / 8, used / 4, used / 2, 3 * used / 4} {
		must(t, flip(log, at))
		copied := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		_, err := readAll(t, copied, objects)
		wantError(t, err, ErrCorrupt)
		report, err := Verify(ctx, dir, FolderOptions{})
		must(t, err)
		if err := report.Err(); err == nil || !strings.Contains(err.Error(), filepath.Base(log)) {
			t.Errorf("at %d: Verify says %v", at, err)
		}
		must(t, os.WriteFile(log, whole, 0o600))
	}
	for _, cut := range []int64{1, 5, 20} { // torn
		must(t, os.WriteFile(log, whole[:used-cut], 0o600))
		report, err := Verify(ctx, dir, FolderOptions{})
		must(t, err)
		must(t, report.Err())
		copied := filepath.Join(t.TempDir(), "copy")
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		first, err := readAll(t, copied, objects)
		must(t, err)
		if first < 19 || first > 21 {
			t.Errorf("cut by %d, the first has %d", cut, first)
		}
	}
}

func TestDamagedManifest(t *testing.T) {
	for _, harm := range []string{"flip", "cut", "remove", "marker"} {
		t.Run(harm, func(t *testing.T) {
			dir, objects := crashedStore(t)
			manifests := files(t, dir, "MANIFEST-*")
			manifest := manifests[len(manifests)-1]
			words := filepath.Base(manifest)
			whole, err := os.ReadFile(manifest)
			must(t, err)
			switch harm {
			case "flip":
				must(t, flip(manifest, 20)) // its first record
			case "cut":
				must(t, os.WriteFile(manifest, whole[:3], 0o600))
			case "remove":
				must(t, os.Remove(manifest))
			case "marker":
				must(t, os.Remove(files(t, dir, "marker.manifest.*")[0]))
				words = "marker.manifest"
			}
			before := files(t, dir, "*.sst")
			for range 2 { // the first try made nothing worse
				_, err = readAll(t, dir, objects)
				wantError(t, err, ErrCorrupt)
				if !strings.Contains(err.Error(), words) {
					t.Errorf("the error is %v", err)
				}
			}
			report, err := Verify(ctx, dir, FolderOptions{})
			must(t, err)
			if err := report.Err(); err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("Verify says %v", err)
			}
			if !slices.Equal(before, files(t, dir, "*.sst")) {
				t.Error("tables are gone")
			}
		})
	}
}

func TestMissingTable(t *testing.T) {
	dir, objects := crashedStore(t)
	table := files(t, dir, "*.sst")[0]
	must(t, os.Remove(table))
	_, err := readAll(t, dir, objects)
	wantError(t, err, ErrCorrupt)
	report, err := Verify(ctx, dir, FolderOptions{})
	must(t, err)
	if err := report.Err(); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(filepath.Base(table), ".sst")) {
		t.Errorf("Verify says %v", err)
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	must(t, err)
	k := Register(s, "counter", wakeCounter)
	fill(t, k, 0, 3)
	_, err = Verify(ctx, dir, FolderOptions{})
	wantError(t, err, ErrInUse)
	for _, key := range []string{"Counter\x00a\x00n", "counter", "counter\x00a\x01\x00n", "counter\x00a\x00", "\x00future\x00x"} {
		must(t, s.db.Set([]byte(key), []byte("1"), nil))
	}
	must(t, s.db.Set([]byte("counter\x00big\x00n"), make([]byte, MaxValueBytes+1), nil))
	must(t, s.Close())
	_, err = Verify(ctx, t.TempDir(), FolderOptions{})
	wantError(t, err, ErrNoStore)
	report, err := Verify(ctx, dir, FolderOptions{MaxProblems: 3})
	must(t, err)
	if len(report.Problems) != 3 || report.More != 2 || report.Unknown != 1 {
		t.Errorf("the report is %+v", report)
	}
	text := fmt.Sprint(report.Problems)
	for _, words := range []string{`kind "Counter" holds 'C'`, `"counter" has no kind, name and key`, `the stored alarm is 1 bytes long`} {
		if !strings.Contains(text, words) {
			t.Errorf("%q is not in %s", words, text)
		}
	}
}

// TestVerifyComparesAlarmsWithTheirIndex: an alarm that the index has not would never go off.
func TestVerifyComparesAlarmsWithTheirIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	k := plain(s, "room")
	for i := range 3 {
		must(t, k.Do(ctx, name(i), func(tx *Tx, _ struct{}) error { return tx.SetAlarm(time.Now().Add(time.Hour)) }))
	}
	must(t, s.Close())
	verify := func() string {
		report, err := Verify(ctx, dir, FolderOptions{})
		must(t, err)
		return fmt.Sprint(report.Problems)
	}
	if problems := verify(); problems != "[]" {
		t.Fatal(problems)
	}
	db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	must(t, err)
	must(t, db.DeleteRange([]byte(alarmKeys), []byte(alarmKeys+"s"), pebble.Sync))
	must(t, db.Close())
	if problems := verify(); !strings.Contains(problems, "the index of alarms is not that of the objects' alarms") {
		t.Error(problems)
	}
}

// TestEarlyRecordsAreNoProof: what a group says that was logged before the last one was synced.
func TestEarlyRecordsAreNoProof(t *testing.T) {
	for _, c := range []struct {
		records string // e: early, s: the seal
		damaged int    // the record with a byte that changed
		found   bool
	}{
		{"---", 1, true},
		{"---", 2, false},
		{"--e", 1, false},
		{"--e", 0, true}, // two follow
		{"--e-", 1, true},
		{"--es", 2, true},
		{"-ee", 1, false},
		{"-ee", 0, true},
	} {
		dir := t.TempDir()
		db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
		must(t, err)
		for i, kind := range c.records {
			b := db.NewBatch()
			switch kind {
			case 's':
				must(t, b.LogData(nil, nil))
			case 'e':
				must(t, early(b))
				fallthrough
			default:
				must(t, b.Set([]byte{byte(i)}, number(uint64(i)), nil))
			}
			must(t, b.Commit(pebble.Sync))
		}
		log := files(t, dir, "*.log")[0]
		data, err := os.ReadFile(log)
		must(t, err)
		must(t, db.Close())
		var num uint32
		_, err = fmt.Sscanf(filepath.Base(log), "%06d.log", &num)
		must(t, err)
		at := 0
		for range c.damaged {
			at += chunkAt(data, at, num)
		}
		data[at+logChunk] ^= 1
		if found := damage(data, num); found >= 0 != c.found || c.found && found != at {
			t.Errorf("%s with a changed record %d at %d: damaged at %d", c.records, c.damaged, at, found)
		}
	}
}

// TestEveryByteOfALogCounts changes each byte of a log of several groups, closed and not: a store that opens has lost
// nothing but the last group, and of a closed log nothing at all.
func TestEveryByteOfALogCounts(t *testing.T) {
	for _, closed := range []bool{false, true} {
		live := t.TempDir()
		s, err := Open(live, Options{})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		must(t, k.Do(ctx, "a", increment))
		flush(t, s)
		for range 4 {
			must(t, k.Do(ctx, "a", increment))
		}
		if closed {
			must(t, s.Close())
		}
		log := files(t, live, "*.log")
		last := log[len(log)-1]
		data, err := os.ReadFile(last)
		must(t, err)
		var number uint32
		_, err = fmt.Sscanf(filepath.Base(last), "%06d.log", &number)
		must(t, err)
		if at := damage(data, number); at >= 0 {
			t.Fatalf("a whole log is damaged at %d", at)
		}
		var ends []int
		for at := 0; at < len(data); {
			n := chunkAt(data, at, number)
			if n == 0 {
				break
			}
			at += n
			ends = append(ends, at)
		}
		provable := ends[len(ends)-2]
		if want := map[bool]int{false: 4, true: 5}[closed]; len(ends) != want {
			t.Fatalf("the log has %d records, want %d", len(ends), want)
		}
		for at := range provable {
			data[at] ^= 1
			if damage(data, number) < 0 {
				t.Errorf("closed %t: a change of byte %d of %d is not found", closed, at, len(data))
			}
			data[at] ^= 1
		}
		for cut := range data {
			if at := damage(data[:cut], number); at >= 0 {
				t.Errorf("cut at %d, it is damaged at %d, and only torn", cut, at)
			}
		}
		if !closed {
			must(t, s.Close())
		}
	}
}
