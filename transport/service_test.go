package transport

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

const (
	oneCheck   = `{"namespace":"api","key":"a"}`
	oneRelease = `{"namespace":"api","key":"a","permit":"` + somePermit + `"}`
	oneAdd     = `{"namespace":"votes","key":"a","delta":1}`
)

func TestLeafAnswersOnBothSubjects(t *testing.T) {
	_, nc := serve(t, &fake{})
	for _, c := range []struct{ subject, body, want string }{
		{"tributary.check", oneCheck, `{"allowed":true,"place":"eu.de.berlin"}`},
		{"tributary.check.eu.de.berlin", oneCheck, `{"allowed":true,"place":"eu.de.berlin"}`},
		{"tributary.release", oneRelease, `{"released":true,"place":"eu.de.berlin"}`},
		{"tributary.release.eu.de.berlin", oneRelease, `{"released":true,"place":"eu.de.berlin"}`},
		{"tributary.refund", oneCheck, `{"refunded":1,"place":"eu.de.berlin"}`},
		{"tributary.refund.eu.de.berlin", oneCheck, `{"refunded":1,"place":"eu.de.berlin"}`},
		{"tributary.add", oneAdd, `{"total":1042,"place":"eu.de.berlin"}`},
		{"tributary.add.eu.de.berlin", oneAdd, `{"total":1042,"place":"eu.de.berlin"}`},
		{"tributary.get", oneCheck, `{"place":"eu.de.berlin","total":1042,"views":[]}`},
		{"tributary.get.eu.de.berlin", oneCheck, `{"place":"eu.de.berlin","total":1042,"views":[]}`},
		{"tributary.list", `{"namespace":"votes"}`, `{"place":"eu.de.berlin","keys":[],"more":false}`},
		{"tributary.list.eu.de.berlin", `{"namespace":"votes"}`, `{"place":"eu.de.berlin","keys":[],"more":false}`},
	} {
		reply := ask(t, nc, c.subject, c.body)
		if string(reply.Data) != c.want {
			t.Errorf("%s: %s, want %s", c.subject, reply.Data, c.want)
		}
		if len(reply.Header) > 0 {
			t.Errorf("%s: the answer has the headers %v", c.subject, reply.Header)
		}
		if reply = ask(t, nc, c.subject, c.body, VersionHeader, "1"); len(reply.Header) != 1 || reply.Header.Get(VersionHeader) != "1" {
			t.Errorf("%s in version 1: the answer has the headers %v", c.subject, reply.Header)
		}
	}
}

func TestInteriorPlaceRefusesChecksAndAdds(t *testing.T) {
	b := &fake{}
	_, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) { c.Place, c.Leaf = "eu.de", false })
	for subject, body := range map[string]string{
		"tributary.check.eu.de":   oneCheck,
		"tributary.release.eu.de": oneRelease,
		"tributary.refund.eu.de":  oneCheck,
		"tributary.add.eu.de":     `{"requests":[` + oneAdd + `]}`,
	} {
		reply := ask(t, nc, subject, body)
		refused(t, reply.Data, reply.Header.Get, ErrNotServed, "eu.de is no leaf")
	}
	for _, subject := range []string{"tributary.get.eu.de", "tributary.list.eu.de"} {
		body := strings.Replace(oneCheck, `,"key":"a"`, "", 1)
		if strings.Contains(subject, "get") {
			body = oneCheck
		}
		if reply := ask(t, nc, subject, body); reply.Header.Get("Nats-Service-Error-Code") != "" {
			t.Errorf("%s: %s", subject, reply.Data)
		}
	}
	if _, err := nc.Request("tributary.get", []byte(oneCheck), patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("an interior place answers on the general subject: %v", err)
	}
}

func TestNotReadyIsToldToEveryRequest(t *testing.T) {
	_, nc := serve(t, &fake{ready: func() *Error { return ErrFenced.Errorf("session 7 serves the place") }})
	for _, subject := range []string{"tributary.check", "tributary.add", "tributary.get", "tributary.list"} {
		reply := ask(t, nc, subject, oneCheck)
		refused(t, reply.Data, reply.Header.Get, ErrFenced, "session 7")
	}
}

func TestBatchIsAskedAndAnsweredInOrder(t *testing.T) {
	var asked []string
	var later []func()
	b := &fake{add: func(q AddRequest, done func(AddReply, *Error)) {
		asked = append(asked, q.Key)
		answer := func() { done(AddReply{Total: Total{Added: uint64(q.Delta)}, Place: "x"}, unknown(q.Namespace)) }
		if q.Delta%2 == 0 {
			answer()
			return
		}
		later = append(later, answer)
		if len(later) == 2 {
			go func() { // the answers come late, and the last one first
				later[1]()
				later[0]()
			}()
		}
	}}
	_, nc := serve(t, b)
	reply := ask(t, nc, "tributary.add", `{"requests":[`+
		`{"namespace":"votes","key":"a","delta":1},`+
		`{"namespace":"votes","key":"b","delta":2},`+
		`{"namespace":"unknown","key":"c","delta":3},`+
		`{"namespace":"votes","key":"d","delta":4}]}`)
	want := `{"responses":[{"total":1,"place":"x"},{"total":2,"place":"x"},` +
		`{"error":{"code":404,"reason":"unknown_namespace","message":"namespace \"unknown\" is in no rule"}},` +
		`{"total":4,"place":"x"}]}`
	if string(reply.Data) != want {
		t.Errorf("got  %s\nwant %s", reply.Data, want)
	}
	if got := strings.Join(asked, ""); got != "abcd" {
		t.Errorf("asked in the order %s", got)
	}
}

// The answer of a durable add comes long after the handler has returned; the next request must not wait for it.
func TestLateAnswerHoldsNobodyUp(t *testing.T) {
	held := make(chan func(), 1)
	b := &fake{add: func(q AddRequest, done func(AddReply, *Error)) {
		if q.Key == "slow" {
			held <- func() { done(AddReply{Place: "x"}, ErrStorage.Errorf("the disk is full")) }
			return
		}
		done(AddReply{Place: "x"}, nil)
	}}
	_, nc := serve(t, b)
	slow := make(chan *nats.Msg, 1)
	sub, err := nc.ChanSubscribe(nc.NewInbox(), slow)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("tributary.add", sub.Subject, []byte(strings.Replace(oneAdd, `"a"`, `"slow"`, 1))); err != nil {
		t.Fatal(err)
	}
	answer := await(t, held, "the slow add")
	if reply := ask(t, nc, "tributary.add", oneAdd); string(reply.Data) != `{"total":0,"place":"x"}` {
		t.Errorf("the quick add: %s", reply.Data)
	}
	go func() {
		answer()
		answer() // a second answer is nobody's
	}()
	reply := await(t, slow, "the slow add's answer")
	refused(t, reply.Data, reply.Header.Get, ErrStorage, "the disk is full")
	ask(t, nc, "tributary.add", oneAdd)
	if n := len(slow); n != 0 {
		t.Errorf("%d more answers came", n)
	}
}

func TestOverloadIsRefusedAndPasses(t *testing.T) {
	held := make(chan func(), MaxBatch)
	var free atomic.Bool
	b := &fake{check: func(_ CheckRequest, done func(CheckReply, *Error)) {
		answer := func() { done(CheckReply{Allowed: true, Place: "x"}, nil) }
		if free.Load() {
			answer()
			return
		}
		held <- answer
	}}
	svc, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) { c.MaxInFlight = MaxBatch })
	answers := make(chan *nats.Msg, 1)
	sub, err := nc.ChanSubscribe(nc.NewInbox(), answers)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("tributary.check", sub.Subject, []byte(batchOf(MaxBatch, oneCheck))); err != nil {
		t.Fatal(err)
	}
	// The server hands requests on in order, so this one finds the room taken.
	reply := ask(t, nc, "tributary.check", oneCheck)
	refused(t, reply.Data, reply.Header.Get, ErrOverloaded, "1000 requests are in flight here and at most 1000 may be")
	// Other verbs have room of their own.
	if reply := ask(t, nc, "tributary.add", oneAdd); reply.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("add: %s", reply.Data)
	}
	free.Store(true)
	for range MaxBatch {
		go await(t, held, "a check of the batch")()
	}
	if reply := await(t, answers, "the batch's answer"); bytes.Count(reply.Data, []byte(`"allowed":true`)) != MaxBatch {
		t.Errorf("%.200s", reply.Data)
	}
	// The batch leaves just after its answer.
	for svc.endpoints[VerbCheck].gate.inside.Load() != 0 {
		runtime.Gosched()
	}
	if reply := ask(t, nc, "tributary.check", oneCheck); reply.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("after the overload: %s", reply.Data)
	}
}

func TestCrowdedPlaceLetsNoMoreChecksWait(t *testing.T) {
	var mu sync.Mutex
	waiting := 0
	var held []func()
	b := &fake{check: func(q CheckRequest, done func(CheckReply, *Error)) {
		if q.Wait == 0 {
			done(CheckReply{Allowed: true, Place: "now"}, nil)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		waiting++
		held = append(held, func() { done(CheckReply{Reason: DeniedShare, Place: "x"}, nil) })
	}}
	_, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) { c.MaxInFlight = MaxBatch })
	if err := nc.PublishRequest("tributary.check", nc.NewInbox(), []byte(batchOf(MaxBatch/2, oneCheck))); err != nil {
		t.Fatal(err)
	}
	if reply := ask(t, nc, "tributary.check", oneCheck); string(reply.Data) != `{"allowed":true,"place":"now"}` {
		t.Errorf("the check beyond half of the room: %s", reply.Data)
	}
	mu.Lock()
	defer mu.Unlock()
	if waiting != MaxBatch/2 {
		t.Errorf("%d checks wait", waiting)
	}
	for _, answer := range held {
		answer()
	}
}

func TestPanicIsAnswered(t *testing.T) {
	panics := make(chan any, 8)
	b := &fake{
		check: func(q CheckRequest, done func(CheckReply, *Error)) {
			if q.Key == "after" {
				done(CheckReply{Allowed: true, Place: "x"}, nil)
			}
			if q.Key != "a" {
				panic("oh " + q.Key)
			}
			done(CheckReply{Allowed: true, Place: "x"}, nil)
		},
	}
	_, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) {
		c.Observe.Panic = func(v Verb, value any, stack []byte) {
			if !bytes.Contains(stack, []byte("service_test.go")) {
				t.Errorf("the stack does not say where: %s", stack)
			}
			panics <- value
		}
	})
	reply := ask(t, nc, "tributary.check", `{"namespace":"api","key":"no"}`)
	refused(t, reply.Data, reply.Header.Get, ErrInternal, "may have been done")
	if v := await(t, panics, "the report of a panic"); v != "oh no" {
		t.Errorf("reported %v", v)
	}
	if got := string(ask(t, nc, "tributary.check", `{"namespace":"api","key":"after"}`).Data); got != `{"allowed":true,"place":"x"}` {
		t.Errorf("a panic after the answer: %s", got)
	}
	got := string(ask(t, nc, "tributary.check", `{"requests":[`+oneCheck+`,{"namespace":"api","key":"no"},`+oneCheck+`]}`).Data)
	if strings.Count(got, `{"allowed":true,"place":"x"}`) != 2 || strings.Count(got, `"code":500`) != 1 {
		t.Errorf("a batch with a panic: %s", got)
	}
}

func TestReadyThatPanicsIsAnswered(t *testing.T) {
	_, nc := serve(t, &fake{ready: func() *Error { panic("oh no") }})
	reply := ask(t, nc, "tributary.check", oneCheck)
	refused(t, reply.Data, reply.Header.Get, ErrInternal, "failed")
}

func TestStopAnswersWhatCameAndTakesNoMore(t *testing.T) {
	held := make(chan func(), 1)
	b := &fake{add: func(_ AddRequest, done func(AddReply, *Error)) {
		held <- func() { done(AddReply{Place: "x"}, nil) }
	}}
	svc, nc := serve(t, b)
	answers := make(chan *nats.Msg, 1)
	sub, err := nc.ChanSubscribe(nc.NewInbox(), answers)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("tributary.add", sub.Subject, []byte(oneAdd)); err != nil {
		t.Fatal(err)
	}
	answer := await(t, held, "the add")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := svc.Stop(ended); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 of its requests to add") {
		t.Errorf("a stop that may not wait: %v", err)
	}
	stopped := make(chan error, 2)
	for range 2 {
		go func() { stopped <- svc.Stop(t.Context()) }()
	}
	// The subscriptions go first.
	if _, err := nc.Request("tributary.check", []byte(oneCheck), patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a check while stopping: %v", err)
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the answer: %v", err)
	default:
	}
	answer()
	for range 2 {
		if err := await(t, stopped, "the stop"); err != nil {
			t.Error(err)
		}
	}
	if reply := await(t, answers, "the answer"); string(reply.Data) != `{"total":0,"place":"x"}` {
		t.Errorf("%s", reply.Data)
	}
	if err := svc.Stop(t.Context()); err != nil {
		t.Errorf("stopped again: %v", err)
	}
}

func TestStopUnderLoadLosesNoAnswer(t *testing.T) {
	svc, nc := serve(t, &fake{add: func(_ AddRequest, done func(AddReply, *Error)) {
		go done(AddReply{Place: "x"}, nil)
	}})
	var group sync.WaitGroup
	started := make(chan struct{}, 1)
	for range 8 {
		group.Go(func() {
			for {
				reply, err := nc.Request("tributary.add", []byte(oneAdd), patience)
				if errors.Is(err, nats.ErrNoResponders) {
					return
				}
				if err != nil || string(reply.Data) != `{"total":0,"place":"x"}` {
					t.Errorf("%v, %v", reply, err)
					return
				}
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 100 {
		await(t, started, "an answer")
	}
	if err := svc.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func TestStopAfterTheConnectionClosed(t *testing.T) {
	s := newServer(t, ServerConfig{})
	nc := connect(t, s)
	svc, err := NewService(nc, ServiceConfig{Place: "eu", Version: "0.1.0"}, &fake{})
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := svc.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	s := newServer(t, ServerConfig{})
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	svc, err := NewService(nc, ServiceConfig{Place: "eu", Version: "0.1.0"}, &fake{})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	nc.Close()
	s.Shutdown()
	goleak.VerifyNone(t, ignore)
}

func TestTwoCitiesShareTheGeneralSubject(t *testing.T) {
	s := newServer(t, ServerConfig{})
	nc := connect(t, s)
	for _, place := range []string{"eu.de.berlin", "eu.de.munich"} {
		serveOn(t, s, ServiceConfig{Place: place, Leaf: true, Version: "0.1.0"}, &fake{
			check: func(_ CheckRequest, done func(CheckReply, *Error)) {
				done(CheckReply{Allowed: true, Place: place}, nil)
			},
		})
	}
	seen := map[string]int{}
	const checks = 200
	for range checks {
		var r struct{ Place string }
		if err := json.Unmarshal(ask(t, nc, "tributary.check", oneCheck).Data, &r, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatal(err)
		}
		seen[r.Place]++
	}
	if seen["eu.de.berlin"]+seen["eu.de.munich"] != checks || len(seen) != 2 {
		t.Errorf("answers came from %v", seen)
	}
	if got := string(ask(t, nc, "tributary.check.eu.de.munich", oneCheck).Data); !strings.Contains(got, "munich") {
		t.Errorf("the named place: %s", got)
	}
}

func TestServiceRefusesBadConfiguration(t *testing.T) {
	nc := connect(t, newServer(t, ServerConfig{}))
	for says, cfg := range map[string]ServiceConfig{
		"place":         {Place: "EU", Version: "0.1.0"},
		"subject prefi": {Place: "eu", Prefix: "a b", Version: "0.1.0"},
		"batch":         {Place: "eu", MaxInFlight: 7, Version: "0.1.0"},
		"version":       {Place: "eu", Version: "devel"},
	} {
		if _, err := NewService(nc, cfg, &fake{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
