package objects

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// The runtime's own keys begin with a 0x00 (keys.go). This file is the one place that says which there are. They are not
// exported: they belong to this very store, or are made again.
const (
	// storeKey holds the store's id. It is drawn once, and goes along into backups and what is restored from them.
	storeKey = "\x00store"
	// restoredKey is there while nobody has acted on it that the store was restored; see Store.Restored. It is the
	// empty key of an object without a kind, so that the committer can delete it.
	restoredKey = "\x00restored\x00"
	// importingKey is there while an import runs: the store is half of one thing and half of another.
	importingKey = "\x00importing"
)

// runtimeState is what the store says of itself.
type runtimeState struct {
	id       string
	restored bool
}

// isRuntimeKey says whether a key that begins with a 0x00 is one of those above, or of the index of alarms. One that is
// not is of a version that this one does not know: Verify counts it. The format's version says that all that must be
// understood is.
func isRuntimeKey(key string) bool {
	switch key {
	case formatKey, storeKey, restoredKey, importingKey:
		return true
	}
	return strings.HasPrefix(key, alarmKeys)
}

// parseKey takes a stored key apart, and says what is wrong with it. The kind is empty for the runtime's own.
func parseKey(stored []byte) (kind, name, key []byte, err error) {
	if len(stored) > 0 && stored[0] == 0 {
		return nil, nil, stored, nil
	}
	kind, rest, ok := bytes.Cut(stored, []byte{0})
	if ok {
		name, key, ok = bytes.Cut(rest, []byte{0})
	}
	if !ok {
		return nil, nil, nil, invalidf("the stored key %.60q has no kind, name and key in it", stored)
	}
	return kind, name, key, nil
}

// getRuntime reads one of the runtime's own keys.
func getRuntime(db *pebble.DB, key string) (text string, found bool, err error) {
	value, closer, err := db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	text = string(value)
	return text, true, closer.Close()
}

// ID returns the store's id, 16 hexadecimal digits. A copy of the store, a backup and what is restored from it have the
// same.
func (s *Store) ID() string { return s.mark.id }

// Restored reports whether the store was restored from a backup, or imported, and ClearRestored was not called since:
// it is not the newest of its kind, so what it says of the world, such as what it has lent, may have been overtaken by
// what happened after the backup.
func (s *Store) Restored() bool { return s.mark.restored }

// ClearRestored notes that what had to be done about it is done, and durable: the store is like any other now. Restored
// keeps its answer until the store is opened again. After a crash before ClearRestored returns, what was done is to be
// done again.
func (s *Store) ClearRestored(ctx context.Context) error {
	if !s.mark.restored {
		return nil
	}
	k := &Kind[struct{}]{store: s, wake: func(*Tx) (struct{}, error) { return struct{}{}, nil }}
	return k.Do(ctx, strings.Trim(restoredKey, "\x00"), func(tx *Tx, _ struct{}) error {
		tx.w.put(nil, nil, true)
		return nil
	})
}
