package transport

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tributary-io/tributary/tiers"
)

// codec is how the requests and replies of one verb are written and read, on both sides of the wire. Replies are
// written by hand: it takes a fraction of what reflection does, and the fields stand in the order of the
// documentation.
type codec[Q, R any] struct {
	verb  Verb
	known []field
	// batch says whether {"requests":[...]} is served.
	batch bool
	// request makes a valid request of what was read, or says what is wrong.
	request func(*fields) (Q, *Error)
	// validate says what is wrong with a request; the client calls it before it sends.
	validate      func(*Q) *Error
	appendRequest func([]byte, *Q) []byte
	appendReply   func([]byte, *R) []byte
	// appendWithin, where a reply can be cut short, writes it in at most so many bytes, or reports false.
	appendWithin func([]byte, *R, int) ([]byte, bool)
	// most is the most bytes that a reply of a place takes, an error in its stead included.
	most func(place string) int
	// outcome names what became of a request that is no error, and namespace where.
	outcome   func(*R) string
	namespace func(*Q) string
}

var checkCodec = codec[CheckRequest, CheckReply]{
	verb:  VerbCheck,
	known: []field{fieldNamespace, fieldKey, fieldHits, fieldWait},
	batch: true,
	request: func(f *fields) (q CheckRequest, err *Error) {
		if err := f.require(VerbCheck, fieldNamespace, fieldKey); err != nil {
			return q, err
		}
		q = CheckRequest{
			Namespace: f.texts[fieldNamespace],
			Key:       f.texts[fieldKey],
			Hits:      f.integer(fieldHits, DefaultHits),
			Wait:      time.Duration(f.integer(fieldWait, DefaultWait.Milliseconds())) * time.Millisecond,
		}
		return q, q.validate()
	},
	validate: (*CheckRequest).validate,
	appendRequest: func(b []byte, q *CheckRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = strconv.AppendInt(append(b, `,"hits":`...), q.Hits, 10)
		b = strconv.AppendInt(append(b, `,"wait_ms":`...), milliseconds(q.Wait), 10)
		return append(b, '}')
	},
	appendReply: appendCheckReply,
	// Names, digits and punctuation: two integers of 20 digits, a scope of at most a token.
	most: func(place string) int { return max(mostError, 200+tiers.MaxToken+len(place)) },
	outcome: func(r *CheckReply) string {
		if r.Allowed {
			return OutcomeAllowed
		}
		return r.Reason
	},
	namespace: func(q *CheckRequest) string { return q.Namespace },
}

var addCodec = codec[AddRequest, AddReply]{
	verb:  VerbAdd,
	known: []field{fieldNamespace, fieldKey, fieldDelta},
	batch: true,
	request: func(f *fields) (q AddRequest, err *Error) {
		if err := f.require(VerbAdd, fieldNamespace, fieldKey, fieldDelta); err != nil {
			return q, err
		}
		q = AddRequest{
			Namespace: f.texts[fieldNamespace],
			Key:       f.texts[fieldKey],
			Delta:     f.integers[fieldDelta],
		}
		return q, q.validate()
	},
	validate: (*AddRequest).validate,
	appendRequest: func(b []byte, q *AddRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = strconv.AppendInt(append(b, `,"delta":`...), q.Delta, 10)
		return append(b, '}')
	},
	appendReply: func(b []byte, r *AddReply) []byte {
		b = r.Total.appendJSON(append(b, `{"total":`...))
		b = appendText(append(b, `,"place":`...), r.Place)
		return append(b, '}')
	},
	most:      func(place string) int { return max(mostError, 50+len(place)) },
	outcome:   func(*AddReply) string { return OutcomeOK },
	namespace: func(q *AddRequest) string { return q.Namespace },
}

var getCodec = codec[GetRequest, GetReply]{
	verb:  VerbGet,
	known: []field{fieldNamespace, fieldKey},
	batch: true,
	request: func(f *fields) (q GetRequest, err *Error) {
		if err := f.require(VerbGet, fieldNamespace, fieldKey); err != nil {
			return q, err
		}
		q = GetRequest{Namespace: f.texts[fieldNamespace], Key: f.texts[fieldKey]}
		return q, q.validate()
	},
	validate: (*GetRequest).validate,
	appendRequest: func(b []byte, q *GetRequest) []byte {
		return append(appendName(b, q.Namespace, q.Key), '}')
	},
	appendReply: appendGetReply,
	// A view for each tier above: its place is shorter than ours, its three integers and its instant are not long.
	most: func(place string) int {
		above := strings.Count(place, ".") + 1
		return max(mostError, 70+len(place)+above*(160+max(len(place), len(tiers.Root))))
	},
	outcome:   func(*GetReply) string { return OutcomeOK },
	namespace: func(q *GetRequest) string { return q.Namespace },
}

var listCodec = codec[ListRequest, ListReply]{
	verb:  VerbList,
	known: []field{fieldNamespace, fieldPrefix, fieldAfter, fieldLimit},
	request: func(f *fields) (q ListRequest, err *Error) {
		if err := f.require(VerbList, fieldNamespace); err != nil {
			return q, err
		}
		q = ListRequest{
			Namespace: f.texts[fieldNamespace],
			Prefix:    f.texts[fieldPrefix],
			After:     f.texts[fieldAfter],
			Limit:     int(f.integer(fieldLimit, DefaultList)),
		}
		return q, q.validate()
	},
	validate: (*ListRequest).validate,
	appendRequest: func(b []byte, q *ListRequest) []byte {
		b = appendText(append(b, `{"namespace":`...), q.Namespace)
		b = appendText(append(b, `,"prefix":`...), q.Prefix)
		b = appendText(append(b, `,"after":`...), q.After)
		b = strconv.AppendInt(append(b, `,"limit":`...), int64(q.Limit), 10)
		return append(b, '}')
	},
	appendReply:  appendListReply,
	appendWithin: appendListWithin,
	outcome:      func(*ListReply) string { return OutcomeOK },
	namespace:    func(q *ListRequest) string { return q.Namespace },
}

// mostError is the most bytes that an error takes within a batch, its text escaped to twice its length.
const mostError = 2*maxErrorText + 120

func appendCheckReply(b []byte, r *CheckReply) []byte {
	b = append(b, `{"allowed":`...)
	b = strconv.AppendBool(b, r.Allowed)
	if !r.Allowed {
		b = appendText(append(b, `,"reason":`...), r.Reason)
	}
	if r.Scope != "" {
		b = appendText(append(b, `,"scope":`...), r.Scope)
		b = strconv.AppendInt(append(b, `,"limit":`...), r.Limit, 10)
		b = strconv.AppendInt(append(b, `,"remaining":`...), r.Remaining, 10)
	}
	if !r.Allowed && r.RetryAfter > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), milliseconds(r.RetryAfter), 10)
	}
	b = appendText(append(b, `,"place":`...), r.Place)
	return append(b, '}')
}

// instantLayout is RFC 3339 in UTC with milliseconds, always three digits of them.
const instantLayout = "2006-01-02T15:04:05.000Z07:00"

func appendGetReply(b []byte, r *GetReply) []byte {
	b = appendText(append(b, `{"place":`...), r.Place)
	b = r.Total.appendJSON(append(b, `,"total":`...))
	b = append(b, `,"views":[`...)
	for i := range r.Views {
		v := &r.Views[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"place":`...), v.Place)
		b = v.Total.appendJSON(append(b, `,"total":`...))
		b = v.Through.UTC().AppendFormat(append(b, `,"through":"`...), instantLayout)
		b = strconv.AppendInt(append(b, `","age_ms":`...), v.Age.Milliseconds(), 10)
		b = strconv.AppendInt(append(b, `,"behind":`...), int64(v.Behind), 10)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendListReply(b []byte, r *ListReply) []byte {
	b, _ = appendListWithin(b, r, int(^uint(0)>>1))
	return b
}

// appendListWithin writes a list of at most size bytes: it leaves out the last keys, and says that more follow. It
// reports false when not even one key fits.
func appendListWithin(b []byte, r *ListReply, size int) ([]byte, bool) {
	const tail = len(`],"more":false}`)
	start := len(b)
	b = appendText(append(b, `{"place":`...), r.Place)
	b = append(b, `,"keys":[`...)
	more := r.More
	for i := range r.Keys {
		before := len(b)
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"key":`...), r.Keys[i].Key)
		b = r.Keys[i].Total.appendJSON(append(b, `,"total":`...))
		b = append(b, '}')
		if len(b)-start+tail > size {
			if i == 0 {
				return b[:start], false
			}
			b, more = b[:before], true
			break
		}
	}
	b = strconv.AppendBool(append(b, `],"more":`...), more)
	return append(b, '}'), true
}

// appendError writes {"error":{...}}, which is a reply's body and a batch's entry alike.
func appendError(b []byte, e *Error) []byte {
	b = strconv.AppendInt(append(b, `{"error":{"code":`...), int64(e.Code), 10)
	b = appendText(append(b, `,"reason":`...), e.Reason)
	b = appendText(append(b, `,"message":`...), e.text())
	after := e.RetryAfter
	if e.Code == ErrOverloaded.Code && after <= 0 {
		after = retryAfter // every 503 says when to try again
	}
	if after > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), milliseconds(after), 10)
	}
	return append(b, `}}`...)
}

func appendName(b []byte, namespace, key string) []byte {
	b = appendText(append(b, `{"namespace":`...), namespace)
	return appendText(append(b, `,"key":`...), key)
}

// appendText writes a JSON string. The library is asked only where something may need escaping.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			// Its error is invalid UTF-8, which it replaces; no request and no reply gets here with any.
			b, _ = jsontext.AppendQuote(b, s)
			return b
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// MarshalJSON returns the reply as it travels.
func (r CheckReply) MarshalJSON() ([]byte, error) { return appendCheckReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r AddReply) MarshalJSON() ([]byte, error) { return addCodec.appendReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r GetReply) MarshalJSON() ([]byte, error) { return appendGetReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r ListReply) MarshalJSON() ([]byte, error) { return appendListReply(nil, &r), nil }

// MarshalJSON returns the error as it travels: {"error":{...}}.
func (e *Error) MarshalJSON() ([]byte, error) { return appendError(nil, e), nil }
