package objects

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pair is a state of 16 bytes.
type pair [2]uint64

// bytesPerAwake measures what each of n awake objects, with names and states of 16 bytes, takes beyond its state.
func bytesPerAwake(t testing.TB, n int) float64 {
	s := open(t, "d", Options{FS: vfs.NewMem(), Memory: 1 << 40})
	k := Register(s, "counter", func(*Tx) (*pair, error) { return &pair{}, nil })
	heap := func() int64 {
		var m runtime.MemStats
		for range 5 { // what earlier tests left behind goes first, pools and finalizers included
			runtime.GC()
			runtime.ReadMemStats(&m)
		}
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range n {
		must(t, k.Do(ctx, fmt.Sprintf("%016d", i), func(*Tx, *pair) error { return nil }))
	}
	each := float64(heap()-before)/float64(n) - 16
	if s.Stats().Awake != n {
		t.Fatalf("%d are awake", s.Stats().Awake)
	}
	return each
}

func TestBytesPerAwakeObject(t *testing.T) {
	each := bytesPerAwake(t, 100_000)
	t.Logf("%.0f bytes", each)
	if each > 200 || each > 1.2*(objectBytes+16) || each < 0.8*(objectBytes+16) {
		t.Errorf("an awake object takes %.0f bytes beside its state; a name of 16 and objectBytes are %d", each, objectBytes+16)
	}
}

// BenchmarkBytesPerAwakeObject reports what a million awake objects take, beyond their states of 16 bytes.
func BenchmarkBytesPerAwakeObject(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(bytesPerAwake(b, 1_000_000), "bytes/object")
}
