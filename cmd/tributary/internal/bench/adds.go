package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/transport"
	"github.com/tributary-io/tributary/transport/tributarypb"
)

// AddsConfig says what to measure.
type AddsConfig struct {
	Dir      string        // an empty folder
	For      time.Duration // each phase of each round
	Rounds   int           // all phases take turns so often
	InFlight int
	Only     string // phases whose name holds it
	Redis    string // a redis-server; empty: none
	Log      zerolog.Logger
	Progress func(what string, done, whole int)
}

// AddsReport has a row for each phase: the median of its rounds.
type AddsReport struct {
	InFlight int       `json:"in_flight"`
	Rows     []AddsRow `json:"rows"`
	Missing  string    `json:"missing,omitempty"` // what was left out, and why
}

// AddsRow is one phase. CPU is of clients and server together.
type AddsRow struct {
	What      string  `json:"what"`
	PerSecond float64 `json:"per_second"`
	CPUMicros float64 `json:"cpu_us"`
	Baseline  string  `json:"baseline,omitempty"` // what Ratio is to
	Ratio     float64 `json:"ratio,omitempty"`
}

// The phases, and what each is compared with.
const (
	echoOne        = "bare NATS echo, one by one"
	addOne         = "adds, one by one, JSON"
	addOneProto    = "adds, one by one, protobuf"
	redisOne       = "Redis INCR, one by one, appendfsync always"
	echoBatch      = "bare NATS echo, batches of 100"
	addHot         = "adds, batches of 100, hot keys, JSON"
	addHotProto    = "adds, batches of 100, hot keys, protobuf"
	redisBatch     = "Redis INCR, pipelined by 100, appendfsync always"
	addDiffer      = "adds, batches of 100, all keys differ, JSON"
	addDifferProto = "adds, batches of 100, all keys differ, protobuf"
	pebbleBulk     = "raw Pebble, synced batches of 6400 sets"
	benchCity      = "eu.de.berlin"
	batchOf        = 100
	hotKeys        = 1000
	benchTimeout   = 30 * time.Second
)

type phase struct {
	what     string
	baseline []string
	run      func(ctx context.Context) (ops int, cpu time.Duration, err error)
}

// Adds runs the phases in turns: those with few keys, then those with many. The city has no parent here: what the tiers
// above cost is theirs, on machines of their own.
func Adds(ctx context.Context, cfg AddsConfig) (r AddsReport, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string, int, int) {}
	}
	r.InFlight = cfg.InFlight
	a, err := startAdds(&cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	const city = "tributary.add." + benchCity
	one, hot := prepared(func(key int) []byte { return appendAdd(nil, key) }, 1), prepared(newBatch, batchOf)
	oneProto, hotProto := prepared(func(key int) []byte { return newProtobuf(key, 1) }, 1), prepared(newProtobufBatch, batchOf)
	differ := func(batch func(first int) []byte) func(i int) []byte {
		return func(i int) []byte { return batch((i + hotKeys) * batchOf) }
	}
	phases := []phase{
		{echoOne, nil, a.asked("echo", json, one, 1)},
		{addOne, []string{redisOne, echoOne}, a.asked(city, json, one, 1)},
		{addOneProto, []string{redisOne, echoOne}, a.asked(city, protobuf, oneProto, 1)},
		{echoBatch, nil, a.asked("echo", json, hot, batchOf)},
		{addHot, []string{redisBatch, echoBatch}, a.asked(city, json, hot, batchOf)},
		{addHotProto, []string{redisBatch, echoBatch}, a.asked(city, protobuf, hotProto, batchOf)},
		{addDiffer, []string{pebbleBulk}, a.asked(city, json, differ(newBatch), batchOf)},
		{addDifferProto, []string{pebbleBulk}, a.asked(city, protobuf, differ(newProtobufBatch), batchOf)},
		{pebbleBulk, nil, a.pebble},
	}
	if a.redis != nil {
		phases = append(phases, phase{redisOne, nil, a.redisBenchmark(1)}, phase{redisBatch, nil, a.redisBenchmark(batchOf)})
	} else {
		r.Missing = a.missing
	}
	phases = slices.DeleteFunc(phases, func(p phase) bool { return !strings.Contains(p.what, cfg.Only) })
	if len(phases) == 0 {
		return r, fmt.Errorf("no phase is called %q", cfg.Only)
	}
	figures, done := map[string][]AddsRow{}, 0
	// Whatever makes the stores large comes last: Pebble compacts them for long afterwards.
	grow := func(p phase) bool { return p.baseline != nil && p.baseline[0] == pebbleBulk || p.what == pebbleBulk }
	small, large := slices.DeleteFunc(slices.Clone(phases), grow), slices.DeleteFunc(slices.Clone(phases), func(p phase) bool { return !grow(p) })
	for _, turns := range [][]phase{small, large} {
		for i := range cfg.Rounds * len(turns) {
			p := turns[i%len(turns)]
			cfg.Progress(p.what, done, cfg.Rounds*len(phases))
			done++
			began := time.Now()
			ops, cpu, err := p.run(ctx)
			if err != nil {
				return r, fmt.Errorf("%s: %w", p.what, err)
			}
			figures[p.what] = append(figures[p.what], AddsRow{
				What: p.what, PerSecond: float64(ops) / time.Since(began).Seconds(), CPUMicros: float64(cpu.Nanoseconds()) / 1000 / float64(max(1, ops)),
			})
		}
	}
	median := map[string]AddsRow{}
	for what, rows := range figures {
		slices.SortFunc(rows, func(a, b AddsRow) int { return int(a.PerSecond - b.PerSecond) })
		median[what] = rows[len(rows)/2]
	}
	for _, p := range phases {
		row := median[p.what]
		r.Rows = append(r.Rows, row)
		for _, base := range p.baseline {
			if b, measured := median[base]; measured {
				r.Rows = append(r.Rows, AddsRow{What: p.what, PerSecond: row.PerSecond, CPUMicros: row.CPUMicros, Baseline: base, Ratio: row.PerSecond / b.PerSecond})
			}
		}
	}
	return r, nil
}

// adds is what the phases run on.
type adds struct {
	cfg     *AddsConfig
	server  *transport.Server
	place   *transport.Place
	conns   []*nats.Conn
	db      *pebble.DB
	bulk    int // keys written so far
	redis   *exec.Cmd
	port    string
	missing string
	serial  atomic.Int64 // of requests, over all phases
}

func startAdds(cfg *AddsConfig) (a *adds, err error) {
	a = &adds{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.stop())
		}
	}()
	if a.server, err = transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0", Logger: cfg.Log}); err != nil {
		return a, err
	}
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"votes": {}}})
	if err != nil {
		return a, err
	}
	// As serve connects the places of its own process.
	nc, err := a.server.Connect()
	if err != nil {
		return a, err
	}
	if a.place, err = transport.StartPlace(transport.PlaceConfig{
		Place: benchCity, Leaf: true, Dir: filepath.Join(cfg.Dir, "place"), Conn: nc, Rules: rules, Version: "0.1.0", Logger: cfg.Log,
	}); err != nil {
		return a, err
	}
	if nc, err = a.server.Connect(); err != nil { // it ends with the server
		return a, err
	}
	echo, err := micro.AddService(nc, micro.Config{Name: "echo", Version: "0.1.0"})
	if err != nil {
		return a, err
	}
	if err := echo.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) })); err != nil {
		return a, err
	}
	for range 4 {
		client, err := nats.Connect(a.server.ClientURL())
		if err != nil {
			return a, err
		}
		a.conns = append(a.conns, client)
	}
	if a.db, err = pebble.Open(filepath.Join(cfg.Dir, "pebble"), &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}}); err != nil {
		return a, err
	}
	return a, a.startRedis()
}

// quiet takes what Pebble has to say of itself.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (a *adds) stop() error {
	var errs []error
	for _, nc := range a.conns {
		nc.Close()
	}
	if a.place != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := a.place.Stop(ctx); !errors.Is(err, transport.ErrUnreported) { // the city has no parent to report to
			errs = append(errs, err)
		}
	}
	if a.server != nil {
		a.server.Shutdown()
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	if a.redis != nil {
		_ = a.redis.Process.Kill()
		_ = a.redis.Wait() // it was killed
	}
	return errors.Join(errs...)
}

func appendAdd(b []byte, key int) []byte {
	b = append(b, `{"namespace":"votes","key":"key-`...)
	b = strconv.AppendInt(b, int64(key), 10)
	return append(b, `","delta":1}`...)
}

// newBatch is a batch of keys from first on.
func newBatch(first int) []byte {
	body := append(make([]byte, 0, 64*batchOf), `{"requests":[`...)
	for j := range batchOf {
		if j > 0 {
			body = append(body, ',')
		}
		body = appendAdd(body, first+j)
	}
	return append(body, "]}"...)
}

// newProtobuf is a message of so many keys from first on.
func newProtobuf(first, many int) []byte {
	m := &tributarypb.Adds{Namespace: "votes", Requests: make([]*tributarypb.Add, many)}
	for j := range m.Requests {
		m.Requests[j] = &tributarypb.Add{Key: "key-" + strconv.Itoa(first+j), Delta: 1}
	}
	body, err := proto.Marshal(m)
	if err != nil {
		panic(err) // only of text that is no UTF-8
	}
	return body
}

func newProtobufBatch(first int) []byte { return newProtobuf(first, batchOf) }

// The headers of a request.
var (
	json     nats.Header
	protobuf = nats.Header{transport.ContentTypeHeader: {transport.ContentTypeProtobuf}}
)

// prepared are requests for the hot keys, in turns: a caller writes none anew, as redis-benchmark does not.
func prepared(request func(first int) []byte, many int) func(i int) []byte {
	bodies := make([][]byte, hotKeys/many)
	for i := range bodies {
		bodies[i] = request(i * many)
	}
	return func(i int) []byte { return bodies[i%len(bodies)] }
}

// asked is a phase of requests over TCP: so many are in flight, and each answer sends the next, as in redis-benchmark.
func (a *adds) asked(subject string, header nats.Header, body func(i int) []byte, many int) func(context.Context) (int, time.Duration, error) {
	return func(ctx context.Context) (_ int, _ time.Duration, err error) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		var ops atomic.Int64
		var flying sync.WaitGroup
		end, cpu := time.Now().Add(a.cfg.For), CPUTime()
		send := func(nc *nats.Conn, inbox string) {
			if err := nc.PublishMsg(&nats.Msg{Subject: subject, Reply: inbox, Header: header, Data: body(int(a.serial.Add(1)))}); err != nil {
				cancel(err)
			}
		}
		answered := func(nc *nats.Conn, inbox string, reply *nats.Msg) {
			switch {
			case reply.Header.Get(micro.ErrorCodeHeader) != "":
				cancel(errors.New(reply.Header.Get(micro.ErrorHeader)))
			case reply.Header.Get("Status") != "":
				cancel(nats.ErrNoResponders)
			case many > 1 && subject != "echo" && refused(header, reply.Data):
				cancel(fmt.Errorf("refused: %.200q", reply.Data))
			}
			ops.Add(int64(many))
			if ctx.Err() == nil && time.Now().Before(end) {
				send(nc, inbox)
			} else {
				flying.Done()
			}
		}
		flying.Add(a.cfg.InFlight)
		for w, nc := range a.conns {
			inbox := nc.NewInbox()
			sub, failed := nc.Subscribe(inbox, func(reply *nats.Msg) { answered(nc, inbox, reply) })
			if failed != nil {
				return 0, 0, failed
			}
			defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
			for range (a.cfg.InFlight + w) / len(a.conns) {
				send(nc, inbox)
			}
		}
		landed := make(chan struct{})
		go func() {
			flying.Wait()
			close(landed)
		}()
		select {
		case <-landed:
		case <-ctx.Done():
		case <-time.After(a.cfg.For + benchTimeout):
			cancel(fmt.Errorf("%s: no answer for %s", subject, benchTimeout))
		}
		return int(ops.Load()), CPUTime() - cpu, context.Cause(ctx)
	}
}

// refused says that the answer to a batch holds an error. It looks at little more than redis-benchmark does of an answer.
func refused(header nats.Header, answer []byte) bool {
	if header == nil {
		return bytes.Contains(answer, []byte(`"code"`))
	}
	const responses, failed = 2, 15 // the fields of AddReplies and AddReply
	for many := 0; ; many++ {
		if len(answer) == 0 {
			return many != 1+batchOf // the place, and the counts
		}
		field, kind, n := protowire.ConsumeTag(answer)
		value, m := protowire.ConsumeBytes(answer[max(0, n):])
		if n < 0 || m < 0 || kind != protowire.BytesType {
			return true
		}
		if first, _, _ := protowire.ConsumeTag(value); field == responses && first == failed {
			return true
		}
		answer = answer[n+m:]
	}
}

// pebble commits sets of as many bytes as an add of a new key, one batch after
// the other.
func (a *adds) pebble(ctx context.Context) (ops int, cpu time.Duration, err error) {
	end, cpu := time.Now().Add(a.cfg.For), CPUTime()
	value := make([]byte, 40)
	for time.Now().Before(end) && ctx.Err() == nil {
		batch := a.db.NewBatch()
		for range a.cfg.InFlight * batchOf {
			a.bulk++
			if err := batch.Set(fmt.Appendf(nil, "tree\x000\x00count/votes/key-%d\x00", a.bulk), value, nil); err != nil {
				return 0, 0, err
			}
		}
		n := int(batch.Count())
		if err := batch.Commit(pebble.Sync); err != nil {
			return 0, 0, err
		}
		ops += n
	}
	return ops, CPUTime() - cpu, ctx.Err()
}

// startRedis starts a Redis that syncs each write, if there is one.
func (a *adds) startRedis() error {
	if !has(a.cfg.Redis) || !has("redis-benchmark") {
		a.missing = "Redis: there is no redis-server, or no redis-benchmark, here; install both, for example with apt, or name the first with --redis"
		return nil
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, a.port, _ = net.SplitHostPort(free.Addr().String())
	if err := free.Close(); err != nil {
		return err
	}
	dir := filepath.Join(a.cfg.Dir, "redis")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	redis := exec.Command(a.cfg.Redis, "--port", a.port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always")
	if err := redis.Start(); err != nil {
		return fmt.Errorf("start %s: %w", a.cfg.Redis, err)
	}
	a.redis = redis
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+a.port)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("redis-server does not listen: %w", err)
		}
	}
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// redisBenchmark is a phase of Redis's own benchmark.
func (a *adds) redisBenchmark(pipeline int) func(context.Context) (int, time.Duration, error) {
	requests := 20_000 * pipeline
	return func(ctx context.Context) (int, time.Duration, error) {
		// As many requests as take about as long: it has no time to run for.
		began, used := time.Now(), a.redisCPU()
		cmd := exec.CommandContext(ctx, "redis-benchmark", "-p", a.port, "-t", "incr", "-c", strconv.Itoa(a.cfg.InFlight), "-P", strconv.Itoa(pipeline),
			"-n", strconv.Itoa(requests), "-r", strconv.Itoa(hotKeys), "--csv")
		out, err := cmd.Output()
		if err != nil {
			return 0, 0, err
		}
		rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
		if err != nil || len(rows) == 0 || !strings.EqualFold(rows[len(rows)-1][0], "INCR") {
			return 0, 0, fmt.Errorf("redis-benchmark said %.200q", out)
		}
		n, took := requests, time.Since(began)
		cpu := a.redisCPU() - used + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		requests = int(float64(requests) * a.cfg.For.Seconds() / max(0.1, took.Seconds()))
		return n, cpu, nil
	}
}

// redisCPU is what the server used, where the system says.
func (a *adds) redisCPU() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.redis.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks
}

const clockTicks = 100 // USER_HZ, which is 100 on all that Go runs on
