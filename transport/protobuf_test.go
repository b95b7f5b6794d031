package transport

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tributary-io/tributary/transport/tributarypb"
)

// askProtobuf asks in protobuf, and reads the answer into reply.
func askProtobuf(t *testing.T, nc *nats.Conn, subject string, request, reply proto.Message) *nats.Msg {
	t.Helper()
	body, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := nc.RequestMsg(&nats.Msg{Subject: subject, Header: nats.Header{ContentTypeHeader: {ContentTypeProtobuf}}, Data: body}, patience)
	if err != nil {
		t.Fatal(err)
	}
	refused := msg.Header.Get(micro.ErrorCodeHeader) != ""
	if got := msg.Header.Get(ContentTypeHeader); refused && (got != ContentTypeProtobuf || msg.Header.Get(VersionHeader) != "1") || !refused && len(msg.Header) > 0 {
		t.Fatalf("the answer has the headers %v", msg.Header)
	}
	if err := proto.Unmarshal(msg.Data, reply); err != nil {
		t.Fatalf("%q: %v", msg.Data, err)
	}
	return msg
}

func TestMachinesAskInProtobuf(t *testing.T) {
	b := &fake{check: func(q CheckRequest, done func(CheckReply, *Error)) {
		if q.Namespace == "unknown" {
			done(CheckReply{}, unknown(q.Namespace))
			return
		}
		done(CheckReply{Allowed: true, Scope: "city", Remaining: 10 - q.Hits, RetryAfter: q.Wait, Place: "eu.de.berlin"}, nil)
	}}
	_, nc := serve(t, b)
	hits, wait := int64(3), int64(7)
	var checks tributarypb.CheckReplies
	askProtobuf(t, nc, "tributary.check", &tributarypb.Checks{Namespace: "api", Requests: []*tributarypb.Check{
		{Key: "a", Hits: &hits, WaitMs: &wait}, {Key: "b", Namespace: "unknown"}, {Key: "c", Id: "x"}, {},
	}}, &checks)
	if r := checks.Responses; checks.Place != "eu.de.berlin" || checks.Error != nil || len(r) != 4 || !r[0].Allowed || r[0].Scope != "city" ||
		r[0].Remaining != 7 || r[0].RetryAfterMs != 7 || r[1].Error.GetReason() != "unknown_namespace" || r[1].Allowed ||
		r[2].Error.GetReason() != "unsupported_id" || r[3].Error.GetCode() != 400 || !strings.HasPrefix(r[3].Error.GetMessage(), "key is missing") {
		t.Errorf("checks: %+v", &checks)
	}
	var adds tributarypb.AddReplies
	askProtobuf(t, nc, "tributary.add.eu.de.berlin", &tributarypb.Adds{Requests: []*tributarypb.Add{{Namespace: "votes", Key: "a", Delta: -2, Id: "x"}}}, &adds)
	if len(adds.Responses) != 1 || adds.Responses[0].Added != 1042 || adds.Error != nil {
		t.Errorf("add: %+v", &adds)
	}
	// What is wrong with a message, or with its only request, is an error of the whole, and micro's.
	msg := askProtobuf(t, nc, "tributary.add", &tributarypb.Adds{Namespace: "unknown", Requests: []*tributarypb.Add{{Key: "a"}}}, &adds)
	if adds.Error.GetCode() != 404 || len(adds.Responses) != 0 || msg.Header.Get("Nats-Service-Error-Code") != "404" {
		t.Errorf("an unknown namespace: %+v, %v", &adds, msg.Header)
	}
	for name, c := range map[string]struct {
		verb, body, want string
	}{
		"a get":              {"get", "\x0a\x00", "get is asked in JSON"},
		"nothing":            {"add", "", "no requests"},
		"JSON":               {"add", oneAdd, "no protobuf"},
		"half a message":     {"add", "\x12\x05\x12", "at byte 1"},
		"an unknown field":   {"add", "\x1a\x01a", "field 3"},
		"a field of another": {"add", "\x12\x08\x0a\x01v\x12\x01a\x18\x01", "field 3 of type 0 is none that add takes"},
		"too many":           {"add", strings.Repeat("\x12\x00", MaxBatch+1), "split it"},
	} {
		t.Run(name, func(t *testing.T) {
			msg, err := nc.RequestMsg(&nats.Msg{Subject: "tributary." + c.verb, Header: nats.Header{ContentTypeHeader: {ContentTypeProtobuf}}, Data: []byte(c.body)}, patience)
			if err != nil {
				t.Fatal(err)
			}
			var reply tributarypb.AddReplies
			if err := proto.Unmarshal(msg.Data, &reply); err != nil || reply.Error.GetCode() != 400 || !strings.Contains(reply.Error.GetMessage(), c.want) {
				t.Errorf("%+v, %v; want an error with %q", &reply, err, c.want)
			}
		})
	}
}

// TestMachinesAreRefusedInProtobuf, also before anything of the message is read.
func TestMachinesAreRefusedInProtobuf(t *testing.T) {
	_, nc := serve(t, &fake{}, func(c *ServiceConfig, _ *ServerConfig) { c.Place, c.Leaf = "eu.de", false })
	var adds tributarypb.AddReplies
	askProtobuf(t, nc, "tributary.add.eu.de", &tributarypb.Adds{Namespace: "votes", Requests: []*tributarypb.Add{{Key: "a"}}}, &adds)
	if adds.Error.GetReason() != ErrNotServed.Reason {
		t.Errorf("%+v", &adds)
	}
}

func TestProtobufIsReadAsTheLibraryReadsIt(t *testing.T) {
	text := rapid.StringMatching(`[a-z]{1,5}`)
	rapid.Check(t, func(t *rapid.T) {
		checks := &tributarypb.Checks{Namespace: rapid.OneOf(text, rapid.Just("")).Draw(t, "namespace")}
		adds := &tributarypb.Adds{Namespace: checks.Namespace}
		for range rapid.IntRange(1, 3).Draw(t, "requests") {
			check := &tributarypb.Check{Namespace: text.Draw(t, "own"), Key: text.Draw(t, "key"), Id: text.Draw(t, "id")}
			if rapid.Bool().Draw(t, "hits and wait") {
				hits, wait := rapid.Int64Range(0, MaxInteger).Draw(t, "hits"), rapid.Int64Range(0, MaxWait.Milliseconds()).Draw(t, "wait")
				check.Hits, check.WaitMs = &hits, &wait
			}
			checks.Requests = append(checks.Requests, check)
			adds.Requests = append(adds.Requests, &tributarypb.Add{
				Namespace: check.Namespace, Key: check.Key, Id: check.Id, Delta: rapid.Int64Range(-MaxInteger, MaxInteger).Draw(t, "delta"),
			})
		}
		readAsTheLibrary(t, marshalled(t, checks), &checkCodec, libraryChecks)
		readAsTheLibrary(t, marshalled(t, adds), &addCodec, libraryAdds)
	})
}

func marshalled(t rapid.TB, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// readAsTheLibrary holds that what we read of a message is valid, and what the library does.
func readAsTheLibrary[Q comparable, R any](t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte, c *codec[Q, R], library func([]byte) ([]Q, error),
) {
	t.Helper()
	one := new(slot[Q, R])
	read, refused := decodeProtobuf(data, c, one)
	if refused != nil {
		if refused.Code != 400 || refused.Message == "" {
			t.Fatalf("%q: refused by %+v", data, refused)
		}
		return
	}
	want, err := library(data)
	if err != nil {
		for i := range read {
			if read[i].err != nil {
				return // what is no request has its own error, where the library refuses the batch
			}
		}
		t.Fatalf("%q: we read it, and the library says %v", data, err)
	}
	if read == nil {
		read = make([]slot[Q, R], 1)
		read[0].req = one.req
	}
	if len(read) != len(want) {
		t.Fatalf("%q: %d requests, want %d", data, len(read), len(want))
	}
	for i := range read {
		if read[i].err != nil {
			continue
		}
		if err := c.validate(&read[i].req); err != nil || read[i].req != want[i] {
			t.Fatalf("%q: %+v, want %+v, %v", data, read[i].req, want[i], err)
		}
	}
}

func libraryChecks(data []byte) (requests []CheckRequest, err error) {
	var m tributarypb.Checks
	err = proto.Unmarshal(data, &m)
	for _, q := range m.Requests {
		r := CheckRequest{Namespace: or(q.Namespace, m.Namespace), Key: q.Key, Hits: DefaultHits, Wait: RuleWait, ID: q.Id}
		if q.Hits != nil {
			r.Hits = *q.Hits
		}
		if q.WaitMs != nil {
			r.Wait = time.Duration(*q.WaitMs) * time.Millisecond
		}
		requests = append(requests, r)
	}
	return requests, err
}

func libraryAdds(data []byte) (requests []AddRequest, err error) {
	var m tributarypb.Adds
	err = proto.Unmarshal(data, &m)
	for _, q := range m.Requests {
		requests = append(requests, AddRequest{Namespace: or(q.Namespace, m.Namespace), Key: q.Key, Delta: q.Delta, ID: q.Id})
	}
	return requests, err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestLibraryReadsOurProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z]{0,5}`)
		number := rapid.Int64Range(0, MaxInteger)
		duration := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "ms")) * time.Millisecond
		})
		var want []CheckReply
		m := message[CheckRequest, CheckReply]{endpoint: &endpoint[CheckRequest, CheckReply]{codec: &checkCodec, svc: &Service{cfg: ServiceConfig{Place: "eu"}}}}
		m.slots = make([]slot[CheckRequest, CheckReply], rapid.IntRange(1, 3).Draw(t, "replies"))
		for i := range m.slots {
			r := CheckReply{
				Allowed: rapid.Bool().Draw(t, "allowed"), Shadow: rapid.Bool().Draw(t, "shadow"), Reason: text.Draw(t, "reason"), Kind: text.Draw(t, "kind"),
				Scope: text.Draw(t, "scope"), Limit: number.Draw(t, "limit"), Remaining: number.Draw(t, "remaining"), RetryAfter: duration.Draw(t, "retry"),
				Reset: duration.Draw(t, "reset"), Permit: text.Draw(t, "permit"), Hold: duration.Draw(t, "hold"), Place: "eu",
			}
			if rapid.Bool().Draw(t, "error") {
				r = CheckReply{Place: "eu"}
				m.slots[i].err = ErrOverloaded
			}
			m.slots[i].reply, want = r, append(want, r)
		}
		var got tributarypb.CheckReplies
		if err := proto.Unmarshal(m.appendProtobuf(nil), &got); err != nil || got.Place != "eu" || len(got.Responses) != len(want) {
			t.Fatalf("%+v, %v", &got, err)
		}
		for i, r := range got.Responses {
			read := CheckReply{
				Allowed: r.Allowed, Shadow: r.Shadow, Reason: r.Reason, Kind: r.Kind, Scope: r.Scope, Limit: r.Limit, Remaining: r.Remaining,
				RetryAfter: fromMilliseconds(r.RetryAfterMs), Reset: fromMilliseconds(r.ResetMs), Permit: r.Permit, Hold: fromMilliseconds(r.HoldMs), Place: got.Place,
			}
			failed := r.Error.GetReason() == "overloaded" && r.Error.GetCode() == 503 && r.Error.GetRetryAfterMs() == retryAfter.Milliseconds()
			if read != want[i] || failed != (m.slots[i].err != nil) {
				t.Fatalf("%+v, want %+v, %v", r, want[i], m.slots[i].err)
			}
		}
	})
}
