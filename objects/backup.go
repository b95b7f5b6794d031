package objects

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Backups.
//
// A backup is a folder with two things in it: BACKUP, a list of files with the hash of each, and files/, where they
// lie, each under a name that holds a part of its hash. The list is written last, and replaces the one before in one
// step. So at any instant the folder holds one whole backup, the old one or the new one, whatever is interrupted; what
// lies in files/ and is not in the list is removed by the next backup. A file that the list names already, with its
// hash, is not copied again: tables are never changed, so a backup after an hour copies what an hour made.
//
// # A consistent point
//
// Pebble's checkpoint links the tables, and copies the manifest and the log as they are at that moment, while commits go
// on. What was acknowledged before is in the log's file: it is acknowledged after the sync of its group. What is in the
// log after that is more than was acknowledged, in whole groups and in their order, as after a crash at that moment.
// The copy of a log that is written at the same time may be torn at its end, which is as good as a crash; if it is torn
// such that it reads as damaged, opening it shows that, and it is made again. Nothing else is asked of the running
// store: no commit waits for a backup.
//
// A store does not open on a backup: its files have other names. It must be restored, and so be marked as restored.

const (
	backupList    = "BACKUP"
	backupFiles   = "files"
	backupLock    = "LOCK"
	backupVersion = 1
	// stageFolder is where a checkpoint is made, in the store's folder, so that tables can be linked.
	stageFolder = "backup-in-progress"
	// stageTries bounds how often a checkpoint is made whose copy of the log was torn.
	stageTries = 5
)

// Progress is how far something long has come.
type Progress struct {
	// Step is what is being done: "copy", "check files", "check entries", "export", "import".
	Step string
	// Done and Total count bytes. Total is an estimate where entries are gone through, and 0 where nobody knows.
	Done, Total int64
	// Keys counts entries, where they are gone through.
	Keys int64
}

// BackupInfo says what is in a backup.
type BackupInfo struct {
	Store  string    // the id of the store that it was taken of
	Format int       // of the store
	Made   time.Time // the consistent point: everything acknowledged before is in it
	Files  int
	Bytes  int64
	// Of the bytes: those that this backup copied; linked, which cost no room while the store has them; and found there.
	// All are zero when a backup is only looked at.
	Copied, Linked, Kept int64
}

// list is the content of BACKUP.
type list struct {
	Version int        `json:"version"`
	Store   string     `json:"store"`
	Format  int        `json:"format"`
	Made    time.Time  `json:"made"`
	Files   []listFile `json:"files"`
}

// listFile is a file of the store.
type listFile struct {
	Name   string `json:"name"` // in the store's folder
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// stored is the file's name in the backup: two files of one name and other content have two.
func (f *listFile) stored() string { return f.Name + "." + f.SHA256[:16] }

func (l *list) info() BackupInfo {
	i := BackupInfo{Store: l.Store, Format: l.Format, Made: l.Made, Files: len(l.Files)}
	for _, f := range l.Files {
		i.Bytes += f.Size
	}
	return i
}

// inventory returns what a store must hold that is made of the files.
func (l *list) inventory() *inventory {
	i := &inventory{Version: inventoryVersion, State: stateStopped}
	for _, f := range l.Files {
		if isTable(f.Name) {
			f.SHA256 = ""
		}
		i.Files = append(i.Files, f)
	}
	return i
}

// backups is what a store knows of its own.
type backups struct {
	running sync.Mutex
	mu      sync.Mutex
	hashes  map[string]listFile // of its tables, which do not change
}

// Backup makes a backup of the store in a folder, which is made if it is not there, while operations go on. It holds at
// least everything acknowledged before the call, and each operation wholly or not at all. A backup of the same store
// that the folder holds stays whole until the new one replaces it, in one step; files that both have are not copied
// again, and on the store's own file system none is: they are linked, which protects from mistakes but not from the
// loss of the disk. A folder that holds anything else is refused. progress may be nil; it is called from this
// goroutine.
func (s *Store) Backup(ctx context.Context, dir string, progress func(Progress)) (info BackupInfo, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("objects: backup of %s to %s: %w", s.dir, dir, err)
		}
	}()
	if !s.backups.running.TryLock() {
		return info, fmt.Errorf("%w: another backup of this store runs", ErrOverloaded)
	}
	defer s.backups.running.Unlock()
	s.reading.RLock()
	defer s.reading.RUnlock()
	w := &backupWriter{
		fs: s.opts.FS, dir: dir, progress: progress, known: &s.backups,
		// Close does not wait for the end of it.
		stop: func() error {
			if s.closed.Load() {
				return ErrClosed
			}
			return cmp.Or(ctx.Err(), s.commit.failure())
		},
	}
	if err := w.stop(); err != nil {
		return info, err
	}
	if err := w.open(s.mark.id); err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, w.lock.Close()) }()

	stage := s.opts.FS.PathJoin(s.dir, stageFolder)
	defer func() { err = errors.Join(err, s.opts.FS.RemoveAll(stage)) }()
	made, err := s.checkpoint(stage, w.stop)
	if err != nil {
		return info, err
	}
	format := knownFormats.newest
	if s.opts.formats != nil {
		format = s.opts.formats.newest
	}
	return w.write(stage, list{Version: backupVersion, Store: s.mark.id, Format: format, Made: made})
}

// checkpoint makes a consistent copy of the store's files.
func (s *Store) checkpoint(stage string, stop func() error) (made time.Time, err error) {
	for try := 1; ; try++ {
		if err := cmp.Or(stop(), s.opts.FS.RemoveAll(stage)); err != nil {
			return made, err
		}
		known := s.files.now()
		made = time.Now().UTC()
		if err := s.unlessBroken(func() error { return checkpointTo(s.db, stage) }); err != nil {
			return made, fmt.Errorf("checkpoint: %w", opened(err))
		}
		if _, err := look(s.opts.FS, stage); err != nil {
			if try == stageTries || !errors.Is(err, ErrCorrupt) {
				return made, fmt.Errorf("the checkpoint is torn: %w", err)
			}
			continue
		}
		if err := known.checkCopy(s.opts.FS, stage); err != nil {
			return made, err
		}
		db, _, err := openReadOnly(s.opts.FS, stage, s.opts.CacheBytes, nil)
		if err == nil {
			return made, db.Close()
		}
		if try == stageTries || !errors.Is(err, ErrCorrupt) {
			return made, fmt.Errorf("the checkpoint does not open: %w", err)
		}
	}
}

// checkpointTo is Checkpoint without its panic: it makes one of a sync of its own folder that fails, at a point where it
// holds no lock.
func checkpointTo(db *pebble.DB, dir string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			err = fmt.Errorf("pebble panicked: %w", cause)
		}
	}()
	return db.Checkpoint(dir)
}

// unlessBroken calls f, which uses Pebble, and does not wait for its end if Pebble breaks down.
func (s *Store) unlessBroken(f func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("pebble panicked: %v\n%s", r, debug.Stack())
				s.guard.breakDown(err)
			}
			done <- err
		}()
		err = f()
	}()
	select {
	case err := <-done:
		return err
	case <-s.guard.broken:
		return s.commit.failure()
	}
}

// backupWriter writes a backup into its folder.
type backupWriter struct {
	fs       vfs.FS
	dir      string
	stop     func() error
	progress func(Progress)
	known    *backups
	lock     io.Closer

	old  map[string]listFile // of the backup before, by their stored names
	info BackupInfo
	done Progress
}

// open takes the folder, and reads what it holds.
func (w *backupWriter) open(store string) error {
	files := w.fs.PathJoin(w.dir, backupFiles)
	names, err := w.fs.List(w.dir)
	if err != nil && !isNotExist(err) {
		return err
	}
	for _, name := range names {
		switch name {
		case backupList, backupFiles, backupLock, backupList + ".tmp":
		default:
			return fmt.Errorf("the folder holds %s, which is of no backup: give a new folder, or that of an earlier backup", name)
		}
	}
	if err := makeDir(w.fs, files); err != nil {
		return fmt.Errorf("the folder cannot be made: %w", err)
	}
	closeFolder(w.fs, w.dir)
	if w.lock, err = w.fs.Lock(w.fs.PathJoin(w.dir, backupLock)); err != nil {
		return fmt.Errorf("another backup is being made there, or the folder cannot be written: %w", err)
	}
	err = w.read(store)
	if err != nil {
		err = errors.Join(err, w.lock.Close())
	}
	return err
}

func (w *backupWriter) read(store string) error {
	w.old = map[string]listFile{}
	l, err := readList(w.fs, w.dir)
	switch {
	case errors.Is(err, ErrNoStore):
	case err != nil:
		return err
	case l.Store != store:
		return fmt.Errorf("the folder holds a backup of another store (%s, and this is %s): give each store a folder of its own", l.Store, store)
	default:
		for _, f := range l.Files {
			w.old[f.stored()] = f
		}
	}
	return w.sweep(w.old)
}

// sweep removes the files that are not named.
func (w *backupWriter) sweep(keep map[string]listFile) error {
	files := w.fs.PathJoin(w.dir, backupFiles)
	names, err := w.fs.List(files)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := keep[name]; !ok {
			if err := w.fs.Remove(w.fs.PathJoin(files, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *backupWriter) write(stage string, l list) (info BackupInfo, err error) {
	names, err := w.fs.List(stage)
	if err != nil {
		return info, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == backupLock }) // of the look at it
	slices.Sort(names)
	w.done.Step = "copy"
	for _, name := range names {
		stat, err := w.fs.Stat(w.fs.PathJoin(stage, name))
		if err != nil {
			return info, err
		}
		w.done.Total += stat.Size()
	}
	kept := maps.Clone(w.old)
	defer func() {
		if err != nil { // the files of this try only take room
			err = errors.Join(err, w.sweep(w.old))
		}
	}()
	for _, name := range names {
		f, err := w.file(w.fs.PathJoin(stage, name), name)
		if err != nil {
			return info, fmt.Errorf("%s: %w", name, err)
		}
		l.Files = append(l.Files, f)
		kept[f.stored()] = f
	}
	if err := cmp.Or(w.stop(), syncDir(w.fs, w.fs.PathJoin(w.dir, backupFiles))); err != nil {
		return info, err
	}
	if err := w.replace(&l); err != nil {
		return info, err
	}
	i := l.info()
	i.Copied, i.Linked, i.Kept = w.info.Copied, w.info.Linked, w.info.Kept
	w.old = map[string]listFile{}
	for _, f := range l.Files {
		w.old[f.stored()] = f
	}
	return i, w.sweep(w.old)
}

// file brings one file into the backup, unless it is there.
func (w *backupWriter) file(from, name string) (listFile, error) {
	table := isTable(name)
	w.known.mu.Lock()
	f, hashed := w.known.hashes[name]
	w.known.mu.Unlock()
	if !hashed {
		size, sum, err := w.pour(from, nil)
		if err != nil {
			return f, err
		}
		f = listFile{Name: name, Size: size, SHA256: sum}
		if table {
			w.known.mu.Lock()
			if w.known.hashes == nil {
				w.known.hashes = map[string]listFile{}
			}
			w.known.hashes[name] = f
			w.known.mu.Unlock()
		}
	}
	to := w.fs.PathJoin(w.dir, backupFiles, f.stored())
	if old, ok := w.old[f.stored()]; ok && old.SHA256 == f.SHA256 && old.Size == f.Size {
		if stat, err := w.fs.Stat(to); err == nil && stat.Size() == f.Size {
			w.info.Kept += f.Size
			w.count(f.Size)
			return f, nil
		}
	}
	if err := w.fs.Remove(to); err != nil && !isNotExist(err) {
		return f, err
	}
	// What is not a table is the stage's alone, so it can be linked as well.
	if w.fs.Link(from, to) == nil {
		w.info.Linked += f.Size
		w.count(f.Size)
		return f, nil
	}
	dst, err := w.fs.Create(to, "objects-backup")
	if err != nil {
		return f, err
	}
	size, sum, err := w.pour(from, dst)
	if err == nil {
		err = dst.Sync()
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return f, err
	}
	if size != f.Size || sum != f.SHA256 {
		return f, fmt.Errorf("%w: it read differently twice", ErrCorrupt)
	}
	w.info.Copied += f.Size
	w.count(f.Size)
	return f, nil
}

func (w *backupWriter) count(n int64) {
	w.done.Done += n
	if w.progress != nil {
		w.progress(w.done)
	}
}

// pour reads a file, to its hash and into dst, if there is one.
func (w *backupWriter) pour(from string, dst io.Writer) (int64, string, error) {
	return pour(w.fs, from, dst, w.stop)
}

func pour(fs vfs.FS, from string, dst io.Writer, stop func() error) (n int64, sum string, err error) {
	src, err := fs.Open(from, vfs.SequentialReadsOption)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for {
		if err := stop(); err != nil {
			return n, "", err
		}
		r, rerr := src.Read(buf)
		_, _ = h.Write(buf[:r])
		n += int64(r)
		if dst != nil {
			if _, err := dst.Write(buf[:r]); err != nil {
				return n, "", fmt.Errorf("write the copy: %w", err)
			}
		}
		if errors.Is(rerr, io.EOF) {
			return n, hex.EncodeToString(h.Sum(nil)), nil
		}
		if rerr != nil {
			return n, "", rerr
		}
	}
}

// replace makes l the folder's list, in one step.
func (w *backupWriter) replace(l *list) error {
	return writeSealed(w.fs, w.fs.PathJoin(w.dir, backupList), l)
}

// readList reads and checks what BACKUP says.
func readList(fs vfs.FS, dir string) (*list, error) {
	path := fs.PathJoin(dir, backupList)
	var l list
	if err := readSealed(fs, path, &l); isNotExist(err) {
		return nil, fmt.Errorf("%w: there is no %s", ErrNoStore, path)
	} else if err != nil {
		return nil, err
	}
	if l.Version != backupVersion {
		return nil, fmt.Errorf("%w: %s has version %d, and this program knows %d; use the program that wrote it", ErrFormat, path, l.Version, backupVersion)
	}
	if _, err := knownFormats.check(fmt.Sprint(l.Format)); err != nil {
		return nil, err
	}
	for _, f := range l.Files {
		if f.Name == "" || strings.ContainsAny(f.Name, `/\`) || len(f.SHA256) != 2*sha256.Size || f.Size < 0 {
			return nil, fmt.Errorf("%w: %s names the file %.60q", ErrCorrupt, path, f.Name)
		}
	}
	return &l, nil
}

// FolderOptions are what the functions on whole folders take. The zero value is good.
type FolderOptions struct {
	FS         vfs.FS         // nil is the machine's
	Progress   func(Progress) // may be nil
	CacheBytes int64          // 0 is DefaultCacheBytes
	// MaxProblems is how many problems are described; the others are counted. 0 is 20.
	MaxProblems int
}

func (o FolderOptions) withDefaults() FolderOptions {
	if o.FS == nil || o.FS == vfs.Default {
		o.FS = disk
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	o.CacheBytes = cmp.Or(o.CacheBytes, DefaultCacheBytes)
	o.MaxProblems = cmp.Or(o.MaxProblems, 20)
	return o
}

// Inspect says what backup a folder holds, without reading its files.
func Inspect(dir string, o FolderOptions) (BackupInfo, error) {
	l, err := readList(o.withDefaults().FS, dir)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("objects: backup %s: %w", dir, err)
	}
	return l.info(), nil
}

// Restore makes a store of a backup, in a folder that must be empty or not there. It checks the hash of every file, and
// that the store opens; Verify then reads all of it. The store is marked as restored (Store.Restored), in the same step
// in which the folder gets its name: a crash leaves no store, or one that is marked. It shares no file with the backup.
func Restore(ctx context.Context, backup, dir string, o FolderOptions) (info BackupInfo, err error) {
	o = o.withDefaults()
	fs := o.FS
	defer func() {
		if err != nil {
			err = fmt.Errorf("objects: restore %s to %s: %w", backup, dir, err)
		}
	}()
	l, err := readList(fs, backup)
	if err != nil {
		return info, err
	}
	info = l.info()
	return info, buildFolder(fs, dir, func(tmp string) error {
		p := Progress{Step: "copy", Total: info.Bytes}
		for i := range l.Files {
			f := &l.Files[i]
			if err := restoreFile(ctx, fs, f, fs.PathJoin(backup, backupFiles, f.stored()), fs.PathJoin(tmp, f.Name)); err != nil {
				return err
			}
			p.Done += f.Size
			o.Progress(p)
		}
		if err := writeSealed(fs, fs.PathJoin(tmp, inventoryFile), l.inventory()); err != nil { // which syncs the folder
			return err
		}
		s, err := Open(tmp, Options{FS: fs, CacheBytes: o.CacheBytes, MinFreeBytes: -1})
		if err != nil {
			return err
		}
		if s.mark.id != l.Store {
			err = fmt.Errorf("%w: the files are of the store %s, and the list is of %s", ErrCorrupt, s.mark.id, l.Store)
		} else {
			err = s.markRestored("backup " + l.Made.Format(time.RFC3339Nano))
		}
		return errors.Join(err, s.Close())
	})
}

func (s *Store) markRestored(text string) error {
	return s.commitAlone(s.db.NewBatch(), restoredKey, text)
}

func restoreFile(ctx context.Context, fs vfs.FS, f *listFile, from, to string) error {
	dst, err := fs.Create(to, "objects-restore")
	if err != nil {
		return err
	}
	size, sum, err := pour(fs, from, dst, ctx.Err)
	if err == nil {
		err = dst.Sync()
	}
	err = errors.Join(err, dst.Close())
	switch {
	case isNotExist(err):
		return fmt.Errorf("%w: the file %s is missing", ErrCorrupt, from)
	case err != nil:
		return fmt.Errorf("%s: %w", f.Name, err)
	case size != f.Size || sum != f.SHA256:
		return fmt.Errorf("%w: the file %s is not as it was written: take another backup", ErrCorrupt, from)
	}
	return nil
}

// buildFolder makes a store's folder beside its place, and puts it there in one step.
func buildFolder(fs vfs.FS, dir string, build func(tmp string) error) (err error) {
	if fs == disk {
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	names, err := fs.List(dir)
	switch {
	case err != nil && !isNotExist(err):
		return err
	case len(names) > 0:
		return fmt.Errorf("the folder is not empty (%s is in it): give another, or remove it", names[0])
	}
	tmp := dir + ".unfinished"
	if err := fs.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, fs.RemoveAll(tmp))
		}
	}()
	if err := makeDir(fs, tmp); err != nil {
		return fmt.Errorf("the folder cannot be made: %w", err)
	}
	if err := build(tmp); err != nil {
		return err
	}
	if err := fs.Remove(dir); err != nil && !isNotExist(err) { // empty
		return err
	}
	if err := fs.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(dir))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }

// quiet is a Pebble logger for what is only read; what goes wrong there comes as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("objects: pebble: "+format, args...))
}

// openReadOnly opens a store's files to read them, and changes nothing. The folder must be locked by the caller.
func openReadOnly(fs vfs.FS, dir string, cache int64, lock *pebble.Lock) (*pebble.DB, *pebble.Options, error) {
	po := &pebble.Options{FS: fs, Logger: quiet{}, Lock: lock, ReadOnly: true, ErrorIfNotExists: true, CacheSize: cache, FormatMajorVersion: pebble.FormatNewest}
	po.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}} // by default it is fatal
	po.EnsureDefaults()
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, nil, opened(err)
	}
	return db, po, nil
}
