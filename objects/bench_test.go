package objects

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// BenchmarkAwake is an operation without writes on an object in memory.
func BenchmarkAwake(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	op := func(_ *Tx, c *counter) error { c.n++; return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := k.Do(ctx, "one", op); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSync compares synced operations of concurrent callers with raw Pebble: each its own batch, and one batch of
// as many writes (what a committer can reach at best).
func BenchmarkSync(b *testing.B) {
	for _, callers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("objects/callers=%d", callers), func(b *testing.B) {
			s := open(b, b.TempDir(), Options{})
			k := Register(s, "counter", wakeCounter)
			b.ReportAllocs()
			share(b, callers, func(caller int) error { return k.Do(ctx, name(caller), increment) })
			st := s.Stats()
			b.ReportMetric(float64(st.Ops)/float64(st.Commits), "ops/sync")
		})
		b.Run(fmt.Sprintf("pebble/callers=%d", callers), func(b *testing.B) {
			db := rawPebble(b)
			share(b, callers, func(caller int) error {
				return db.Set([]byte("counter\x00"+name(caller)+"\x00n"), number(1), pebble.Sync)
			})
		})
		b.Run(fmt.Sprintf("pebble-batches/of=%d", callers), func(b *testing.B) {
			db := rawPebble(b)
			for done := 0; done < b.N; done += callers {
				batch := db.NewBatch()
				for i := range callers {
					if err := batch.Set([]byte("counter\x00"+name(i)+"\x00n"), number(1), nil); err != nil {
						b.Fatal(err)
					}
				}
				if err := batch.Commit(pebble.Sync); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSubmit is one goroutine that keeps up to 16,384 operations of one put each in flight on one object, each
// on its own key of 100,000.
func BenchmarkSubmit(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("namespace/key-%d", i)
	}
	v := make([]byte, 40)
	i := 0
	op := func(tx *Tx, _ *counter) error { return tx.Put(keys[i%len(keys)], v) }
	room := make(chan struct{}, 1<<14)
	var failed atomic.Pointer[error]
	done := func(err error) {
		if err != nil {
			failed.Store(&err)
		}
		<-room
	}
	b.ReportAllocs()
	for b.Loop() {
		room <- struct{}{}
		k.Submit("place", op, done)
		i++
	}
	for range cap(room) {
		room <- struct{}{}
	}
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	st := s.Stats()
	b.ReportMetric(float64(st.Ops)/float64(st.Commits), "ops/sync")
}

func rawPebble(b *testing.B) *pebble.DB {
	db, err := pebble.Open(b.TempDir(), &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, Logger: newGuard(&Events{}), CacheSize: DefaultCacheBytes,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

// share runs b.N operations on so many goroutines.
func share(b *testing.B, callers int, op func(caller int) error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for caller := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := op(caller); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// BenchmarkAlarms sets many alarms and lets them go off; an operation is one alarm.
func BenchmarkAlarms(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	at := time.Now()
	names := make(chan string)
	go func() {
		for i := range b.N {
			names <- name(i)
		}
		close(names)
	}()
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for n := range names {
				if err := k.Do(ctx, n, func(tx *Tx, _ *counter) error { return tx.SetAlarm(at) }); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var left sync.WaitGroup
	left.Add(b.N)
	b.ResetTimer()
	cpu := cpuTime()
	k.OnAlarm(func(*Tx, *counter, Alarm) error { left.Done(); return nil })
	left.Wait()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
