package transport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestListIsCutToTheServersMaximum(t *testing.T) {
	reply := ListReply{Place: "eu.de.berlin"}
	for i := range 1000 {
		reply.Keys = append(reply.Keys, KeyTotal{Key: fmt.Sprintf("%04d-%s", i, strings.Repeat(`"`, 100)), Total: Total{Added: 1}})
	}
	b := &fake{list: func(_ ListRequest, done func(ListReply, *Error)) { done(reply, nil) }}
	_, nc := serve(t, b, func(_ *ServiceConfig, s *ServerConfig) { s.MaxPayload = 64 << 10 })
	var got struct {
		Keys []struct{ Key string } `json:"keys"`
		More bool                   `json:"more"`
	}
	data := ask(t, nc, "tributary.list", `{"namespace":"votes","limit":1000}`).Data
	if err := json.Unmarshal(data, &got, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if !got.More || len(got.Keys) == 0 || len(data) < 63<<10 || got.Keys[len(got.Keys)-1].Key != reply.Keys[len(got.Keys)-1].Key {
		t.Errorf("%d bytes with %d keys, more: %v", len(data), len(got.Keys), got.More)
	}
}

func TestBatchWhoseAnswerMayNotFitIsRefusedBeforehand(t *testing.T) {
	b := &fake{}
	_, nc := serve(t, b, func(_ *ServiceConfig, s *ServerConfig) { s.MaxPayload = 64 << 10 })
	reply := ask(t, nc, "tributary.add", batchOf(1000, oneAdd))
	refused(t, reply.Data, reply.Header.Get, ErrTooLarge, "nothing was done; send at most 103,")
	if n := b.calls.Load(); n != 0 {
		t.Errorf("%d adds were done", n)
	}
	if reply := ask(t, nc, "tributary.add", batchOf(103, oneAdd)); reply.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("103 adds: %.300s", reply.Data)
	}
}

func TestAnswerThatDoesNotFitIsAnError(t *testing.T) {
	huge := strings.Repeat("x", 2000)
	b := &fake{
		get:  func(_ GetRequest, done func(GetReply, *Error)) { done(GetReply{Place: huge}, nil) },
		list: func(_ ListRequest, done func(ListReply, *Error)) { done(ListReply{Keys: []KeyTotal{{Key: huge}}}, nil) },
	}
	_, nc := serve(t, b, func(_ *ServiceConfig, s *ServerConfig) { s.MaxPayload = 2000 })
	for subject, body := range map[string]string{
		"tributary.get":  oneCheck,
		"tributary.list": `{"namespace":"votes"}`,
	} {
		reply := ask(t, nc, subject, body)
		refused(t, reply.Data, reply.Header.Get, ErrInternal, "more than the 2000 bytes")
	}
}
