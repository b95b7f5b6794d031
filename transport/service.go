package transport

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/tiers"
)

const (
	// ServiceName is the name of every place's micro service; the place is in its metadata.
	ServiceName = "tributary"
	// QueueGroup is the queue group of every endpoint: of several that listen, one answers.
	QueueGroup = "tributary"
	// VersionHeader carries the version of the wire: optional in a request, and in its reply if the request had it, or
	// if it is an error. A message without is of version 1.
	VersionHeader = "Tributary-Version"
	// TimeoutHeader says in a message of checks how long its asker waits for the answer, in milliseconds. They wait no
	// longer for a share, so that what comes to one is not taken by nobody.
	TimeoutHeader = "Tributary-Timeout"
	// MaxInFlight is how many operations of one verb may be in flight unless configured. Past about ten thousand
	// durable adds only the latency grows.
	MaxInFlight = 16384

	// retryAfter is what an overloaded or stopping place tells its callers: long enough for a burst of group
	// commits to pass, short enough for people not to notice.
	retryAfter = 100 * time.Millisecond
	// flushWithin bounds how long a stop without a deadline waits for NATS.
	flushWithin = 5 * time.Second
)

// Backend answers for one place. Its methods must not block: done is called exactly once, at once or later, from any
// goroutine. Requests are valid when they come.
type Backend interface {
	// Ready returns nil, or the 503 that every request gets: not ready, draining, fenced.
	Ready() *Error
	Check(req CheckRequest, done func(CheckReply, *Error))
	// Release is asked also for permits of other places and sessions: it has none of those.
	Release(req ReleaseRequest, done func(ReleaseReply, *Error))
	Refund(req RefundRequest, done func(RefundReply, *Error))
	// Add counts n requests together; done is called once for each, by its index.
	Add(n int, req func(i int) *AddRequest, done func(i int, r AddReply, err *Error))
	Get(req GetRequest, done func(GetReply, *Error))
	List(req ListRequest, done func(ListReply, *Error))
}

// ServiceConfig says which place is served, and how.
type ServiceConfig struct {
	// Prefix is the first part of every subject; [DefaultPrefix] when empty.
	Prefix string
	// Place is the place served.
	Place string
	// Leaf says that the place checks, releases, refunds and adds. Others answer only get and list, and only by their name.
	Leaf bool
	// Version is the program's semantic version, for nats micro info.
	Version string
	// MaxInFlight is how many operations of one verb may be in flight; [MaxInFlight] when 0, and at least
	// [MaxBatch]. Checks that wait for a share take half of it at most; beyond, they are decided without waiting.
	MaxInFlight int
	// Drain is called by [Service.Stop] when only checks are left inside, some of which may wait for long: the backend
	// answers those now. It may be nil.
	Drain func()
	// Admin answers operators; nil: they are not served.
	Admin Admin
	// Observe is told what happens.
	Observe Observer
}

// OutcomeOK and the others are what [Observer.Operation] is told: for a check allowed, shadow or a denial's reason, for
// a release ok or gone, for other verbs ok, for what failed the error's reason.
const (
	OutcomeOK      = "ok"
	OutcomeAllowed = "allowed"
	// OutcomeShadow: allowed, because the rule only looks on.
	OutcomeShadow = "shadow"
	// OutcomeGone: there is no such permit, or not any more.
	OutcomeGone = "gone"
	// OutcomePassed: the request went on to the place that has the object, which counts its outcome.
	OutcomePassed = "passed"
)

// Observer is told what a service does, for metrics and logs. Each function may be nil, is called from any goroutine,
// and must not block.
type Observer struct {
	// Operation is called once for each operation, when its outcome is known. The namespace is empty where it is
	// malformed or unknown, so that it is bounded as a label.
	Operation func(v Verb, namespace, outcome string)
	// Message is called once for each message when it was answered: how many operations it held, and how long it
	// took.
	Message func(v Verb, operations int, took time.Duration)
	// Panic is called when the backend panicked; the request got a 500.
	Panic func(v Verb, value any, stack []byte)
	// Unsent is called when an answer could not be handed to NATS.
	Unsent func(v Verb, err error)
	// Fault is called when NATS reports a fault of the service's subscriptions, such as a slow consumer.
	Fault func(err error)
}

// Service is the NATS micro service of one place.
type Service struct {
	nc        *nats.Conn
	subjects  Subjects
	cfg       ServiceConfig
	backend   Backend
	micro     micro.Service
	endpoints map[Verb]*counters
	unheard   unheard
}

// counters is what the endpoints of one verb share.
type counters struct {
	gate   *gate
	errors counter
}

// NewService serves a place on a connection, which should be the place's own: the service ends when it closes, and
// its handlers for closing and errors should be set before.
func NewService(nc *nats.Conn, cfg ServiceConfig, b Backend) (*Service, error) {
	subjects, err := NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	if _, err := tiers.ParsePlace(cfg.Place); err != nil {
		return nil, err
	}
	switch {
	case cfg.MaxInFlight == 0:
		cfg.MaxInFlight = MaxInFlight
	case cfg.MaxInFlight < MaxBatch:
		return nil, fmt.Errorf("at most %d requests in flight leave no room for a batch: allow %d or more",
			cfg.MaxInFlight, MaxBatch)
	}
	s := &Service{nc: nc, subjects: subjects, cfg: cfg, backend: b, endpoints: map[Verb]*counters{}}
	for _, v := range slices.Concat(verbs, adminVerbs) {
		s.endpoints[v] = &counters{gate: newGate(cfg.MaxInFlight)}
	}
	s.micro, err = micro.AddService(nc, micro.Config{
		Name:        ServiceName,
		Version:     cfg.Version,
		Description: "Tributary counts and limits, place by place",
		QueueGroup:  QueueGroup,
		Metadata: map[string]string{
			"place":  cfg.Place,
			"leaf":   strconv.FormatBool(cfg.Leaf),
			"prefix": subjects.Prefix(),
		},
		StatsHandler: func(e *micro.Endpoint) any { return s.endpoints[verbOf(e.Name)].stats() },
		ErrorHandler: func(_ micro.Service, err *micro.NATSError) {
			if cfg.Observe.Fault != nil {
				cfg.Observe.Fault(err)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("serving %s over NATS: %w", cfg.Place, err)
	}
	if err := s.listenForUnheard(); err != nil {
		_ = s.micro.Stop()
		return nil, fmt.Errorf("serving %s over NATS: %w", cfg.Place, err)
	}
	if err := s.register(); err != nil {
		_ = s.micro.Stop()
		return nil, fmt.Errorf("serving %s over NATS: %w", cfg.Place, err)
	}
	return s, nil
}

// register adds the endpoints. A place that is no leaf listens all the same for what only leaves do, to say so.
func (s *Service) register() error {
	check := newEndpoint(s, &checkCodec, s.backend.Check, s.cfg.Leaf)
	check.hurry = func(q *CheckRequest) { q.Wait = 0 }
	check.within = func(q *CheckRequest, timeout time.Duration) { q.Timeout = timeout }
	check.holds, check.undo = holdsPermit, s.takeBack
	add := newEndpoint(s, &addCodec, nil, s.cfg.Leaf)
	add.askAll = s.backend.Add
	same := func(v Verb, h micro.Handler) verbEndpoints { return verbEndpoints{v, h, h} }
	for _, e := range []verbEndpoints{
		{VerbCheck, check, check.onAny()},
		{
			VerbRelease, newEndpoint(s, &releaseCodec, s.backend.Release, s.cfg.Leaf),
			newEndpoint(s, &releaseCodec, s.releaseOurs, s.cfg.Leaf),
		},
		same(VerbRefund, newEndpoint(s, &refundCodec, s.backend.Refund, s.cfg.Leaf)),
		{VerbAdd, add, add.onAny()},
		same(VerbGet, newEndpoint(s, &getCodec, s.backend.Get, true)),
		same(VerbList, newEndpoint(s, &listCodec, s.backend.List, true)),
	} {
		if s.cfg.Leaf {
			if err := s.micro.AddEndpoint(endpointName(e.verb, ""), e.any, micro.WithEndpointSubject(s.subjects.Any(e.verb))); err != nil {
				return err
			}
		}
		subject := s.subjects.At(e.verb, s.cfg.Place)
		if err := s.micro.AddEndpoint(endpointName(e.verb, s.cfg.Place), e.named, micro.WithEndpointSubject(subject)); err != nil {
			return err
		}
	}
	if s.cfg.Admin != nil {
		if err := s.registerAdmin(); err != nil {
			return err
		}
	}
	// Whoever sees the service returned may ask it at once, on any connection.
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	return s.nc.FlushWithContext(ctx)
}

// verbEndpoints are the handlers of one verb: on the subject of the place, and on that of any leaf.
type verbEndpoints struct {
	verb       Verb
	named, any micro.Handler
}

// releaseOurs releases a permit of this place. One who asked any leaf is told which place to ask for another's.
func (s *Service) releaseOurs(q ReleaseRequest, done func(ReleaseReply, *Error)) {
	if p, _ := parsePermit(q.Permit); p.place != s.cfg.Place {
		done(ReleaseReply{}, ErrWrongPlace.Errorf("the permit is of %s, and this is %s: ask release.%s",
			p.place, s.cfg.Place, p.place))
		return
	}
	s.backend.Release(q, done)
}

// Stop stops taking requests, and returns when those that came are answered. What comes after gets NATS's no
// responders, or another place's answer. When the context ends first, Stop says what is left; it can be called again,
// and is done once it has returned nil: the backend is not called after that.
func (s *Service) Stop(ctx context.Context) error {
	flush, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	// A connection that is closed or away delivers nothing more, so these two may fail; the gates decide.
	_ = s.micro.Stop()
	settle(flush, s.nc)
	for _, v := range slices.Concat(adminVerbs, verbs) {
		if v == VerbCheck && s.cfg.Drain != nil {
			s.cfg.Drain()
		}
		g := s.endpoints[v].gate
		if err := g.wait(ctx); err != nil {
			return fmt.Errorf("stopping %s: %d of its requests to %s are unanswered: %w",
				s.cfg.Place, g.inside.Load(), v, err)
		}
	}
	return flushAnswers(flush, s.nc, s.cfg.Place)
}
