//go:build !windows

package transport

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// benchTree is a root down to one city, and a bare echo service, over TCP on
// loopback.
func benchTree(b *testing.B) (w *tree, conns []*nats.Conn) {
	b.Helper()
	burst := int64(limiter.MaxTokens)
	w = newTree(b, testRules(b, limiter.LimitSpec{Scope: "global", Rate: "1000000000/s", Burst: &burst}), world4[:4]...)
	dial := func() *nats.Conn {
		nc, err := nats.Connect(w.server.ClientURL())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		return nc
	}
	echo, err := micro.AddService(dial(), micro.Config{Name: "echo", Version: "0.1.0"})
	if err != nil {
		b.Fatal(err)
	}
	if err := echo.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) })); err != nil {
		b.Fatal(err)
	}
	for range 4 {
		conns = append(conns, dial())
	}
	if reply, err := w.client("eu.de.berlin").Check(b.Context(), "api", "user-42", WithWait(patience)); err != nil || !reply.Allowed {
		b.Fatalf("%+v %v", reply, err)
	}
	return w, conns
}

// BenchmarkPlace compares checks and durable adds over NATS with a bare echo
// and with a bare fdatasync, in one run: a city with its three tiers above,
// on a real disk. adds/sync says how many adds shared a commit.
func BenchmarkPlace(b *testing.B) {
	w, conns := benchTree(b)
	ask := func(subject, body string) func(int) {
		return func(worker int) {
			reply, err := conns[worker%len(conns)].Request(subject, []byte(body), patience)
			if err != nil || reply.Header.Get(micro.ErrorCodeHeader) != "" {
				b.Errorf("%v, %v", reply, err)
			}
		}
	}
	const check, add = `{"namespace":"api","key":"user-42"}`, `{"namespace":"votes","key":"alice","delta":1}`
	for _, n := range []int{64, 256} {
		b.Run(fmt.Sprintf("echo-%d", n), func(b *testing.B) { inFlight(b, n, 1, ask("echo", check)) })
		b.Run(fmt.Sprintf("check-%d", n), func(b *testing.B) { inFlight(b, n, 1, ask("tributary.check.eu.de.berlin", check)) })
	}
	b.Run("echo-batch-of-100", func(b *testing.B) { inFlight(b, 64, 100, ask("echo", batchOf(100, check))) })
	b.Run("check-batch-of-100", func(b *testing.B) { inFlight(b, 64, 100, ask("tributary.check", batchOf(100, check))) })
	store := w.places["eu.de.berlin"].store.store
	for _, n := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("add-%d", n), func(b *testing.B) {
			before := store.Stats()
			inFlight(b, n, 1, ask("tributary.add.eu.de.berlin", add))
			after := store.Stats()
			b.ReportMetric(float64(b.N)/float64(max(1, after.Commits-before.Commits)), "adds/sync")
		})
	}
	b.Run("add-batch-of-100", func(b *testing.B) { inFlight(b, 64, 100, ask("tributary.add", batchOf(100, add))) })
	b.Run("fdatasync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "file"))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		block := make([]byte, 512)
		for b.Loop() {
			if _, err := f.Write(block); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRootLag is how long after its acknowledgement in the city a vote
// is in the root's total, three hops up, while the city takes other votes.
func BenchmarkRootLag(b *testing.B) {
	for _, load := range []int{0, 1_000, 50_000} {
		b.Run(fmt.Sprintf("%d-adds-a-second", load), func(b *testing.B) {
			w := newTree(b, testRules(b), world4[:4]...)
			city, root := w.client("eu.de.berlin"), w.places["global"].Runner()
			ctx, cancel := context.WithCancel(b.Context())
			var others sync.WaitGroup
			var sent int64
			others.Go(func() { sent = background(ctx, b, w, load) })
			var lags []time.Duration
			marker := tiers.Name{Namespace: "votes", Key: "marker"}
			began := time.Now()
			for n := uint64(1); b.Loop(); n++ {
				if _, err := city.Add(ctx, marker.Namespace, marker.Key, 1); err != nil {
					b.Fatal(err)
				}
				acked := time.Now()
				for total := uint64(0); total < n; {
					got := make(chan tiers.Total, 1)
					root.Get(marker, func(t tiers.Total, _ []tiers.View, _ bool, _ error) { got <- t })
					total = (<-got).Added
					time.Sleep(100 * time.Microsecond) // the resolution of the figure
				}
				lags = append(lags, time.Since(acked))
			}
			cancel()
			others.Wait()
			slices.Sort(lags)
			b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(float64(sent)/time.Since(began).Seconds(), "adds/s")
		})
	}
}

// background adds at a rate until ctx ends, in batches where it is high, to
// a thousand keys, and says how many were acknowledged.
func background(ctx context.Context, b *testing.B, w *tree, perSecond int) (sent int64) {
	if perSecond == 0 {
		return 0
	}
	batch := max(1, perSecond/1000)
	var clients []*Client
	for range 4 {
		nc, err := nats.Connect(w.server.ClientURL())
		if err != nil {
			b.Error(err)
			return 0
		}
		defer nc.Close()
		clients = append(clients, newClient(b, nc, WithPlace("eu.de.berlin")))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	began, n := time.Now(), 0
	for ctx.Err() == nil {
		for due := int(time.Since(began).Seconds() * float64(perSecond) / float64(batch)); n < due; n++ {
			wg.Go(func() {
				requests := make([]AddRequest, batch)
				for i := range requests {
					requests[i] = AddRequest{Namespace: "votes", Key: fmt.Sprintf("key-%d", (n*batch+i)%1000), Delta: 1}
				}
				if _, err := clients[n%len(clients)].AddBatch(context.Background(), requests); err == nil {
					mu.Lock()
					sent += int64(batch)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Millisecond)
	}
	return sent
}

// BenchmarkAdd is what an add costs behind NATS and JSON: batches of 100,
// 64 of them in flight, into a city's machine and store. An operation is one add.
func BenchmarkAdd(b *testing.B) {
	for _, test := range []struct {
		name string
		keys int // 0: all differ
	}{{"hot", 1000}, {"new", 0}} {
		b.Run(test.name, func(b *testing.B) {
			w := newTree(b, testRules(b), world4[3])
			runner := w.places["eu.de.berlin"].Runner()
			room := make(chan struct{}, 64)
			var used syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
			before := used.Utime.Nano() + used.Stime.Nano()
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				adds := make([]place.Add, 100)
				for i := range adds {
					key := n
					if test.keys > 0 {
						key %= test.keys
					}
					adds[i] = place.Add{Name: tiers.Name{Namespace: "votes", Key: "key-" + strconv.Itoa(key)}, Delta: 1}
					n++
				}
				room <- struct{}{}
				runner.Add(len(adds), func(i int) place.Add { return adds[i] }, func(i int, _ tiers.Total, err error) {
					if err != nil {
						b.Error(err)
					}
					if i == len(adds)-1 {
						<-room
					}
				})
			}
			for range cap(room) {
				room <- struct{}{}
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
			b.ReportMetric(float64(used.Utime.Nano()+used.Stime.Nano()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
