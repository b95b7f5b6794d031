package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// This file serves the objects of one kind over NATS. It needs a connection and a store, and no place of the counters.

const (
	// VerbObject is what a request to an object is counted as, with the kind for its namespace.
	VerbObject Verb = "object"
	// ObjectHeader carries the name of the object that a request is for.
	ObjectHeader = "Tributary-Object"

	// passWithin is how long another place may take to answer what was passed on to it: less than clients wait.
	passWithin = DefaultTimeout * 4 / 5
)

// ObjectRequest is what somebody asks of an object.
type ObjectRequest struct {
	Header nats.Header // the message's, with [ObjectHeader] in it
	Data   []byte
}

// ObjectsConfig says where a kind is served, and how.
type ObjectsConfig struct {
	// Prefix is the first part of every subject; [DefaultPrefix] when empty.
	Prefix string
	// Place is where the store is. Objects of the same name at two places are two objects.
	Place tiers.Place
	// PlaceOf says at which place an object lives, the same at all places and in all clients. With it the kind is also
	// served on the subject without a place, where a request for an object of another place is passed on to that.
	// Without it each place has objects of its own, and is asked by its name.
	PlaceOf func(name string) tiers.Place
	// Version is the program's semantic version, for nats micro info; 0.0.0 when empty.
	Version string
	// MaxInFlight is how many requests may be in flight; [MaxInFlight] when 0.
	MaxInFlight int
	// Observe is told what happens: see [Metrics.Observer].
	Observe Observer
}

// ObjectService is the NATS micro service of one kind at one place.
type ObjectService struct {
	door
	cfg   ObjectsConfig
	micro micro.Service
	ask   func(name string, q ObjectRequest, done func([]byte, error))
	lanes lanes
}

// ServeObjects serves a kind on tributary.object.<kind>.<place>, and with PlaceOf on tributary.object.<kind>. A request
// is a message whose header [ObjectHeader] names the object, and whose body is the handler's own. handle runs as one
// operation of the object: what it returns is the answer's body, which leaves when the operation's durability says; if
// it returns an error, nothing is written, and the answer is that error if it is an [*Error] (or wraps one), and an
// [ErrInternal] with its text if not. A reply that is too large to send is an error, too. Requests for one object run
// in the order in which they came, those for different objects at the same time.
//
// The store must stay open until Stop has returned.
func ServeObjects[S any](
	nc *nats.Conn, kind *objects.Kind[S], cfg ObjectsConfig,
	handle func(tx *objects.Tx, state S, q ObjectRequest) (reply []byte, err error),
) (*ObjectService, error) {
	return serveObjects(nc, kind.Name(), cfg, func(name string, q ObjectRequest, done func([]byte, error)) {
		var reply []byte
		kind.Submit(name, func(tx *objects.Tx, state S) (err error) {
			if reply, err = handle(tx, state, q); err != nil {
				return err
			}
			if room := int(nc.MaxPayload()) - headerRoom; len(reply) > room {
				return ErrTooLarge.Errorf("the answer is %d bytes, and the NATS server takes %d: nothing was done; "+
					"ask for less, or raise max_payload", len(reply), room)
			}
			return nil
		}, func(err error) { done(reply, err) })
	})
}

func serveObjects(
	nc *nats.Conn, kind string, cfg ObjectsConfig, ask func(name string, q ObjectRequest, done func([]byte, error)),
) (*ObjectService, error) {
	subjects, err := NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	if _, err := tiers.ParsePlace(string(cfg.Place)); err != nil {
		return nil, err
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = MaxInFlight
	}
	if cfg.Version == "" {
		cfg.Version = "0.0.0"
	}
	verb := objectVerb(kind)
	s := &ObjectService{cfg: cfg, ask: ask}
	s.door = door{&counters{gate: newGate(cfg.MaxInFlight)}, nc, subjects, VerbObject, &s.cfg.Observe}
	s.micro, err = micro.AddService(nc, micro.Config{
		Name:         ServiceName + "-object-" + kind,
		Version:      cfg.Version,
		Description:  "Objects of the kind " + kind,
		QueueGroup:   QueueGroup,
		Metadata:     map[string]string{"kind": kind, "place": string(cfg.Place), "prefix": subjects.Prefix()},
		StatsHandler: func(*micro.Endpoint) any { return s.stats() },
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			if cfg.Observe.Fault != nil {
				cfg.Observe.Fault(err)
			}
		},
	})
	if err == nil {
		err = s.register(kind, verb)
	}
	if err != nil {
		return nil, fmt.Errorf("serving objects of the kind %s over NATS: %w", kind, err)
	}
	return s, nil
}

func (s *ObjectService) register(kind string, verb Verb) (err error) {
	defer func() {
		if err != nil {
			_ = s.micro.Stop()
		}
	}()
	listen := func(subject string, anywhere bool) error {
		name := endpointName(verb, "")
		if !anywhere {
			name = endpointName(verb, string(s.cfg.Place))
		}
		return s.micro.AddEndpoint(name, micro.HandlerFunc(func(req micro.Request) { s.handle(req, kind, anywhere) }),
			micro.WithEndpointSubject(subject))
	}
	if err := listen(s.subjects.At(verb, string(s.cfg.Place)), false); err != nil {
		return err
	}
	if s.cfg.PlaceOf != nil {
		if err := listen(s.subjects.Any(verb), true); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	return s.nc.FlushWithContext(ctx)
}

// objectVerb is how the kind stands in its subjects.
func objectVerb(kind string) Verb { return VerbObject + "." + Verb(kind) }

// handle is called by micro, one message after another for each subject.
func (s *ObjectService) handle(req micro.Request, kind string, anywhere bool) {
	var start time.Time
	if s.observe.Message != nil {
		start = time.Now()
	}
	if err := s.gate.enter(1); err != nil {
		s.answer(req, kind, nil, err)
		return
	}
	leave := func() {
		if s.observe.Message != nil {
			s.observe.Message(VerbObject, 1, time.Since(start))
		}
		s.gate.leave(1)
	}
	name, place, err := s.address(req.Headers(), kind, anywhere)
	switch {
	case err != nil:
		s.answer(req, kind, nil, err)
		leave()
	case place != s.cfg.Place:
		go func() {
			defer leave()
			s.pass(req, kind, place)
		}()
	default:
		s.lanes.run(name, func() {
			s.ask(name, ObjectRequest{Header: nats.Header(req.Headers()), Data: req.Data()}, func(reply []byte, err error) {
				defer leave()
				s.answer(req, kind, reply, s.refusal(err))
			})
		})
	}
}

// address says which object a request is for, and where that is.
func (s *ObjectService) address(h micro.Headers, kind string, anywhere bool) (name string, at tiers.Place, refused *Error) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(v, debug.Stack())
			refused = ErrInternal.Errorf("the object's place cannot be found: the service failed, and its log says how")
		}
	}()
	if err := checkVersion(h); err != nil {
		return "", "", err
	}
	names := h[ObjectHeader]
	if len(names) != 1 {
		return "", "", ErrMalformed.Errorf("the message has %d headers %s: send one, with the object's name", len(names), ObjectHeader)
	}
	name = names[0]
	if err := checkObject(name); err != nil {
		return "", "", err
	}
	if s.cfg.PlaceOf == nil {
		return name, s.cfg.Place, nil
	}
	at, err := tiers.ParsePlace(string(s.cfg.PlaceOf(name)))
	switch {
	case err != nil:
		return "", "", ErrUnknownPlace.Errorf("no place has the object %s: %v", quote(name), err)
	case at != s.cfg.Place && !anywhere:
		return "", "", ErrWrongPlace.Errorf("the object %s is at %s, and this is %s: ask %s",
			quote(name), at, s.cfg.Place, s.subjects.At(objectVerb(kind), string(at)))
	}
	return name, at, nil
}

// checkObject holds what is true of an object's name that travels in a header.
func checkObject(name string) *Error {
	if name == "" || strings.TrimSpace(name) != name {
		return ErrOutOfRange.Errorf("the object's name %s is empty, or has space around it, which no header keeps", quote(name))
	}
	return checkWithin("the object's name", name, objects.MaxNameBytes)
}

// pass asks the place that has the object, and relays its answer. That place passes nothing on: it is asked by its name.
func (s *ObjectService) pass(req micro.Request, kind string, to tiers.Place) {
	msg := &nats.Msg{Subject: s.subjects.At(objectVerb(kind), string(to)), Header: nats.Header(req.Headers()), Data: req.Data()}
	if req.Reply() == "" {
		s.sent(kind, OutcomePassed, s.nc.PublishMsg(msg))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), passWithin)
	defer cancel()
	reply, err := s.nc.RequestMsgWithContext(ctx, msg)
	switch {
	case err == nil:
		relayed := &nats.Msg{Subject: req.Reply(), Header: reply.Header, Data: reply.Data}
		switch err := s.nc.PublishMsg(relayed); {
		case errors.Is(err, nats.ErrMaxPayload): // the server here takes less than the one there
			s.answer(req, kind, nil, ErrInternal.Errorf("the request was done at %s, but its answer of %d bytes is more than the %d that the "+
				"NATS server of %s takes: ask %s, or raise max_payload", to, len(reply.Data), s.nc.MaxPayload(), s.cfg.Place, to))
		default:
			s.sent(kind, OutcomePassed, err)
		}
	case errors.Is(err, nats.ErrNoResponders):
		s.answer(req, kind, nil, ErrNoResponders.Errorf("the object is at %s, and nobody listens on %s", to, msg.Subject).After(time.Second))
	default:
		s.answer(req, kind, nil, ErrInternal.Errorf("the object is at %s, from where no answer came; the request may have been done: %v", to, err))
	}
}

// refusal says what failed as the caller is told.
func (s *ObjectService) refusal(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, objects.ErrOverloaded):
		return ErrOverloaded.Errorf("too much waits for the disk of %s", s.cfg.Place).After(retryAfter)
	case errors.Is(err, objects.ErrFull), errors.Is(err, objects.ErrFailed):
		return ErrStorage.Errorf("%s: %v", s.cfg.Place, err).After(time.Second)
	case errors.Is(err, objects.ErrClosed), errors.Is(err, objects.ErrStuck):
		return ErrNotReady.Errorf("%s: %v", s.cfg.Place, err).After(time.Second)
	case errors.Is(err, objects.ErrInvalid):
		return ErrOutOfRange.Errorf("nothing was done: %v", err)
	case errors.Is(err, objects.ErrPanicked):
		s.panicked(err, nil) // its text holds the stack
		return ErrInternal.Errorf("the object failed on this request, of which nothing was done: the service's log says how")
	}
	return ErrInternal.Errorf("nothing was done: %v", err)
}

func (s *ObjectService) panicked(v any, stack []byte) {
	if s.observe.Panic != nil {
		s.observe.Panic(VerbObject, v, stack)
	}
}

// Stop is as [Service.Stop]: afterwards no operation runs that it began.
func (s *ObjectService) Stop(ctx context.Context) error {
	flush, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	_ = s.micro.Stop()
	settle(flush, s.nc)
	if err := s.gate.wait(ctx); err != nil {
		return fmt.Errorf("stopping %s: %d of its requests are unanswered: %w", s.micro.Info().Name, s.gate.inside.Load(), err)
	}
	return flushAnswers(flush, s.nc, s.micro.Info().Name)
}

// lanes runs what comes for one name in its order, and what comes for different names at the same time.
type lanes struct {
	mu    sync.Mutex
	queue map[string][]func() // of the names that run
}

func (l *lanes) run(name string, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue == nil {
		l.queue = map[string][]func(){}
	}
	queue, runs := l.queue[name]
	l.queue[name] = append(queue, f)
	if !runs {
		go l.drain(name)
	}
}

func (l *lanes) drain(name string) {
	empty := false
	defer func() {
		if !empty { // an operation ended its goroutine
			go l.drain(name)
		}
	}()
	for {
		f := l.next(name)
		if f == nil {
			empty = true
			return
		}
		f()
	}
}

// next returns what to run, nil if there is nothing left.
func (l *lanes) next(name string) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.queue[name]
	if len(queue) == 0 {
		delete(l.queue, name)
		return nil
	}
	l.queue[name] = queue[1:]
	return queue[0]
}
