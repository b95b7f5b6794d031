package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fenceFS is the file system that Pebble gets. It passes everything on, but for these cases:
//
//   - The log, or its folder, cannot be written while Pebble is in a commit. Pebble then panics with its locks in a
//     state that ends the process beyond any recover (rotateWAL unlocks DB.mu, panics, and its caller's defer unlocks
//     it again: "fatal error: sync: unlock of unlocked mutex"). So it never hears of the error: the guard does, and
//     the goroutine sleeps for ever. Outside commits, where most syncs run, the error is passed on, Pebble hands it
//     to the batch that waits for it, and no other commit begins (guard.commit).
//   - A folder cannot be synced: Pebble panics, in whatever goroutine of its own it is. So it never hears of that either.
//   - Something cannot be written while Pebble opens: it gives up and takes down what goroutines of its own still use,
//     which panic, or repeats a flush for ever. Nor does it hear of that.
//   - Pebble names the manifest that is to be used from now on, by creating a marker file. The folder is synced before,
//     because else a crash may keep the marker and not the manifest, and the folder could never be opened again
//     (cockroachdb/pebble#5825, fixed by #5915, after v2.1.7).
//   - Pebble synced its manifest: the store's inventory says so before Pebble goes by it (inventory.go).
//   - Pebble was abandoned: reads fail, and whoever would change something sleeps for ever. Failing would not do:
//     flushes are repeated without end.
type fenceFS struct {
	vfs.FS
	guard *guard
	files *keeper
}

func (f *fenceFS) Unwrap() vfs.FS { return f.FS }

// writing lets the caller change something.
func (f *fenceFS) writing() {
	if f.guard.gone.Load() {
		select {}
	}
}

func (f *fenceFS) reading() error {
	if f.guard.gone.Load() {
		return errAbandoned
	}
	return nil
}

// wrote looks at an error of a change that was asked for, of the log or something else.
func (f *fenceFS) wrote(err error, log bool) error {
	if err != nil && log {
		f.guard.logFailed.CompareAndSwap(nil, &err)
	}
	switch {
	case err == nil:
	case log && f.guard.inCommit.Load():
		f.guard.breakDown(fmt.Errorf("the log cannot be written: %w", err))
		select {}
	case f.guard.opening.Load():
		f.guard.breakDown(err)
		select {}
	}
	return err
}

// isLogFile tells the log from its copies in a backup that is being made: those fail without harm.
func isLogFile(name string) bool { return strings.HasSuffix(name, ".log") && !isStaged(name) }

func isStaged(name string) bool { return strings.Contains(name, stageFolder) }

func (f *fenceFS) opened(file vfs.File, name string, err error) (vfs.File, error) {
	if err := f.wrote(err, isLogFile(name)); err != nil {
		return nil, err
	}
	return &fenceFile{File: file, fs: f, log: isLogFile(name)}, nil
}

func (f *fenceFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.writing()
	if strings.HasPrefix(f.PathBase(name), "marker.") {
		if err := f.syncDir(f.PathDir(name)); err != nil {
			return nil, err
		}
	}
	file, err := f.FS.Create(name, c)
	if file, err = f.opened(file, name, err); err != nil {
		return nil, err
	}
	switch base := f.PathBase(name); {
	case isLogFile(name):
		file.(*fenceFile).zeroes = &zeroes{}
	case isManifest(base) && !isStaged(name):
		file.(*fenceFile).manifest = &running{name: base, hash: sha256.New()}
	}
	return file, nil
}

func (f *fenceFS) syncDir(name string) error {
	dir, err := f.OpenDir(name)
	if err != nil {
		return f.wrote(err, false)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *fenceFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.writing()
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.opened(file, name, err)
}

func (f *fenceFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f.writing()
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.opened(file, name, err)
}

func (f *fenceFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.reading(); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	return &fenceFile{File: file, fs: f}, nil
}

func (f *fenceFS) OpenDir(name string) (vfs.File, error) {
	if err := f.reading(); err != nil {
		return nil, err
	}
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &fenceFile{File: file, fs: f, dir: !isStaged(name)}, nil
}

func (f *fenceFS) Link(old, name string) error {
	f.writing()
	return f.wrote(f.FS.Link(old, name), false)
}

func (f *fenceFS) Remove(name string) error {
	f.writing()
	return f.FS.Remove(name)
}

func (f *fenceFS) RemoveAll(name string) error {
	f.writing()
	return f.FS.RemoveAll(name)
}

func (f *fenceFS) Rename(old, name string) error {
	f.writing()
	return f.wrote(f.FS.Rename(old, name), false)
}

func (f *fenceFS) MkdirAll(dir string, perm os.FileMode) error {
	f.writing()
	return f.wrote(f.FS.MkdirAll(dir, perm), false)
}

// Lock does nothing: the folder's lock is the store's, which gives it up also when Pebble cannot.
func (f *fenceFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

type fenceFile struct {
	vfs.File
	fs  *fenceFS
	log bool
	dir bool

	zeroes   *zeroes  // of a log that is new; nil: of others
	manifest *running // of a manifest; nil: of others
}

// zeroes are written into a new log ahead of its records, so that a sync of a few of them changes nothing but their
// blocks: where it makes the file longer, ext4 has to write that down as well, and takes half as long again. Pebble's
// reader takes zeros for the log's end, as it must take what it finds where a log is used again, which Pebble does once
// some were flushed. What is zeroed at a time grows with the log; large syncs, whose blocks are what takes long, go
// without.
type zeroes struct {
	at       int64 // the log's length
	end      int64 // zeroed up to here
	unsynced int   // written since the last sync
	last     int   // and between the two before
}

const (
	firstZeroes = 64 << 10
	mostZeroes  = 1 << 20
	largeSync   = 128 << 10
)

var zeroBlock [mostZeroes]byte

// ahead makes room for a write of n bytes.
func (z *zeroes) ahead(f vfs.File, n int) {
	from := max(z.end, z.at)
	size := min(max(z.at, firstZeroes), mostZeroes)
	z.at += int64(n)
	z.unsynced += n
	if z.at <= z.end || max(z.last, z.unsynced) > largeSync {
		return
	}
	written, err := f.WriteAt(zeroBlock[:size], from)
	if z.end = from + int64(written); err != nil {
		z.last = largeSync + 1 // not again soon: the write that follows says what is wrong, if it matters
	}
}

func (z *zeroes) synced() { z.last, z.unsynced = z.unsynced, 0 }

func (f *fenceFile) wrote(err error) error { return f.fs.wrote(err, f.log) }

func (f *fenceFile) Read(p []byte) (int, error) {
	if err := f.fs.reading(); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *fenceFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.reading(); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *fenceFile) Write(p []byte) (int, error) {
	f.fs.writing()
	if f.zeroes != nil {
		f.zeroes.ahead(f.File, len(p))
	}
	if f.manifest == nil {
		n, err := f.File.Write(p)
		return n, f.wrote(err)
	}
	was := slices.Clone(p) // a vfs.File may change what it is given to write
	n, err := f.File.Write(p)
	f.manifest.wrote(was[:n])
	return n, f.wrote(err)
}

func (f *fenceFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.writing()
	n, err := f.File.WriteAt(p, off)
	return n, f.wrote(err)
}

func (f *fenceFile) Preallocate(off, length int64) error {
	f.fs.writing()
	return f.File.Preallocate(off, length)
}

func (f *fenceFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	return info, f.wrote(err)
}

func (f *fenceFile) Sync() error {
	f.fs.writing()
	err := f.File.Sync()
	if err != nil && f.dir {
		f.fs.guard.breakDown(fmt.Errorf("a folder cannot be synced: %w", err))
		select {}
	}
	if m := f.manifest; m != nil && err == nil {
		err = f.fs.files.synced(m.name, m.size, hex.EncodeToString(m.hash.Sum(nil)))
	}
	return f.wrote(err)
}

func (f *fenceFile) SyncData() error {
	f.fs.writing()
	if f.zeroes != nil {
		f.zeroes.synced()
	}
	return f.wrote(f.File.SyncData())
}

func (f *fenceFile) SyncTo(length int64) (bool, error) {
	f.fs.writing()
	full, err := f.File.SyncTo(length)
	return full, f.wrote(err)
}

func (f *fenceFile) Close() error { return f.wrote(f.File.Close()) }
