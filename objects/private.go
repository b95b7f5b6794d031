package objects

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the machine's file system, where what the store makes belongs to its owner alone: folders have the mode 0700
// and files 0600, whatever the umask is. A file system that has no modes is left as it is.
var disk vfs.FS = privateFS{vfs.Default}

type privateFS struct{ vfs.FS }

const (
	folderMode = 0o700
	fileMode   = 0o600
)

func (p privateFS) Unwrap() vfs.FS { return p.FS }

func private[F any](name string, file F, err error) (F, error) {
	if err == nil {
		_ = os.Chmod(name, fileMode)
	}
	return file, err
}

func (p privateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := p.FS.Create(name, c)
	return private(name, file, err)
}

func (p privateFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := p.FS.OpenReadWrite(name, c, o...)
	return private(name, file, err)
}

func (p privateFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := p.FS.ReuseForWrite(old, name, c)
	return private(name, file, err)
}

func (p privateFS) Lock(name string) (io.Closer, error) {
	lock, err := p.FS.Lock(name)
	return private(name, lock, err)
}

func (p privateFS) MkdirAll(dir string, _ os.FileMode) error { return p.FS.MkdirAll(dir, folderMode) }

// closeFolder takes a folder that was there before from others than its owner: a program of earlier made it, perhaps.
func closeFolder(fs vfs.FS, dir string) {
	if _, ok := fs.(privateFS); ok {
		_ = os.Chmod(dir, folderMode)
	}
}
