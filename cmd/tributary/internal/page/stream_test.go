package page

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tab is a viewer's end of a stream: what the handler writes, and whether it may go on.
type tab struct {
	header http.Header
	mu     sync.Mutex
	code   int
	events []string
	gate   chan struct{} // nil: reads at once; else each write waits for one receive
}

func (v *tab) Header() http.Header  { return v.header }
func (v *tab) WriteHeader(code int) { v.code = code }
func (v *tab) Flush()               {}

func (v *tab) Write(b []byte) (int, error) {
	if v.gate != nil {
		<-v.gate
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, string(b))
	return len(b), nil
}

// worlds are the samples that the tab got.
func (v *tab) worlds(t *testing.T) []World {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []World
	for _, e := range v.events {
		data, ok := strings.CutPrefix(e, "event: world\ndata: ")
		if !ok {
			continue
		}
		var w World
		if err := json.Unmarshal([]byte(data), &w); err != nil {
			t.Fatalf("a sample is not JSON: %v\n%s", err, data)
		}
		all = append(all, w)
	}
	return all
}

// open starts a stream and returns it with what closes it and waits for its end.
func open(p *Page, gate chan struct{}) (*tab, func()) {
	v := &tab{header: http.Header{}, gate: gate}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ServeHTTP(v, httptest.NewRequestWithContext(ctx, "GET", "/events", nil))
	}()
	return v, func() { cancel(); <-done }
}

func TestEventsAreServerSentEvents(t *testing.T) {
	page := Handler(newFakeWorld(), Options{})
	server := httptest.NewServer(page)
	defer server.Close()
	defer page.Close()
	reply, err := http.Get(server.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if got := reply.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := reply.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q", got)
	}
	lines := bufio.NewReader(reply.Body)
	var got [5]string
	for i := range got {
		if got[i], err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if got[0] != "retry: 1000\n" || got[1] != "\n" || got[2] != "event: world\n" || got[4] != "\n" {
		t.Errorf("the stream begins with %q", got)
	}
	var raw map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[3], "data: ")), &raw); err != nil {
		t.Fatalf("%v in %q", err, got[3])
	}
	for _, name := range []string{"at", "elapsed_seconds", "candidates", "places", "limit"} {
		if _, ok := raw[name]; !ok {
			t.Errorf("a sample has no %q", name)
		}
	}
}

func TestViewersShareOneSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeWorld()
		page := Handler(world, Options{})
		defer page.Close()
		var tabs []*tab
		for range 5 {
			v, leave := open(page, nil)
			defer leave()
			tabs = append(tabs, v)
		}
		time.Sleep(10*SampleInterval + SampleInterval/2)
		synctest.Wait()
		if got := world.sampled(); got != 11 {
			t.Errorf("%d samples in ten intervals, want 11 however many watch", got)
		}
		for i, v := range tabs {
			if got := len(v.worlds(t)); got != 11 {
				t.Errorf("viewer %d got %d samples, want all 11", i, got)
			}
		}
	})
}

func TestNobodyWatchesNobodySamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeWorld()
		page := Handler(world, Options{})
		defer page.Close()
		time.Sleep(time.Minute)
		if got := world.sampled(); got != 0 {
			t.Errorf("%d samples before the first viewer", got)
		}
		for range 3 {
			_, leave := open(page, nil)
			synctest.Wait()
			leave()
			before := world.sampled()
			time.Sleep(time.Minute)
			if got := world.sampled(); got != before {
				t.Errorf("%d samples after the last viewer left", got-before)
			}
		}
		// One who comes after a pause gets the world as it is, not the last that someone else saw.
		v, leave := open(page, nil)
		defer leave()
		synctest.Wait()
		if got := v.worlds(t); len(got) != 1 || !got[0].At.Equal(world.at) {
			t.Errorf("a newcomer got %d samples, the first not of now", len(got))
		}
	})
}

func TestSlowViewerIsSkippedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeWorld()
		page := Handler(world, Options{})
		defer page.Close()
		gate := make(chan struct{})
		slow, leaveSlow := open(page, gate)
		quick, leaveQuick := open(page, nil)
		defer leaveQuick()
		gate <- struct{}{} // the retry hint
		time.Sleep(8*SampleInterval + SampleInterval/2)
		synctest.Wait()
		if got := len(quick.worlds(t)); got != 9 {
			t.Errorf("the quick viewer got %d samples, want all 9", got)
		}
		gate <- struct{}{} // the first sample, which it has been at ever since
		gate <- struct{}{} // and the newest
		synctest.Wait()
		got := slow.worlds(t)
		if len(got) != 2 || !got[1].At.Equal(world.at) {
			t.Errorf("the slow viewer got %d samples, want the first and the newest", len(got))
		}
		close(gate)
		leaveSlow()
	})
}

func TestViewersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := Handler(newFakeWorld(), Options{Viewers: 2})
		defer page.Close()
		_, leave := open(page, nil)
		_, leaveSecond := open(page, nil)
		defer leaveSecond()
		synctest.Wait()
		for _, method := range []string{"GET", "HEAD"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			w := httptest.NewRecorder()
			page.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, "/events", nil))
			cancel()
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("the third viewer's %s got %d, want 503 with Retry-After", method, w.Code)
			}
		}
		leave()
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest("HEAD", "/events", nil))
		if w.Code != http.StatusOK || w.Body.Len() != 0 {
			t.Errorf("HEAD with a place free got %d and %d bytes", w.Code, w.Body.Len())
		}
	})
}

func TestCloseEndsStreamsAndSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeWorld()
		page := Handler(world, Options{})
		ended := make(chan struct{})
		go func() {
			page.ServeHTTP(&tab{header: http.Header{}}, httptest.NewRequest("GET", "/events", nil))
			close(ended)
		}()
		synctest.Wait()
		page.Close()
		<-ended
		before := world.sampled()
		time.Sleep(time.Minute)
		if got := world.sampled(); got != before {
			t.Errorf("%d samples after Close", got-before)
		}
		page.Close() // again
		for _, r := range []*http.Request{httptest.NewRequest("GET", "/events", nil), post("/vote", `{"place":"eu.de.berlin","candidate":"Ada"}`)} {
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s after Close got %d, want 503", r.URL, w.Code)
			}
		}
	})
}

func TestCloseWaitsForTheSampleInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeWorld()
		held := make(chan struct{})
		world.hook = func() { <-held }
		page := Handler(world, Options{})
		_, leave := open(page, nil)
		defer leave()
		synctest.Wait() // in Snapshot
		closed := make(chan struct{})
		go func() { page.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned while the source was in use")
		default:
		}
		close(held)
		<-closed
	})
}

func TestRatesThatAreNoNumbersAreZero(t *testing.T) {
	frame := encode(World{
		Places: []Place{{VotesPerSecond: math.NaN(), OfferedPerSecond: math.Inf(1)}},
		Limit:  Limit{Utilisation: math.NaN()},
	})
	for _, want := range []string{`"candidates":[]`, `"totals":{}`, `"votes_per_second":0`, `"offered_per_second":0`, `"utilisation":0`} {
		if !strings.Contains(string(frame), want) {
			t.Errorf("no %s in %s", want, frame)
		}
	}
}

// broken is a connection that its viewer closed.
type broken struct{ *tab }

func (broken) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestBrokenViewerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := Handler(newFakeWorld(), Options{})
		defer page.Close()
		page.ServeHTTP(broken{&tab{header: http.Header{}}}, httptest.NewRequest("GET", "/events", nil))
		page.hub.mu.Lock()
		defer page.hub.mu.Unlock()
		if page.hub.viewers != 0 {
			t.Errorf("%d viewers remain", page.hub.viewers)
		}
	})
}
