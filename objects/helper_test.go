package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

// checkLeaks fails the test if it leaves goroutines behind. (Tests that make Pebble break down do: what it was doing
// is parked for ever, and may come to that only later.)
func checkLeaks(t testing.TB) {
	before := goleak.IgnoreCurrent()
	parked := goleak.IgnoreAnyFunction("github.com/tributary-io/tributary/objects.(*fenceFS).writing")
	t.Cleanup(func() { goleak.VerifyNone(t, before, parked) })
}

var ctx = context.Background()

// counter is the state of the tests' objects: a number, stored under "n".
type counter struct{ n uint64 }

func wakeCounter(tx *Tx) (*counter, error) {
	v, ok, err := tx.Get("n")
	if err != nil || !ok {
		return &counter{}, err
	}
	return &counter{binary.BigEndian.Uint64(v)}, nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func increment(tx *Tx, c *counter) error {
	c.n++
	return tx.Put("n", number(c.n))
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	checkLeaks(t)
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if g, ok := o.FS.(*gateFS); ok {
			g.open() // so that a test that fails at a shut gate ends
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func value(t testing.TB, k *Kind[*counter], name string) (n uint64) {
	t.Helper()
	must(t, k.Do(ctx, name, func(_ *Tx, c *counter) error { n = c.n; return nil }))
	return n
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	const patience = time.Minute // how soon it comes is the machine's, too
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// gateFS blocks the syncs of the log while it is shut.
type gateFS struct {
	vfs.FS
	mu      sync.Mutex
	shut    chan struct{}
	before  func() // called before each sync of the log, if set
	blocked atomic.Int32
	syncs   atomic.Int32
}

func (g *gateFS) close() { g.mu.Lock(); g.shut = make(chan struct{}); g.mu.Unlock() }

func (g *gateFS) open() {
	g.mu.Lock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
	g.mu.Unlock()
}

// awaitBlocked waits until a sync has come to the gate that is shut.
func (g *gateFS) awaitBlocked(t *testing.T) {
	t.Helper()
	eventually(t, "the sync to block", func() bool { return g.blocked.Load() == 1 })
}

func (g *gateFS) hook(f func()) { g.mu.Lock(); g.before = f; g.mu.Unlock() }

func (g *gateFS) wait() {
	g.syncs.Add(1)
	g.mu.Lock()
	shut, before := g.shut, g.before
	g.mu.Unlock()
	if before != nil {
		before()
	}
	if shut != nil {
		g.blocked.Add(1)
		<-shut
		g.blocked.Add(-1)
	}
}

func (g *gateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	if err != nil || c != "pebble-wal" {
		return f, err
	}
	return gateFile{f, g}, nil
}

func (g *gateFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.ReuseForWrite(old, name, c)
	if err != nil || c != "pebble-wal" {
		return f, err
	}
	return gateFile{f, g}, nil
}

type gateFile struct {
	vfs.File
	g *gateFS
}

func (f gateFile) Sync() error     { f.g.wait(); return f.File.Sync() }
func (f gateFile) SyncData() error { f.g.wait(); return f.File.SyncData() }

func name(i int) string { return fmt.Sprintf("object-%d", i) }
