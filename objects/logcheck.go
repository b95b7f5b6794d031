package objects

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"path"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Damage in the log and the manifest.
//
// Pebble reads both up to the first record that is not whole, and takes that for the end, as a crash in the midst of a
// write leaves it. So a byte that changed in an old record would silently set the store back to what it was before that
// record. (For the log Pebble looks for proof of the contrary, but from the next 32 KiB block on, and in the newest log
// that is often none.) This looks for it in every byte: records are written one after the other, each when the one
// before is synced (commit.go: one group is one record; Pebble syncs each edit of a manifest). So a whole record behind
// one that is not proves that the one was whole once. A group that is applied while the one before it syncs says so in
// its record (early), which then proves nothing; two records behind prove it all the same, as no more than two are not
// synced. What stays without proof is the last record of all: that it was damaged, and not torn, nobody can tell. So
// Close ends the log with a record that says nothing (sealLog), and only what a crash left last can be damaged unseen.
// (The trailer that Pebble ends a log with is no such proof: a log that is rotated right after a large batch gets it
// before that is synced.)
//
// A record is one or several chunks (pebble/record/record.go): checksum 4, length 2, type 1, and in logs the low half of
// the log's number 4 and an offset 8, then the payload. No chunk goes over a block's end.

const (
	recordBlock   = 32 << 10
	manifestChunk = 7
	oldLogChunk   = 11
	logChunk      = 19
)

// recordStarts are the types of chunks that begin a record: the whole of it, or its first part, in three formats.
var recordStarts = [256]bool{1: true, 2: true, 5: true, 6: true, 9: true, 10: true}

// early begins a batch that is written before the one before it is synced: Pebble logs the word, and does nothing else.
func early(b *pebble.Batch) error { return b.LogData([]byte("early"), nil) }

// isEarly says that the record that begins with a whole chunk is no proof of the one before it: it is early, or cut
// before that could be seen.
func isEarly(chunk []byte) bool {
	header := logChunk
	switch kind := chunk[6]; {
	case kind <= 4:
		return false // of a manifest
	case kind <= 8:
		header = oldLogChunk
	}
	const ops = 12 // of a batch: where they begin, each with its kind and a length
	op := chunk[min(header+ops, len(chunk)):]
	return len(op) < 2 || op[0] == byte(pebble.InternalKeyKindLogData) && op[1] != 0
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// chunkAt returns the length of the valid chunk at an offset, or 0.
func chunkAt(data []byte, at int, number uint32) int {
	block := data[at:min(len(data), at-at%recordBlock+recordBlock)]
	if len(block) < manifestChunk {
		return 0
	}
	var header int
	kind := block[6]
	switch {
	case kind >= 1 && kind <= 4:
		header = manifestChunk
	case kind >= 5 && kind <= 8:
		header = oldLogChunk
	case kind >= 9 && kind <= 12:
		header = logChunk
	default:
		return 0
	}
	length := header + int(binary.LittleEndian.Uint16(block[4:]))
	if length > len(block) || header > manifestChunk && binary.LittleEndian.Uint32(block[7:]) != number {
		return 0
	}
	sum := crc32.Checksum(block[6:length], crcTable)
	if binary.LittleEndian.Uint32(block) != bits.RotateLeft32(sum, 17)+0xa282ead8 {
		return 0
	}
	return length
}

// trailerAt reports whether the trailer of a log that was closed is at an offset.
func trailerAt(data []byte, at int, number uint32) bool {
	return len(data)-at >= oldLogChunk && binary.LittleEndian.Uint32(data[at:]) == 0 && binary.LittleEndian.Uint16(data[at+4:]) == 0 &&
		data[at+6] == 5 && binary.LittleEndian.Uint32(data[at+7:]) == number+1
}

// damage returns where a log or a manifest is damaged for sure, or -1.
func damage(data []byte, number uint32) int {
	at := 0
	for at < len(data) {
		if trailerAt(data, at, number) {
			return -1
		}
		if length := chunkAt(data, at, number); length > 0 {
			at += length
			continue
		}
		// A block's end holds no chunk's header, and is zero.
		if rest := min(len(data), at-at%recordBlock+recordBlock) - at; rest < logChunk && zero(data[at:at+rest]) {
			at += rest
			continue
		}
		break
	}
	behind := 0
	for later := at + 1; later <= len(data)-manifestChunk; later++ {
		if !recordStarts[data[later+6]] {
			continue
		}
		if length := chunkAt(data, later, number); length > 0 {
			if behind++; behind == maxFlying || !isEarly(data[later:later+length]) {
				return at
			}
			later += length - 1
		}
	}
	return -1
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// sealLog ends the log with a record that says nothing, behind the last group.
func (s *Store) sealLog() error {
	b := s.db.NewBatch()
	if err := b.LogData(nil, nil); err != nil {
		return err
	}
	if err := s.guard.commit(s.db, b); err != nil {
		return err
	}
	return b.SyncWait()
}

// checkLogs looks for damage in a store's manifest and in its newest log; that of others Pebble finds, which knows that
// they were closed. Like Pebble it reads only what is there.
func checkLogs(fs vfs.FS, dir, manifest string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	newest, number := "", uint64(0)
	for _, name := range names {
		if n, err := strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 64); err == nil && path.Ext(name) == ".log" && n >= number {
			newest, number = fs.PathJoin(dir, name), n
		}
	}
	for _, f := range []struct {
		name   string
		number uint64
	}{{manifest, 0}, {newest, number}} {
		if f.name == "" {
			continue
		}
		data, err := readFile(fs, f.name)
		if err != nil {
			return err
		}
		if at := damage(data, uint32(f.number)); at >= 0 {
			return fmt.Errorf("%w: %s is damaged at byte %d: whole records follow one that is not", ErrCorrupt, f.name, at)
		}
	}
	return nil
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}
