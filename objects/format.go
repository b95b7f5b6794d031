package objects

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
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
// holds says that it must say something.
func (s *Store) startFormat(holds bool) error {
	f := &knownFormats
	if s.opts.formats != nil {
		f = s.opts.formats
	}
	text, found, err := getRuntime(s.db, formatKey)
	if err != nil {
		return err
	}
	if !found && holds {
		return errNoFormat
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

var errNoFormat = fmt.Errorf("%w: the store does not say its format, so what it held is not there", ErrCorrupt)

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
