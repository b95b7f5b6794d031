package transport

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Requests are read token by token. The library refuses what is not JSON at all, and with it invalid UTF-8 and
// repeated names; this file refuses what is JSON but no request, and says so in the words of the documentation.
//
// In a batch, what breaks the JSON refuses the whole message before anything is done, for nobody can say where the
// next entry begins. What is wrong with one entry is that entry's error, and the others go on.

// field is a field of a request.
type field uint8

const (
	fieldNamespace field = iota
	fieldKey
	fieldHits
	fieldWait
	fieldDelta
	fieldPrefix
	fieldAfter
	fieldLimit
	fieldPermit
	fieldRenew
	fieldID
	fieldCount

	// Names that hold no value of their own.
	fieldRequests = fieldCount + iota
	fieldUnknown
)

// fieldSpecs says for each field how it is spelt, and for integers how far they go.
var fieldSpecs = [fieldCount]struct {
	name             string
	integer, boolean bool
	least, most      int64
}{
	fieldNamespace: {name: "namespace"},
	fieldKey:       {name: "key"},
	fieldHits:      {name: "hits", integer: true, most: MaxInteger},
	fieldWait:      {name: "wait_ms", integer: true, most: int64(MaxWait / 1e6)},
	fieldDelta:     {name: "delta", integer: true, least: -MaxInteger, most: MaxInteger},
	fieldPrefix:    {name: "prefix"},
	fieldAfter:     {name: "after"},
	fieldLimit:     {name: "limit", integer: true, least: 1, most: MaxList},
	fieldPermit:    {name: "permit"},
	fieldRenew:     {name: "renew", boolean: true},
	fieldID:        {name: "id"},
}

// fields holds what one request said; a boolean is 1 or 0.
type fields struct {
	texts    [fieldCount]string
	integers [fieldCount]int64
	seen     uint32
}

// say notes a text. The requests of a batch, and one message after another, mostly name the same namespace.
func (f *fields) say(i field, text []byte) {
	if f.texts[i] != string(text) {
		f.texts[i] = string(text)
	}
	f.seen |= 1 << i
}

func (f *fields) has(i field) bool { return f.seen&(1<<i) != 0 }

// integer returns a field's value, or its default.
func (f *fields) integer(i field, absent int64) int64 {
	if f.has(i) {
		return f.integers[i]
	}
	return absent
}

// id returns the request's id, or says why it is none; "": it has none.
func (f *fields) id() (string, *Error) {
	if !f.has(fieldID) {
		return "", nil
	}
	return f.texts[fieldID], checkID("id", f.texts[fieldID])
}

// require reports the first of these fields that the request lacks.
func (f *fields) require(v Verb, wanted ...field) *Error {
	for _, i := range wanted {
		if !f.has(i) {
			return ErrMalformed.Errorf("%s is missing: send for example %s", fieldSpecs[i].name, examples[v])
		}
	}
	return nil
}

// examples shows a request of each verb, for messages.
var examples = map[Verb]string{
	VerbCheck:   `{"namespace":"api","key":"user-42","hits":1}`,
	VerbRelease: `{"namespace":"api","key":"user-42","permit":"eu.de.berlin/1f3a5c7e9b2d4f60/7"}`,
	VerbRefund:  `{"namespace":"api","key":"user-42","hits":1}`,
	VerbAdd:     `{"namespace":"votes","key":"alice","delta":1}`,
	VerbGet:     `{"namespace":"votes","key":"alice"}`,
	VerbList:    `{"namespace":"votes","prefix":"","after":"","limit":100}`,
}

// reader is a decoder with what it reads from, kept for the next message.
type reader struct {
	dec  *jsontext.Decoder
	data bytes.Buffer
	// fields is what the current request says: here, so that it is not zeroed twice nor moved to the heap.
	fields fields
}

var readers = sync.Pool{New: func() any { return &reader{dec: new(jsontext.Decoder)} }}

// decode reads a message: one request, or a batch of them, which is not nil then.
func decode[Q, R any](data []byte, c *codec[Q, R], one *slot[Q, R]) (batch []slot[Q, R], err *Error) {
	if len(data) == 0 {
		return nil, ErrMalformed.Errorf("the request is empty: send for example %s", examples[c.verb])
	}
	r := readers.Get().(*reader)
	defer r.release()
	r.data = *bytes.NewBuffer(data)
	r.dec.Reset(&r.data)

	if err := r.begin("the request"); err != nil {
		return nil, err
	}
	for {
		i, raw, err := r.name(c.known)
		if err != nil {
			return nil, err
		}
		if raw == nil {
			break
		}
		switch {
		case i == fieldRequests && c.batch && r.fields.seen == 0:
			most := bytes.Count(data, []byte("{")) // one for each request, and the message's own
			if batch, err = decodeBatch(r, c, min(MaxBatch, most)); err != nil {
				return nil, err
			}
		case i == fieldRequests && c.batch, batch != nil:
			return nil, ErrMalformed.Errorf("a message is one request or a batch: %s stands beside requests; "+
				"move it into the batch, or leave requests out", otherThanRequests(i, raw, &r.fields))
		default:
			if err, fatal := r.value(i, raw, c.verb, c.known); err != nil || fatal != nil {
				return nil, either(fatal, err)
			}
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if batch != nil {
		return batch, nil
	}
	one.req, err = c.request(&r.fields)
	return nil, err
}

// decodeBatch reads the array of requests; it has as many as room, or fewer where their texts hold braces.
func decodeBatch[Q, R any](r *reader, c *codec[Q, R], room int) ([]slot[Q, R], *Error) {
	if kind := r.dec.PeekKind(); kind != '[' && kind != 0 {
		return nil, ErrMalformed.Errorf("requests is %s: an array of requests is needed, such as [%s]",
			kindName(kind), examples[c.verb])
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, broken(err)
	}
	batch := make([]slot[Q, R], 0, room)
	for r.dec.PeekKind() != ']' {
		if len(batch) == MaxBatch {
			return nil, ErrOutOfRange.Errorf("the batch has more than %d requests: split it", MaxBatch)
		}
		batch = append(batch, slot[Q, R]{})
		s := &batch[len(batch)-1]
		var fatal *Error
		if s.req, s.err, fatal = decodeEntry(r, c); fatal != nil {
			return nil, fatal
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return nil, broken(err)
	}
	if len(batch) == 0 {
		return nil, ErrOutOfRange.Errorf("the batch has no requests: send 1 to %d", MaxBatch)
	}
	return batch, nil
}

// decodeEntry reads one request of a batch, to its end also when something is wrong with it.
func decodeEntry[Q, R any](r *reader, c *codec[Q, R]) (q Q, first, fatal *Error) {
	r.fields.seen = 0
	if kind := r.dec.PeekKind(); kind != '{' && kind != 0 {
		if err := r.dec.SkipValue(); err != nil {
			return q, nil, broken(err)
		}
		return q, ErrMalformed.Errorf("the request is %s: an object is needed, such as %s",
			kindName(kind), examples[c.verb]), nil
	}
	if err := r.begin("the request"); err != nil {
		return q, nil, err
	}
	for {
		i, raw, err := r.name(c.known)
		if err != nil {
			return q, nil, err
		}
		if raw == nil {
			break
		}
		err, fatal := r.value(i, raw, c.verb, c.known)
		if fatal != nil {
			return q, nil, fatal
		}
		first = either(first, err)
	}
	if first == nil {
		q, first = c.request(&r.fields)
	}
	return q, first, nil
}

// release keeps the reader, but neither the message nor the texts that it read, except for a namespace.
func (r *reader) release() {
	namespace := r.fields.texts[fieldNamespace]
	r.data = bytes.Buffer{}
	r.fields = fields{}
	if len(namespace) <= MaxNamespace {
		r.fields.texts[fieldNamespace] = namespace
	}
	readers.Put(r)
}

// begin reads the brace that opens an object.
func (r *reader) begin(what string) *Error {
	if kind := r.dec.PeekKind(); kind != '{' && kind != 0 {
		return ErrMalformed.Errorf("%s is %s: a JSON object is needed", what, kindName(kind))
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return broken(err)
	}
	return nil
}

// end makes sure that nothing follows.
func (r *reader) end() *Error {
	at := r.dec.InputOffset()
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return ErrMalformed.Errorf("more follows after the end of the JSON object at byte %d: "+
			"send one object, and several requests as a batch", at)
	}
	return nil
}

// name reads the next field's name: raw as it was sent, or nil when the object ends.
func (r *reader) name(known []field) (i field, raw []byte, err *Error) {
	if r.dec.PeekKind() == '}' {
		if _, err := r.dec.ReadToken(); err != nil {
			return 0, nil, broken(err)
		}
		return 0, nil, nil
	}
	raw, e := r.dec.ReadValue()
	if e != nil {
		return 0, nil, broken(e)
	}
	i = lookup(unquoted(raw), known)
	return i, raw, nil
}

// lookup finds a field among those that a request has.
func lookup(name []byte, known []field) field {
	for _, i := range known {
		if string(name) == fieldSpecs[i].name {
			return i
		}
	}
	if string(name) == "requests" {
		return fieldRequests
	}
	return fieldUnknown
}

// value reads a field's value. An err is about this request alone, a fatal one about the message.
func (r *reader) value(i field, rawName []byte, v Verb, known []field) (err, fatal *Error) {
	if i >= fieldCount {
		err = misfit(i, string(unquoted(rawName)), v, known)
	}
	raw, e := r.dec.ReadValue()
	switch {
	case e != nil:
		return nil, broken(e)
	case err != nil:
		return err, nil
	}
	spec := &fieldSpecs[i]
	wanted, kind := jsontext.Kind('"'), raw.Kind()
	switch {
	case spec.integer:
		wanted = '0'
	case spec.boolean && kind != 'f':
		wanted = 't'
	case spec.boolean:
		wanted = 'f'
	}
	switch {
	case kind == 'n':
		return ErrMalformed.Errorf("%s is null: give it a value, or leave the field out", spec.name), nil
	case kind != wanted:
		return ErrMalformed.Errorf("%s is %s: %s is needed", spec.name, kindName(kind), kindName(wanted)), nil
	case spec.boolean:
		r.fields.integers[i] = 0
		if kind == 't' {
			r.fields.integers[i] = 1
		}
	case spec.integer:
		r.fields.integers[i], err = parseInteger(spec.name, raw, spec.least, spec.most)
	default:
		r.fields.say(i, unquoted(raw))
	}
	r.fields.seen |= 1 << i
	return err, nil
}

// parseInteger reads a JSON number that has neither fraction nor exponent, and lies in its range.
func parseInteger(name string, raw []byte, least, most int64) (int64, *Error) {
	const digits = 16 // of MaxInteger, which no range exceeds
	rest := bytes.TrimPrefix(raw, []byte("-"))
	if bytes.ContainsAny(rest, ".eE") {
		return 0, ErrMalformed.Errorf("%s is %s: write an integer, without a fraction or an exponent",
			name, shorten(string(raw), 48))
	}
	if len(rest) > digits {
		return 0, ErrOutOfRange.Errorf("%s is %s: it goes from %d to %d", name, shorten(string(raw), 48), least, most)
	}
	var n int64
	for _, c := range rest {
		n = n*10 + int64(c-'0')
	}
	if len(rest) < len(raw) {
		n = -n
	}
	return n, checkRange(name, n, least, most)
}

// unquoted returns what a JSON string says; it aliases raw if it can. The decoder has checked it.
func unquoted(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	b, _ := jsontext.AppendUnquote(nil, raw)
	return b
}
