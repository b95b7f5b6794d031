package transport

import (
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tributary-io/tributary/transport/internal/wire"
)

// Machines may ask a check or an add in protobuf: the messages of tributarypb/tributary.proto. They are read and written
// field by field, which takes a fraction of what it takes to make a message of each first.

const (
	// ContentTypeHeader says in a request what its body is: [ContentTypeProtobuf], or else JSON. So does the answer's.
	ContentTypeHeader = "Content-Type"
	// ContentTypeProtobuf is a body of a message of tributary.proto.
	ContentTypeProtobuf = "application/protobuf"
)

// protobufCodec is what a codec needs for that, and nil where only JSON is served.
type protobufCodec[R any] struct {
	// numbers are those of the fields of a request.
	numbers [fieldCount]protowire.Number
	// absent are the integers that are 0 where they are left out.
	absent []field
	// appendReply writes a reply, without the place.
	appendReply func([]byte, *R) []byte
}

var checkProtobuf = protobufCodec[CheckReply]{
	numbers: [fieldCount]protowire.Number{fieldNamespace: 1, fieldKey: 2, fieldHits: 3, fieldWait: 4, fieldID: 6},
	appendReply: func(b []byte, r *CheckReply) []byte {
		b = wire.AppendVarint(b, 1, protowire.EncodeBool(r.Allowed))
		b = wire.AppendVarint(b, 2, protowire.EncodeBool(r.Shadow))
		b = appendString(b, 3, r.Reason)
		b = appendString(b, 4, r.Kind)
		b = appendString(b, 5, r.Scope)
		b = wire.AppendVarint(b, 6, uint64(r.Limit))
		b = wire.AppendVarint(b, 7, uint64(r.Remaining))
		b = wire.AppendVarint(b, 8, uint64(milliseconds(r.RetryAfter)))
		b = wire.AppendVarint(b, 9, uint64(milliseconds(r.Reset)))
		b = appendString(b, 10, r.Permit)
		return wire.AppendVarint(b, 11, uint64(milliseconds(r.Hold)))
	},
}

var addProtobuf = protobufCodec[AddReply]{
	numbers: [fieldCount]protowire.Number{fieldNamespace: 1, fieldKey: 2, fieldDelta: 5, fieldID: 6},
	absent:  []field{fieldDelta},
	appendReply: func(b []byte, r *AddReply) []byte {
		return wire.AppendVarint(wire.AppendVarint(b, 1, r.Total.Added), 2, r.Total.Removed)
	},
}

// The fields of Checks and Adds, and of CheckReplies and AddReplies.
const (
	numberNamespace protowire.Number = 1
	numberRequests  protowire.Number = 2

	numberPlace     protowire.Number = 1
	numberResponses protowire.Number = 2
	numberError     protowire.Number = 3

	numberErrorOfOne protowire.Number = 15 // of a reply
)

// isProtobuf says whether a request's body is protobuf.
func isProtobuf(h micro.Headers) bool { return h.Get(ContentTypeHeader) == ContentTypeProtobuf }

// decodeProtobuf is decode for protobuf. A message of one request is no batch.
func decodeProtobuf[Q, R any](data []byte, c *codec[Q, R], one *slot[Q, R]) (batch []slot[Q, R], err *Error) {
	if c.protobuf == nil {
		return nil, ErrMalformed.Errorf("%s is asked in JSON, not in %s: send for example %s", c.verb, ContentTypeProtobuf, examples[c.verb])
	}
	var namespace []byte
	requests := 0
	err = eachField(data, func(n protowire.Number, t protowire.Type, _ uint64, value []byte) *Error {
		switch {
		case n == numberNamespace && t == protowire.BytesType:
			namespace = value
		case n == numberRequests && t == protowire.BytesType:
			requests++
		default:
			return ErrMalformed.Errorf("field %d of type %d is none of a message for %s: see tributary.proto", n, t, c.verb)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case requests == 0:
		return nil, ErrOutOfRange.Errorf("the message has no requests: send 1 to %d", MaxBatch)
	case requests > MaxBatch:
		return nil, ErrOutOfRange.Errorf("the batch has %d requests: split it, %d are the most", requests, MaxBatch)
	}
	r := readers.Get().(*reader)
	defer r.release()
	if requests > 1 {
		batch = make([]slot[Q, R], 0, requests)
	}
	err = eachField(data, func(n protowire.Number, _ protowire.Type, _ uint64, value []byte) *Error {
		s := one
		switch {
		case n != numberRequests:
			return nil
		case batch != nil:
			batch = append(batch, slot[Q, R]{})
			s = &batch[len(batch)-1]
		}
		s.req, s.err = readProtobuf(r, value, namespace, c)
		return nil
	})
	if batch == nil {
		err = either(err, one.err)
	}
	return batch, err
}

// readProtobuf reads one request.
func readProtobuf[Q, R any](r *reader, data, namespace []byte, c *codec[Q, R]) (q Q, err *Error) {
	f := &r.fields
	f.seen = 0
	for _, i := range c.protobuf.absent {
		f.integers[i], f.seen = 0, f.seen|1<<i
	}
	if len(namespace) > 0 {
		f.say(fieldNamespace, namespace)
	}
	err = eachField(data, func(n protowire.Number, t protowire.Type, v uint64, value []byte) *Error {
		for _, i := range c.known {
			if n != c.protobuf.numbers[i] {
				continue
			}
			spec := &fieldSpecs[i]
			switch {
			case !spec.integer && t == protowire.BytesType:
				f.say(i, value)
				return nil
			case spec.integer && t == protowire.VarintType:
				f.integers[i], f.seen = int64(v), f.seen|1<<i
				if spec.least < 0 {
					f.integers[i] = protowire.DecodeZigZag(v)
				}
				return checkRange(spec.name, f.integers[i], spec.least, spec.most)
			}
		}
		return ErrMalformed.Errorf("field %d of type %d is none that %s takes: see tributary.proto", n, t, c.verb)
	})
	if err != nil {
		return q, err
	}
	return c.request(f)
}

// eachField calls f for the fields of a message until it fails: with a varint's number, or a text's or message's bytes.
func eachField(data []byte, f func(n protowire.Number, t protowire.Type, v uint64, value []byte) *Error) *Error {
	for at := 0; at < len(data); {
		n, t, size := protowire.ConsumeTag(data[at:])
		if size < 0 {
			return brokenProtobuf(at, size)
		}
		at += size
		var v uint64
		var value []byte
		switch t {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(data[at:])
		case protowire.BytesType:
			value, size = protowire.ConsumeBytes(data[at:])
		default:
			size = protowire.ConsumeFieldValue(n, t, data[at:])
		}
		if size < 0 {
			return brokenProtobuf(at, size)
		}
		if err := f(n, t, v, value); err != nil {
			return err
		}
		at += size
	}
	return nil
}

func brokenProtobuf(at, code int) *Error {
	return ErrMalformed.Errorf("the message is no protobuf of its type: at byte %d: %v", at, protowire.ParseError(code))
}

// appendProtobuf writes the answer of a message.
func (m *message[Q, R]) appendProtobuf(b []byte) []byte {
	b = appendString(b, numberPlace, m.endpoint.svc.cfg.Place)
	var room [64]byte // for most replies
	for i := range m.slots {
		reply := room[:0]
		if s := &m.slots[i]; s.err != nil {
			reply = appendProtobufError(reply, numberErrorOfOne, s.err)
		} else {
			reply = m.endpoint.codec.protobuf.appendReply(reply, &s.reply)
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, numberResponses, protowire.BytesType), reply)
	}
	return b
}

// appendProtobufError writes an error as a field of that number.
func appendProtobufError(b []byte, n protowire.Number, e *Error) []byte {
	text := wire.AppendVarint(nil, 1, uint64(e.Code))
	text = appendString(text, 2, e.Reason)
	text = appendString(text, 3, e.text())
	text = wire.AppendVarint(text, 4, uint64(milliseconds(e.retryAfter())))
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), text)
}

// appendString writes a field that is left out when it is empty.
func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}
