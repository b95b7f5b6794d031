package transport

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// The JSON of a message: read the request, write the answer.

func BenchmarkCheckJSON(b *testing.B) {
	benchmarkJSON(b, `{"namespace":"api","key":"user-42","hits":1}`, &checkCodec,
		&CheckReply{Allowed: true, Scope: "global", Limit: 1000, Remaining: 412, Place: "eu.de.berlin"})
}

func BenchmarkAddJSON(b *testing.B) {
	benchmarkJSON(b, `{"namespace":"votes","key":"alice","delta":1}`, &addCodec,
		&AddReply{Total: Total{Added: 1042}, Place: "eu.de.berlin"})
}

func BenchmarkCheckBatchJSON(b *testing.B) {
	benchmarkJSON(b, batchOf(100, `{"namespace":"api","key":"user-42","hits":1}`), &checkCodec,
		&CheckReply{Allowed: true, Scope: "global", Limit: 1000, Remaining: 412, Place: "eu.de.berlin"})
}

func benchmarkJSON[Q, R any](b *testing.B, body string, c *codec[Q, R], reply *R) {
	data := []byte(body)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		_, batch, err := decoded(data, c)
		if err != nil {
			b.Fatal(err)
		}
		out = out[:0]
		for range max(1, len(batch)) {
			out = c.appendReply(out, reply)
		}
	}
}

// BenchmarkOverNATS compares a check, answered by a backend that does nothing, with what NATS micro makes of a bare
// echo: client and server share the machine, over TCP on loopback, with 64 requests in flight on 4 connections. The
// difference is what this package costs. They take turns, so that a busy machine slows both.
func BenchmarkOverNATS(b *testing.B) {
	s := newServer(b, ServerConfig{Listen: "127.0.0.1:0"})
	dial := func() *nats.Conn {
		nc, err := nats.Connect(s.ClientURL())
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
	place := dial()
	answer := CheckReply{Allowed: true, Scope: "global", Limit: 1000, Remaining: 412, Place: "eu.de.berlin"}
	if _, err := NewService(place, ServiceConfig{Place: "eu.de.berlin", Leaf: true, Version: "0.1.0"}, &fake{
		check: func(_ CheckRequest, done func(CheckReply, *Error)) { done(answer, nil) },
		add: func(q AddRequest, done func(AddReply, *Error)) {
			go done(AddReply{Total: Total{Added: 1042}, Place: "eu.de.berlin"}, nil)
		},
	}); err != nil {
		b.Fatal(err)
	}
	var conns []*nats.Conn
	var clients []*Client
	for range 4 {
		nc := dial()
		conns = append(conns, nc)
		clients = append(clients, newClient(b, nc))
	}
	const check = `{"namespace":"api","key":"user-42","hits":1}`
	request := func(subject, body, says string) func(int) {
		return func(worker int) {
			reply, err := conns[worker%len(conns)].Request(subject, []byte(body), patience)
			if err != nil || !strings.Contains(string(reply.Data), says) {
				b.Errorf("%v, %v", reply, err)
			}
		}
	}
	for _, c := range []struct {
		name string
		one  func(worker int)
		many float64
	}{
		{"echo", request("echo", check, "api"), 1},
		{"check", request("tributary.check", check, "allowed"), 1},
		{"client-check", func(worker int) {
			if r, err := clients[worker%len(clients)].Check(b.Context(), "api", "user-42"); err != nil || !r.Allowed {
				b.Errorf("%+v, %v", r, err)
			}
		}, 1},
		{"add-answered-later", request("tributary.add", `{"namespace":"votes","key":"alice","delta":1}`, "total"), 1},
		{"echo-batch-of-100", request("echo", batchOf(100, check), "api"), 100},
		{"check-batch-of-100", request("tributary.check", batchOf(100, check), "allowed"), 100},
	} {
		b.Run(c.name, func(b *testing.B) { inFlight(b, 64, c.many, c.one) })
	}
}

// inFlight calls one b.N times from so many goroutines.
func inFlight(b *testing.B, workers int, many float64, one func(worker int)) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	start := time.Now()
	b.ReportAllocs()
	b.ResetTimer()
	for w := range workers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				one(w)
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)*many/time.Since(start).Seconds(), "ops/s")
}
