package objects

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json"
)

// What a store must hold.
//
// Pebble reads its manifest up to the first record that is not whole. So a manifest that was cut short, where it ends
// with a whole record or not, is to Pebble a store of earlier: tables that were made since are not known to it, and are
// deleted, and a manifest of which little is left is an empty store. Nothing in Pebble's own files says how long the
// manifest was. So the store keeps an inventory of its own, the file INVENTORY: what its other files must hold at least.
// It is replaced in one step, has a checksum, and is compared before Pebble may change anything.
//
//   - While the store is open, the inventory has the length and the hash of the manifest as of its last sync. The fence
//     writes it each time Pebble syncs the manifest, before Pebble hears of the sync (fence.go). Pebble deletes what an
//     edit of the manifest makes useless, logs and tables, only after that. So whatever the inventory does not have yet
//     no file has been deleted for: an edit behind the length that it says may be whole, torn or gone after a crash, and
//     the store is whole with it and without it. Tables that no edit names may lie about then, too: those of a flush or
//     a compaction that did not end, and those that were to be deleted. Pebble removes them.
//   - A new manifest is in the inventory before a marker names it, and the one before stays in until the next. So the
//     manifest that the marker names is always in it.
//   - Close replaces it, when Pebble is closed, by a list of all files with their sizes, and the hashes of all but the
//     tables, whose blocks have checksums of their own. Then no file may be missing, or added, or changed in any byte;
//     the log's end is no exception. Open reads what it would read anyway, and asks the size of each table.
//   - Open replaces it again before Pebble opens, so a list of all files is compared with a store that nobody changed.
//
// A program that was made before there were inventories does not keep this one. It leaves a file with a higher number
// than any in a list of all, or a manifest that the inventory does not have (overtaken). Such a store, and one without
// an inventory, is taken as those programs took it, but that one which has tables must say its format; and it gets an
// inventory.

const inventoryFile = "INVENTORY"

const inventoryVersion = 1

// The states of a store, as its inventory says them.
const (
	stateNew     = "new"     // nothing was acknowledged yet: it may be begun anew
	stateOpen    = "open"    // it is open, or was when the process ended
	stateStopped = "stopped" // it was closed, and the list is of all files
)

type inventory struct {
	Version int        `json:"version"`
	State   string     `json:"state"`
	Files   []listFile `json:"files"`
}

// isTable says whether a file's blocks have checksums, so that a list needs no hash of it.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

func isManifest(name string) bool { return strings.HasPrefix(name, "MANIFEST-") }

func isOptions(name string) bool { return strings.HasPrefix(name, "OPTIONS-") }

func isMarker(name string) bool { return strings.HasPrefix(name, "marker.") }

// ofStore says whether a list of all files has a file: those that Pebble reads.
func ofStore(name string) bool {
	return isTable(name) || isManifest(name) || isOptions(name) || isMarker(name) || path.Ext(name) == ".log"
}

// fileNumber returns the number in the name of one of Pebble's files, or 0.
func fileNumber(name string) uint64 {
	if isMarker(name) {
		return 0 // numbered apart
	}
	name = strings.TrimSuffix(name, path.Ext(name))
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// find returns what the inventory has of a file, or nil.
func (i *inventory) find(name string) *listFile {
	at := slices.IndexFunc(i.Files, func(f listFile) bool { return f.Name == name })
	if at < 0 {
		return nil
	}
	return &i.Files[at]
}

// overtaken says whether a program that keeps no inventory had the store open since: manifest is the one that counts,
// names are the folder's files.
func (i *inventory) overtaken(manifest string, names []string) bool {
	last := uint64(0)
	for _, f := range i.Files {
		last = max(last, fileNumber(f.Name))
	}
	if i.State != stateStopped {
		return i.find(manifest) == nil && fileNumber(manifest) > last
	}
	return slices.ContainsFunc(names, func(name string) bool { return ofStore(name) && fileNumber(name) > last })
}

// check compares the inventory with the files in a folder, and says what is wrong with them, an ErrCorrupt. manifest is
// the one that counts.
func (i *inventory) check(fs vfs.FS, dir, manifest string, names []string) error {
	if i.find(manifest) == nil {
		return fmt.Errorf("%w: %s is in use, which is not the store's: its inventory has another", ErrCorrupt, fs.PathJoin(dir, manifest))
	}
	all := i.State == stateStopped
	for _, f := range i.Files {
		path := fs.PathJoin(dir, f.Name)
		stat, err := fs.Stat(path)
		switch {
		case isNotExist(err) && !all:
			continue // it was replaced since
		case isNotExist(err):
			return fmt.Errorf("%w: %s is missing", ErrCorrupt, path)
		case err != nil:
			return err
		case stat.Size() < f.Size:
			return fmt.Errorf("%w: %s has %d bytes, and must have %d: it was cut short", ErrCorrupt, path, stat.Size(), f.Size)
		case stat.Size() > f.Size && all:
			return fmt.Errorf("%w: %s has %d bytes, and must have %d", ErrCorrupt, path, stat.Size(), f.Size)
		case f.SHA256 == "":
			continue
		}
		sum, err := hashOf(fs, path, f.Size)
		if err != nil {
			return err
		}
		if sum != f.SHA256 {
			return fmt.Errorf("%w: the first %d bytes of %s are not as they were written", ErrCorrupt, f.Size, path)
		}
	}
	for _, name := range names {
		if all && ofStore(name) && i.find(name) == nil {
			return fmt.Errorf("%w: %s was added since the store was closed", ErrCorrupt, fs.PathJoin(dir, name))
		}
	}
	return nil
}

// checkCopy compares what a checkpoint copied of the manifest, unless it is of one that is newer than the inventory.
func (i *inventory) checkCopy(fs vfs.FS, dir string) error {
	for _, f := range i.Files {
		if !isManifest(f.Name) {
			continue
		}
		sum, err := hashOf(fs, fs.PathJoin(dir, f.Name), f.Size)
		if err != nil && !isNotExist(err) {
			return err
		}
		if err == nil && sum != f.SHA256 {
			return fmt.Errorf("%w: the first %d bytes of %s are not as they were written", ErrCorrupt, f.Size, f.Name)
		}
	}
	return nil
}

// hashOf returns the hash of a file's first bytes.
func hashOf(fs vfs.FS, name string, size int64) (string, error) {
	f, err := fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.LimitReader(f, size))
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// readInventory returns nil for a folder without one.
func readInventory(fs vfs.FS, dir string) (*inventory, error) {
	path := fs.PathJoin(dir, inventoryFile)
	var i inventory
	if err := readSealed(fs, path, &i); isNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if i.Version != inventoryVersion {
		return nil, fmt.Errorf("%w: %s has version %d, and this program knows %d; use the program that wrote it, or a newer one",
			ErrFormat, path, i.Version, inventoryVersion)
	}
	return &i, nil
}

// keeper keeps the inventory of an open store.
type keeper struct {
	fs    vfs.FS
	dir   string
	guard *guard

	mu   sync.Mutex
	list inventory
	shut bool
}

// begin takes over a store that was found as it must be, before Pebble opens it: what is there now of its manifest is
// made durable, since Pebble may go by it. Of a new store manifest is empty.
func (k *keeper) begin(state, manifest string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = inventory{Version: inventoryVersion, State: state}
	if manifest != "" {
		if err := syncFile(k.fs, k.fs.PathJoin(k.dir, manifest)); err != nil {
			return err
		}
		if err := k.add(manifest); err != nil {
			return err
		}
	}
	return k.write()
}

func syncFile(fs vfs.FS, name string) error {
	f, err := fs.OpenReadWrite(name, "objects-inventory")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// add puts a file as it is in the list.
func (k *keeper) add(name string) error {
	path := k.fs.PathJoin(k.dir, name)
	stat, err := k.fs.Stat(path)
	if err != nil {
		return err
	}
	f := listFile{Name: name, Size: stat.Size()}
	if !isTable(name) {
		if f.SHA256, err = hashOf(k.fs, path, f.Size); err != nil {
			return err
		}
	}
	k.list.Files = append(k.list.Files, f)
	return nil
}

// synced notes how much of a manifest is durable.
func (k *keeper) synced(manifest string, size int64, sum string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := listFile{Name: manifest, Size: size, SHA256: sum}
	if old := k.list.find(manifest); old != nil {
		*old = f
		return k.write()
	}
	manifests := 0
	for i := len(k.list.Files) - 1; i >= 0; i-- { // of those before it, the last
		if isManifest(k.list.Files[i].Name) {
			if manifests++; manifests > 1 {
				k.list.Files = slices.Delete(k.list.Files, i, i+1)
			}
		}
	}
	k.list.Files = append(k.list.Files, f)
	return k.write()
}

// opened notes that the store holds something, and the options that Pebble wrote.
func (k *keeper) opened() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	names, err := k.fs.List(k.dir)
	if err != nil {
		return err
	}
	k.list.State = stateOpen
	for _, name := range names {
		if isOptions(name) && k.list.find(name) == nil {
			if err := k.add(name); err != nil && !isNotExist(err) { // Pebble removes older ones now
				return err
			}
		}
	}
	return k.write()
}

// stopped notes all files, when Pebble is closed. What Pebble removed must not come back after a crash.
func (k *keeper) stopped() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := syncDir(k.fs, k.dir); err != nil {
		return err
	}
	names, err := k.fs.List(k.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	k.list.State, k.list.Files = stateStopped, nil
	for _, name := range names {
		if !ofStore(name) {
			continue
		}
		if err := k.add(name); err != nil {
			return err
		}
	}
	return k.write()
}

// now returns the inventory as it is.
func (k *keeper) now() *inventory {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &inventory{Version: k.list.Version, State: k.list.State, Files: slices.Clone(k.list.Files)}
}

// end lets nothing be written any more, such as by a Pebble that was abandoned: the folder may have another owner.
func (k *keeper) end() {
	k.mu.Lock()
	k.shut = true
	k.mu.Unlock()
}

func (k *keeper) write() error {
	if k.shut || k.guard.gone.Load() {
		return errAbandoned
	}
	if err := writeSealed(k.fs, k.fs.PathJoin(k.dir, inventoryFile), &k.list); err != nil {
		return fmt.Errorf("the store's inventory cannot be written: %w", err)
	}
	return nil
}

// running is the hash of a file that is being written.
type running struct {
	name string
	size int64
	hash hash.Hash
}

func (r *running) wrote(p []byte) {
	_, _ = r.hash.Write(p) // never fails
	r.size += int64(len(p))
}

// writeSealed replaces a file in one step, by a line of JSON and a line with its hash.
func writeSealed(fs vfs.FS, path string, v any) error {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	data = fmt.Appendf(data, "\n%x\n", sha256.Sum256(data))
	f, err := fs.Create(path+".tmp", "objects-list")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(path))
}

// readSealed reads what writeSealed wrote; it is ErrCorrupt if it is something else.
func readSealed(fs vfs.FS, path string, v any) error {
	data, err := readFile(fs, path)
	if err != nil {
		return err
	}
	body, sum, _ := bytes.Cut(data, []byte("\n"))
	if string(sum) != fmt.Sprintf("%x\n", sha256.Sum256(body)) {
		return fmt.Errorf("%w: %s is not as it was written", ErrCorrupt, path)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return nil
}
