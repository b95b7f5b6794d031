package objects

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Format is the version of what this package writes: the encoding of keys (keys.go). Open upgrades an older store, and
// refuses a newer one.
const Format = 1

// formats is which versions a program knows, and how each becomes the next. There is one of them, but in tests.
type formats struct {
	newest int
	// steps holds, for each older version that can be read, what makes it the next. A step adds its writes to a batch
	// that is committed, synced, together with the new version: a crash leaves either. It must fit in memory.
	steps map[int]func(*pebble.DB, *pebble.Batch) error
}

var knownFormats = formats{newest: Format, steps: map[int]func(*pebble.DB, *pebble.Batch) error{}}

// oldest is the oldest version that leads to the newest one.
func (f *formats) oldest() int {
	n := f.newest
	for f.steps[n-1] != nil {
		n--
	}
	return n
}

// check says why a store with this version cannot be used, if so.
func (f *formats) check(text string) (int, error) {
	n, err := strconv.Atoi(text)
	knows := "format " + strconv.Itoa(f.newest)
	if f.oldest() != f.newest {
		knows = fmt.Sprintf("formats %d to %d", f.oldest(), f.newest)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: the store says that its format is %.20q, and this program knows %s; use the program that wrote it",
			ErrFormat, text, knows)
	case n > f.newest:
		return 0, fmt.Errorf("%w: the store has format %d, and this program knows %s; use the program that wrote it, or a newer one",
			ErrFormat, n, knows)
	case n < f.oldest():
		return 0, fmt.Errorf("%w: the store has format %d, and this program knows %s; open it once with a program in between, which upgrades it",
			ErrFormat, n, knows)
	}
	return n, nil
}

// startFormat reads what the store says of itself, and upgrades an older one; a new one it marks as ours.
func (s *Store) startFormat() error {
	f := &knownFormats
	if s.opts.formats != nil {
		f = s.opts.formats
	}
	text, found, err := getRuntime(s.db, formatKey)
	if err != nil {
		return err
	}
	if !found {
		return s.startNew(f)
	}
	n, err := f.check(text)
	if err != nil {
		return err
	}
	if text, importing, err := getRuntime(s.db, importingKey); err != nil {
		return err
	} else if importing && !s.opts.importing {
		return fmt.Errorf("%w: an import of %.100q did not come to its end, so a part of what the store held may be mixed with a part "+
			"of the import: import it again, or restore a backup", ErrCorrupt, text)
	}
	for ; n < f.newest; n++ {
		b := s.db.NewBatch()
		if err := f.steps[n](s.db, b); err != nil {
			return fmt.Errorf("upgrade from format %d to %d: %w", n, n+1, err)
		}
		if err := s.commitAlone(b, formatKey, strconv.Itoa(n+1)); err != nil {
			return fmt.Errorf("upgrade from format %d to %d: %w", n, n+1, err)
		}
	}
	if s.mark.id, found, err = getRuntime(s.db, storeKey); err != nil {
		return err
	}
	if !found {
		if err := s.name(nil); err != nil {
			return err
		}
	}
	_, s.mark.restored, err = getRuntime(s.db, restoredKey)
	return err
}

// startNew marks an empty folder as a store of ours.
func (s *Store) startNew(f *formats) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	used := it.First()
	if err := it.Close(); err != nil {
		return err
	}
	if used {
		return fmt.Errorf("%w: the folder holds a Pebble store that is not ours", ErrFormat)
	}
	b := s.db.NewBatch()
	if err := b.Set([]byte(formatKey), []byte(strconv.Itoa(f.newest)), nil); err != nil {
		return err
	}
	return s.name(b)
}

// name gives the store its id, with what is in b.
func (s *Store) name(b *pebble.Batch) error {
	if b == nil {
		b = s.db.NewBatch()
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program first
	s.mark.id = hex.EncodeToString(id[:])
	return s.commitAlone(b, storeKey, s.mark.id)
}

// commitAlone commits a batch, with one more key in it, before the store has a committer.
func (s *Store) commitAlone(b *pebble.Batch, key, value string) error {
	if err := b.Set([]byte(key), []byte(value), nil); err != nil {
		return err
	}
	if err := s.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return err
	}
	if err := s.guard.broke(); err != nil {
		return err
	}
	return b.SyncWait()
}

// checkFolder refuses what Pebble would take for an empty folder although it holds a store's files: a lost marker must
// not become a new store, which would remove them. It also removes what an interrupted backup left.
func (s *Store) checkFolder() error {
	fs := s.opts.FS
	if _, err := fs.Stat(fs.PathJoin(s.dir, backupList)); err == nil {
		return fmt.Errorf("%w: the folder holds a backup; restore that to another folder, and open the other", ErrFormat)
	}
	if err := fs.RemoveAll(fs.PathJoin(s.dir, stageFolder)); err != nil {
		return fmt.Errorf("remove what an interrupted backup left: %w", err)
	}
	err := look(fs, s.dir)
	if errors.Is(err, ErrNoStore) {
		return nil
	}
	return err
}

// Exists reports whether the folder holds a store, or what is left of one: then with an error that wraps ErrCorrupt.
// It changes nothing.
func Exists(fs vfs.FS, dir string) (bool, error) {
	if fs == nil {
		fs = vfs.Default
	}
	err := look(fs, dir)
	switch {
	case errors.Is(err, ErrNoStore):
		return false, nil
	case err != nil:
		return errors.Is(err, ErrCorrupt), fmt.Errorf("objects: %s: %w", dir, err)
	}
	return true, nil
}

// look says what is wrong with a folder, without opening it: ErrNoStore, or ErrCorrupt.
func look(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if isNotExist(err) {
		return ErrNoStore
	} else if err != nil {
		return err
	}
	desc, err := pebble.Peek(dir, fs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if desc.Exists {
		if _, err := fs.Stat(desc.ManifestFilename); isNotExist(err) {
			return fmt.Errorf("%w: %s is missing, which lists the others", ErrCorrupt, desc.ManifestFilename)
		}
		return checkLogs(fs, dir, desc.ManifestFilename)
	}
	for _, name := range names {
		// Pebble makes the marker before the first of these; a crash in the first Open may leave a manifest alone.
		if slices.Contains([]string{".sst", ".blob", ".log"}, path.Ext(name)) {
			return fmt.Errorf("%w: the folder holds %s, but no marker.manifest file that says which files count", ErrCorrupt, name)
		}
	}
	return ErrNoStore
}

// opened makes what Pebble says of a store that does not open ErrCorrupt, if files are damaged or missing.
func opened(err error) error {
	if isNotExist(err) {
		return fmt.Errorf("%w: a file is missing: %w", ErrCorrupt, err)
	}
	return corrupt(err)
}

// corrupt makes Pebble's errors of damaged files ErrCorrupt.
func corrupt(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || !pebble.IsCorruptionError(err) {
		return err
	}
	return &damageError{err}
}

// damageError is Pebble's error about a damaged file, without the parts of its text that say nothing.
type damageError struct{ err error }

func (e *damageError) Error() string {
	text := strings.TrimSuffix(e.err.Error(), "\n<corruption detail carrier>")
	if d, ok := errors.AsType[interface {
		error
		ErrorDetail() string
	}](e.err); ok { // which log it was
		text += " (" + d.ErrorDetail() + ")"
	}
	return ErrCorrupt.Error() + ": " + text
}

func (e *damageError) Unwrap() []error { return []error{ErrCorrupt, e.err} }
