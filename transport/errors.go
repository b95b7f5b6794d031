package transport

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Error is a request's refusal, as it travels: a code that says whose turn it is (4xx: the caller's; 5xx: ours, and
// worth another try), a reason for programs to branch on, and a message for people that says what was wrong and what
// to do.
//
// Two errors are the same to [errors.Is] when their reasons are, so compare with the values below:
//
//	if errors.Is(err, transport.ErrOverloaded) { ... }
type Error struct {
	Code    int
	Reason  string
	Message string
	// RetryAfter says when to try again, rounded up to a millisecond on the wire; 0 when that is not known.
	RetryAfter time.Duration

	cause error
}

// The refusals that callers branch on.
var (
	// ErrMalformed: the request is not JSON of the documented shape.
	ErrMalformed = &Error{Code: 400, Reason: "malformed", Message: "the request is malformed"}
	// ErrOutOfRange: a value of the request is longer, larger or smaller than allowed, or an add would take a
	// leaf's totals past 2⁵³-1.
	ErrOutOfRange = &Error{Code: 400, Reason: "out_of_range", Message: "a value is out of range"}
	// ErrUnsupportedVersion: the request's Tributary-Version is none that is served.
	ErrUnsupportedVersion = &Error{Code: 400, Reason: "unsupported_version", Message: "the version is not served"}
	// ErrUnsupportedID: the request carries an id that is not remembered there: its verb is not, or the namespace's
	// rule has no dedupe, or it was sent to any leaf, so that its retry may reach another. Nothing was done.
	ErrUnsupportedID = &Error{Code: 400, Reason: "unsupported_id", Message: "the id is not remembered"}
	// ErrTooLarge: the batch's answer could exceed the largest message that the NATS server takes; nothing was done.
	ErrTooLarge = &Error{Code: 400, Reason: "too_large", Message: "the answer would be too large"}
	// ErrUnknownNamespace: no rule names the request's namespace.
	ErrUnknownNamespace = &Error{Code: 404, Reason: "unknown_namespace", Message: "the namespace is unknown"}
	// ErrNotServed: the place does not do this; only a leaf checks, releases, refunds and adds.
	ErrNotServed = &Error{Code: 409, Reason: "not_served", Message: "the place does not serve this"}
	// ErrWrongPlace: the permit or the object is another place's, which the message names; only that one has it.
	ErrWrongPlace = &Error{Code: 409, Reason: "wrong_place", Message: "it is another place's"}
	// ErrIDReused: the request's id is another request's, of the same namespace and place. Nothing was done.
	ErrIDReused = &Error{Code: 409, Reason: "id_reused", Message: "the id is another request's"}
	// ErrUnknownPlace: no such place ever reported to the one that was asked, or no place has objects of that name.
	ErrUnknownPlace = &Error{Code: 404, Reason: "unknown_place", Message: "the place is unknown"}
	// ErrConflict: what is so at the place does not allow this now; the message says what.
	ErrConflict = &Error{Code: 409, Reason: "conflict", Message: "this is not possible now"}
	// ErrNotOwner: the place owns no limit of the namespace; the message names those that do.
	ErrNotOwner = &Error{Code: 409, Reason: "not_owner", Message: "the place owns no such limit"}
	// ErrNotCounted: an add, get or list in a namespace that has limits, which is not counted.
	ErrNotCounted = &Error{Code: 409, Reason: "not_counted", Message: "the namespace is limited, not counted"}
	// ErrInternal: the service failed; the request may have been done.
	ErrInternal = &Error{Code: 500, Reason: "internal", Message: "the service failed"}
	// ErrOverloaded: too much is in flight.
	ErrOverloaded = &Error{Code: 503, Reason: "overloaded", Message: "too much is in flight"}
	// ErrNotReady: the place is starting, or lacks what it needs.
	ErrNotReady = &Error{Code: 503, Reason: "not_ready", Message: "the place is not ready"}
	// ErrDraining: the place is stopping.
	ErrDraining = &Error{Code: 503, Reason: "draining", Message: "the place is stopping"}
	// ErrFenced: a newer process serves the place.
	ErrFenced = &Error{Code: 503, Reason: "fenced", Message: "a newer process serves the place"}
	// ErrStorage: the place's disk is full or failing.
	ErrStorage = &Error{Code: 503, Reason: "storage", Message: "the place's storage failed"}
	// ErrNoResponders: NATS says that nobody listens on the subject. It is made by the client, and sent only by a place
	// that passes a request on.
	ErrNoResponders = &Error{Code: 503, Reason: "no_responders", Message: "nobody listens"}
)

// Errorf returns an error of the same code and reason with a message of its own.
func (e *Error) Errorf(format string, args ...any) *Error {
	return &Error{Code: e.Code, Reason: e.Reason, RetryAfter: e.RetryAfter, Message: fmt.Sprintf(format, args...)}
}

// After returns an error that also says when to try again.
func (e *Error) After(d time.Duration) *Error {
	after := *e
	after.RetryAfter = d
	return &after
}

// Error returns the message, with code and reason in front.
func (e *Error) Error() string {
	return strconv.Itoa(e.Code) + " " + e.Reason + ": " + e.Message
}

// Is reports whether target is an [Error] of the same reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// Unwrap returns what the NATS client said, if it was the NATS client.
func (e *Error) Unwrap() error { return e.cause }

// maxErrorText bounds an error's message on the wire, in bytes: with it, what a batch of a thousand refusals takes
// is known beforehand, and fits a NATS message of the default size.
const maxErrorText = 256

// text returns the message, cut to its bound.
func (e *Error) text() string { return shorten(e.Message, maxErrorText) }

// quote returns what a caller sent for a message: short, printable and on one line, whatever it was.
func quote(s string) string {
	const most = 48
	if short := shorten(s, most); short != s {
		return strconv.Quote(short) + "…"
	}
	return strconv.Quote(s)
}

// shorten cuts s to at most n bytes, between characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// headline is the error in one line for a header: NATS micro's Nats-Service-Error.
func (e *Error) headline() string { return e.Reason + ": " + e.text() }
