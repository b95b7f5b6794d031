package transport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-io/tributary/limiter"
)

// permits are the rules of what is handed out one at a time, for a day: what is not released is not seen again in a
// test. A check waits for it for as long as is allowed.
func permits(t testing.TB) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"desk": {Wait: "1m", Dedupe: "1h", Limits: []limiter.LimitSpec{{Scope: "city", Concurrency: new(int64(1)), Hold: "24h"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// occupied starts a city whose only permit somebody has, and returns how to give it back.
func occupied(t *testing.T) (w *tree, leave func()) {
	t.Helper()
	w = newTree(t, permits(t), world4...)
	r := must[CheckReply](t)(w.client("eu.de.berlin").Check(t.Context(), "desk", "a"))
	if !r.Allowed {
		t.Fatalf("%+v", r)
	}
	return w, func() {
		t.Helper()
		if r := must[ReleaseReply](t)(w.client("eu.de.berlin").Release(context.Background(), "desk", "a", r.Permit)); !r.Done {
			t.Errorf("%+v", r)
		}
	}
}

// waits returns when so many checks wait at the city.
func waits(t *testing.T, w *tree, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " checks wait"), func() bool { return w.places["eu.de.berlin"].runner.Stats().Waiting == n })
}

// free asks until the permit is to be had, which it is only if somebody gave it back.
func free(t *testing.T, w *tree) {
	t.Helper()
	eventually(t, "the permit that nobody got is released", func() bool {
		return must[CheckReply](t)(w.client("eu.de.berlin").Check(t.Context(), "desk", "a", WithWait(0))).Allowed
	})
}

// TestPermitOfAnAskerThatLeftIsReleased: the NATS server says that nobody hears the answer.
func TestPermitOfAnAskerThatLeftIsReleased(t *testing.T) {
	w, leave := occupied(t)
	gone := connect(t, w.server)
	inbox := gone.NewInbox()
	if _, err := gone.SubscribeSync(inbox); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{`{"namespace":"desk","key":"a"}`, `{"requests":[{"namespace":"desk","key":"a"}]}`} {
		if err := gone.PublishRequest("tributary.check.eu.de.berlin", inbox, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	waits(t, w, 2)
	gone.Close()
	leave()
	free(t, w)
}

// TestPermitThatNobodyWantsToHearOfIsReleased: a check without a subject for its answer.
func TestPermitThatNobodyWantsToHearOfIsReleased(t *testing.T) {
	w := newTree(t, permits(t), world4...)
	nc := connect(t, w.server)
	if err := nc.Publish("tributary.check.eu.de.berlin", []byte(`{"namespace":"desk","key":"a"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was answered", func() bool {
		return w.places["eu.de.berlin"].service.endpoints[VerbCheck].gate.inside.Load() == 0 && awake(w)
	})
	free(t, w)
}

func awake(w *tree) bool { return w.places["eu.de.berlin"].runner.Stats().Awake > 0 }

// TestClientReleasesAPermitThatComesLate: its asker has given up, and the client lives on.
func TestClientReleasesAPermitThatComesLate(t *testing.T) {
	w, leave := occupied(t)
	client, err := NewClient(connect(t, w.server), WithPlace("eu.de.berlin"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 2)
	go func() {
		_, err := client.Check(ctx, "desk", "a", WithWait(MaxWait))
		failed <- err
	}()
	go func() {
		_, err := client.CheckBatch(ctx, []CheckRequest{{Namespace: "desk", Key: "a", Hits: 1, Wait: MaxWait}})
		failed <- err
	}()
	waits(t, w, 2)
	cancel()
	for range 2 {
		if err := await(t, failed, "the check gives up"); !errors.Is(err, context.Canceled) {
			t.Errorf("it was told %v", err)
		}
	}
	leave()
	free(t, w)
}

// TestPermitOfACheckWithAnIDIsKept: it may be asked again, and gets the same permit, though nobody heard the first answer.
func TestPermitOfACheckWithAnIDIsKept(t *testing.T) {
	w, leave := occupied(t)
	client, err := NewClient(connect(t, w.server), WithPlace("eu.de.berlin"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := client.Check(ctx, "desk", "a", WithID("x"), WithWait(MaxWait))
		failed <- err
	}()
	waits(t, w, 1)
	cancel()
	if err := await(t, failed, "the check gives up"); !errors.Is(err, context.Canceled) {
		t.Errorf("it was told %v", err)
	}
	leave()
	again := must[CheckReply](t)(client.Check(t.Context(), "desk", "a", WithID("x"), WithWait(MaxWait)))
	if r := must[ReleaseReply](t)(client.Release(t.Context(), "desk", "a", again.Permit)); !again.Allowed || !r.Done {
		t.Errorf("asked again it gets %+v, which is released: %+v", again, r)
	}
}

// TestPlaceWaitsNoLongerThanItsAsker: the rule lets a check wait for a minute.
func TestPlaceWaitsNoLongerThanItsAsker(t *testing.T) {
	w, _ := occupied(t)
	place := WithPlace("eu.de.berlin")
	for name, ask := range map[string]func() (CheckReply, error){
		"a deadline": func() (CheckReply, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			return must[*Client](t)(NewClient(connect(t, w.server), place)).Check(ctx, "desk", "a")
		},
		"a deadline, and a longer wait": func() (CheckReply, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			return must[*Client](t)(NewClient(connect(t, w.server), place)).Check(ctx, "desk", "a", WithWait(MaxWait))
		},
		"the client's time-out": func() (CheckReply, error) {
			return must[*Client](t)(NewClient(connect(t, w.server), place, WithTimeout(3*time.Second))).Check(t.Context(), "desk", "a")
		},
		"a batch": func() (CheckReply, error) {
			c := must[*Client](t)(NewClient(connect(t, w.server), place, WithTimeout(3*time.Second)))
			r, err := c.CheckBatch(t.Context(), []CheckRequest{{Namespace: "desk", Key: "a", Hits: 1, Wait: RuleWait}})
			if err != nil {
				return CheckReply{}, err
			}
			return r[0].Reply, r[0].Err
		},
	} {
		// It may be late on a slow machine; that it waits at the place for nobody is the fault.
		r, err := ask()
		if err == nil && (r.Allowed || r.Reason != DeniedLimit) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	eventually(t, "no check waits", func() bool { return w.places["eu.de.berlin"].runner.Stats().Waiting == 0 })
}

// TestTimeoutIsInTheHeader: any client may say how long it waits.
func TestTimeoutIsInTheHeader(t *testing.T) {
	got := make(chan time.Duration, 1)
	_, nc := serve(t, &fake{check: func(q CheckRequest, done func(CheckReply, *Error)) {
		got <- q.Timeout
		done(CheckReply{Place: "eu.de.berlin"}, nil)
	}})
	ask(t, nc, "tributary.check", oneCheck, TimeoutHeader, "1500")
	if d := <-got; d != 1500*time.Millisecond {
		t.Errorf("the check is told %v", d)
	}
	for _, wrong := range []string{"", "0", "-1", "2s", "9007199254740992"} {
		reply := ask(t, nc, "tributary.check", oneCheck, TimeoutHeader, wrong)
		refused(t, reply.Data, reply.Header.Get, ErrMalformed, TimeoutHeader)
	}
}

// TestPermitOfAnAnswerThatCannotLeaveIsReleased: it is too large for the server, or the connection is closed.
func TestPermitOfAnAnswerThatCannotLeaveIsReleased(t *testing.T) {
	released := make(chan string, 1)
	var answer func()
	b := &fake{
		check: func(q CheckRequest, done func(CheckReply, *Error)) {
			reply := CheckReply{Allowed: true, Permit: somePermit, Place: "eu.de.berlin"}
			if q.Key == "large" {
				reply.Place = strings.Repeat("x", 2<<20)
				done(reply, nil)
				return
			}
			answer = func() { done(reply, nil) }
			released <- "waits"
		},
		release: func(q ReleaseRequest, done func(ReleaseReply, *Error)) {
			released <- q.Namespace + "/" + q.Key + " " + q.Permit
			done(ReleaseReply{Done: true}, nil)
		},
	}
	svc, nc := serve(t, b)
	ask(t, nc, "tributary.check", `{"namespace":"api","key":"large"}`)
	if got := await(t, released, "a release"); got != "api/large "+somePermit {
		t.Errorf("released was %s", got)
	}
	if err := nc.PublishRequest("tributary.check", nats.NewInbox(), []byte(oneCheck)); err != nil {
		t.Fatal(err)
	}
	await(t, released, "the check")
	svc.nc.Close()
	answer()
	if got := await(t, released, "a release"); got != "api/a "+somePermit {
		t.Errorf("released was %s", got)
	}
}
