package transport

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func newClient(tb testing.TB, nc *nats.Conn, opts ...Option) *Client {
	tb.Helper()
	c, err := NewClient(nc, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestClientReadsWhatThePlaceSays(t *testing.T) {
	check := CheckReply{Reason: DeniedLimit, Scope: "global", Limit: 1000, Remaining: 3, RetryAfter: 12 * time.Millisecond, Place: "eu.de.berlin"}
	permitted := CheckReply{
		Allowed: true, Shadow: true, Reason: DeniedLimit, Kind: "concurrency", Scope: "city", Limit: 3, Remaining: 2, RetryAfter: time.Millisecond,
		Reset: 2 * time.Millisecond, Permit: somePermit, Hold: 30 * time.Second, Place: "eu.de.berlin",
	}
	get := GetReply{Place: "eu.de.berlin", Total: Total{Added: 1<<64 - 1}, Views: []View{{
		Place: "eu.de", Total: Total{Removed: 7}, Through: time.Date(2026, 1, 2, 15, 4, 5, 123e6, time.UTC), Age: 8 * time.Millisecond, Behind: 1,
	}}}
	list := ListReply{Place: "eu.de.berlin", Keys: []KeyTotal{{"a\"é", Total{Added: 1}}}, More: true}
	asked := make(chan any, 4)
	b := &fake{
		check: func(q CheckRequest, done func(CheckReply, *Error)) {
			asked <- q
			if q.Key == "permit" {
				done(permitted, nil)
				return
			}
			done(check, nil)
		},
		release: func(q ReleaseRequest, done func(ReleaseReply, *Error)) {
			asked <- q
			done(ReleaseReply{q.Renew, q.Key == "held", "x"}, nil)
		},
		refund: func(q RefundRequest, done func(RefundReply, *Error)) {
			asked <- q
			done(RefundReply{q.Hits - 1, "x"}, nil)
		},
		add:  func(q AddRequest, done func(AddReply, *Error)) { asked <- q; done(AddReply{Total{3, 5}, "x"}, nil) },
		get:  func(q GetRequest, done func(GetReply, *Error)) { asked <- q; done(get, nil) },
		list: func(q ListRequest, done func(ListReply, *Error)) { asked <- q; done(list, nil) },
	}
	_, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) { c.Prefix = "other" })
	ctx := t.Context()
	for _, c := range []*Client{newClient(t, nc, WithPrefix("other")), newClient(t, nc, WithPrefix("other"), WithPlace("eu.de.berlin"))} {
		for _, try := range []struct {
			call func() (any, error)
			want any
			sent any
		}{
			{func() (any, error) { return c.Check(ctx, "api", "a\"é") }, check, CheckRequest{"api", "a\"é", 1, RuleWait, "", 0}},
			{func() (any, error) { return c.Check(ctx, "api", "permit", WithWait(RuleWait)) }, permitted, CheckRequest{"api", "permit", 1, RuleWait, "", 0}},
			{func() (any, error) { return c.Check(ctx, "api", "a", WithHits(0), WithWait(1)) }, check, CheckRequest{"api", "a", 0, time.Millisecond, "", 0}},
			{func() (any, error) { return c.Release(ctx, "api", "held", somePermit) }, ReleaseReply{false, true, "x"}, ReleaseRequest{"api", "held", somePermit, false}},
			{func() (any, error) { return c.Release(ctx, "api", "gone", somePermit) }, ReleaseReply{false, false, "x"}, ReleaseRequest{"api", "gone", somePermit, false}},
			{func() (any, error) { return c.Renew(ctx, "api", "held", somePermit) }, ReleaseReply{true, true, "x"}, ReleaseRequest{"api", "held", somePermit, true}},
			{func() (any, error) { return c.Renew(ctx, "api", "gone", somePermit) }, ReleaseReply{true, false, "x"}, ReleaseRequest{"api", "gone", somePermit, true}},
			{func() (any, error) { return c.Refund(ctx, "api", "a", 3) }, RefundReply{2, "x"}, RefundRequest{"api", "a", 3}},
			{func() (any, error) { return c.Add(ctx, "votes", "a", -2) }, AddReply{Total{0, 2}, "x"}, AddRequest{"votes", "a", -2, ""}},
			{func() (any, error) { return c.Get(ctx, "votes", "a") }, get, GetRequest{"votes", "a"}},
			{func() (any, error) { return c.List(ctx, ListRequest{Namespace: "votes", After: "é"}) }, list, ListRequest{"votes", "", "é", 100}},
		} {
			got, err := try.call()
			if err != nil || !reflect.DeepEqual(got, try.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, try.want)
			}
			sent := <-asked
			if q, checks := sent.(CheckRequest); checks {
				q.Timeout = 0 // however long it is
				sent = q
			}
			if sent != try.sent {
				t.Errorf("sent %+v, want %+v", sent, try.sent)
			}
		}
	}
}

func TestClientBatch(t *testing.T) {
	_, nc := serve(t, &fake{})
	c := newClient(t, nc)
	results, err := c.AddBatch(t.Context(), []AddRequest{{"votes", "a", 1, ""}, {"unknown", "b", 1, ""}, {"votes", "c", 0, ""}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if wrong := i == 1; errors.Is(r.Err, ErrUnknownNamespace) != wrong || (r.Err != nil) != wrong || (r.Reply.Total.String() == "1042") == wrong {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	checks, err := c.CheckBatch(t.Context(), []CheckRequest{{Namespace: "api", Key: "a"}})
	if err != nil || len(checks) != 1 || !checks[0].Reply.Allowed || checks[0].Err != nil {
		t.Errorf("%+v, %v", checks, err)
	}
	gets, err := c.GetBatch(t.Context(), []GetRequest{{"votes", "a"}, {"votes", "b"}})
	if err != nil || len(gets) != 2 || gets[1].Reply.Place != "eu.de.berlin" {
		t.Errorf("%+v, %v", gets, err)
	}
	if _, err := c.AddBatch(t.Context(), nil); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("an empty batch: %v", err)
	}
	if _, err := c.AddBatch(t.Context(), make([]AddRequest, 1001)); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("a batch of 1,001: %v", err)
	}
	if _, err := c.AddBatch(t.Context(), []AddRequest{{"votes", "a", 1, ""}, {"votes", "\xff", 1, ""}}); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "request 1 of the batch") {
		t.Errorf("a batch with a bad key: %v", err)
	}
}

func TestClientTellsErrorsApart(t *testing.T) {
	held := make(chan func(), 8)
	b := &fake{
		check: func(CheckRequest, func(CheckReply, *Error)) {},
		get: func(_ GetRequest, done func(GetReply, *Error)) {
			done(GetReply{}, ErrOverloaded.Errorf("no").After(70*time.Millisecond))
		},
		add: func(_ AddRequest, done func(AddReply, *Error)) { held <- func() { done(AddReply{}, nil) } },
	}
	_, nc := serve(t, b)
	ctx := t.Context()
	c := newClient(t, nc)

	_, err := c.Get(ctx, "votes", "a")
	if e, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrOverloaded) || e.Code != 503 || e.RetryAfter != 70*time.Millisecond || errors.Is(err, ErrNoResponders) {
		t.Errorf("our 503: %#v", err)
	}
	nobody := newClient(t, nc, WithPlace("eu.fr.paris"))
	_, err = nobody.Get(ctx, "votes", "a")
	if !errors.Is(err, ErrNoResponders) || !errors.Is(err, nats.ErrNoResponders) || errors.Is(err, ErrOverloaded) ||
		!strings.Contains(err.Error(), "nobody listens on tributary.get.eu.fr.paris: is a tributary serving there?") {
		t.Errorf("NATS's 503: %v", err)
	}
	_, err = newClient(t, nc, WithTimeout(100*time.Millisecond)).Add(ctx, "votes", "a", 1)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "may have been done") {
		t.Errorf("a timeout: %v", err)
	}
	await(t, held, "the add that timed out")()
	ended, cancel := context.WithCancel(ctx)
	go func() {
		answer := <-held
		cancel()
		answer()
	}()
	if _, err := c.Add(ended, "votes", "a", 1); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("cancelled: %v", err)
	}
	for _, bad := range []error{
		second(c.Check(ctx, "API", "a")), second(c.Check(ctx, "api", "a", WithHits(-1))), second(c.Check(ctx, "api", "a", WithWait(-1))),
		second(c.Refund(ctx, "api", "a", -1)), second(c.Add(ctx, "votes", "a", MaxInteger+1)), second(c.Get(ctx, "votes", "")), second(c.List(ctx, ListRequest{"votes", "", "", 1001})),
	} {
		if !errors.Is(bad, ErrOutOfRange) {
			t.Errorf("%v", bad)
		}
	}
}

func TestClientWaitsAsLongAsItsCheckMay(t *testing.T) {
	_, nc := serve(t, &fake{check: func(_ CheckRequest, done func(CheckReply, *Error)) {
		time.AfterFunc(100*time.Millisecond, func() { done(CheckReply{Allowed: true, Place: "x"}, nil) })
	}})
	c := newClient(t, nc, WithTimeout(10*time.Millisecond))
	if _, err := c.Check(t.Context(), "api", "a", WithWait(patience)); err != nil {
		t.Error(err)
	}
	if _, err := c.CheckBatch(t.Context(), []CheckRequest{{"api", "a", 1, 0, "", 0}, {"api", "a", 1, patience, "", 0}}); err != nil {
		t.Error(err)
	}
	if _, err := c.Check(t.Context(), "api", "a", WithWait(0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a check that does not wait: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestClientRefusesStrangers(t *testing.T) {
	nc := connect(t, newServer(t, ServerConfig{}))
	answer := nats.NewMsg("")
	sub, err := nc.Subscribe("tributary.get", func(m *nats.Msg) { _ = m.RespondMsg(answer) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	c := newClient(t, nc)
	for _, try := range []struct {
		header nats.Header
		body   string
		says   string
	}{
		{nats.Header{}, `{"total":1,"views":[]}`, "no tributary"},
		{nats.Header{}, `{"place":"x","total":"many","views":[]}`, "cannot be read"},
		{nats.Header{VersionHeader: {"2"}}, `{}`, "version \"2\""},
		{nats.Header{VersionHeader: {"1"}}, `oops`, "cannot be read"},
		{nats.Header{VersionHeader: {"1"}}, `{"total":1.5}`, "cannot be read"},
		{nats.Header{VersionHeader: {"1"}, "Nats-Service-Error-Code": {"418"}, "Nats-Service-Error": {"teapot"}}, ``, "418 unknown: teapot"},
		{nats.Header{VersionHeader: {"1"}, "Nats-Service-Error-Code": {"x"}}, ``, `error code "x"`},
	} {
		*answer = nats.Msg{Header: try.header, Data: []byte(try.body)}
		if _, err := c.Get(t.Context(), "votes", "a"); err == nil || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%v %s: %v", try.header, try.body, err)
		}
	}
	*answer = nats.Msg{Header: nats.Header{VersionHeader: {"1"}}, Data: []byte(`{"place":"x","total":1,"views":[],"news":{"a":1}}`)}
	if r, err := c.Get(t.Context(), "votes", "a"); err != nil || r.Place != "x" {
		t.Errorf("a reply that gained a field: %+v, %v", r, err)
	}
}

// TestClientKnowsStrangers: what answers with an empty object is not taken for a place that denies, or has nothing.
func TestClientKnowsStrangers(t *testing.T) {
	nc := connect(t, newServer(t, ServerConfig{}))
	for subject, answer := range map[string]string{
		"tributary.check": `{}`, "tributary.get": `{"responses":[{},{"place":"x"}]}`, "tributary.admin.places.global": `{}`, "tributary.object.note": `hello`,
	} {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, nc)
	stranger := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, errStranger) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stranger("a check", second(c.Check(t.Context(), "api", "a")))
	stranger("an operator's question", second(c.Places(t.Context())))
	stranger("a request to an object", second(c.Objects("note", nil).Ask(t.Context(), "a", ObjectRequest{})))
	of := GetRequest{Namespace: "votes", Key: "a"}
	switch results, err := c.GetBatch(t.Context(), []GetRequest{of, of}); {
	case err != nil:
		t.Error(err)
	case results[1].Err != nil:
		t.Error(results[1].Err)
	default:
		stranger("the first of a batch", results[0].Err)
	}
}

func TestClientRefusesBadOptions(t *testing.T) {
	for _, opt := range []Option{WithPlace("eu.*"), WithPlace(""), WithPrefix(">"), WithTimeout(0)} {
		if _, err := NewClient(nil, opt); err == nil {
			t.Error("a bad option is taken")
		}
	}
}
