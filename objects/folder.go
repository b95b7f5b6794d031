package objects

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What a folder is judged by before Pebble may change anything in it.

// checkFolder refuses what is damaged, and what Pebble would take for an empty folder although it holds a store's files:
// what was lost must not become a new store, which would remove the rest. It also removes what an interrupted backup
// left, and begins the inventory. holds says that a store is there that has said its format.
func (s *Store) checkFolder() (holds bool, err error) {
	fs := s.opts.FS
	if _, err := fs.Stat(fs.PathJoin(s.dir, backupList)); err == nil {
		return false, fmt.Errorf("%w: the folder holds a backup; restore that to another folder, and open the other", ErrFormat)
	}
	if err := fs.RemoveAll(fs.PathJoin(s.dir, stageFolder)); err != nil {
		return false, fmt.Errorf("remove what an interrupted backup left: %w", err)
	}
	found, err := look(fs, s.dir)
	switch {
	case errors.Is(err, ErrNoStore):
		return false, s.files.begin(stateNew, "")
	case err != nil:
		return false, err
	case found.kept:
		holds = found.state != stateNew
	case found.tables:
		if err := checkUnkept(fs, s.dir, s.lock); err != nil {
			return false, err
		}
		holds = true
	}
	state := stateNew
	if holds {
		state = stateOpen
	}
	return holds, s.files.begin(state, found.manifest)
}

// Exists reports whether the folder holds a store, or what is left of one: then with an error that wraps ErrCorrupt.
// It changes nothing.
func Exists(fs vfs.FS, dir string) (bool, error) {
	if fs == nil {
		fs = disk
	}
	_, err := look(fs, dir)
	switch {
	case errors.Is(err, ErrNoStore):
		return false, nil
	case err != nil:
		return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat), fmt.Errorf("objects: %s: %w", dir, err)
	}
	return true, nil
}

// found is a store that look found nothing wrong with.
type found struct {
	manifest string // the one that counts
	tables   bool   // whether there are any
	kept     bool   // whether an inventory said how it must be
	state    string // as this said
}

// look says what is wrong with a folder, without opening it: ErrNoStore, ErrCorrupt or ErrFormat.
func look(fs vfs.FS, dir string) (f found, err error) {
	names, err := fs.List(dir)
	if isNotExist(err) {
		return f, ErrNoStore
	} else if err != nil {
		return f, err
	}
	desc, err := pebble.Peek(dir, fs)
	if err != nil {
		return f, cmp.Or(pebbleFormat(names), opened(err))
	}
	kept, err := readInventory(fs, dir)
	if err != nil {
		return f, err
	}
	lost := ""
	for _, name := range names {
		// Pebble makes the marker before the first of these; a crash in the first Open may leave a manifest alone.
		if f.tables = f.tables || isTable(name); isTable(name) || path.Ext(name) == ".log" {
			lost = name
		}
	}
	if !desc.Exists {
		if lost == "" && kept != nil && kept.State != stateNew {
			lost = inventoryFile
		}
		if lost != "" {
			return f, fmt.Errorf("%w: the folder holds %s, but no marker.manifest file that says which files count", ErrCorrupt, lost)
		}
		return f, ErrNoStore
	}
	f.manifest = fs.PathBase(desc.ManifestFilename)
	if _, err := fs.Stat(desc.ManifestFilename); isNotExist(err) {
		return f, fmt.Errorf("%w: %s is missing, which lists the others", ErrCorrupt, desc.ManifestFilename)
	}
	if kept != nil && !kept.overtaken(f.manifest, names) {
		f.kept, f.state = true, kept.State
		if err := kept.check(fs, dir, f.manifest, names); err != nil {
			return f, err
		}
	}
	return f, checkLogs(fs, dir, desc.ManifestFilename)
}

// checkUnkept refuses a store without an inventory which has tables, but says nothing: its manifest is not what it was.
func checkUnkept(fs vfs.FS, dir string, lock *pebble.Lock) error {
	db, _, err := openReadOnly(fs, dir, DefaultCacheBytes, lock)
	if err != nil {
		return err
	}
	_, says, err := getRuntime(db, formatKey)
	if err == nil && !says {
		err = errNoFormat
	}
	return errors.Join(corrupt(err), db.Close())
}

// pebbleFormat says which version of Pebble's files a folder's marker names, if this program does not know it.
func pebbleFormat(names []string) error {
	last, version := "", uint64(0)
	for _, name := range names {
		parts := strings.Split(name, ".") // marker, format-version, how often it was moved, the version
		if len(parts) != 4 || parts[0] != "marker" || parts[1] != "format-version" || parts[2] <= last {
			continue
		}
		if n, err := strconv.ParseUint(parts[3], 10, 64); err == nil {
			last, version = parts[2], n
		}
	}
	if newest := uint64(pebble.FormatNewest); version > newest {
		return fmt.Errorf("%w: the store's files have Pebble's format %d, and this program knows those up to %d; use the program that wrote it, or a newer one",
			ErrFormat, version, newest)
	}
	if oldest := uint64(pebble.FormatMinSupported); last != "" && version < oldest {
		return fmt.Errorf("%w: the store's files have Pebble's format %d, and this program knows those from %d on; open it once with a program in between, which upgrades it",
			ErrFormat, version, oldest)
	}
	return nil
}

// opened makes what Pebble says of a store that does not open ErrCorrupt, unless the machine is to blame: what Pebble
// finds wrong with files that it could read is damage.
func opened(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFailed) {
		return err
	}
	if isNotExist(err) {
		return fmt.Errorf("%w: a file is missing: %w", ErrCorrupt, err)
	}
	if isMachines(err) {
		return err
	}
	return &damageError{err}
}

// isMachines tells errors of the machine from those about what files hold.
func isMachines(err error) bool {
	var number syscall.Errno
	var file *fs.PathError
	var files *os.LinkError
	var call *os.SyscallError
	return errors.As(err, &number) || errors.As(err, &file) || errors.As(err, &files) || errors.As(err, &call)
}

// isFull tells that a disk has no room, or that its owner may use no more of it.
func isFull(err error) bool {
	return slices.ContainsFunc(fullErrors, func(full error) bool { return errors.Is(err, full) })
}
