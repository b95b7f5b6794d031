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
	// protobuf is for machines; nil: only JSON is served.
	protobuf *protobufCodec[R]
	// id is where a request has its id; nil: it has none.
	id func(*Q) *string
	// outcome names what became of a request that is no error, and namespace where.
	outcome   func(*R) string
	namespace func(*Q) string
}

var checkCodec = codec[CheckRequest, CheckReply]{
	verb:  VerbCheck,
	known: []field{fieldNamespace, fieldKey, fieldHits, fieldWait, fieldID},
	batch: true,
	request: func(f *fields) (q CheckRequest, err *Error) {
		if err := f.require(VerbCheck, fieldNamespace, fieldKey); err != nil {
			return q, err
		}
		q = CheckRequest{
			Namespace: f.texts[fieldNamespace],
			Key:       f.texts[fieldKey],
			Hits:      f.integer(fieldHits, DefaultHits),
			Wait:      RuleWait,
		}
		if f.has(fieldWait) {
			q.Wait = time.Duration(f.integers[fieldWait]) * time.Millisecond
		}
		if q.ID, err = f.id(); err != nil {
			return q, err
		}
		return q, q.validate()
	},
	validate: (*CheckRequest).validate,
	appendRequest: func(b []byte, q *CheckRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = strconv.AppendInt(append(b, `,"hits":`...), q.Hits, 10)
		if q.Wait != RuleWait {
			b = strconv.AppendInt(append(b, `,"wait_ms":`...), milliseconds(q.Wait), 10)
		}
		return append(appendID(b, q.ID), '}')
	},
	id:          func(q *CheckRequest) *string { return &q.ID },
	appendReply: appendCheckReply,
	protobuf:    &checkProtobuf,
	// Names, digits and punctuation: five integers of 20 digits, a scope of at most a token, a permit.
	most: func(place string) int { return max(mostError, 350+tiers.MaxToken+maxPermit+2*len(place)) },
	outcome: func(r *CheckReply) string {
		switch {
		case r.Shadow:
			return OutcomeShadow
		case r.Allowed:
			return OutcomeAllowed
		}
		return r.Reason
	},
	namespace: func(q *CheckRequest) string { return q.Namespace },
}

var releaseCodec = codec[ReleaseRequest, ReleaseReply]{
	verb:  VerbRelease,
	known: []field{fieldNamespace, fieldKey, fieldPermit, fieldRenew},
	batch: true,
	request: func(f *fields) (q ReleaseRequest, err *Error) {
		if err := f.require(VerbRelease, fieldNamespace, fieldKey, fieldPermit); err != nil {
			return q, err
		}
		q = ReleaseRequest{
			Namespace: f.texts[fieldNamespace],
			Key:       f.texts[fieldKey],
			Permit:    f.texts[fieldPermit],
			Renew:     f.integer(fieldRenew, 0) == 1,
		}
		return q, q.validate()
	},
	validate: (*ReleaseRequest).validate,
	appendRequest: func(b []byte, q *ReleaseRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = appendText(append(b, `,"permit":`...), q.Permit)
		if q.Renew {
			b = append(b, `,"renew":true`...)
		}
		return append(b, '}')
	},
	appendReply: appendReleaseReply,
	most:        func(place string) int { return max(mostError, 50+len(place)) },
	outcome: func(r *ReleaseReply) string {
		if r.Done {
			return OutcomeOK
		}
		return OutcomeGone
	},
	namespace: func(q *ReleaseRequest) string { return q.Namespace },
}

var refundCodec = codec[RefundRequest, RefundReply]{
	verb:  VerbRefund,
	known: []field{fieldNamespace, fieldKey, fieldHits},
	batch: true,
	request: func(f *fields) (q RefundRequest, err *Error) {
		if err := f.require(VerbRefund, fieldNamespace, fieldKey); err != nil {
			return q, err
		}
		q = RefundRequest{
			Namespace: f.texts[fieldNamespace],
			Key:       f.texts[fieldKey],
			Hits:      f.integer(fieldHits, DefaultHits),
		}
		return q, q.validate()
	},
	validate: (*RefundRequest).validate,
	appendRequest: func(b []byte, q *RefundRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = strconv.AppendInt(append(b, `,"hits":`...), q.Hits, 10)
		return append(b, '}')
	},
	appendReply: func(b []byte, r *RefundReply) []byte {
		b = strconv.AppendInt(append(b, `{"refunded":`...), r.Refunded, 10)
		b = appendText(append(b, `,"place":`...), r.Place)
		return append(b, '}')
	},
	most:      func(place string) int { return max(mostError, 60+len(place)) },
	outcome:   func(*RefundReply) string { return OutcomeOK },
	namespace: func(q *RefundRequest) string { return q.Namespace },
}

var addCodec = codec[AddRequest, AddReply]{
	verb:  VerbAdd,
	known: []field{fieldNamespace, fieldKey, fieldDelta, fieldID},
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
		if q.ID, err = f.id(); err != nil {
			return q, err
		}
		return q, q.validate()
	},
	validate: (*AddRequest).validate,
	appendRequest: func(b []byte, q *AddRequest) []byte {
		b = appendName(b, q.Namespace, q.Key)
		b = strconv.AppendInt(append(b, `,"delta":`...), q.Delta, 10)
		return append(appendID(b, q.ID), '}')
	},
	id:       func(q *AddRequest) *string { return &q.ID },
	protobuf: &addProtobuf,
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
		return max(mostError, 90+len(place)+above*(160+max(len(place), len(tiers.Root))))
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
	if r.Shadow {
		b = append(b, `,"shadow":true`...)
	}
	if !r.Allowed || r.Shadow {
		b = appendText(append(b, `,"reason":`...), r.Reason)
	}
	if r.Kind != "" {
		b = appendText(append(b, `,"kind":`...), r.Kind)
	}
	if r.Scope != "" {
		b = appendText(append(b, `,"scope":`...), r.Scope)
		b = strconv.AppendInt(append(b, `,"limit":`...), r.Limit, 10)
		b = strconv.AppendInt(append(b, `,"remaining":`...), r.Remaining, 10)
	}
	if (!r.Allowed || r.Shadow) && r.RetryAfter > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), milliseconds(r.RetryAfter), 10)
	}
	if r.Reset > 0 {
		b = strconv.AppendInt(append(b, `,"reset_ms":`...), milliseconds(r.Reset), 10)
	}
	if r.Permit != "" {
		b = appendText(append(b, `,"permit":`...), r.Permit)
		b = strconv.AppendInt(append(b, `,"hold_ms":`...), milliseconds(r.Hold), 10)
	}
	b = appendText(append(b, `,"place":`...), r.Place)
	return append(b, '}')
}

func appendReleaseReply(b []byte, r *ReleaseReply) []byte {
	what := `{"released":`
	if r.Renew {
		what = `{"renewed":`
	}
	b = strconv.AppendBool(append(b, what...), r.Done)
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
	b = append(b, ']')
	if r.Unwatched {
		b = append(b, `,"watched":false`...)
	}
	return append(b, '}')
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
	if after := e.retryAfter(); after > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), milliseconds(after), 10)
	}
	return append(b, `}}`...)
}

// retryAfter is what the caller is told: every 503 says when to try again.
func (e *Error) retryAfter() time.Duration {
	if e.Code == ErrOverloaded.Code && e.RetryAfter <= 0 {
		return retryAfter
	}
	return max(0, e.RetryAfter)
}

func appendName(b []byte, namespace, key string) []byte {
	b = appendText(append(b, `{"namespace":`...), namespace)
	return appendText(append(b, `,"key":`...), key)
}

func appendID(b []byte, id string) []byte {
	if id == "" {
		return b
	}
	return appendText(append(b, `,"id":`...), id)
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
func (r ReleaseReply) MarshalJSON() ([]byte, error) { return appendReleaseReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r RefundReply) MarshalJSON() ([]byte, error) { return refundCodec.appendReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r AddReply) MarshalJSON() ([]byte, error) { return addCodec.appendReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r GetReply) MarshalJSON() ([]byte, error) { return appendGetReply(nil, &r), nil }

// MarshalJSON returns the reply as it travels.
func (r ListReply) MarshalJSON() ([]byte, error) { return appendListReply(nil, &r), nil }

// MarshalJSON returns the error as it travels: {"error":{...}}.
func (e *Error) MarshalJSON() ([]byte, error) { return appendError(nil, e), nil }
