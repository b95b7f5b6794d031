package transport

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go/micro"
)

func TestMicroShowsThePlace(t *testing.T) {
	svc, nc := serve(t, &fake{})
	ask(t, nc, "tributary.check", oneCheck)
	ask(t, nc, "tributary.check", `{}`)
	var info micro.Info
	if err := json.Unmarshal(ask(t, nc, "$SRV.INFO.tributary", "").Data, &info); err != nil {
		t.Fatal(err)
	}
	if info.Metadata["place"] != "eu.de.berlin" || info.Name != "tributary" || info.Version != "0.1.0" {
		t.Errorf("%+v", info.ServiceIdentity)
	}
	names := map[string]string{}
	for _, e := range info.Endpoints {
		if strings.Contains(e.Name, ".") || names[e.Name] != "" || e.QueueGroup != "tributary" {
			t.Errorf("endpoint %+v", e)
		}
		names[e.Name] = e.Subject
	}
	if len(names) != 12 || names["check"] != "tributary.check" || names["check_eu_de_berlin"] != "tributary.check.eu.de.berlin" {
		t.Errorf("endpoints %v", names)
	}
	// Micro counts a request when its handler has returned, which is after its answer: a stop waits for both.
	if err := svc.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := svc.endpoints[VerbCheck].errors.Load(); n != 1 {
		t.Errorf("%d errors are counted", n)
	}
}

func TestStatsCountErrors(t *testing.T) {
	b := &fake{}
	_, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) { c.Admin = b })
	ask(t, nc, "tributary.check", `{}`)
	ask(t, nc, "tributary.admin.rules.eu.de.berlin", `{"version":1}`)
	type endpoint struct {
		Name string `json:"name"`
		Data struct {
			InFlight int `json:"in_flight"`
			Errors   int `json:"errors"`
		} `json:"data"`
	}
	// A request is counted when its handler has returned, which is after its answer.
	eventually(t, "each error is counted where it was, and nothing is in flight", func() bool {
		var stats struct {
			Endpoints []endpoint `json:"endpoints"`
		}
		if err := json.Unmarshal(ask(t, nc, "$SRV.STATS.tributary", "").Data, &stats); err != nil {
			t.Fatal(err)
		}
		return len(stats.Endpoints) > 0 && !slices.ContainsFunc(stats.Endpoints, func(e endpoint) bool {
			want := 0
			if strings.HasPrefix(e.Name, "check") || e.Name == "admin_rules" {
				want = 1
			}
			return e.Data.Errors != want || e.Data.InFlight != 0
		})
	})
}

func TestObserverIsToldOutcomes(t *testing.T) {
	var mu sync.Mutex
	var told []string
	messages := make(chan int, 8)
	b := &fake{check: func(q CheckRequest, done func(CheckReply, *Error)) {
		done(CheckReply{Allowed: q.Hits < 5, Reason: DeniedLimit, Place: "x"}, unknown(q.Namespace))
	}}
	svc, nc := serve(t, b, func(c *ServiceConfig, _ *ServerConfig) {
		c.Observe = Observer{
			Operation: func(v Verb, namespace, outcome string) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprintf("%s/%s/%s", v, namespace, outcome))
			},
			Message: func(_ Verb, n int, took time.Duration) {
				if took <= 0 {
					t.Errorf("it took %v", took)
				}
				messages <- n
			},
		}
	})
	ask(t, nc, "tributary.check", `{"requests":[`+oneCheck+`,{"namespace":"api","key":"a","hits":5},{"namespace":"unknown1","key":"a"},{"namespace":"API","key":"a"}]}`)
	ask(t, nc, "tributary.check", `oops`)
	if err := svc.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := "check/api/allowed check/api/limit check//unknown_namespace check//out_of_range check//malformed"
	if got := strings.Join(told, " "); got != want {
		t.Errorf("told %s\nwant %s", got, want)
	}
	if a, b := <-messages, <-messages; a != 4 || b != 1 {
		t.Errorf("messages of %d and %d", a, b)
	}
}
