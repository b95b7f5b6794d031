package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// contents reads everything that a store holds but the runtime's own.
func contents(t testing.TB, s *Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	it, err := s.db.NewIter(nil)
	must(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key()[0] != 0 {
			all[string(it.Key())] = string(it.Value())
		}
	}
	must(t, it.Close())
	return all
}

func put(t testing.TB, k *Kind[struct{}], name string, entries ...string) {
	t.Helper()
	must(t, k.Do(ctx, name, func(tx *Tx, _ struct{}) error {
		for i := 0; i < len(entries); i += 2 {
			if err := tx.Put(entries[i], []byte(entries[i+1])); err != nil {
				return err
			}
		}
		return nil
	}))
}

func plain(s *Store, kind string) *Kind[struct{}] {
	return Register(s, kind, func(*Tx) (struct{}, error) { return struct{}{}, nil })
}

func exported(t testing.TB, s *Store) string {
	t.Helper()
	var out bytes.Buffer
	info, err := s.Export(ctx, &out, func(Progress) {})
	must(t, err)
	if info.Bytes != int64(out.Len()) {
		t.Errorf("%d bytes are counted, and %d were written", info.Bytes, out.Len())
	}
	return out.String()
}

func TestExportedStoreIsImported(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	room, tree := plain(s, "room"), plain(s, "tree")
	put(t, room, "berlin", "topic", "the \"weather\"\n\t\u2028", "n", "\x00\x01\xff", "empty", "", "\xff\xfe", "x")
	put(t, room, "al's café", "big", strings.Repeat("\x1f", MaxValueBytes), "text", strings.Repeat("\"", MaxValueBytes))
	for i := range 2000 {
		put(t, tree, "0", fmt.Sprintf("count/votes/%d\x00eu", i), strings.Repeat("v", 200))
	}
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	must(t, room.Do(ctx, "berlin", func(tx *Tx, _ struct{}) error { return tx.SetAlarm(at) }))
	text := exported(t, s)
	dir := filepath.Join(t.TempDir(), "imported")
	var last Progress
	info, err := Import(ctx, strings.NewReader(text), dir, ImportOptions{
		FolderOptions: FolderOptions{Progress: func(p Progress) { last = p }}, Size: int64(len(text)),
	})
	must(t, err)
	if info.Objects != 3 || info.Entries != 2007 || last.Done != last.Total || last.Keys != 2007 {
		t.Errorf("imported %+v, the last progress is %+v", info, last)
	}
	report, err := Verify(ctx, dir, FolderOptions{})
	must(t, err)
	must(t, report.Err())
	i, err := Open(dir, Options{})
	must(t, err)
	defer func() { must(t, i.Close()) }()
	if got, want := contents(t, i), contents(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("%d entries are not the %d that were exported", len(got), len(want))
	}
	must(t, plain(i, "room").Do(ctx, "berlin", func(tx *Tx, _ struct{}) error {
		if got, ok, err := tx.Alarm(); err != nil || !ok || !got.Equal(at) {
			t.Errorf("the alarm is %v (%v, %v), not %v", got, ok, err, at)
		}
		return nil
	}))
	if !i.Restored() {
		t.Error("what was imported is not marked as restored")
	}
	if i.ID() == s.ID() {
		t.Error("what was imported has the id of the other store")
	}
	for line := range strings.Lines(text) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not JSON: %.100q", line)
		}
	}
}

func TestImportRefusesWhatIsNoExport(t *testing.T) {
	const head = `{"tributary_export":1,"format":1,"store":"s","made":"2026-01-02T03:04:05Z"}` + "\n"
	const a, b = `{"kind":"k","name":"a","key":"x","value":"1"}` + "\n", `{"kind":"k","name":"b","key":"x","value64":"AQ=="}` + "\n"
	const end = `{"end":{"objects":2,"entries":2}}` + "\n"
	for _, test := range []struct {
		text, want string
		line       int
	}{
		{head + a + b + end, "", 0},
		{strings.ReplaceAll(head+a+b+end, "\n", "\r\n"), "", 0},
		{"", "it is empty", 1},
		{a, "no export's first line", 1},
		{"nonsense\n", "no export's first line", 1},
		{strings.Replace(head, `export":1`, `export":2`, 1), "version 2, and this program knows 1", 1},
		{strings.Replace(head, `format":1`, `format":9`, 1), "format 9", 1},
		{head + a + b, "the export was cut off", 4},
		{head + a + b[:20], "the export was cut off", 3},
		{head + a + b + end + a, "something follows the end", 5},
		{head + a + end, "the end counts 2 objects and 2 entries, and 1 and 1 came", 3},
		{head + b + a + end, "not greater than", 3},
		{head + a + a + end, "not greater than", 3},
		{head + "{}\n", "neither key nor key64", 2},
		{head + `{"kind":"k","name":"a","key":"x","value":"1","value64":"AQ=="}` + "\n", "both value and value64", 2},
		{head + `{"kind":"k","name":"a","key":"x","value64":"%"}` + "\n", "base64", 2},
		{head + `{"kind":"K","name":"a","key":"x","value":"1"}` + "\n", `kind "K"`, 2},
		{head + `{"kind":"k","name":"","key":"x","value":"1"}` + "\n", "name", 2},
		{head + `{"kind":"k","name":"a","key":"","value":"1"}` + "\n", "the stored alarm is 1 bytes long", 2},
		{head + `{"kind":"k","name":"a","key":"x","value":"1","more":2}` + "\n", "more", 2},
		{head + `{"key":"\u0000restored\u0000","value":"1"}` + "\n", "no kind", 2},
		{head + `{"kind":"k","name":"a","key":"x","value":"` + strings.Repeat("x", maxLineBytes) + "\"}\n", "longer than", 2},
		{head + `{"kind":"k","name":"a","key":"x","value":"` + strings.Repeat("x", MaxValueBytes+1) + "\"}\n", "at most 2097152", 2},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		_, err := Import(ctx, strings.NewReader(test.text), dir, ImportOptions{})
		if test.want == "" {
			must(t, err)
			continue
		}
		var line *LineError
		if err == nil || !strings.Contains(err.Error(), test.want) || !asLine(err, &line) || line.Line != test.line {
			t.Errorf("%.200q: %v; want line %d: %s", strings.TrimPrefix(test.text, head), err, test.line, test.want)
		}
		if names, _ := os.ReadDir(filepath.Dir(dir)); len(names) > 0 {
			t.Errorf("%.200q: %s is left", test.text, names[0].Name())
		}
	}
}

func TestImportMergesObjects(t *testing.T) {
	from, to := open(t, t.TempDir(), Options{}), t.TempDir()
	put(t, plain(from, "room"), "both", "new", "1")
	put(t, plain(from, "chat"), "only", "new", "1")
	text := exported(t, from)
	s, err := Open(to, Options{})
	must(t, err)
	room := plain(s, "room")
	for i := range 9000 {
		put(t, room, "both", fmt.Sprintf("old-%d", i), "0")
	}
	put(t, room, "other", "old", "0")
	must(t, s.Close())

	_, err = Import(ctx, strings.NewReader(text), to, ImportOptions{})
	if err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("without merge: %v", err)
	}
	// What is cut off does not begin.
	_, err = Import(ctx, strings.NewReader(text[:len(text)-5]), to, ImportOptions{FolderOptions{}, true, 0})
	wantError(t, err, ErrInvalid)
	s, err = Open(to, Options{})
	must(t, err)
	if n := len(contents(t, s)); n != 9001 {
		t.Errorf("%d entries are there", n)
	}
	// One that is interrupted leaves nothing that opens, but another try.
	must(t, s.commitAlone(s.db.NewBatch(), importingKey, "export of x"))
	must(t, s.Close())
	_, err = Open(to, Options{})
	wantError(t, err, ErrCorrupt)
	report, err := Verify(ctx, to, FolderOptions{})
	must(t, err)
	wantError(t, report.Err(), ErrCorrupt)
	_, err = Import(ctx, strings.NewReader(text), to, ImportOptions{Merge: true})
	must(t, err)
	s, err = Open(to, Options{})
	must(t, err)
	want := map[string]string{"room\x00both\x00new": "1", "chat\x00only\x00new": "1", "room\x00other\x00old": "0"}
	if got := contents(t, s); !reflect.DeepEqual(got, want) || !s.Restored() {
		t.Errorf("got %q, restored %t", got, s.Restored())
	}
	must(t, s.Close())
}

// TestImportOnAFullDisk leaves nothing.
func TestImportOnAFullDisk(t *testing.T) {
	s, err := Open(t.TempDir(), Options{}) // not open: what Pebble was doing on the full disk is parked for ever
	must(t, err)
	defer func() { must(t, s.Close()) }()
	k := plain(s, "room")
	for i := range 100 {
		put(t, k, name(i), "x", strings.Repeat("y", 20000))
	}
	text := exported(t, s)
	for kind, room := range map[string]int{".log": 2, "MANIFEST": 0} {
		written := 0
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, kind) {
				if written++; written > room {
					return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
				}
			}
			return nil
		}))
		_, err := Import(ctx, strings.NewReader(text), "d/store", ImportOptions{FolderOptions: FolderOptions{FS: fs}})
		wantError(t, err, syscall.ENOSPC)
		if names, _ := fs.List("d"); len(names) > 0 {
			t.Errorf("%s: %s is left", kind, names[0])
		}
	}
	full := &fullWriter{room: 100 << 10}
	_, err = s.Export(ctx, full, nil)
	wantError(t, err, syscall.ENOSPC)
}

type fullWriter struct{ room int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestExportWaitsForTheDisk: what is exported is durable.
func TestExportWaitsForTheDisk(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := plain(s, "room")
	put(t, k, "a", "x", "1")
	fs.close()
	k.Submit("a", func(tx *Tx, _ struct{}) error { return tx.Put("x", []byte("2")) }, nil)
	eventually(t, "the sync", func() bool { return fs.blocked.Load() > 0 })
	result := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		_, err := s.Export(ctx, &out, nil)
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("the export did not wait: %v\n%s", err, out.String())
	default:
	}
	fs.open()
	must(t, <-result)
	if !strings.Contains(out.String(), `"value":"2"`) {
		t.Errorf("exported:\n%s", out.String())
	}
}

// FuzzImport: whatever comes, it is refused or leads to what is exported again as the same.
func FuzzImport(f *testing.F) {
	const head = `{"tributary_export":1,"format":1,"store":"s","made":"2026-01-02T03:04:05Z"}` + "\n"
	f.Add(head + `{"kind":"k","name":"a","key":"x","value":"1"}` + "\n" + `{"end":{"objects":1,"entries":1}}` + "\n")
	f.Add(head + `{"kind":"k","name":"a","key64":"/w==","value64":"AQ=="}` + "\n" + `{"end":{"objects":1,"entries":1}}` + "\n")
	f.Add(head + `{"kind":"k","name":"é","key":"\u0000","value":"\ud83d\ude00"}` + "\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := newLineReader(strings.NewReader(text))
		if err != nil {
			return
		}
		var again []byte
		entries := int64(0)
		for {
			kind, name, stored, value, err := r.next()
			if err != nil {
				var line *LineError
				if err.Error() != "EOF" && (!asLine(err, &line) || line.Line != r.number) {
					t.Fatalf("an error without its line: %v", err)
				}
				break
			}
			entries++
			if _, _, _, err := parseKey(stored); err != nil {
				t.Fatal(err)
			}
			key := stored[len(appendPrefix(nil, kind, name)):]
			again = appendLine(again, []byte(kind), []byte(name), key, value)
		}
		if !r.ended {
			return
		}
		again = fmt.Appendf([]byte(head+string(again)), `{"end":{"objects":%d,"entries":%d}}`+"\n", r.objects, entries)
		second, err := newLineReader(bytes.NewReader(again))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, _, _, err = second.next()
		}
		if err.Error() != "EOF" || second.entries != entries {
			t.Fatalf("what was written again reads as %d of %d entries: %v", second.entries, entries, err)
		}
	})
}

func asLine(err error, line **LineError) bool { return errors.As(err, line) }
