package transport

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// somePermit is one of eu.de.berlin.
const somePermit = "eu.de.berlin/1f3a5c7e9b2d4f60/7"

// patience is how long a test waits for what must happen. It is long, since how soon it happens is the machine's, too:
// one that is shared may stand still for seconds.
const patience = time.Minute

// fake is a backend made of functions; what a test does not set answers simply.
type fake struct {
	ready   func() *Error
	check   func(CheckRequest, func(CheckReply, *Error))
	release func(ReleaseRequest, func(ReleaseReply, *Error))
	refund  func(RefundRequest, func(RefundReply, *Error))
	add     func(AddRequest, func(AddReply, *Error))
	get     func(GetRequest, func(GetReply, *Error))
	list    func(ListRequest, func(ListReply, *Error))
	calls   atomic.Int64
}

func (f *fake) Ready() *Error {
	if f.ready != nil {
		return f.ready()
	}
	return nil
}

func (f *fake) Check(q CheckRequest, done func(CheckReply, *Error)) {
	f.calls.Add(1)
	if f.check != nil {
		f.check(q, done)
		return
	}
	done(CheckReply{Allowed: true, Place: "eu.de.berlin"}, unknown(q.Namespace))
}

func (f *fake) Release(q ReleaseRequest, done func(ReleaseReply, *Error)) {
	f.calls.Add(1)
	if f.release != nil {
		f.release(q, done)
		return
	}
	done(ReleaseReply{Renew: q.Renew, Done: true, Place: "eu.de.berlin"}, unknown(q.Namespace))
}

func (f *fake) Refund(q RefundRequest, done func(RefundReply, *Error)) {
	f.calls.Add(1)
	if f.refund != nil {
		f.refund(q, done)
		return
	}
	done(RefundReply{Refunded: q.Hits, Place: "eu.de.berlin"}, unknown(q.Namespace))
}

func (f *fake) Add(n int, req func(int) *AddRequest, done func(int, AddReply, *Error)) {
	for i := range n {
		q := *req(i)
		f.calls.Add(1)
		if f.add != nil {
			f.add(q, func(r AddReply, err *Error) { done(i, r, err) })
		} else {
			done(i, AddReply{Total: Total{Added: 1042}, Place: "eu.de.berlin"}, unknown(q.Namespace))
		}
	}
}

func (f *fake) Get(q GetRequest, done func(GetReply, *Error)) {
	f.calls.Add(1)
	if f.get != nil {
		f.get(q, done)
		return
	}
	done(GetReply{Total: Total{Added: 1042}, Place: "eu.de.berlin"}, unknown(q.Namespace))
}

func (f *fake) List(q ListRequest, done func(ListReply, *Error)) {
	f.calls.Add(1)
	if f.list != nil {
		f.list(q, done)
		return
	}
	done(ListReply{Place: "eu.de.berlin"}, unknown(q.Namespace))
}

func unknown(namespace string) *Error {
	if strings.HasPrefix(namespace, "unknown") {
		return ErrUnknownNamespace.Errorf("namespace %q is in no rule", namespace)
	}
	return nil
}

func newServer(tb testing.TB, cfg ServerConfig) *Server {
	tb.Helper()
	cfg.Logger = zerolog.Nop()
	s, err := StartServer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Shutdown)
	return s
}

func connect(tb testing.TB, s *Server, opts ...nats.Option) *nats.Conn {
	tb.Helper()
	nc, err := s.Connect(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// serve starts a leaf, eu.de.berlin unless told, and returns it with a connection to ask it on.
func serve(tb testing.TB, b Backend, change ...func(*ServiceConfig, *ServerConfig)) (*Service, *nats.Conn) {
	tb.Helper()
	cfg := ServiceConfig{Place: "eu.de.berlin", Leaf: true, Version: "0.1.0"}
	server := ServerConfig{}
	for _, c := range change {
		c(&cfg, &server)
	}
	s := newServer(tb, server)
	return serveOn(tb, s, cfg, b), connect(tb, s)
}

func serveOn(tb testing.TB, s *Server, cfg ServiceConfig, b Backend) *Service {
	tb.Helper()
	svc, err := NewService(connect(tb, s), cfg, b)
	if err != nil {
		tb.Fatal(err)
	}
	return svc
}

func ask(tb testing.TB, nc *nats.Conn, subject, body string, header ...string) *nats.Msg {
	tb.Helper()
	msg := &nats.Msg{Subject: subject, Data: []byte(body)}
	for i := 0; i < len(header); i += 2 {
		if msg.Header == nil {
			msg.Header = nats.Header{}
		}
		msg.Header.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		tb.Fatalf("%s %s: %v", subject, body, err)
	}
	return reply
}

// await waits for a channel.
func await[T any](tb testing.TB, c <-chan T, what string) (v T) {
	tb.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		tb.Fatalf("%s did not happen within %v", what, patience)
	}
	return v
}

// Rules makes a fake an [Admin].
func (*fake) Rules(q RulesRequest, done func(RulesReply, *Error)) {
	done(RulesReply{Place: "eu.de.berlin", Version: 7}, nil)
}

// Explain is of an [Admin].
func (*fake) Explain(_ ExplainRequest, done func(ExplainReply, *Error)) {
	done(ExplainReply{Place: "eu.de.berlin"}, nil)
}

// Reset is of an [Admin].
func (*fake) Reset(q ResetRequest, done func(ResetReply, *Error)) {
	done(ResetReply{Place: "eu.de.berlin", Limits: []string{q.Namespace + "/" + q.Key}}, nil)
}

func (*fake) Places(_ PlacesRequest, done func(PlacesReply, *Error)) { done(PlacesReply{}, nil) }

func (*fake) Forget(_ ChildRequest, done func(ForgetReply, *Error)) { done(ForgetReply{}, nil) }

func (*fake) Forfeit(_ ChildRequest, done func(ForfeitReply, *Error)) { done(ForfeitReply{}, nil) }

func (*fake) Backup(_ BackupRequest, done func(BackupReply, *Error)) {
	done(BackupReply{ID: "1", Done: true}, nil)
}

func (*fake) Stats(_ StatsRequest, done func(StatsReply, *Error)) { done(StatsReply{}, nil) }

func (*fake) Join(_ JoinRequest, done func(JoinReply, *Error)) { done(JoinReply{}, nil) }
