package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ImportOptions are what Import takes. The zero value is good.
type ImportOptions struct {
	FolderOptions
	// Merge imports into a store that is there: its objects that the export holds become what they are in the export,
	// the others stay. Without it the folder must be empty or not there.
	Merge bool
	// Size is of what is read, for the progress; 0: not known.
	Size int64
}

// Import makes a store of an export, in a folder that nobody has open. It is wholly there in the end or not at all:
// the folder gets its name when all is read and durable.
//
// With Merge the store is changed in place, which has no such step: while it goes on, the store is marked, and one whose
// import did not come to its end does not open but for another try, so that nobody takes half of it for the whole. in
// must then be an io.Seeker, since all of it is checked before the first write.
//
// What was imported is not what was there last, so the store is marked as restored (Store.Restored). An error about a
// line is a *LineError.
func Import(ctx context.Context, in io.Reader, dir string, o ImportOptions) (info ExportInfo, err error) {
	o.FolderOptions = o.FolderOptions.withDefaults()
	defer func() {
		if err != nil {
			err = fmt.Errorf("objects: import to %s: %w", dir, err)
		}
	}()
	im := &importer{ctx: ctx, o: o, done: Progress{Step: "import", Total: o.Size}}
	if o.Merge {
		err = im.merge(in, dir)
		return im.info, err
	}
	return im.info, buildFolder(o.FS, dir, func(tmp string) error {
		r, err := newLineReader(in)
		if err != nil {
			return err
		}
		return im.into(tmp, r)
	})
}

type importer struct {
	ctx  context.Context
	o    ImportOptions
	info ExportInfo
	done Progress

	store   *Store
	waiting sync.WaitGroup
	mu      sync.Mutex
	failed  error
	ops     int // that wait for the disk, and their bytes
	bytes   int
	fewer   sync.Cond
}

// merge checks all of an export before it begins.
func (im *importer) merge(in io.Reader, dir string) error {
	seeker, ok := in.(io.Seeker)
	if !ok {
		return invalidf("what is merged must be a file, since it is read twice")
	}
	if there, err := Exists(im.o.FS, dir); err != nil || !there {
		return errors.Join(err, fmt.Errorf("%w to merge into", ErrNoStore))
	}
	r, err := newLineReader(in)
	for err == nil {
		if err = im.ctx.Err(); err == nil {
			_, _, _, _, err = r.next()
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := seeker.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if r, err = newLineReader(in); err != nil {
		return err
	}
	return im.into(dir, r)
}

func (im *importer) into(dir string, r *lineReader) (err error) {
	im.info.Store, im.info.Made = r.header.Store, r.header.Made
	s, err := Open(dir, Options{FS: im.o.FS, CacheBytes: im.o.CacheBytes, Memory: 1, importing: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	im.store, im.fewer.L = s, &im.mu
	what := "export of " + r.header.Store
	if err := s.commitAlone(s.db.NewBatch(), importingKey, what); err != nil {
		return err
	}
	if err := im.all(r); err != nil {
		return err
	}
	b := s.db.NewBatch()
	if err := b.Delete([]byte(importingKey), nil); err != nil {
		return err
	}
	return s.commitAlone(b, restoredKey, what)
}

// all writes what r reads. An object's entries go to disk in pieces.
func (im *importer) all(r *lineReader) error {
	const piece = 256 << 10
	w := &writes{}
	var rings alarm // of the object
	var kind, name string
	prefix := 0
	for {
		k, n, stored, value, err := r.next()
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			im.waiting.Wait()
			return err
		}
		if end || k != kind || n != name || w.bytes > piece {
			if w.bytes > 0 || rings.due != 0 {
				im.write(kind, name, w, rings)
				w, rings = &writes{}, alarm{}
			}
			if end {
				break
			}
			if im.done.Done = r.bytes; im.o.Progress != nil {
				im.done.Keys = r.entries
				im.o.Progress(im.done)
			}
			if err := errors.Join(im.failure(), im.ctx.Err()); err != nil {
				im.waiting.Wait()
				return err
			}
		}
		if k != kind || n != name {
			kind, name = k, n
			prefix = len(appendPrefix(nil, kind, name))
			if im.o.Merge {
				if err := im.clear(kind, name); err != nil {
					im.waiting.Wait()
					return err
				}
			}
		}
		if len(stored) == prefix {
			if rings, err = parseAlarm(value); err != nil {
				im.waiting.Wait()
				return err
			}
			continue
		}
		w.put(stored[prefix:], value, false)
	}
	im.waiting.Wait()
	im.info.Objects, im.info.Entries, im.info.Bytes = r.objects, r.entries, r.bytes
	im.done.Done, im.done.Keys = r.bytes, r.entries
	im.o.Progress(im.done)
	return im.failure()
}

func (im *importer) failure() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.failed
}

// object is a handle on an object as import sees it: entries, without a state.
func (im *importer) object(kind_ string) *Kind[struct{}] {
	return &Kind[struct{}]{kind: kind{name: kind_}, store: im.store, wake: func(*Tx) (struct{}, error) { return struct{}{}, nil }}
}

// write puts a piece of an object and the alarm that it may have, by the same road as any operation.
func (im *importer) write(kind, name string, w *writes, rings alarm) {
	const maxOps, maxBytes = 1 << 13, 16 << 20 // well under what the store lets wait
	im.mu.Lock()
	for im.ops >= maxOps || im.bytes >= maxBytes {
		im.fewer.Wait()
	}
	bytes := w.bytes
	im.ops, im.bytes = im.ops+1, im.bytes+bytes
	im.mu.Unlock()
	im.waiting.Add(1)
	im.object(kind).Submit(name, func(tx *Tx, _ struct{}) error {
		tx.puts = true
		tx.w.merge(w)
		if rings.due == 0 {
			return nil
		}
		return tx.changeAlarm(rings)
	}, func(err error) {
		im.mu.Lock()
		if err != nil && im.failed == nil {
			im.failed = err
		}
		im.ops, im.bytes = im.ops-1, im.bytes-bytes
		im.mu.Unlock()
		im.fewer.Signal()
		im.waiting.Done()
	})
}

// clear removes what an object holds.
func (im *importer) clear(kind, name string) error {
	return im.object(kind).Do(im.ctx, name, func(tx *Tx, _ struct{}) error { return tx.DeleteAll() })
}
