package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Report is what Verify found.
type Report struct {
	Backup   *BackupInfo // of a backup; nil: of a store
	Store    string      // its id
	Format   int
	Restored bool // see Store.Restored
	Kinds    []KindReport
	Runtime  int64 // entries of the runtime's own
	Unknown  int64 // of these, entries that this version does not know
	Tables   int   // files that were read, and their bytes
	Bytes    int64
	// Problems are the first that were found; More counts the others.
	Problems []Problem
	More     int
}

// KindReport counts what is stored of one kind.
type KindReport struct {
	Kind          string
	Objects, Keys int64
	Bytes         int64 // of keys and values, as operations see them
}

// Problem is something that is not as it was written.
type Problem struct {
	File string // where, if one file is to blame
	What string
}

func (p Problem) String() string {
	if p.File == "" {
		return p.What
	}
	return p.File + ": " + p.What
}

// Err returns an error that wraps ErrCorrupt if there are problems.
func (r *Report) Err() error {
	if len(r.Problems) == 0 {
		return nil
	}
	if more := len(r.Problems) + r.More - 1; more > 0 {
		return fmt.Errorf("%w: %s (and %d more)", ErrCorrupt, r.Problems[0], more)
	}
	return fmt.Errorf("%w: %s", ErrCorrupt, r.Problems[0])
}

// Verify reads all of a store that nobody has open, or of a backup, and changes nothing. Of a store it checks that it
// opens, the checksum of every block of every table, that the tables' entries are in the order that reads rely on, and
// that every entry is one that this package writes; of a backup the hash of every file, and the blocks of the tables.
// What is wrong is in the report; the error is about what could not be looked at: it wraps ErrInUse or ErrNoStore, or is
// ctx's.
func Verify(ctx context.Context, dir string, o FolderOptions) (r Report, err error) {
	v := &verifier{FolderOptions: o.withDefaults(), ctx: ctx, dir: dir, report: &r}
	if _, serr := v.FS.Stat(v.FS.PathJoin(dir, backupList)); serr == nil {
		err = v.backup()
	} else {
		err = v.store()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("objects: verify %s: %w", dir, err)
	}
	return r, err
}

type verifier struct {
	FolderOptions
	ctx    context.Context
	dir    string
	report *Report
	done   Progress
}

func (v *verifier) problem(file, format string, args ...any) {
	if len(v.report.Problems) >= v.MaxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{file, fmt.Sprintf(format, args...)})
}

func (v *verifier) step(bytes int64) {
	v.done.Done += bytes
	v.Progress(v.done)
}

func (v *verifier) backup() error {
	l, err := readList(v.FS, v.dir)
	if errors.Is(err, ErrCorrupt) {
		v.problem(backupList, "%v", err)
		return nil
	} else if err != nil {
		return err
	}
	info := l.info()
	v.report.Backup, v.report.Store, v.report.Format = &info, l.Store, l.Format
	v.done = Progress{Step: "check files", Total: info.Bytes}
	po := &pebble.Options{Logger: quiet{}}
	po.EnsureDefaults()
	for i := range l.Files {
		f := &l.Files[i]
		path := v.FS.PathJoin(v.dir, backupFiles, f.stored())
		size, sum, err := pour(v.FS, path, nil, v.ctx.Err)
		switch {
		case v.ctx.Err() != nil:
			return v.ctx.Err()
		case err != nil:
			v.problem(path, "cannot be read: %v", err)
		case size != f.Size || sum != f.SHA256:
			v.problem(path, "is not as it was written: %d bytes with the hash %.16s, and it had %d with %.16s", size, sum, f.Size, f.SHA256)
		case strings.HasSuffix(f.Name, ".sst"):
			v.report.Tables++
			if err := checkTable(v.ctx, v.FS, path, po); err != nil {
				v.problem(path, "was damaged before the backup: %v", err)
			}
		}
		v.report.Bytes += size
		v.step(f.Size)
	}
	return nil
}

func (v *verifier) store() (err error) {
	if _, err := look(v.FS, v.dir); errors.Is(err, ErrNoStore) {
		return err // and no lock's file is left there
	}
	lock, err := pebble.LockDirectory(v.dir, v.FS)
	if err != nil {
		return lockError(err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if _, err := look(v.FS, v.dir); errors.Is(err, ErrCorrupt) {
		v.problem("", "%v", err)
		return nil
	} else if err != nil {
		return err
	}
	db, po, err := openReadOnly(v.FS, v.dir, v.CacheBytes, lock)
	if errors.Is(err, ErrCorrupt) {
		v.problem("", "the store does not open: %v", err)
		return nil
	} else if err != nil {
		return err
	}
	defer func() {
		if cerr := db.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	if err := v.tables(db, po); err != nil {
		return err
	}
	damaged := len(v.report.Problems) > 0
	if err := v.runtime(db); err != nil && !damaged {
		return err
	}
	if damaged { // what is said of the rest would only repeat it
		return nil
	}
	if err := db.CheckLevels(nil); err != nil {
		v.problem("", "the tables do not fit together: %v", err)
	}
	return v.entries(db)
}

// runtime reads what the store says of itself.
func (v *verifier) runtime(db *pebble.DB) error {
	text, found, err := getRuntime(db, formatKey)
	if err != nil || !found {
		v.problem("", "the store does not say its format (%v)", err)
	} else if v.report.Format, err = knownFormats.check(text); err != nil {
		return err
	}
	v.report.Store, _, _ = getRuntime(db, storeKey)
	_, v.report.Restored, _ = getRuntime(db, restoredKey)
	if text, importing, _ := getRuntime(db, importingKey); importing {
		v.problem("", "an import of %.100q did not come to its end", text)
	}
	return nil
}

// tables reads every block of every table that counts.
func (v *verifier) tables(db *pebble.DB, po *pebble.Options) error {
	levels, err := db.SSTables()
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	v.done = Progress{Step: "check files"}
	for _, level := range levels {
		for _, t := range level {
			num := uint64(t.FileNum)
			if t.Virtual {
				num = uint64(t.BackingSSTNum)
			}
			name := fmt.Sprintf("%06d.sst", num)
			if _, seen := sizes[name]; !seen {
				sizes[name] = int64(t.Size)
				if stat, err := v.FS.Stat(v.FS.PathJoin(v.dir, name)); err == nil {
					sizes[name] = stat.Size()
				}
				v.done.Total += sizes[name]
			}
		}
	}
	names := make([]string, 0, len(sizes))
	for name := range sizes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		path := v.FS.PathJoin(v.dir, name)
		if err := checkTable(v.ctx, v.FS, path, po); err != nil {
			v.problem(path, "%v", err)
		}
		v.report.Tables++
		v.report.Bytes += sizes[name]
		v.step(sizes[name])
	}
	return nil
}

// checkTable compares the checksums of all blocks of a table.
func checkTable(ctx context.Context, fs vfs.FS, path string, po *pebble.Options) (err error) {
	defer func() {
		// A table that is damaged in the right place makes Pebble read beyond its end.
		if r := recover(); r != nil {
			err = fmt.Errorf("reading it panics: %v", r)
		}
	}()
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, po.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// entries goes through all that is stored.
func (v *verifier) entries(db *pebble.DB) (err error) {
	v.done = Progress{Step: "check entries", Total: v.report.Bytes}
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := it.Close(); cerr != nil {
			v.problem("", "the entries from there on cannot be read: %v", cerr)
		}
	}()
	w := newWalker()
	for ok := it.First(); ok; ok = it.Next() {
		if v.done.Keys++; v.done.Keys%4096 == 0 {
			if err := v.ctx.Err(); err != nil {
				return err
			}
			v.step(0)
		}
		value, err := it.ValueAndErr()
		if err != nil {
			v.problem("", "the value of %.60q cannot be read: %v", it.Key(), err)
			continue
		}
		v.done.Done += int64(len(it.Key()) + len(value))
		if err := w.entry(it.Key(), value); err != nil {
			v.problem("", "%v", err)
		}
	}
	if err := w.end(); err != nil {
		v.problem("", "%v", err)
	}
	v.report.Kinds, v.report.Runtime, v.report.Unknown = w.kinds, w.runtime, w.unknown
	v.step(0)
	return nil
}

// walker checks and counts entries in the order of their keys.
type walker struct {
	kinds            []KindReport
	runtime, unknown int64
	kind, name       []byte
	began            bool

	// alarms and ring count and sum up the alarms of the index, less those of the objects: both are 0 in the end.
	alarms int64
	ring   uint64
}

func alarmHash(key []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key) // never fails
	return h.Sum64()
}

// end says what is wrong with the whole.
func (w *walker) end() error {
	if w.alarms != 0 || w.ring != 0 {
		return fmt.Errorf("the index of alarms is not that of the objects' alarms: it has %d more, or others", w.alarms)
	}
	return nil
}

func newWalker() *walker { return &walker{} }

func (w *walker) entry(stored, value []byte) error {
	kind, name, key, err := parseKey(stored)
	if err != nil {
		return err
	}
	if len(kind) == 0 {
		w.runtime++
		switch text := string(key); {
		case !isRuntimeKey(text):
			w.unknown++
		case strings.HasPrefix(text, alarmKeys):
			w.alarms++
			w.ring += alarmHash(key)
		}
		return nil
	}
	if !w.began || !bytes.Equal(kind, w.kind) {
		if err := checkKind(string(kind)); err != nil {
			return err
		}
		w.began = true
		w.kind, w.name = append(w.kind[:0], kind...), w.name[:0]
		w.kinds = append(w.kinds, KindReport{Kind: string(kind)})
	}
	k := &w.kinds[len(w.kinds)-1]
	if !bytes.Equal(name, w.name) {
		if err := checkName(string(name)); err != nil {
			return fmt.Errorf("of kind %s: %w", kind, err)
		}
		w.name = append(w.name[:0], name...)
		k.Objects++
	}
	k.Keys++
	k.Bytes += int64(len(key) + len(value))
	if len(key) == 0 {
		a, err := parseAlarm(value)
		if err != nil {
			return fmt.Errorf("of %s %.40q: %w", kind, name, err)
		}
		w.alarms--
		w.ring -= alarmHash(alarmKey(string(kind), a.due, string(name)))
		return nil
	}
	if err := checkKey(string(key)); err != nil {
		return fmt.Errorf("of %s %.40q: %w", kind, name, err)
	}
	if len(value) > MaxValueBytes {
		return invalidf("the value of key %.40q of %s %.40q is %d bytes long (at most %d)", key, kind, name, len(value), MaxValueBytes)
	}
	return nil
}
