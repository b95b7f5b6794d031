package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// frameTimeout is how long a viewer may take to read one frame before it is taken for gone. What its connection
// buffers hides a slow one for long; this is for one that stopped.
const frameTimeout = 10 * time.Second

// retryHint is what the browser waits before it reconnects a stream that ended.
const retryHint = "retry: 1000\n\n"

var (
	errClosed = errors.New("the demo is stopping")
	errFull   = errors.New("the page has as many viewers as it serves; close one, or try again later")
	errBusy   = errors.New("too many votes and link changes in flight; try again")
)

// hub shares one sampler among all viewers. It keeps only the newest frame: a viewer takes that one when it is ready
// to write, so one that writes slowly skips what came in between, and the sampler waits for nobody.
//
// The sampler runs while there is a viewer. It looks for one before each sample, and ends under the lock in which it
// found none, so a viewer that comes meanwhile either is seen by it or starts the next: there are never two.
type hub struct {
	source   Source
	interval time.Duration
	limit    int             // viewers
	done     context.Context // ends with close
	cancel   context.CancelFunc
	busy     sync.WaitGroup // what uses the source: the sampler and the actions

	mu       sync.Mutex
	viewers  int
	actions  int
	sampling bool
	frame    []byte        // the newest event as sent; nil until the sampler's first
	next     chan struct{} // closed when frame is replaced
}

func newHub(s Source, o Options) *hub {
	h := &hub{source: s, interval: o.Interval, limit: o.Viewers, next: make(chan struct{})}
	h.done, h.cancel = context.WithCancel(context.Background())
	return h
}

func (h *hub) close() {
	h.mu.Lock()
	h.cancel() // under the lock: no one joins busy after it
	h.mu.Unlock()
	h.busy.Wait()
}

// join adds a viewer, who must leave.
func (h *hub) join() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.done.Err() != nil:
		return errClosed
	case h.viewers >= h.limit:
		return errFull
	}
	h.viewers++
	if !h.sampling {
		h.sampling = true
		h.busy.Go(h.sample)
	}
	return nil
}

func (h *hub) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.viewers--
}

// latest returns the newest frame, if there is one, and what is closed when a newer one is there.
func (h *hub) latest() (frame []byte, next <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.frame, h.next
}

func (h *hub) sample() {
	tick := time.NewTicker(h.interval)
	defer tick.Stop()
	for h.watched() {
		h.publish(encode(h.source.Snapshot()))
		select {
		case <-tick.C:
		case <-h.done.Done():
		}
	}
}

// watched reports whether to go on sampling; if not, the sampler has ended.
func (h *hub) watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.viewers > 0 && h.done.Err() == nil {
		return true
	}
	h.sampling = false
	h.frame = nil // old by the time someone comes
	return false
}

func (h *hub) publish(frame []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frame = frame
	close(h.next)
	h.next = make(chan struct{})
}

// begin admits one action; the context it returns ends with the request's, the hub's, or after ActionTimeout.
func (h *hub) begin(ctx context.Context) (context.Context, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.done.Err() != nil:
		return nil, nil, errClosed
	case h.actions >= MaxActions:
		return nil, nil, errBusy
	}
	h.actions++
	h.busy.Add(1)
	ctx, cancel := context.WithTimeout(ctx, ActionTimeout)
	stop := context.AfterFunc(h.done, cancel)
	return ctx, func() {
		stop()
		cancel()
		h.mu.Lock()
		h.actions--
		h.mu.Unlock()
		h.busy.Done()
	}, nil
}

// encode makes a sample one server-sent event. JSON has no line feed in it, so its data is one line.
func encode(w World) []byte {
	w.tidy()
	data, err := json.Marshal(w)
	if err != nil {
		panic("page: a tidy world did not encode: " + err.Error())
	}
	frame := append([]byte("event: world\ndata: "), data...)
	return append(frame, "\n\n"...)
}

// events streams the world. HEAD answers as GET would and ends: the page asks so why a stream was refused, since
// EventSource does not say.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		fail(w, http.StatusForbidden, "cross_site", "this stream is for its own page")
		return
	}
	if err := p.hub.join(); err != nil {
		failUnavailable(w, err)
		return
	}
	defer p.hub.leave()

	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // or nginx collects before it passes on
	if r.Method == http.MethodHead {
		return
	}
	v := viewer{w: w, c: http.NewResponseController(w)}
	defer v.end()
	if v.send([]byte(retryHint)) != nil {
		return
	}
	for {
		frame, next := p.hub.latest()
		if frame != nil && v.send(frame) != nil {
			return
		}
		select {
		case <-next:
		case <-r.Context().Done():
			return
		case <-p.hub.done.Done():
			return
		}
	}
}

// viewer is one open stream.
type viewer struct {
	w http.ResponseWriter
	c *http.ResponseController
}

// send writes one event and pushes it out. Not every writer has deadlines; a server's connection does.
func (v viewer) send(event []byte) error {
	_ = v.c.SetWriteDeadline(time.Now().Add(frameTimeout))
	if _, err := v.w.Write(event); err != nil {
		return err
	}
	return v.c.Flush()
}

// end leaves no deadline behind for the connection's next request.
func (v viewer) end() { _ = v.c.SetWriteDeadline(time.Time{}) }
