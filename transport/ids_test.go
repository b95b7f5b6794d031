package transport

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/limiter"
)

// echoID is a backend whose answer is the id that it was asked with.
func echoID() *fake {
	return &fake{
		check: func(q CheckRequest, done func(CheckReply, *Error)) { done(CheckReply{Allowed: true, Place: q.ID}, nil) },
		add:   func(q AddRequest, done func(AddReply, *Error)) { done(AddReply{Place: q.ID}, nil) },
	}
}

func TestIDComesInTheRequestOrItsHeader(t *testing.T) {
	_, nc := serve(t, echoID())
	const check, add = `{"namespace":"api","key":"a"`, `{"namespace":"votes","key":"a","delta":1`
	for _, c := range []struct{ name, verb, body, header, want string }{
		{"none", "check", check + `}`, "", `{"allowed":true,"place":""}`},
		{"field of a check", "check", check + `,"id":"x"}`, "", `{"allowed":true,"place":"x"}`},
		{"field of an add", "add", add + `,"id":"x"}`, "", `{"total":0,"place":"x"}`},
		{"header of a check", "check", check + `}`, "x y/é", `{"allowed":true,"place":"x y/é"}`},
		{"header of an add", "add", add + `}`, "x", `{"total":0,"place":"x"}`},
		{"both", "add", add + `,"id":"x"}`, "x", `{"total":0,"place":"x"}`},
		{"batch", "add", `{"requests":[` + add + `,"id":"x"},` + add + `},` + add + `,"id":"y"}]}`, "", `{"responses":[{"total":0,"place":"x"},{"total":0,"place":""},{"total":0,"place":"y"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.header != "" {
				header = []string{nats.MsgIdHdr, c.header}
			}
			if got := string(ask(t, nc, "tributary."+c.verb+".eu.de.berlin", c.body, header...).Data); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestHeaderThatIsNoIDOfTheRequestIsRefused(t *testing.T) {
	b := echoID()
	_, nc := serve(t, b)
	const good = `{"namespace":"votes","key":"a","delta":1}`
	for _, c := range []struct {
		name, subject, body string
		ids                 []string
		reason              *Error
		says                string
	}{
		{"another id", "add.eu.de.berlin", `{"namespace":"votes","key":"a","delta":1,"id":"y"}`, []string{"x"}, ErrMalformed, `Nats-Msg-Id is "x" and id is "y"`},
		{"a batch", "add.eu.de.berlin", batchOf(2, good), []string{"x"}, ErrMalformed, "Nats-Msg-Id: a batch as a whole has no id"},
		{"two", "add.eu.de.berlin", good, []string{"x", "x"}, ErrMalformed, "Nats-Msg-Id has 2 values"},
		{"empty", "add.eu.de.berlin", good, []string{""}, ErrOutOfRange, "Nats-Msg-Id is empty"},
		{"too long", "add.eu.de.berlin", good, []string{strings.Repeat("x", 129)}, ErrOutOfRange, "Nats-Msg-Id is 129 bytes long"},
		{"another verb", "get.eu.de.berlin", `{"namespace":"votes","key":"a"}`, []string{"x"}, ErrUnsupportedID, "Nats-Msg-Id: only a check and an add are remembered"},
		{"any city", "add", good, []string{"x"}, ErrUnsupportedID, "a retry on tributary.add may reach another city"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			reply, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: "tributary." + c.subject, Data: []byte(c.body), Header: nats.Header{nats.MsgIdHdr: c.ids}})
			if err != nil {
				t.Fatal(err)
			}
			refused(t, reply.Data, reply.Header.Get, c.reason, c.says)
		})
	}
	if n := b.calls.Load(); n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
}

func TestClientSendsAnIDToOnePlaceOnly(t *testing.T) {
	b := echoID()
	_, nc := serve(t, b)
	ctx := t.Context()
	anywhere, berlin := newClient(t, nc), newClient(t, nc, WithPlace("eu.de.berlin"))
	if r := must[CheckReply](t)(berlin.Check(ctx, "api", "a", WithHits(0), WithID("x\"é"))); r.Place != "x\"é" {
		t.Errorf("check: %+v", r)
	}
	if r := must[AddReply](t)(berlin.Add(ctx, "votes", "a", 1, WithID("y"))); r.Place != "y" {
		t.Errorf("add: %+v", r)
	}
	if r := must[[]Result[AddReply]](t)(berlin.AddBatch(ctx, []AddRequest{{"votes", "a", 1, "1"}, {"votes", "a", 1, ""}})); r[0].Reply.Place != "1" || r[1].Reply.Place != "" {
		t.Errorf("batch: %+v", r)
	}
	calls := b.calls.Load()
	for _, c := range []struct {
		err    error
		reason *Error
		says   string
	}{
		{second(anywhere.Check(ctx, "api", "a", WithID("x"))), ErrUnsupportedID, "WithPlace"},
		{second(anywhere.Add(ctx, "votes", "a", 1, WithID("x"))), ErrUnsupportedID, "WithPlace"},
		{second(anywhere.AddBatch(ctx, []AddRequest{{"votes", "a", 1, ""}, {"votes", "a", 1, "x"}})), ErrUnsupportedID, "request 1 of the batch"},
		{second(berlin.Check(ctx, "api", "a", WithID(""))), ErrOutOfRange, "id is empty"},
		{second(berlin.Add(ctx, "votes", "a", 1, WithID(""))), ErrOutOfRange, "id is empty"},
		{second(berlin.Add(ctx, "votes", "a", 1, WithID("a\x00"))), ErrOutOfRange, "control character"},
	} {
		if !errors.Is(c.err, c.reason) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%v, want %s: …%s…", c.err, c.reason.Reason, c.says)
		}
	}
	if n := b.calls.Load(); n != calls {
		t.Errorf("%d of them were sent", n-calls)
	}
}

// remembering are rules whose namespaces remember requests, but for one.
func remembering(t *testing.T) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes":   {Dedupe: "1h"},
		"forgets": {},
		"api":     {Dedupe: "1h", Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1/h", Burst: new(int64(10))}}},
		"jobs":    {Dedupe: "1h", Limits: []limiter.LimitSpec{{Scope: "city", Concurrency: new(int64(1))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestRetryGetsTheFirstAnswer(t *testing.T) {
	w := newTree(t, remembering(t), world4...)
	c, ctx := w.client("eu.de.berlin"), t.Context()

	first := must[AddReply](t)(c.Add(ctx, "votes", "a", 3, WithID("add")))
	must[AddReply](t)(c.Add(ctx, "votes", "a", 4))
	if again := must[AddReply](t)(c.Add(ctx, "votes", "a", 3, WithID("add"))); again != first || again.Total.String() != "3" {
		t.Errorf("an add: %+v, its retry: %+v", first, again)
	}
	batch := must[[]Result[AddReply]](t)(c.AddBatch(ctx, []AddRequest{{"votes", "b", 1, "b"}, {"votes", "b", 1, "b"}, {"votes", "b", 2, "b"}, {"votes", "b", 5, ""}}))
	if batch[0] != batch[1] || batch[0].Err != nil || !errors.Is(batch[2].Err, ErrIDReused) || batch[3].Reply.Total.String() != "6" {
		t.Errorf("adds under one id in a batch: %+v", batch)
	}

	check := must[CheckReply](t)(c.Check(ctx, "api", "a", WithHits(6), WithID("check"), WithWait(patience)))
	again := must[CheckReply](t)(c.Check(ctx, "api", "a", WithHits(6), WithID("check"), WithWait(0)))
	if !check.Allowed || again != check {
		t.Errorf("a check: %+v, its retry: %+v", check, again)
	}
	if r := must[CheckReply](t)(c.Check(ctx, "api", "a", WithHits(4), WithWait(patience))); !r.Allowed {
		t.Errorf("the retry spent, too: %+v", r)
	}
	// A denial is not remembered.
	if r := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("job"))); !r.Allowed {
		t.Errorf("%+v", r)
	}
	held := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("job")))
	if r := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("next"), WithWait(0))); r.Allowed {
		t.Errorf("two at a time: %+v", r)
	}
	if r := must[ReleaseReply](t)(c.Release(ctx, "jobs", "a", held.Permit)); !r.Done {
		t.Errorf("the permit that a retry got was not released: %+v", r)
	}
	if r := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("next"))); !r.Allowed || r.Permit == held.Permit {
		t.Errorf("%+v", r)
	}

	for _, c := range []struct {
		err    error
		reason *Error
		says   string
	}{
		{second(c.Add(ctx, "votes", "a", 4, WithID("add"))), ErrIDReused, `id "add" was another request's`},
		{second(c.Check(ctx, "votes", "a", WithID("add"))), ErrIDReused, "another request's"},
		{second(c.Add(ctx, "forgets", "a", 1, WithID("add"))), ErrUnsupportedID, "the rule of forgets remembers no ids; give it for example dedupe: 1h"},
		{second(c.Add(ctx, "nowhere", "a", 1, WithID("add"))), ErrUnknownNamespace, "no rule names this namespace"},
	} {
		if !errors.Is(c.err, c.reason) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%v, want %s: …%s…", c.err, c.reason.Reason, c.says)
		}
	}
	eventually(t, "the root has each add once", func() bool {
		return must[GetReply](t)(w.client("global").Get(ctx, "votes", "a")).Total.String() == "7"
	})
}

// TestRememberedPermitOutlivesItsPlace: after a crash, the retry of a check gets the permit that it got, which is gone,
// and not one of the new session's.
func TestRememberedPermitOutlivesItsPlace(t *testing.T) {
	w := newTree(t, remembering(t), world4...)
	c, ctx := w.client("eu.de.berlin"), t.Context()
	first := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("x")))
	if !first.Allowed || first.Permit == "" {
		t.Fatalf("%+v", first)
	}
	if err := w.places["eu.de.berlin"].Kill(); err != nil {
		t.Fatal(err)
	}
	w.start("eu.de.berlin")
	if again := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithID("x"))); again != first {
		t.Errorf("a check: %+v, its retry: %+v", first, again)
	}
	if r := must[ReleaseReply](t)(c.Release(ctx, "jobs", "a", first.Permit)); r.Done {
		t.Errorf("a permit of the session that is gone: %+v", r)
	}
}
