package transport

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tributary-io/tributary/tiers"
)

type jsonValue = jsontext.Value

func TestRequestDefaultsAndBounds(t *testing.T) {
	key := strings.Repeat("é", 256)
	for _, c := range []struct {
		body string
		want CheckRequest
	}{
		{`{"namespace":"api","key":"a"}`, CheckRequest{"api", "a", 1, RuleWait, "", 0}},
		{` { "wait_ms" : 0 , "hits" : 0 , "key" : "a" , "namespace" : "api" } `, CheckRequest{"api", "a", 0, 0, "", 0}},
		{`{"namespace":"a_-9","key":"` + key + `","hits":9007199254740991,"wait_ms":60000}`, CheckRequest{"a_-9", key, MaxInteger, time.Minute, "", 0}},
		{`{"n\u0061mespace":"api","key":"\u0061\"\\/\ud83d\ude00\ufffd","hits":-0}`, CheckRequest{"api", "a\"\\/😀\ufffd", 0, RuleWait, "", 0}},
	} {
		one, batch, err := decoded([]byte(c.body), &checkCodec)
		if err != nil || batch != nil || one.req != c.want {
			t.Errorf("%s: %+v, %v, %v", c.body, one, batch, err)
		}
	}
	one, _, err := decoded([]byte(`{"namespace":"votes"}`), &listCodec)
	if want := (ListRequest{Namespace: "votes", Limit: 100}); err != nil || one.req != want {
		t.Errorf("list: %+v, %v", one.req, err)
	}
	for body, want := range map[string]CheckRequest{
		`{"namespace":"api","key":"a","id":"x"}`:                          {"api", "a", 1, RuleWait, "x", 0},
		`{"id":"` + key[:128] + `","key":"a","namespace":"api","hits":2}`: {"api", "a", 2, RuleWait, key[:128], 0},
	} {
		if one, _, err := decoded([]byte(body), &checkCodec); err != nil || one.req != want {
			t.Errorf("%s: %+v, %v", body, one.req, err)
		}
	}
	add, _, err := decoded([]byte(`{"namespace":"votes","key":"a","delta":-9007199254740991}`), &addCodec)
	if want := (AddRequest{"votes", "a", -MaxInteger, ""}); err != nil || add.req != want {
		t.Errorf("add: %+v, %v", add.req, err)
	}
	for body, want := range map[string]ReleaseRequest{
		`{"namespace":"api","key":"a","permit":"` + somePermit + `"}`:               {"api", "a", somePermit, false},
		`{"namespace":"api","key":"a","permit":"` + somePermit + `","renew":false}`: {"api", "a", somePermit, false},
		`{"renew":true,"namespace":"api","key":"a","permit":"` + somePermit + `"}`:  {"api", "a", somePermit, true},
	} {
		if one, _, err := decoded([]byte(body), &releaseCodec); err != nil || one.req != want {
			t.Errorf("%s: %+v, %v", body, one.req, err)
		}
	}
	refund, _, err := decoded([]byte(`{"namespace":"api","key":"a"}`), &refundCodec)
	if want := (RefundRequest{"api", "a", 1}); err != nil || refund.req != want {
		t.Errorf("refund: %+v, %v", refund.req, err)
	}
	_, batch, err := decoded([]byte(batchOf(1000, `{"namespace":"api","key":"a"}`)), &checkCodec)
	if err != nil || len(batch) != 1000 {
		t.Errorf("a batch of 1,000: %d, %v", len(batch), err)
	}
}

// A field that a message lacks must not be filled from the one before it, which the pooled reader held.
func TestDecodedRequestsShareNothing(t *testing.T) {
	_, batch, err := decoded([]byte(`{"requests":[{"namespace":"api","key":"a","hits":7,"wait_ms":9,"id":"x"},{"namespace":"api","key":"b"},{"namespace":"api"}]}`), &checkCodec)
	if err != nil {
		t.Fatal(err)
	}
	if want := (CheckRequest{"api", "b", 1, RuleWait, "", 0}); batch[1].req != want {
		t.Errorf("second: %+v", batch[1].req)
	}
	if batch[2].err == nil {
		t.Error("the third took its key from the second")
	}
}

func TestReplyGolden(t *testing.T) {
	through := time.Date(2026, 1, 2, 15, 4, 5, 123456789, time.FixedZone("", 3600)).Add(time.Hour)
	for _, c := range []struct {
		name  string
		reply interface{ MarshalJSON() ([]byte, error) }
		want  string
	}{
		{"allowed", CheckReply{Allowed: true, Scope: "global", Limit: 1000, Remaining: 412, Place: "eu.de.berlin", RetryAfter: 1}, `{"allowed":true,"scope":"global","limit":1000,"remaining":412,"place":"eu.de.berlin"}`},
		{"allowed, nothing left", CheckReply{Allowed: true, Scope: "city", Limit: 1, Place: "eu"}, `{"allowed":true,"scope":"city","limit":1,"remaining":0,"place":"eu"}`},
		{"no limits", CheckReply{Allowed: true, Place: "eu.de.berlin"}, `{"allowed":true,"place":"eu.de.berlin"}`},
		{"limit", CheckReply{Reason: DeniedLimit, Scope: "global", Limit: 1000, RetryAfter: 11*time.Millisecond + 1, Place: "eu.de.berlin"}, `{"allowed":false,"reason":"limit","scope":"global","limit":1000,"remaining":0,"retry_after_ms":12,"place":"eu.de.berlin"}`},
		{"share", CheckReply{Reason: DeniedShare, Scope: "global", Limit: 1000, Place: "eu.de.berlin"}, `{"allowed":false,"reason":"share","scope":"global","limit":1000,"remaining":0,"place":"eu.de.berlin"}`},
		{"burst", CheckReply{Reason: DeniedBurst, Scope: "city", Limit: 300, Remaining: 300, Place: "eu.de.berlin"}, `{"allowed":false,"reason":"burst","scope":"city","limit":300,"remaining":300,"place":"eu.de.berlin"}`},
		{"spent", CheckReply{Reason: DeniedSpent, Kind: "budget", Scope: "global", Limit: 100, Place: "eu.de.berlin"}, `{"allowed":false,"reason":"spent","kind":"budget","scope":"global","limit":100,"remaining":0,"place":"eu.de.berlin"}`},
		{"quota", CheckReply{Reason: DeniedLimit, Kind: "quota", Scope: "global", Limit: 10000, RetryAfter: time.Hour, Reset: time.Hour, Place: "eu.de.berlin"}, `{"allowed":false,"reason":"limit","kind":"quota","scope":"global","limit":10000,"remaining":0,"retry_after_ms":3600000,"reset_ms":3600000,"place":"eu.de.berlin"}`},
		{"shadow", CheckReply{Allowed: true, Shadow: true, Reason: DeniedLimit, Scope: "city", Limit: 5, RetryAfter: 1, Reset: time.Second, Place: "eu.de.berlin"}, `{"allowed":true,"shadow":true,"reason":"limit","scope":"city","limit":5,"remaining":0,"retry_after_ms":1,"reset_ms":1000,"place":"eu.de.berlin"}`},
		{"permit", CheckReply{Allowed: true, Kind: "concurrency", Scope: "country", Limit: 5, Remaining: 4, Permit: permit{"eu.de.berlin", 0xff, 1<<64 - 1}.String(), Hold: 30 * time.Second, Place: "eu.de.berlin"}, `{"allowed":true,"kind":"concurrency","scope":"country","limit":5,"remaining":4,"permit":"eu.de.berlin/00000000000000ff/18446744073709551615","hold_ms":30000,"place":"eu.de.berlin"}`},
		{"released", ReleaseReply{Done: true, Place: "eu.de.berlin"}, `{"released":true,"place":"eu.de.berlin"}`},
		{"not renewed", ReleaseReply{Renew: true, Place: "eu.de.berlin"}, `{"renewed":false,"place":"eu.de.berlin"}`},
		{"refunded", RefundReply{Refunded: 3, Place: "eu.de.berlin"}, `{"refunded":3,"place":"eu.de.berlin"}`},
		{"add", AddReply{Total: Total{Added: 1042}, Place: "eu.de.berlin"}, `{"total":1042,"place":"eu.de.berlin"}`},
		{"add, negative", AddReply{Total: Total{Added: 1, Removed: 3}, Place: "eu.de.berlin"}, `{"total":-2,"place":"eu.de.berlin"}`},
		{"get without views", GetReply{Place: "global", Total: Total{Added: 1<<64 - 1}}, `{"place":"global","total":18446744073709551615,"views":[]}`},
		{"get of what is not watched", GetReply{Place: "eu", Unwatched: true}, `{"place":"eu","total":0,"views":[],"watched":false}`},
		{"get", GetReply{Place: "eu.de.berlin", Total: Total{Added: 1042}, Views: []View{
			{Place: "eu.de", Total: Total{Added: 5310}, Through: through, Age: 8*time.Millisecond + 999, Behind: 0},
			{Place: "eu", Total: Total{Removed: 1<<64 - 1}, Through: through.Truncate(time.Second), Behind: 2},
		}}, `{"place":"eu.de.berlin","total":1042,"views":[{"place":"eu.de","total":5310,"through":"2026-01-02T15:04:05.123Z","age_ms":8,"behind":0},{"place":"eu","total":-18446744073709551615,"through":"2026-01-02T15:04:05.000Z","age_ms":0,"behind":2}]}`},
		{"list, empty", ListReply{Place: "eu.de"}, `{"place":"eu.de","keys":[],"more":false}`},
		{"list", ListReply{Place: "eu.de", Keys: []KeyTotal{{"a\"\\é😀<", Total{Added: 1}}, {"b", Total{}}}, More: true}, `{"place":"eu.de","keys":[{"key":"a\"\\é😀<","total":1},{"key":"b","total":0}],"more":true}`},
		{"error", ErrUnknownNamespace.Errorf("namespace %q is in no rule", "x"), `{"error":{"code":404,"reason":"unknown_namespace","message":"namespace \"x\" is in no rule"}}`},
		{"overloaded", ErrOverloaded.Errorf("no").After(1500 * time.Microsecond), `{"error":{"code":503,"reason":"overloaded","message":"no","retry_after_ms":2}}`},
		{"not ready", ErrNotReady.Errorf("no"), `{"error":{"code":503,"reason":"not_ready","message":"no","retry_after_ms":100}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.reply.MarshalJSON()
			if err != nil || string(got) != c.want {
				t.Errorf("got  %s (%v)\nwant %s", got, err, c.want)
			}
			if !jsontext.Value(got).IsValid() {
				t.Error("it is no JSON")
			}
		})
	}
}

func TestTotalReadsWhatItWrites(t *testing.T) {
	for _, c := range []struct {
		total Total
		text  string
		n     int64
		fits  bool
	}{
		{Total{}, "0", 0, true},
		{Total{7, 7}, "0", 0, true},
		{Total{1<<63 - 1, 0}, "9223372036854775807", 1<<63 - 1, true},
		{Total{1 << 63, 0}, "9223372036854775808", 0, false},
		{Total{0, 1 << 63}, "-9223372036854775808", -1 << 63, true},
		{Total{0, 1<<63 + 1}, "-9223372036854775809", 0, false},
		{Total{1<<64 - 1, 1<<64 - 2}, "1", 1, true},
		{Total{0, 1<<64 - 1}, "-18446744073709551615", 0, false},
	} {
		if got := c.total.String(); got != c.text {
			t.Errorf("%+v prints %s, want %s", c.total, got, c.text)
		}
		if n, fits := c.total.Int64(); fits != c.fits || fits && n != c.n {
			t.Errorf("%s as int64: %d, %v", c.text, n, fits)
		}
		var back Total
		if err := back.UnmarshalJSON([]byte(c.text)); err != nil || back.String() != c.text {
			t.Errorf("%s is read as %v, %v", c.text, back, err)
		}
	}
	for _, bad := range []string{"", "-", "1.0", "+1", "null", `"1"`, "1e3", "--1", "18446744073709551616"} {
		var total Total
		if err := total.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%q is read as %v", bad, total)
		}
	}
}

func TestMostBoundsEveryReply(t *testing.T) {
	token := strings.Repeat("p", tiers.MaxToken)
	place := strings.Join([]string{token, token, token, token, token, token}, ".")
	bad := ErrUnknownNamespace.Errorf("%s", strings.Repeat(`"`, 1000)).After(1<<63 - 1)
	if n := len(appendError(nil, bad)); n > mostError {
		t.Errorf("an error takes %d bytes, bound %d", n, mostError)
	}
	const long = 1<<63 - 1
	check := CheckReply{
		Allowed: true, Shadow: true, Reason: DeniedLimit, Kind: "concurrency", Scope: token, Limit: -1 << 63, Remaining: -1 << 63,
		RetryAfter: long, Reset: long, Permit: permit{place, 1<<64 - 1, 1<<64 - 1}.String(), Hold: long, Place: place,
	}
	if n, most := len(appendCheckReply(nil, &check)), checkCodec.most(place); n > most {
		t.Errorf("a check takes %d bytes, bound %d", n, most)
	}
	release := ReleaseReply{Renew: true, Place: place}
	if n, most := len(appendReleaseReply(nil, &release)), releaseCodec.most(place); n > most {
		t.Errorf("a release takes %d bytes, bound %d", n, most)
	}
	refund := RefundReply{Refunded: -1 << 63, Place: place}
	if n, most := len(refundCodec.appendReply(nil, &refund)), refundCodec.most(place); n > most {
		t.Errorf("a refund takes %d bytes, bound %d", n, most)
	}
	add := AddReply{Total: Total{Removed: 1<<64 - 1}, Place: place}
	if n, most := len(addCodec.appendReply(nil, &add)), addCodec.most(place); n > most {
		t.Errorf("an add takes %d bytes, bound %d", n, most)
	}
	get := GetReply{Total: add.Total, Place: place, Unwatched: true}
	for range 6 {
		get.Views = append(get.Views, View{Place: place, Total: add.Total, Through: time.Unix(1<<33, 0), Age: 1<<63 - 1, Behind: 1 << 62})
	}
	if n, most := len(appendGetReply(nil, &get)), getCodec.most(place); n > most {
		t.Errorf("a get takes %d bytes, bound %d", n, most)
	}
	// A full batch is served at the default maximum of 1 MiB at every place of four tiers.
	for verb, most := range map[Verb]int{VerbCheck: checkCodec.most("eu.de.berlin"), VerbRelease: releaseCodec.most("eu.de.berlin"), VerbRefund: refundCodec.most("eu.de.berlin"), VerbAdd: addCodec.most("eu.de.berlin"), VerbGet: getCodec.most("eu.de.berlin")} {
		if MaxBatch*most > 1<<20-headerRoom-batchFrame-MaxBatch {
			t.Errorf("%s: a full batch may take %d bytes", verb, MaxBatch*most)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, c := range badRequests {
		if len(c.body) < 4096 {
			f.Add([]byte(c.body))
		}
	}
	f.Add([]byte(`{"namespace":"api","key":"\u0061\"\\😀","hits":3,"wait_ms":0}`))
	f.Add([]byte(`{"namespace":"api","key":"a","id":"\u00e9 x","wait_ms":1}`))
	f.Add([]byte(`{"requests":[{"namespace":"votes","key":"a","delta":-1,"id":"7"},{"namespace":"votes","key":"b","delta":1}]}`))
	f.Add([]byte("\x0a\x05votes\x12\x05\x12\x01a\x28\x02\x12\x0c\x0a\x03api\x12\x01b\x18\x01\x20\x02"))
	f.Add([]byte("\x0a\x05votes\x12\x05\x12\x01a\x28\x02\x12\x0c\x0a\x03api\x12\x01b\x18\x01\x00\x02")) // the last field has number 0
	f.Add([]byte(`{"namespace":"votes","prefix":"a","after":"ab","limit":7}`))
	f.Add([]byte(`{"namespace":"api","key":"a","permit":"` + somePermit + `","renew":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		again(t, data, &checkCodec)
		again(t, data, &releaseCodec)
		again(t, data, &refundCodec)
		again(t, data, &addCodec)
		again(t, data, &getCodec)
		again(t, data, &listCodec)
		readAsTheLibrary(t, data, &checkCodec, libraryChecks)
		readAsTheLibrary(t, data, &addCodec, libraryAdds)
	})
}

// again holds that what decodes is valid, and decodes to the same once more when it is encoded. What does not decode
// has an error that can be sent.
func again[Q comparable, R any](t *testing.T, data []byte, c *codec[Q, R]) {
	one, batch, err := decoded(data, c)
	if err != nil {
		if err.Code != 400 || err.Message == "" || !jsontext.Value(appendError(nil, err)).IsValid() {
			t.Fatalf("%q: refused by %+v", data, err)
		}
		return
	}
	if batch == nil {
		batch = []slot[Q, R]{{req: one.req}}
	}
	for i := range batch {
		e := &batch[i]
		if e.err != nil {
			continue
		}
		if err := c.validate(&e.req); err != nil {
			t.Fatalf("%q: decoded to what is invalid: %v", data, err)
		}
		sent := c.appendRequest(nil, &e.req)
		back, _, err := decoded(sent, c)
		if err != nil || back.req != e.req {
			t.Fatalf("%q: %+v was sent as %s and read as %+v, %v", data, e.req, sent, back.req, err)
		}
	}
}

// decoded is decode, with a slot of its own for one request.
func decoded[Q, R any](data []byte, c *codec[Q, R]) (one *slot[Q, R], batch []slot[Q, R], err *Error) {
	one = new(slot[Q, R])
	batch, err = decode(data, c, one)
	return one, batch, err
}
