package transport

import (
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// This file says what is wrong with a request, where, and what to do.

// misfit says why a name is none of the request's fields.
func misfit(i field, name string, v Verb, known []field) *Error {
	switch {
	case name == "id":
		return notRemembered(name, v)
	case i == fieldRequests:
		if v == VerbList {
			return ErrMalformed.Errorf("unknown field \"requests\": a list is asked for alone, not in a batch")
		}
		return ErrMalformed.Errorf("unknown field \"requests\": a batch holds requests, not batches")
	}
	names := make([]string, len(known))
	for n, i := range known {
		names[n] = fieldSpecs[i].name
		if strings.EqualFold(name, names[n]) {
			return ErrMalformed.Errorf("unknown field %s: it is spelt %q", quote(name), names[n])
		}
	}
	return ErrMalformed.Errorf("unknown field %s: the fields of %s are %s", quote(name), v, strings.Join(names, ", "))
}

// notRemembered refuses the id of a request whose verb is not remembered; what is the field or header that has it.
func notRemembered(what string, v Verb) *Error {
	return ErrUnsupportedID.Errorf("%s: only a check and an add are remembered by an id, and a %s is not; leave it out", what, v)
}

// otherThanRequests names what stands beside a batch: the field just read, or one that came before.
func otherThanRequests(i field, raw []byte, f *fields) string {
	if i != fieldRequests {
		return quote(string(unquoted(raw)))
	}
	for i := range fieldCount {
		if f.has(i) {
			return quote(fieldSpecs[i].name)
		}
	}
	return "another"
}

// broken says what makes a message no JSON, and where.
func broken(err error) *Error {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return ErrMalformed.Errorf("the JSON ends too early: a brace, bracket or quote is not closed")
	case !ok:
		return ErrMalformed.Errorf("the request cannot be read as JSON: %v", err)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return ErrMalformed.Errorf("the field %s is repeated%s: send it once",
			quote(syntax.JSONPointer.LastToken()), within(syntax.JSONPointer.Parent()))
	}
	return ErrMalformed.Errorf("the request is not JSON: %v, at byte %d%s",
		syntax.Err, syntax.ByteOffset, within(syntax.JSONPointer))
}

func within(p jsontext.Pointer) string {
	if p == "" {
		return ""
	}
	return " in " + quote(string(p))
}

// kindName names what a JSON value is.
func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "an array"
	case '{':
		return "an object"
	}
	return "no JSON"
}

func either(first, second *Error) *Error {
	if first != nil {
		return first
	}
	return second
}
