package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// notes is the state of the tests' objects: what was written to them, joined.
type notes struct{ text string }

func notesIn(t testing.TB) *objects.Kind[*notes] {
	t.Helper()
	store, err := objects.Open("d", objects.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return objects.Register(store, "notes", func(tx *objects.Tx) (*notes, error) {
		text, _, err := tx.Get("text")
		return &notes{string(text)}, err
	})
}

var errPlain = errors.New("just so")

// take answers most requests with what the object holds after them, and some in other ways.
func take(tx *objects.Tx, n *notes, q ObjectRequest) ([]byte, error) {
	before := n.text
	n.text += string(q.Data)
	if err := tx.Put("text", []byte(n.text)); err != nil {
		return nil, err
	}
	switch string(q.Data) {
	case "conflict":
		return nil, fmt.Errorf("notes: %w", ErrConflict.Errorf("the notes are closed").After(time.Second))
	case "refuse":
		n.text = before
		return nil, objects.Refuse(errPlain)
	case "fail":
		return nil, errPlain
	case "panic":
		panic("boom")
	case "exit":
		runtime.Goexit()
	case "long key":
		return nil, tx.Put(strings.Repeat("x", objects.MaxKeyBytes+1), nil)
	case "large":
		return make([]byte, 2<<20), nil
	}
	return []byte(tx.Name() + ":" + n.text), nil
}

// serveNotes serves notes at a place, with PlaceOf unless changed.
func serveNotes(t testing.TB, s *Server, place tiers.Place, change ...func(*ObjectsConfig)) *ObjectService {
	t.Helper()
	cfg := ObjectsConfig{Place: place, PlaceOf: firstPart}
	for _, c := range change {
		c(&cfg)
	}
	svc, err := ServeObjects(connect(t, s), notesIn(t), cfg, take)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the store closes
		if err := svc.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return svc
}

// firstPart is where notes live: eu.de/shopping at eu.de.
func firstPart(name string) tiers.Place {
	place, _, _ := strings.Cut(name, "/")
	return tiers.Place(place)
}

func wantAnswer(t testing.TB, m *nats.Msg, want string) {
	t.Helper()
	if string(m.Data) != want || m.Header.Get(micro.ErrorCodeHeader) != "" {
		t.Errorf("answered %q with %v, want %q", m.Data, m.Header, want)
	}
}

func TestAnObjectIsAskedWithItsNameInAHeader(t *testing.T) {
	s := newServer(t, ServerConfig{})
	serveNotes(t, s, "eu.de")
	nc := connect(t, s)
	wantAnswer(t, ask(t, nc, "tributary.object.notes", "milk", ObjectHeader, "eu.de/shopping"), "eu.de/shopping:milk")
	wantAnswer(t, ask(t, nc, "tributary.object.notes.eu.de", ", eggs", ObjectHeader, "eu.de/shopping"), "eu.de/shopping:milk, eggs")
	wantAnswer(t, ask(t, nc, "tributary.object.notes", "", ObjectHeader, "eu.de/Zürich"), "eu.de/Zürich:")

	if err := nc.PublishMsg(&nats.Msg{
		Subject: "tributary.object.notes", Data: []byte("!"), Header: nats.Header{ObjectHeader: {"eu.de/shopping"}},
	}); err != nil {
		t.Fatal(err)
	}
	wantAnswer(t, ask(t, nc, "tributary.object.notes", "", ObjectHeader, "eu.de/shopping"), "eu.de/shopping:milk, eggs!")
}

func TestObjectRefusals(t *testing.T) {
	s := newServer(t, ServerConfig{})
	var panics atomic.Int64
	serveNotes(t, s, "eu.de", func(cfg *ObjectsConfig) {
		cfg.Observe.Panic = func(Verb, any, []byte) { panics.Add(1) }
		cfg.PlaceOf = func(name string) tiers.Place {
			if name == "panic" {
				panic("boom")
			}
			return firstPart(name)
		}
	})
	nc := connect(t, s)
	const name = "eu.de/x"
	for _, c := range []struct {
		body, want string
		header     []string
	}{
		{"", "400 malformed: the message has 0 headers Tributary-Object", nil},
		{"", "400 out_of_range: the object's name", []string{ObjectHeader, ""}},
		{"", "400 out_of_range: the object's name", []string{ObjectHeader, strings.Repeat("x", objects.MaxNameBytes+1)}},
		{"", "400 out_of_range: the object's name has the control character U+0007", []string{ObjectHeader, "a\a"}},
		{"", "400 malformed: the object's name is not valid UTF-8", []string{ObjectHeader, "a\xff"}},
		{"", "400 unsupported_version: ", []string{ObjectHeader, name, VersionHeader, "2"}},
		{"", `404 unknown_place: no place has the object "Berlin!"`, []string{ObjectHeader, "Berlin!"}},
		{"", "500 internal: the object's place cannot be found", []string{ObjectHeader, "panic"}},
		{"conflict", "409 conflict: the notes are closed", []string{ObjectHeader, name}},
		{"refuse", "500 internal: nothing was done: just so", []string{ObjectHeader, name}},
		{"fail", "500 internal: nothing was done: just so", []string{ObjectHeader, name}},
		{"panic", "500 internal: the object failed on this request", []string{ObjectHeader, name}},
		{"exit", "500 internal: the object failed on this request", []string{ObjectHeader, name}},
		{"long key", "400 out_of_range: nothing was done: ", []string{ObjectHeader, name}},
		{"large", "400 too_large: the answer is 2097152 bytes", []string{ObjectHeader, name}},
	} {
		reply := ask(t, nc, "tributary.object.notes", c.body, c.header...)
		client := &Client{}
		if err := client.refusal("", reply.Header.Get(micro.ErrorCodeHeader), reply); !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q with %.40q: got %v, want %s", c.body, c.header, err, c.want)
		}
	}
	if n := panics.Load(); n != 3 {
		t.Errorf("%d panics were reported", n)
	}
	wantAnswer(t, ask(t, nc, "tributary.object.notes", "still here", ObjectHeader, name), name+":still here")
}

func TestAnyPlacePassesARequestOnToTheObjects(t *testing.T) {
	s := newServer(t, ServerConfig{})
	var passed atomic.Int64
	count := func(cfg *ObjectsConfig) {
		cfg.Observe.Operation = func(_ Verb, _, outcome string) {
			if outcome == OutcomePassed {
				passed.Add(1)
			}
		}
	}
	serveNotes(t, s, "eu.de", count)
	serveNotes(t, s, "eu.fr", count)
	nc := connect(t, s)
	for i := range 50 { // NATS picks one or the other
		for _, place := range []string{"eu.de", "eu.fr"} {
			want := place + ":" + strings.Repeat(".", i+1)
			wantAnswer(t, ask(t, nc, "tributary.object.notes", ".", ObjectHeader, place), want)
		}
	}
	if n := passed.Load(); n == 0 || n == 100 {
		t.Errorf("%d of 100 requests were passed on", n)
	}
	client, err := NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	somewhere := client.Objects("notes", nil)
	for range 20 {
		_, err := somewhere.Ask(t.Context(), "eu.fr", ObjectRequest{Data: []byte("conflict")})
		if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrConflict) || e.RetryAfter != time.Second {
			t.Fatalf("a refusal that was passed on is %v", err)
		}
		if _, err = somewhere.Ask(t.Context(), "us.ca", ObjectRequest{}); !errors.Is(err, ErrNoResponders) {
			t.Fatalf("where nobody listens, the answer is %v", err)
		}
	}
}

func TestPlacesThatDisagreeRunInNoCircle(t *testing.T) {
	s := newServer(t, ServerConfig{})
	always := func(p tiers.Place) func(*ObjectsConfig) {
		return func(cfg *ObjectsConfig) { cfg.PlaceOf = func(string) tiers.Place { return p } }
	}
	serveNotes(t, s, "eu.de", always("eu.fr"))
	serveNotes(t, s, "eu.fr", always("eu.de"))
	reply := ask(t, connect(t, s), "tributary.object.notes", "", ObjectHeader, "x")
	if reply.Header.Get(micro.ErrorCodeHeader) != "409" || !strings.Contains(string(reply.Data), "wrong_place") {
		t.Errorf("answered %s", reply.Data)
	}
}

func TestTheClientAsksTheObjectsPlace(t *testing.T) {
	s := newServer(t, ServerConfig{})
	serveNotes(t, s, "eu.de")
	serveNotes(t, s, "eu.fr", func(cfg *ObjectsConfig) { cfg.PlaceOf = nil })
	nc := connect(t, s)
	tap, err := nc.SubscribeSync("tributary.object.notes")
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	o := client.Objects("notes", firstPart)
	for _, place := range []string{"eu.de", "eu.fr"} {
		got, err := o.Ask(t.Context(), place+"/x", ObjectRequest{Data: []byte("hello"), Header: nats.Header{"X": {"y"}}})
		if err != nil || string(got) != place+"/x:hello" {
			t.Errorf("%s answered %q, %v", place, got, err)
		}
	}
	if n, _, err := tap.Pending(); n != 0 || err != nil {
		t.Errorf("%d requests went to no place, %v", n, err)
	}
	for name, want := range map[string]*Error{"": ErrOutOfRange, " eu.de": ErrOutOfRange, "nowhere!": ErrUnknownPlace, "us.ca/x": ErrNoResponders} {
		if _, err := o.Ask(t.Context(), name, ObjectRequest{}); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", name, err, want)
		}
	}
}

// served is a kind whose operations do what a test says.
func served(t testing.TB, cfg ObjectsConfig, op func(tx *objects.Tx, q ObjectRequest) error) (*ObjectService, *nats.Conn) {
	t.Helper()
	s := newServer(t, ServerConfig{})
	cfg.Place = "eu.de"
	svc, err := ServeObjects(connect(t, s), notesIn(t), cfg, func(tx *objects.Tx, _ *notes, q ObjectRequest) ([]byte, error) {
		return q.Data, op(tx, q)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = svc.Stop(context.Background()) })
	return svc, connect(t, s)
}

func TestRequestsForOneObjectKeepTheirOrderAndHoldUpNoOther(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	var ran []string
	_, nc := served(t, ObjectsConfig{}, func(tx *objects.Tx, q ObjectRequest) error {
		if tx.Name() == "slow" {
			<-release
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, string(q.Data))
		}
		return nil
	})
	const n = 200
	answers := make(chan *nats.Msg, n)
	if _, err := nc.ChanSubscribe("answers", answers); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		err := nc.PublishMsg(&nats.Msg{
			Subject: "tributary.object.notes.eu.de", Reply: "answers", Data: []byte(want[i]), Header: nats.Header{ObjectHeader: {"slow"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantAnswer(t, ask(t, nc, "tributary.object.notes.eu.de", "hello", ObjectHeader, "quick"), "hello")
	close(release)
	for range n {
		await(t, answers, "an answer")
	}
	if !slices.Equal(ran, want) {
		t.Errorf("they ran in the order %q", ran)
	}
}

func TestObjectServiceStopsWhenItHasAnswered(t *testing.T) {
	began, release := make(chan struct{}, 1), make(chan struct{})
	svc, nc := served(t, ObjectsConfig{MaxInFlight: 1}, func(*objects.Tx, ObjectRequest) error {
		began <- struct{}{}
		<-release
		return nil
	})
	answer := make(chan *nats.Msg, 1)
	go func() { answer <- ask(t, nc, "tributary.object.notes.eu.de", "last", ObjectHeader, "x") }()
	await(t, began, "the operation")
	full := ask(t, nc, "tributary.object.notes.eu.de", "", ObjectHeader, "y")
	if !strings.Contains(string(full.Data), `"reason":"overloaded"`) {
		t.Errorf("beyond its limit it answered %s", full.Data)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := svc.Stop(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped with %v while a request was in flight", err)
	}
	close(release)
	if err := svc.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	wantAnswer(t, await(t, answer, "the answer"), "last")
	if _, err := nc.Request("tributary.object.notes.eu.de", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after it stopped, a request gets %v", err)
	}
}

func TestObjectsHaveFigures(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry, "0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, ServerConfig{})
	svc := serveNotes(t, s, "eu.de", func(cfg *ObjectsConfig) { cfg.Observe = metrics.Observer("eu.de", zerolog.Nop()) })
	nc := connect(t, s)
	ask(t, nc, "tributary.object.notes", "hello", ObjectHeader, "eu.de")
	ask(t, nc, "tributary.object.notes", "conflict", ObjectHeader, "eu.de")
	if err := svc.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			all += f.GetName() + " " + m.String() + "\n"
		}
	}
	for _, want := range []string{`value:"ok"`, `value:"conflict"`, `name:"namespace" value:"notes"`, `name:"verb" value:"object"`, "sample_count:2"} {
		if !strings.Contains(strings.Join(strings.Fields(all), " "), want) {
			t.Errorf("no figure has %s in\n%s", want, all)
		}
	}
}

func TestServeObjectsRefusesAPlaceThatIsNone(t *testing.T) {
	if _, err := ServeObjects(nil, notesIn(t), ObjectsConfig{Place: "Berlin!"}, take); err == nil {
		t.Error("it was served")
	}
}
