package objects

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An export is lines of JSON: a header, a line for each entry in the order of kind, name and key, and a last line that
// counts them, without which it is not whole:
//
//	{"tributary_export":1,"format":1,"store":"5f0c…","made":"2026-11-26T12:00:00Z"}
//	{"kind":"room","name":"berlin","key":"topic","value":"the weather"}
//	{"kind":"room","name":"berlin","key":"n","value64":"AAAAAAAAACo="}
//	{"end":{"objects":1,"entries":2}}
//
// A key or a value that is no plain text is in base64, as key64 or value64. The runtime's own keys are not exported.

const exportVersion = 1

// maxLineBytes bounds a line: the largest value, every byte of it escaped, with its key and name.
const maxLineBytes = 2*MaxValueBytes + 64<<10

type exportHeader struct {
	Version int       `json:"tributary_export"`
	Format  int       `json:"format"`
	Store   string    `json:"store"`
	Made    time.Time `json:"made"`
}

type exportLine struct {
	Kind    string     `json:"kind,omitzero"`
	Name    string     `json:"name,omitzero"`
	Key     *string    `json:"key,omitzero"`
	Key64   *[]byte    `json:"key64,omitzero"`
	Value   *string    `json:"value,omitzero"`
	Value64 *[]byte    `json:"value64,omitzero"`
	End     *exportEnd `json:"end,omitzero"`
}

type exportEnd struct {
	Objects int64 `json:"objects"`
	Entries int64 `json:"entries"`
}

// ExportInfo counts what was exported or imported.
type ExportInfo struct {
	Store            string // the id of the store that was exported
	Made             time.Time
	Objects, Entries int64
	Bytes            int64 // of the lines
}

// Export writes all that is stored as lines of JSON, while operations go on: as it was at one moment, each operation
// wholly or not at all, and all of it durable. progress may be nil.
func (s *Store) Export(ctx context.Context, out io.Writer, progress func(Progress)) (info ExportInfo, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("objects: export of %s: %w", s.dir, err)
		}
	}()
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed.Load() {
		return info, ErrClosed
	}
	if err := s.commit.failure(); err != nil {
		return info, err
	}
	snapshot := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	info.Store, info.Made = s.mark.id, time.Now().UTC()
	// What the snapshot shows may not be durable yet.
	g, err := s.commit.gate(s.commit.applied(), nil, nil)
	if err != nil {
		return info, err
	}
	if g != nil {
		select {
		case <-g.done:
			if g.err != nil {
				return info, g.err
			}
		case <-ctx.Done():
			return info, ctx.Err()
		}
	}
	e := &exporter{out: bufio.NewWriterSize(out, 256<<10), info: &info, progress: progress}
	e.done.Step = "export"
	if usage, err := s.db.EstimateDiskUsage([]byte{0}, []byte{0xff}); err == nil {
		e.done.Total = int64(usage)
	}
	err = e.all(snapshot, func() error {
		if s.closed.Load() {
			return ErrClosed
		}
		return ctx.Err()
	})
	return info, err
}

type exporter struct {
	out      *bufio.Writer
	line     []byte
	info     *ExportInfo
	done     Progress
	progress func(Progress)
}

func (e *exporter) all(snapshot *pebble.Snapshot, stop func() error) (err error) {
	header, err := json.Marshal(exportHeader{exportVersion, knownFormats.newest, e.info.Store, e.info.Made}, json.Deterministic(true))
	if err != nil {
		return err
	}
	if err := e.write(append(header, '\n')); err != nil {
		return err
	}
	it, err := snapshot.NewIter(nil)
	if err != nil {
		return corrupt(err)
	}
	defer func() { err = errors.Join(err, corrupt(it.Close())) }()
	w := newWalker()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return corrupt(err)
		}
		kind, name, key, err := parseKey(it.Key())
		if err == nil {
			err = w.entry(it.Key(), value)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if e.done.Keys++; e.done.Keys%4096 == 0 {
			if err := stop(); err != nil {
				return err
			}
			e.tell()
		}
		e.done.Done += int64(len(it.Key()) + len(value))
		if len(kind) == 0 { // the runtime's own: they belong to this very store, or are made again
			continue
		}
		e.info.Entries++
		e.line = appendLine(e.line[:0], kind, name, key, value)
		if err := e.write(e.line); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return corrupt(err)
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for _, k := range w.kinds {
		e.info.Objects += k.Objects
	}
	e.tell()
	if err := e.write(fmt.Appendf(nil, `{"end":{"objects":%d,"entries":%d}}`+"\n", e.info.Objects, e.info.Entries)); err != nil {
		return err
	}
	return e.out.Flush()
}

func (e *exporter) write(line []byte) error {
	e.info.Bytes += int64(len(line))
	_, err := e.out.Write(line)
	return err
}

func (e *exporter) tell() {
	if e.progress != nil {
		e.progress(e.done)
	}
}

// appendLine appends an entry's line.
func appendLine(dst, kind, name, key, value []byte) []byte {
	dst = append(dst, `{"kind":`...)
	dst, _ = jsontext.AppendQuote(dst, kind) // it fails on what is no UTF-8 only
	dst = append(dst, `,"name":`...)
	dst, _ = jsontext.AppendQuote(dst, name)
	dst = append(dst, ',')
	dst = appendText(dst, "key", key, utf8.Valid(key))
	dst = append(dst, ',')
	dst = appendText(dst, "value", value, isText(value))
	return append(dst, "}\n"...)
}

func appendText(dst []byte, member string, text []byte, plain bool) []byte {
	dst = append(append(dst, '"'), member...)
	if plain {
		dst, _ = jsontext.AppendQuote(append(dst, `":`...), text)
		return dst
	}
	dst = base64.StdEncoding.AppendEncode(append(dst, `64":"`...), text)
	return append(dst, '"')
}

// isText reports whether people can read a value, and JSON writes it at no more than twice its length.
func isText(value []byte) bool {
	if !utf8.Valid(value) {
		return false
	}
	for _, r := range string(value) {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return false
		}
	}
	return true
}

// LineError says which line of an import is wrong.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// lineReader reads an export, and refuses what is none.
type lineReader struct {
	in      *bufio.Reader
	number  int
	bytes   int64
	header  exportHeader
	last    []byte // the stored key before
	walk    *walker
	objects int64
	entries int64
	ended   bool
}

func newLineReader(in io.Reader) (*lineReader, error) {
	r := &lineReader{in: bufio.NewReaderSize(in, 256<<10), walk: newWalker()}
	line, err := r.line()
	if errors.Is(err, io.EOF) {
		return nil, &LineError{1, invalidf("it is empty, and an export begins with a line that has \"tributary_export\" in it")}
	} else if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, &r.header, json.RejectUnknownMembers(true)); err != nil || r.header.Version == 0 {
		return nil, r.wrong("this is no export's first line, {\"tributary_export\":%d,…} (%v)", exportVersion, err)
	}
	if r.header.Version != exportVersion {
		return nil, &LineError{r.number, fmt.Errorf("%w: the export has version %d, and this program knows %d; use a newer one", ErrFormat, r.header.Version, exportVersion)}
	}
	if _, err := knownFormats.check(fmt.Sprint(r.header.Format)); err != nil {
		return nil, &LineError{r.number, err}
	}
	if r.header.Format != knownFormats.newest { // the steps upgrade stores
		return nil, &LineError{r.number, fmt.Errorf("%w: the export has format %d, and this program imports %d; import it with the program that wrote it, "+
			"and open the store with this one", ErrFormat, r.header.Format, knownFormats.newest)}
	}
	return r, nil
}

func (r *lineReader) wrong(format string, args ...any) error {
	return &LineError{r.number, invalidf(format, args...)}
}

// line returns the next line, without its end.
func (r *lineReader) line() ([]byte, error) {
	var long []byte
	for {
		part, err := r.in.ReadSlice('\n')
		r.bytes += int64(len(part))
		if errors.Is(err, bufio.ErrBufferFull) || long != nil {
			long = append(long, part...)
		}
		switch {
		case len(long) > maxLineBytes:
			r.number++
			return nil, r.wrong("it is longer than %d bytes", maxLineBytes)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(part) == 0 && len(long) == 0:
			return nil, io.EOF
		case err == io.EOF:
			r.number++
			return nil, r.wrong("it has no end: the export was cut off there")
		case err != nil:
			return nil, err
		}
		r.number++
		if long != nil {
			part = long
		}
		return bytes.TrimSuffix(part[:len(part)-1], []byte("\r")), nil
	}
}

// next returns the next entry, or io.EOF after the last one of a whole export. The key is as it is stored.
func (r *lineReader) next() (kind, name string, stored, value []byte, err error) {
	line, err := r.line()
	switch {
	case errors.Is(err, io.EOF) && r.ended:
		return "", "", nil, nil, io.EOF
	case errors.Is(err, io.EOF):
		r.number++
		return "", "", nil, nil, r.wrong("the last line, {\"end\":…}, is missing: the export was cut off there")
	case err != nil:
		return "", "", nil, nil, err
	case r.ended:
		return "", "", nil, nil, r.wrong("something follows the end")
	}
	var l exportLine
	if err := json.Unmarshal(line, &l, json.RejectUnknownMembers(true)); err != nil {
		return "", "", nil, nil, r.wrong("%v", err)
	}
	if l.End != nil {
		if l.Kind != "" || l.Name != "" || l.Key != nil || l.Key64 != nil || l.Value != nil || l.Value64 != nil {
			return "", "", nil, nil, r.wrong("it is an entry and the end at once")
		}
		for _, k := range r.walk.kinds {
			r.objects += k.Objects
		}
		if l.End.Objects != r.objects || l.End.Entries != r.entries {
			return "", "", nil, nil, r.wrong("the end counts %d objects and %d entries, and %d and %d came before it: lines are missing, or were added",
				l.End.Objects, l.End.Entries, r.objects, r.entries)
		}
		r.ended = true
		return r.next()
	}
	return r.entry(&l)
}

func (r *lineReader) entry(l *exportLine) (kind, name string, stored, value []byte, err error) {
	key, err := one(l.Key, l.Key64, "key")
	if err == nil {
		value, err = one(l.Value, l.Value64, "value")
	}
	if err != nil {
		return "", "", nil, nil, r.wrong("%v", err)
	}
	if l.Kind == "" {
		return "", "", nil, nil, r.wrong("it has no kind")
	}
	if err := errors.Join(checkKind(l.Kind), checkName(l.Name)); err != nil {
		return "", "", nil, nil, &LineError{r.number, err}
	}
	stored = append(appendPrefix(nil, l.Kind, l.Name), key...)
	if err := r.walk.entry(stored, value); err != nil {
		return "", "", nil, nil, &LineError{r.number, err}
	}
	if r.entries > 0 && bytes.Compare(stored, r.last) <= 0 {
		return "", "", nil, nil, r.wrong("its kind, name and key are not greater than those of the line before; entries stand in their order, each once")
	}
	r.last = append(r.last[:0], stored...)
	r.entries++
	return l.Kind, l.Name, stored, value, nil
}

// one returns the member that is there, as text or in base64.
func one(text *string, base *[]byte, member string) ([]byte, error) {
	switch {
	case text != nil && base != nil:
		return nil, fmt.Errorf("it has both %s and %s64", member, member)
	case text != nil:
		return []byte(*text), nil
	case base != nil:
		return *base, nil
	}
	return nil, fmt.Errorf("it has neither %s nor %s64", member, member)
}
