package objects

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// BenchmarkAwake is an operation without writes on an object in memory. The time of the clock suffers from neighbours;
// cpu-ns/op does not.
func BenchmarkAwake(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	op := func(_ *Tx, c *counter) error { c.n++; return nil }
	b.ReportAllocs()
	cpu := cpuTime()
	for b.Loop() {
		if err := k.Do(ctx, "one", op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// BenchmarkCold wakes an object for each operation, with Pebble's files in the page cache.
func BenchmarkCold(b *testing.B) {
	const n = 200_000
	dir := b.TempDir()
	s, err := Open(dir, Options{})
	must(b, err)
	k := Register(s, "counter", wakeCounter)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		k.Submit(name(i), increment, func(err error) { wg.Done(); must(b, err) })
		if i%10_000 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	must(b, s.db.Flush())
	must(b, s.Close())
	s = open(b, dir, Options{Memory: 1 << 10})
	k = Register(s, "counter", wakeCounter)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % n
		must(b, k.Do(ctx, name(i), func(_ *Tx, c *counter) error {
			if c.n != 1 {
				b.Fatal("it is not there")
			}
			return nil
		}))
	}
}

// BenchmarkSync compares synced operations of concurrent callers, each on an object of its own, with raw Pebble, which
// commits the same keys and values in batches as large as the store's commits were, and in batches of all callers. All
// take turns in one run, so that neighbours disturb them alike. The ratios are of operations a second. Callers are
// goroutines that wait in Do, or operations of two goroutines that do not wait, by Submit.
func BenchmarkSync(b *testing.B) {
	for _, callers := range []int{1, 64, 1024, 16384} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkSync(b, callers, share) })
	}
	for _, callers := range []int{64, 1024, 16384} {
		b.Run(fmt.Sprintf("submitted=%d", callers), func(b *testing.B) { benchmarkSync(b, callers, submit) })
	}
}

// benchmarkSync compares rounds of operations, which start makes: one at a time on each object.
func benchmarkSync(b *testing.B, callers int, start func(b *testing.B, k *Kind[*counter], names []string) (round func(ops int))) {
	s := open(b, b.TempDir(), Options{})
	k := Register(s, "counter", wakeCounter)
	db := rawPebble(b)
	names, keys := make([]string, callers), make([][]byte, callers)
	for i := range names {
		names[i] = name(i)
		keys[i] = append(appendPrefix(nil, "counter", names[i]), 'n')
	}
	rand.Shuffle(callers, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] }) // as operations come
	raw := func(ops, size int) {
		for i := 0; i < ops; i += size {
			batch := db.NewBatch()
			for j := range size {
				if err := batch.Set(keys[(i+j)%callers], number(uint64(i)), nil); err != nil {
					b.Fatal(err)
				}
			}
			must(b, batch.Commit(pebble.Sync))
			must(b, batch.Close())
		}
	}
	const rounds = 8
	ops := max(b.N/rounds, 8*callers)
	round := start(b, k, names)
	round(callers) // which makes the objects
	var ours, same, all, cpu, rawCPU time.Duration
	for range rounds {
		before, start, used := s.Stats(), time.Now(), cpuTime()
		round(ops)
		ours += time.Since(start)
		cpu += cpuTime() - used
		after := s.Stats()
		size := int(after.Ops-before.Ops) / int(after.Commits-before.Commits)
		start, used = time.Now(), cpuTime()
		raw(ops, size)
		same += time.Since(start)
		rawCPU += cpuTime() - used
		start = time.Now()
		raw(ops, callers)
		all += time.Since(start)
	}
	n := float64(rounds * ops)
	st := s.Stats()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/ours.Seconds(), "ops/s")
	b.ReportMetric(float64(cpu)/n, "cpu-ns/op")
	b.ReportMetric(float64(rawCPU)/n, "pebble-cpu-ns/op")
	b.ReportMetric(float64(st.Ops)/float64(st.Commits), "ops/sync")
	b.ReportMetric(same.Seconds()/ours.Seconds(), "of-pebble")
	b.ReportMetric(all.Seconds()/ours.Seconds(), "of-pebble-callers")
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
		FormatMajorVersion: pebble.FormatNewest, Logger: newGuard(&Events{}), CacheSize: DefaultCacheBytes, MemTableSize: DefaultMemTableBytes,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

// submit keeps an operation of each object in flight.
func submit(b *testing.B, k *Kind[*counter], names []string) (round func(ops int)) {
	const submitters = 2
	idle := make(chan int, len(names))
	for i := range names {
		idle <- i
	}
	return func(ops int) {
		var wg sync.WaitGroup
		for range submitters {
			wg.Go(func() {
				for range ops / submitters {
					i := <-idle
					k.Submit(names[i], increment, func(err error) {
						if err != nil {
							b.Error(err)
						}
						idle <- i
					})
				}
			})
		}
		wg.Wait()
		for range names { // until all have returned
			<-idle
		}
		for i := range names {
			idle <- i
		}
	}
}

// share has a goroutine for each object.
func share(b *testing.B, k *Kind[*counter], names []string) (round func(ops int)) {
	var left atomic.Int64
	var returned sync.WaitGroup
	begin := make([]chan struct{}, len(names))
	for i, name := range names {
		begin[i] = make(chan struct{}, 1)
		go func() {
			for range begin[i] {
				for left.Add(-1) >= 0 {
					if err := k.Do(ctx, name, increment); err != nil {
						b.Error(err)
						break
					}
				}
				returned.Done()
			}
		}()
	}
	b.Cleanup(func() {
		for _, c := range begin {
			close(c)
		}
	})
	return func(ops int) {
		left.Store(int64(ops))
		returned.Add(len(names))
		for _, c := range begin {
			c <- struct{}{}
		}
		returned.Wait()
	}
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
