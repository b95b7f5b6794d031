package transport

import (
	"maps"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

type counter = atomic.Int64

// endpoint handles the messages of one verb: reads them, asks the backend, and answers once.
type endpoint[Q, R any] struct {
	*counters
	svc   *Service
	codec *codec[Q, R]
	ask   func(Q, func(R, *Error))
	// askAll, where it is set, is asked the n requests of a message at once, and tells of each by its index.
	askAll func(n int, req func(int) *Q, done func(int, R, *Error))
	// anywhere is true on the subject that some leaf answers on.
	anywhere bool
	// served is false for what this place only listens for to refuse it.
	served bool
	// hurry, if any, makes a request one that is answered without waiting, for when half of the room is taken.
	hurry func(*Q)
	// within, if any, tells a request how long its asker waits for the answer.
	within func(*Q, time.Duration)
	// holds, if any, says that an answer brings what only its asker can give back; undo does so when nobody gets it.
	holds func(*Q, *R) bool
	undo  func(*Q, *R)
}

func newEndpoint[Q, R any](s *Service, c *codec[Q, R], ask func(Q, func(R, *Error)), served bool) *endpoint[Q, R] {
	return &endpoint[Q, R]{counters: s.endpoints[c.verb], svc: s, codec: c, ask: ask, served: served}
}

// onAny is the same endpoint on the subject that some leaf answers on.
func (e *endpoint[Q, R]) onAny() *endpoint[Q, R] {
	other := *e
	other.anywhere = true
	return &other
}

// Handle is called by micro, one message after another for each subject.
func (e *endpoint[Q, R]) Handle(req micro.Request) {
	m := &message[Q, R]{endpoint: e, req: req, protobuf: isProtobuf(req.Headers()), versioned: isVersioned(req.Headers())}
	if e.svc.cfg.Observe.Message != nil {
		m.start = time.Now()
	}
	if err := e.accept(req, m); err != nil {
		m.refused, m.slots = err, nil
		m.send(true)
		return
	}
	m.begin()
	if m.leave() {
		m.send(true)
	}
}

// accept reads a message and makes room for it, and has entered the gate when it returns no error.
func (e *endpoint[Q, R]) accept(req micro.Request, m *message[Q, R]) (err *Error) {
	defer func() {
		if v := recover(); v != nil {
			err = e.panicked(v)
		}
	}()
	if err := checkVersion(req.Headers()); err != nil {
		return err
	}
	if err := e.svc.backend.Ready(); err != nil {
		return err
	}
	if !e.served {
		return ErrNotServed.Errorf("%s is no leaf: it answers get and list, and its cities %s; "+
			"ask one of them, or any on the subject without a place", e.svc.cfg.Place, e.codec.verb)
	}
	read := decode[Q, R]
	if m.protobuf {
		read = decodeProtobuf[Q, R]
	}
	batch, err := read(req.Data(), e.codec, &m.one[0])
	if err != nil {
		return err
	}
	if m.slots = batch; batch == nil {
		m.slots = m.one[:]
	} else if err := e.fits(len(batch)); err != nil {
		return err
	}
	m.batch = batch != nil
	if err := e.identify(req.Headers(), m); err != nil {
		return err
	}
	if err := e.hasten(req.Headers(), m); err != nil {
		return err
	}
	return e.gate.enter(len(m.slots))
}

// isVersioned says that a request names its version, and wants its answer to.
func isVersioned(h micro.Headers) bool { return len(h[VersionHeader]) > 0 }

// checkVersion refuses a version of the wire that is not served.
func checkVersion(h micro.Headers) *Error {
	for _, v := range h[VersionHeader] {
		if v != wireVersion {
			return ErrUnsupportedVersion.Errorf("%s %s is not served: this place serves %s", VersionHeader, quote(v), wireVersion)
		}
	}
	return nil
}

// identify gives a request the id that its message's header has, and refuses ids that a retry might not find again.
func (e *endpoint[Q, R]) identify(h micro.Headers, m *message[Q, R]) *Error {
	if values, has := h[nats.MsgIdHdr]; has {
		switch {
		case e.codec.id == nil:
			return notRemembered(nats.MsgIdHdr, e.codec.verb)
		case m.batch:
			return ErrMalformed.Errorf("%s: a batch as a whole has no id; give its requests each an id of their own", nats.MsgIdHdr)
		case len(values) != 1:
			return ErrMalformed.Errorf("%s has %d values: send one", nats.MsgIdHdr, len(values))
		}
		if err := checkID(nats.MsgIdHdr, values[0]); err != nil {
			return err
		}
		id := e.codec.id(&m.one[0].req)
		if *id != "" && *id != values[0] {
			return ErrMalformed.Errorf("%s is %s and id is %s: send the same, or one of them", nats.MsgIdHdr, quote(values[0]), quote(*id))
		}
		*id = values[0]
	}
	if e.codec.id == nil || !e.anywhere {
		return nil
	}
	for i := range m.slots {
		s := &m.slots[i]
		if s.err != nil {
			continue
		}
		if s.err = e.homeless(*e.codec.id(&s.req)); s.err != nil && !m.batch {
			return s.err
		}
	}
	return nil
}

// hasten tells the requests of a message how long its asker waits.
func (e *endpoint[Q, R]) hasten(h micro.Headers, m *message[Q, R]) *Error {
	values, has := h[TimeoutHeader]
	if !has || e.within == nil {
		return nil
	}
	if len(values) != 1 {
		return ErrMalformed.Errorf("%s has %d values: send one", TimeoutHeader, len(values))
	}
	ms, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil || ms < 1 || ms > MaxInteger {
		return ErrMalformed.Errorf("%s is %s: it is how long the answer is waited for, in milliseconds, 1 to %d", TimeoutHeader, quote(values[0]), int64(MaxInteger))
	}
	for i := range m.slots {
		e.within(&m.slots[i].req, fromMilliseconds(ms))
	}
	return nil
}

// homeless refuses an id of a request that any leaf may answer.
func (e *endpoint[Q, R]) homeless(id string) *Error {
	if id == "" {
		return nil
	}
	v := e.codec.verb
	return ErrUnsupportedID.Errorf("id %s: only the place that answers remembers it, and a retry on %s may reach another city; "+
		"ask a named place, on %s.<place>", quote(id), e.svc.subjects.Any(v), e.svc.subjects.Any(v))
}

const (
	// batchFrame is {"responses":[]}, and headerRoom what NATS counts as payload beside the body: the headers of an
	// answer.
	batchFrame = len(`{"responses":[]}`)
	headerRoom = 128
)

// fits refuses a batch whose answer might be too large to send, before anything of it is done.
func (e *endpoint[Q, R]) fits(n int) *Error {
	each := e.codec.most(e.svc.cfg.Place) + len(",")
	room := e.bodyRoom() - batchFrame
	if n*each <= room {
		return nil
	}
	return ErrTooLarge.Errorf("a batch of %d may be answered with %d bytes, and the NATS server takes %d: "+
		"nothing was done; send at most %d, or raise max_payload", n, n*each, e.svc.nc.MaxPayload(), max(0, room/each))
}

// bodyRoom is how large the body of an answer may be.
func (e *endpoint[Q, R]) bodyRoom() int { return int(e.svc.nc.MaxPayload()) - headerRoom }

// message is one message in work.
//
// Micro looks at the request's outcome when its handler returns, so until then only the handler may answer through
// it, and afterwards nobody: a later answer is published by us. Handler and backend agree on who sends through state.
type message[Q, R any] struct {
	endpoint *endpoint[Q, R]
	req      micro.Request
	start    time.Time
	refused  *Error

	protobuf  bool // and so is the answer
	versioned bool // and so is the answer
	batch     bool
	slots     []slot[Q, R]
	one       [1]slot[Q, R]
	// open counts the slots without an answer.
	open  atomic.Int64
	state atomic.Uint32
}

const (
	handling = iota // the handler runs, and the answer is not complete
	complete        // the answer is complete; the handler will send it
	returned        // the handler has returned; whoever completes the answer sends it
)

// slot is one operation of a message.
type slot[Q, R any] struct {
	message *message[Q, R]
	req     Q
	reply   R
	err     *Error // of the request, until it is asked; then of the answer
	// answered makes a backend's second answer harmless.
	answered atomic.Bool
}

// begin asks the backend for every operation, in order.
func (m *message[Q, R]) begin() {
	m.open.Store(int64(len(m.slots)))
	for i := range m.slots {
		m.slots[i].message = m
	}
	if m.endpoint.askAll != nil {
		m.askAll()
		return
	}
	for i := range m.slots {
		if s := &m.slots[i]; s.err != nil {
			s.done(s.reply, s.err)
		} else {
			s.ask()
		}
	}
}

// askAll asks the backend for all operations at once.
func (m *message[Q, R]) askAll() {
	asked := make([]*slot[Q, R], 0, len(m.slots))
	var refused []*slot[Q, R]
	for i := range m.slots {
		if s := &m.slots[i]; s.err == nil {
			asked = append(asked, s)
		} else {
			refused = append(refused, s)
		}
	}
	defer func() {
		if v := recover(); v != nil {
			var none R
			failed := m.endpoint.panicked(v)
			for _, s := range asked {
				s.done(none, failed)
			}
		}
	}()
	for _, s := range refused {
		s.done(s.reply, s.err)
	}
	if len(asked) > 0 {
		m.endpoint.askAll(len(asked), func(i int) *Q { return &asked[i].req },
			func(i int, reply R, err *Error) { asked[i].done(reply, err) })
	}
}

func (s *slot[Q, R]) ask() {
	e := s.message.endpoint
	defer func() {
		if v := recover(); v != nil {
			var none R
			s.done(none, e.panicked(v))
		}
	}()
	if e.hurry != nil && e.gate.crowded() {
		e.hurry(&s.req)
	}
	e.ask(s.req, s.done)
}

func (e *endpoint[Q, R]) panicked(v any) *Error {
	if observe := e.svc.cfg.Observe.Panic; observe != nil {
		observe(e.codec.verb, v, debug.Stack())
	}
	return ErrInternal.Errorf("the service failed on this request, which may have been done: its log says how")
}

// done takes an operation's answer; the last one completes the message.
func (s *slot[Q, R]) done(reply R, err *Error) {
	if s.answered.Swap(true) {
		return
	}
	s.reply, s.err = reply, err
	m := s.message
	if m.open.Add(-1) == 0 && !m.state.CompareAndSwap(handling, complete) {
		m.send(false)
	}
}

// leave is called by the handler at its end, and reports whether the answer is complete and the handler's to send.
func (m *message[Q, R]) leave() bool { return !m.state.CompareAndSwap(handling, returned) }

var bodies = sync.Pool{New: func() any { return new([]byte) }}

// maxPooledBody is the largest buffer that is kept for the next answer.
const maxPooledBody = 64 << 10

// send answers the message, through micro or around it, and leaves the gate.
func (m *message[Q, R]) send(handler bool) {
	e := m.endpoint
	buffer := bodies.Get().(*[]byte)
	body, failed := m.body((*buffer)[:0])
	header := answerHeader(m.versioned, m.protobuf, failed)
	switch {
	case failed != nil && m.protobuf:
		body = appendProtobufError(appendString(body[:0], numberPlace, e.svc.cfg.Place), numberError, failed)
	case failed != nil:
		body = appendError(body[:0], failed)
	}
	var err error
	switch {
	case handler && failed != nil:
		err = m.req.Error(strconv.Itoa(failed.Code), failed.headline(), body, micro.WithHeaders(micro.Headers(header)))
	case handler:
		err = m.req.Respond(body, micro.WithHeaders(micro.Headers(header)))
	default:
		// NATS has copied the body when this returns.
		err = e.svc.nc.PublishMsg(&nats.Msg{Subject: m.req.Reply(), Reply: m.returnTo(), Header: replyHeader(header, failed), Data: body})
	}
	if err != nil || failed != nil { // nobody gets it, or an error in its stead
		m.undo()
	}
	if cap(body) <= maxPooledBody {
		*buffer = body
	}
	bodies.Put(buffer)
	m.observe(err)
	e.gate.leave(len(m.slots)) // none, if it was refused
}

// body writes the answer, or returns the error that is the answer.
func (m *message[Q, R]) body(b []byte) ([]byte, *Error) {
	e := m.endpoint
	if m.refused != nil {
		return b, m.refused
	}
	if m.protobuf && (m.batch || m.slots[0].err == nil) {
		b = m.appendProtobuf(b)
		return b, e.sendable(len(b))
	}
	if m.batch {
		b = append(b, `{"responses":[`...)
		for i := range m.slots {
			if i > 0 {
				b = append(b, ',')
			}
			if s := &m.slots[i]; s.err != nil {
				b = appendError(b, s.err)
			} else {
				b = e.codec.appendReply(b, &s.reply)
			}
		}
		b = append(b, `]}`...)
		return b, e.sendable(len(b))
	}
	s := &m.slots[0]
	if s.err != nil {
		return b, s.err
	}
	if e.codec.appendWithin != nil {
		b, fits := e.codec.appendWithin(b, &s.reply, e.bodyRoom())
		if !fits {
			return b, e.unsendable("a single key")
		}
		return b, nil
	}
	b = e.codec.appendReply(b, &s.reply)
	return b, e.sendable(len(b))
}

// sendable is the last resort: what fits was already asked, from bounds that a backend should not exceed.
func (e *endpoint[Q, R]) sendable(size int) *Error {
	const always = 512 // a NATS server that takes less than this serves nobody
	if size <= always || size <= e.bodyRoom() {
		return nil
	}
	return e.unsendable(strconv.Itoa(size) + " bytes")
}

func (e *endpoint[Q, R]) unsendable(what string) *Error {
	return ErrInternal.Errorf("the request was done, but its answer of %s is more than the %d bytes that the NATS server "+
		"takes: ask for less at a time, or raise max_payload", what, e.svc.nc.MaxPayload())
}

// undo takes back what was done for requests whose answers nobody gets.
func (m *message[Q, R]) undo() {
	for i := range m.slots {
		if s := &m.slots[i]; s.holds() {
			m.endpoint.undo(&s.req, &s.reply)
		}
	}
}

// holds says that the answer brings what only its asker can give back.
func (s *slot[Q, R]) holds() bool {
	return s.err == nil && s.message != nil && s.message.endpoint.holds != nil && s.message.endpoint.holds(&s.req, &s.reply)
}

// observe tells the counters and the observer what became of the message.
func (m *message[Q, R]) observe(unsent error) {
	e, o := m.endpoint, &m.endpoint.svc.cfg.Observe
	if o.Message != nil {
		o.Message(e.codec.verb, max(1, len(m.slots)), time.Since(m.start))
	}
	// An answer to a request that wants none is not missed.
	if unsent != nil && o.Unsent != nil && m.req.Reply() != "" {
		o.Unsent(e.codec.verb, unsent)
	}
	if m.refused != nil {
		e.errors.Add(1)
		if o.Operation != nil {
			o.Operation(e.codec.verb, "", m.refused.Reason)
		}
		return
	}
	for i := range m.slots {
		s := &m.slots[i]
		if s.err != nil {
			e.errors.Add(1)
		}
		if o.Operation == nil {
			continue
		}
		switch {
		case s.err == nil:
			o.Operation(e.codec.verb, e.codec.namespace(&s.req), e.codec.outcome(&s.reply))
		case s.err.Code == ErrMalformed.Code || s.err.Code == ErrUnknownNamespace.Code:
			o.Operation(e.codec.verb, "", s.err.Reason)
		default:
			o.Operation(e.codec.verb, e.codec.namespace(&s.req), s.err.Reason)
		}
	}
}

var wireVersion = strconv.Itoa(WireVersion)

// versionOnly and versionAndProtobuf are shared by all answers: nobody writes to them.
var (
	versionOnly        = nats.Header{VersionHeader: []string{wireVersion}}
	versionAndProtobuf = nats.Header{VersionHeader: []string{wireVersion}, ContentTypeHeader: []string{ContentTypeProtobuf}}
)

// answerHeader is the header of an answer. One without is of version 1, and as its request is: a header costs whoever
// reads it, client and server, a tenth of what a request does.
func answerHeader(versioned, protobuf bool, refused *Error) nats.Header {
	switch {
	case refused == nil && !versioned:
		return nil
	case protobuf:
		return versionAndProtobuf
	}
	return versionOnly
}

// replyHeader is the header of an answer, and of an error if it is one.
func replyHeader(header nats.Header, e *Error) nats.Header {
	if e == nil {
		return header
	}
	header = maps.Clone(header)
	header[micro.ErrorCodeHeader] = []string{strconv.Itoa(e.Code)}
	header[micro.ErrorHeader] = []string{e.headline()}
	return header
}
