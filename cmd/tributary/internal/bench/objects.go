package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributary-io/tributary/objects"
)

// ObjectsConfig says what to measure.
type ObjectsConfig struct {
	Dir      string // an empty folder
	Counters int
	Memory   int64                              // budget for awake objects, bytes
	Progress func(what string, done, whole int) // may be nil; it is called often
}

// ObjectsReport is what was measured. Times are in the units that they name.
type ObjectsReport struct {
	Counters        int     `json:"counters"`
	CreatedSeconds  float64 `json:"created_seconds"`
	CreatedPerSec   float64 `json:"created_per_second"`
	CreateCPUMicros float64 `json:"create_cpu_us"`
	PeakMiB         float64 `json:"peak_resident_mib"`
	DiskMiB         float64 `json:"disk_mib"`
	AwakeBytes      float64 `json:"awake_bytes_each"` // beyond a state of 16 bytes
	AwakeCount      int     `json:"awake_measured"`
	OpenedSeconds   float64 `json:"opened_seconds"` // until the first operation was answered
	ColdP50Micros   float64 `json:"cold_p50_us"`
	ColdP99Micros   float64 `json:"cold_p99_us"`
	WarmP50Micros   float64 `json:"warm_p50_us"`
}

// counter is a state of 16 bytes.
type counter struct{ added, removed uint64 }

func registerCounters(s *objects.Store) *objects.Kind[*counter] {
	return objects.Register(s, "counter", func(tx *objects.Tx) (*counter, error) {
		value, found, err := tx.Get("n")
		if err != nil || !found {
			return new(counter), err
		}
		if len(value) != 16 {
			return nil, fmt.Errorf("a counter of %d bytes", len(value))
		}
		return &counter{binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])}, nil
	})
}

func increment(tx *objects.Tx, c *counter) error {
	c.added++
	value := make([]byte, 0, 16)
	value = binary.BigEndian.AppendUint64(value, c.added)
	return tx.Put("n", binary.BigEndian.AppendUint64(value, c.removed))
}

// counterName is 16 bytes long. Names come in an order that is not theirs.
func counterName(i int) string { return fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15) }

// Objects creates counters on a disk, each by a synced operation, opens the
// store again, and asks counters that sleep.
func Objects(ctx context.Context, cfg ObjectsConfig) (r ObjectsReport, err error) {
	var mu sync.Mutex // the counters are created by several
	tell := cfg.Progress
	cfg.Progress = func(what string, done, whole int) {
		mu.Lock()
		defer mu.Unlock()
		if tell != nil {
			tell(what, done, whole)
		}
	}
	r.Counters = cfg.Counters
	options := objects.Options{Memory: cfg.Memory}
	store, err := objects.Open(cfg.Dir, options)
	if err != nil {
		return r, err
	}
	began, cpu := time.Now(), CPUTime()
	if err := create(ctx, registerCounters(store), &cfg); err != nil {
		return r, errors.Join(err, store.Close())
	}
	r.CreatedSeconds = time.Since(began).Seconds()
	r.CreatedPerSec = float64(cfg.Counters) / r.CreatedSeconds
	r.CreateCPUMicros = float64((CPUTime() - cpu).Microseconds()) / float64(cfg.Counters)
	if err := store.Close(); err != nil {
		return r, err
	}
	if r.DiskMiB, err = sizeOf(cfg.Dir); err != nil {
		return r, err
	}

	began = time.Now()
	if store, err = objects.Open(cfg.Dir, options); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	kind := registerCounters(store)
	if err := kind.Do(ctx, counterName(0), increment); err != nil {
		return r, err
	}
	r.OpenedSeconds = time.Since(began).Seconds()

	read := func(_ *objects.Tx, c *counter) error {
		if c.added == 0 {
			return fmt.Errorf("a counter was lost")
		}
		return nil
	}
	random := rand.New(rand.NewPCG(1, 2))
	time1 := func(name string) (time.Duration, error) {
		began := time.Now()
		err := kind.Do(ctx, name, read)
		return time.Since(began), err
	}
	samples := min(20_000, cfg.Counters/2)
	var cold, warm []time.Duration
	for range 2 { // the first round warms the page cache
		cold = cold[:0]
		names := random.Perm(cfg.Counters)[:samples]
		for i, n := range names {
			cfg.Progress("asking counters that sleep", i, samples)
			took, err := time1(counterName(n))
			if err != nil {
				return r, err
			}
			cold = append(cold, took)
		}
		for _, n := range names[:min(1000, samples)] {
			took, err := time1(counterName(n))
			if err != nil {
				return r, err
			}
			warm = append(warm, took)
		}
	}
	r.ColdP50Micros, r.ColdP99Micros = micros(cold, 0.5), micros(cold, 0.99)
	r.WarmP50Micros = micros(warm, 0.5)

	r.AwakeCount = min(500_000, cfg.Counters/2, int(cfg.Memory/512))
	before := heap()
	awake := store.Stats().Awake
	for i := range r.AwakeCount {
		cfg.Progress("waking counters", i, r.AwakeCount)
		if err := kind.Do(ctx, counterName(i), read); err != nil {
			return r, err
		}
	}
	woken := store.Stats().Awake - awake
	if woken > 0 {
		r.AwakeBytes = float64(heap()-before)/float64(woken) - 16
	}
	r.PeakMiB = peak()
	return r, nil
}

// create runs one synced operation on each counter, many in flight.
func create(ctx context.Context, kind *objects.Kind[*counter], cfg *ObjectsConfig) error {
	var next, done atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	room := make(chan struct{}, 16_384)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for failed.Load() == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= cfg.Counters {
					return
				}
				room <- struct{}{}
				kind.Submit(counterName(i), increment, func(err error) {
					if err != nil {
						failed.CompareAndSwap(nil, &err)
					}
					done.Add(1)
					<-room
				})
				if i%4096 == 0 {
					cfg.Progress("creating counters", int(done.Load()), cfg.Counters)
				}
			}
		})
	}
	workers.Wait()
	for range cap(room) {
		room <- struct{}{}
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

func micros(times []time.Duration, at float64) float64 {
	slices.Sort(times)
	return float64(times[int(float64(len(times)-1)*at)].Nanoseconds()) / 1000
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// peak is the most that was resident of this process, where the system says.
func peak() (mib float64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 64)
			return kib / 1024
		}
	}
	return 0
}

func sizeOf(dir string) (mib float64, err error) {
	err = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			mib += float64(info.Size()) / (1 << 20)
		}
		return err
	})
	return mib, err
}
