package transport

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func batchOf(n int, request string) string {
	return `{"requests":[` + strings.TrimSuffix(strings.Repeat(request+",", n), ",") + `]}`
}

// Every row is a request that must be refused: with which reason, and with which words in the message.
var badRequests = []struct {
	name   string
	verb   Verb
	body   string
	reason *Error
	says   string
}{
	{"empty", VerbCheck, ``, ErrMalformed, `send for example {"namespace":"api"`},
	{"blank", VerbCheck, `  `, ErrMalformed, "ends too early"},
	{"no JSON", VerbCheck, `hello`, ErrMalformed, "not JSON"},
	{"cut off", VerbCheck, `{"namespace":"api","key":"a"`, ErrMalformed, "ends too early"},
	{"cut off in a string", VerbCheck, `{"namespace":"api","key":"a`, ErrMalformed, "ends too early"},
	{"trailing comma", VerbCheck, `{"namespace":"api","key":"a",}`, ErrMalformed, "not JSON"},
	{"single quotes", VerbCheck, `{'namespace':'api'}`, ErrMalformed, "not JSON"},
	{"byte order mark", VerbCheck, "\ufeff" + `{"namespace":"api","key":"a"}`, ErrMalformed, "not JSON"},
	{"two objects", VerbCheck, `{"namespace":"api","key":"a"}{}`, ErrMalformed, "at byte 29"},
	{"something after", VerbCheck, `{"namespace":"api","key":"a"} x`, ErrMalformed, "more follows"},
	{"an array", VerbCheck, `[]`, ErrMalformed, "the request is an array"},
	{"a string", VerbCheck, `"a"`, ErrMalformed, "the request is a string"},
	{"null", VerbCheck, `null`, ErrMalformed, "the request is null"},
	{"too deep", VerbCheck, `{"key":` + strings.Repeat("[", 20000), ErrMalformed, "not JSON"},

	{"no fields", VerbCheck, `{}`, ErrMalformed, "namespace is missing"},
	{"no key", VerbCheck, `{"namespace":"api"}`, ErrMalformed, "key is missing"},
	{"no namespace", VerbGet, `{"key":"a"}`, ErrMalformed, "namespace is missing"},
	{"no delta", VerbAdd, `{"namespace":"votes","key":"a"}`, ErrMalformed, "delta is missing"},
	{"list without namespace", VerbList, `{"limit":1}`, ErrMalformed, "namespace is missing"},

	{"unknown field", VerbCheck, `{"namespace":"api","key":"a","count":1}`, ErrMalformed, `unknown field "count": the fields of check are namespace, key, hits, wait_ms, id`},
	{"another verb's field", VerbCheck, `{"namespace":"api","key":"a","delta":1}`, ErrMalformed, `unknown field "delta"`},
	{"wrong case", VerbCheck, `{"namespace":"api","Key":"a"}`, ErrMalformed, `unknown field "Key": it is spelt "key"`},
	{"repeated field", VerbCheck, `{"namespace":"api","key":"a","key":"b"}`, ErrMalformed, `"key" is repeated`},
	{"repeated, once escaped", VerbCheck, `{"namespace":"api","key":"a","k\u0065y":"b"}`, ErrMalformed, `"key" is repeated`},
	{"repeated unknown field", VerbGet, `{"a":{"b":1,"b":2}}`, ErrMalformed, `"b" is repeated in "/a"`},
	{"id anywhere", VerbAdd, `{"namespace":"votes","key":"a","delta":1,"id":"x"}`, ErrUnsupportedID, `id "x": only the place that answers remembers it, and a retry on tributary.add may reach another city; ask a named place, on tributary.add.<place>`},
	{"id of a get", VerbGet, `{"namespace":"votes","key":"a","id":"x"}`, ErrUnsupportedID, "id: only a check and an add are remembered by an id, and a get is not"},
	{"id of a refund", VerbRefund, `{"namespace":"api","key":"a","id":"x"}`, ErrUnsupportedID, "a refund is not"},
	{"id empty", VerbCheck, `{"namespace":"api","key":"a","id":""}`, ErrOutOfRange, "id is empty: an id is 1 to 128 bytes"},
	{"id of 129 bytes", VerbAdd, `{"namespace":"votes","key":"a","delta":1,"id":"` + strings.Repeat("i", 129) + `"}`, ErrOutOfRange, "id is 129 bytes long: at most 128"},
	{"id with a new line", VerbCheck, `{"namespace":"api","key":"a","id":"a\nb"}`, ErrOutOfRange, "id has the control character U+000A"},
	{"id a number", VerbCheck, `{"namespace":"api","key":"a","id":7}`, ErrMalformed, "id is a number: a string is needed"},
	{"id null", VerbCheck, `{"namespace":"api","key":"a","id":null}`, ErrMalformed, "id is null"},

	{"key null", VerbCheck, `{"namespace":"api","key":null}`, ErrMalformed, "key is null"},
	{"hits null", VerbCheck, `{"namespace":"api","key":"a","hits":null}`, ErrMalformed, "hits is null"},
	{"key a number", VerbCheck, `{"namespace":"api","key":7}`, ErrMalformed, "key is a number: a string is needed"},
	{"key an object", VerbCheck, `{"namespace":"api","key":{}}`, ErrMalformed, "key is an object"},
	{"hits a string", VerbCheck, `{"namespace":"api","key":"a","hits":"1"}`, ErrMalformed, "hits is a string: a number is needed"},
	{"hits a boolean", VerbCheck, `{"namespace":"api","key":"a","hits":true}`, ErrMalformed, "hits is a boolean"},
	{"hits a fraction", VerbCheck, `{"namespace":"api","key":"a","hits":1.5}`, ErrMalformed, "hits is 1.5"},
	{"hits with a point", VerbCheck, `{"namespace":"api","key":"a","hits":1.0}`, ErrMalformed, "hits is 1.0"},
	{"hits with an exponent", VerbCheck, `{"namespace":"api","key":"a","hits":1e3}`, ErrMalformed, "hits is 1e3"},
	{"hits with a leading zero", VerbCheck, `{"namespace":"api","key":"a","hits":01}`, ErrMalformed, "not JSON"},

	{"hits negative", VerbCheck, `{"namespace":"api","key":"a","hits":-1}`, ErrOutOfRange, "hits is -1: it goes from 0 to 9007199254740991"},
	{"hits 2^53", VerbCheck, `{"namespace":"api","key":"a","hits":9007199254740992}`, ErrOutOfRange, "hits is 9007199254740992"},
	{"hits beyond int64", VerbCheck, `{"namespace":"api","key":"a","hits":18446744073709551617}`, ErrOutOfRange, "hits is 18446744073709551617"},
	{"delta 2^53", VerbAdd, `{"namespace":"votes","key":"a","delta":9007199254740992}`, ErrOutOfRange, "delta is"},
	{"delta -2^53", VerbAdd, `{"namespace":"votes","key":"a","delta":-9007199254740992}`, ErrOutOfRange, "delta is"},
	{"delta of 1,000 digits", VerbAdd, `{"namespace":"votes","key":"a","delta":` + strings.Repeat("9", 1000) + `}`, ErrOutOfRange, "delta is"},
	{"wait_ms negative", VerbCheck, `{"namespace":"api","key":"a","wait_ms":-1}`, ErrOutOfRange, "wait_ms is -1"},
	{"wait_ms 60,001", VerbCheck, `{"namespace":"api","key":"a","wait_ms":60001}`, ErrOutOfRange, "it goes from 0 to 60000"},
	{"limit 0", VerbList, `{"namespace":"votes","limit":0}`, ErrOutOfRange, "limit is 0: it goes from 1 to 1000"},
	{"limit 1,001", VerbList, `{"namespace":"votes","limit":1001}`, ErrOutOfRange, "limit is 1001"},

	{"no permit", VerbRelease, `{"namespace":"api","key":"a"}`, ErrMalformed, "permit is missing"},
	{"permit empty", VerbRelease, `{"namespace":"api","key":"a","permit":""}`, ErrMalformed, `permit "" is none`},
	{"permit of no place", VerbRelease, `{"namespace":"api","key":"a","permit":"Berlin/1f3a5c7e9b2d4f60/7"}`, ErrMalformed, "is none: send what the check's reply had"},
	{"permit with a short session", VerbRelease, `{"namespace":"api","key":"a","permit":"eu.de.berlin/1f/7"}`, ErrMalformed, "is none"},
	{"permit with a sign", VerbRelease, `{"namespace":"api","key":"a","permit":"eu.de.berlin/1f3a5c7e9b2d4f60/+7"}`, ErrMalformed, "is none"},
	{"permit with more", VerbRelease, `{"namespace":"api","key":"a","permit":"` + somePermit + `/"}`, ErrMalformed, "is none"},
	{"renew a number", VerbRelease, `{"namespace":"api","key":"a","permit":"` + somePermit + `","renew":1}`, ErrMalformed, "renew is a number: a boolean is needed"},
	{"renew null", VerbRelease, `{"namespace":"api","key":"a","permit":"` + somePermit + `","renew":null}`, ErrMalformed, "renew is null"},
	{"permit of another place", VerbRelease, `{"namespace":"api","key":"a","permit":"eu.de.munich/1f3a5c7e9b2d4f60/7"}`, ErrWrongPlace, "the permit is of eu.de.munich, and this is eu.de.berlin"},
	{"refund below 0", VerbRefund, `{"namespace":"api","key":"a","hits":-1}`, ErrOutOfRange, "hits is -1"},

	{"namespace empty", VerbCheck, `{"namespace":"","key":"a"}`, ErrOutOfRange, "it has 1 to 64"},
	{"namespace of 65", VerbCheck, `{"namespace":"` + strings.Repeat("n", 65) + `","key":"a"}`, ErrOutOfRange, "65 bytes"},
	{"namespace upper case", VerbCheck, `{"namespace":"API","key":"a"}`, ErrOutOfRange, `"API" may hold only a-z`},
	{"namespace with a dot", VerbCheck, `{"namespace":"a.b","key":"a"}`, ErrOutOfRange, "may hold only"},
	{"key empty", VerbCheck, `{"namespace":"api","key":""}`, ErrOutOfRange, "key is empty"},
	{"key of 513 bytes", VerbAdd, `{"namespace":"votes","key":"` + strings.Repeat("k", 513) + `","delta":1}`, ErrOutOfRange, "key is 513 bytes long"},
	{"key of 257 two-byte characters", VerbGet, `{"namespace":"votes","key":"` + strings.Repeat("é", 257) + `"}`, ErrOutOfRange, "key is 514 bytes long"},
	{"key with C0, raw", VerbCheck, "{\"namespace\":\"api\",\"key\":\"a\x01\"}", ErrMalformed, "not JSON"},
	{"key with C0, escaped", VerbCheck, `{"namespace":"api","key":"a\u0000"}`, ErrOutOfRange, "control character U+0000 at its byte 1"},
	{"key with a new line", VerbCheck, `{"namespace":"api","key":"a\nb"}`, ErrOutOfRange, "control character U+000A"},
	{"key with DEL", VerbCheck, "{\"namespace\":\"api\",\"key\":\"\x7f\"}", ErrOutOfRange, "control character U+007F"},
	{"key with C1", VerbCheck, "{\"namespace\":\"api\",\"key\":\"\u0085\"}", ErrOutOfRange, "control character U+0085"},
	{"key no UTF-8", VerbCheck, "{\"namespace\":\"api\",\"key\":\"\xff\"}", ErrMalformed, "UTF-8"},
	{"key half a character", VerbCheck, "{\"namespace\":\"api\",\"key\":\"\xc3\"}", ErrMalformed, "UTF-8"},
	{"key a lone surrogate", VerbCheck, `{"namespace":"api","key":"\ud800"}`, ErrMalformed, "not JSON"},
	{"name no UTF-8", VerbCheck, "{\"\xff\":1}", ErrMalformed, "UTF-8"},
	{"prefix of 513 bytes", VerbList, `{"namespace":"votes","prefix":"` + strings.Repeat("k", 513) + `"}`, ErrOutOfRange, "prefix is 513 bytes"},
	{"after with C1", VerbList, `{"namespace":"votes","after":"\u009f"}`, ErrOutOfRange, "after has the control character"},

	{"both shapes", VerbCheck, `{"namespace":"api","key":"a","requests":[]}`, ErrMalformed, `"namespace" stands beside requests`},
	{"both shapes, turned", VerbCheck, `{"requests":[{"namespace":"api","key":"a"}],"key":"a"}`, ErrMalformed, `"key" stands beside requests`},
	{"batch of none", VerbCheck, `{"requests":[]}`, ErrOutOfRange, "send 1 to 1000"},
	{"batch of 1,001", VerbCheck, batchOf(1001, `{"namespace":"api","key":"a"}`), ErrOutOfRange, "more than 1000 requests"},
	{"batch an object", VerbCheck, `{"requests":{}}`, ErrMalformed, "requests is an object"},
	{"batch null", VerbCheck, `{"requests":null}`, ErrMalformed, "requests is null"},
	{"batch of no JSON", VerbCheck, `{"requests":[{"namespace":"api","key":"a"},oops]}`, ErrMalformed, "not JSON"},
	{"batch cut off", VerbCheck, `{"requests":[{"namespace":"api","key":"a"},`, ErrMalformed, "ends too early"},
	{"batch with a repeated field", VerbCheck, `{"requests":[{"namespace":"api","key":"a"},{"key":"a","key":"b"}]}`, ErrMalformed, `"key" is repeated in "/requests/1"`},
	{"batch with invalid UTF-8", VerbAdd, "{\"requests\":[{\"namespace\":\"votes\",\"key\":\"\xff\",\"delta\":1}]}", ErrMalformed, `in "/requests/0/key"`},
	{"requests repeated", VerbCheck, `{"requests":[{"namespace":"api","key":"a"}],"requests":[]}`, ErrMalformed, "repeated"},
	{"batch of lists", VerbList, `{"requests":[{"namespace":"votes"}]}`, ErrMalformed, "not in a batch"},

	{"unknown namespace", VerbCheck, `{"namespace":"unknown","key":"a"}`, ErrUnknownNamespace, "in no rule"},
}

func TestBadRequestIsRefusedByName(t *testing.T) {
	b := &fake{}
	_, nc := serve(t, b)
	for _, c := range badRequests {
		t.Run(string(c.verb)+"/"+c.name, func(t *testing.T) {
			calls := b.calls.Load()
			reply := ask(t, nc, "tributary."+string(c.verb), c.body)
			refused(t, reply.Data, reply.Header.Get, c.reason, c.says)
			if c.reason.Code == 400 && b.calls.Load() != calls {
				t.Error("the backend was asked all the same")
			}
		})
	}
	// Nothing of this harms the next request.
	if got := string(ask(t, nc, "tributary.check", `{"namespace":"api","key":"a"}`).Data); !strings.Contains(got, `"allowed":true`) {
		t.Errorf("a good request after the bad ones: %s", got)
	}
}

// refused checks an error answer: its body, and that micro's headers say the same.
func refused(t *testing.T, body []byte, header func(string) string, want *Error, says string) {
	t.Helper()
	var got struct {
		Error struct {
			Code         int    `json:"code"`
			Reason       string `json:"reason"`
			Message      string `json:"message"`
			RetryAfterMS int64  `json:"retry_after_ms"`
		} `json:"error"`
	}
	if err := json.Unmarshal(body, &got, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	e := got.Error
	if e.Code != want.Code || e.Reason != want.Reason || !strings.Contains(e.Message, says) {
		t.Errorf("got %d %s: %s\nwant %d %s: …%s…", e.Code, e.Reason, e.Message, want.Code, want.Reason, says)
	}
	if (e.RetryAfterMS > 0) != (e.Code == 503) {
		t.Errorf("retry_after_ms is %d with code %d", e.RetryAfterMS, e.Code)
	}
	if header == nil {
		return
	}
	if header("Nats-Service-Error-Code") != strconv.Itoa(e.Code) {
		t.Errorf("header code %q, body %d", header("Nats-Service-Error-Code"), e.Code)
	}
	if want := e.Reason + ": " + e.Message; header("Nats-Service-Error") != want {
		t.Errorf("header %q, want %q", header("Nats-Service-Error"), want)
	}
	if header(VersionHeader) != "1" {
		t.Errorf("%s is %q", VersionHeader, header(VersionHeader))
	}
}

func TestBadHeaderIsRefused(t *testing.T) {
	_, nc := serve(t, &fake{})
	const good = `{"namespace":"api","key":"a"}`
	for _, c := range []struct {
		name, value string
		reason      *Error
		says        string
	}{
		{VersionHeader, "2", ErrUnsupportedVersion, `"2" is not served: this place serves 1`},
		{VersionHeader, "", ErrUnsupportedVersion, "serves 1"},
		{VersionHeader, "1.0", ErrUnsupportedVersion, "serves 1"},
		{"Nats-Msg-Id", "x", ErrUnsupportedID, `id "x": only the place that answers remembers it`},
		{"Nats-Msg-Id", "", ErrOutOfRange, "Nats-Msg-Id is empty"},
		{"Nats-Msg-Id", strings.Repeat("é", 65), ErrOutOfRange, "Nats-Msg-Id is 130 bytes long"},
		{"Nats-Msg-Id", "\xff", ErrMalformed, "Nats-Msg-Id is not valid UTF-8"},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			reply := ask(t, nc, "tributary.check", good, c.name, c.value)
			refused(t, reply.Data, reply.Header.Get, c.reason, c.says)
		})
	}
	if reply := ask(t, nc, "tributary.check", good, VersionHeader, "1"); reply.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("version 1 is refused: %s", reply.Data)
	}
}

func TestBatchEntryHasItsOwnError(t *testing.T) {
	_, nc := serve(t, &fake{})
	const good = `{"namespace":"api","key":"a"}`
	for _, c := range []struct {
		name, entry string
		reason      *Error
		says        string
	}{
		{"no object", `7`, ErrMalformed, "the request is a number"},
		{"an array", `[{"key":"a"}]`, ErrMalformed, "the request is an array"},
		{"null", `null`, ErrMalformed, "the request is null"},
		{"empty", `{}`, ErrMalformed, "namespace is missing"},
		{"unknown field", `{"x":{"y":[1,2]},"namespace":"api","key":"a"}`, ErrMalformed, `unknown field "x"`},
		{"first of two errors", `{"namespace":"api","key":null,"hits":-1}`, ErrMalformed, "key is null"},
		{"a batch", `{"requests":[]}`, ErrMalformed, "not batches"},
		{"id", `{"namespace":"api","key":"a","id":"1"}`, ErrUnsupportedID, "a retry on tributary.check may reach another city"},
		{"id empty", `{"namespace":"api","key":"a","id":""}`, ErrOutOfRange, "id is empty"},
		{"hits out of range", `{"namespace":"api","key":"a","hits":-1}`, ErrOutOfRange, "hits is -1"},
		{"key too long", `{"namespace":"api","key":"` + strings.Repeat("k", 513) + `"}`, ErrOutOfRange, "513 bytes"},
		{"unknown namespace", `{"namespace":"unknown","key":"a"}`, ErrUnknownNamespace, "in no rule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply := ask(t, nc, "tributary.check", fmt.Sprintf(`{"requests":[%s,%s,%s]}`, good, c.entry, good))
			if reply.Header.Get("Nats-Service-Error-Code") != "" {
				t.Fatalf("the whole batch is refused: %s", reply.Data)
			}
			var got struct {
				Responses []jsonValue `json:"responses"`
			}
			if err := json.Unmarshal(reply.Data, &got); err != nil || len(got.Responses) != 3 {
				t.Fatalf("%s: %v", reply.Data, err)
			}
			refused(t, got.Responses[1], nil, c.reason, c.says)
			for _, i := range []int{0, 2} {
				if want := `{"allowed":true,"place":"eu.de.berlin"}`; string(got.Responses[i]) != want {
					t.Errorf("neighbour %d: %s", i, got.Responses[i])
				}
			}
		})
	}
}
