package transport

import (
	"strings"
	"time"
	"unicode/utf8"
)

func (q *CheckRequest) validate() *Error {
	if err := checkName(q.Namespace, q.Key); err != nil {
		return err
	}
	if err := checkRange("hits", q.Hits, 0, MaxInteger); err != nil {
		return err
	}
	if q.Wait != RuleWait && (q.Wait < 0 || q.Wait > MaxWait) {
		return checkRange("wait_ms", milliseconds(q.Wait), 0, MaxWait.Milliseconds())
	}
	return checkIDIfAny(q.ID)
}

func (q *ReleaseRequest) validate() *Error {
	if err := checkName(q.Namespace, q.Key); err != nil {
		return err
	}
	_, err := parsePermit(q.Permit)
	return err
}

func (q *RefundRequest) validate() *Error {
	if err := checkName(q.Namespace, q.Key); err != nil {
		return err
	}
	return checkRange("hits", q.Hits, 0, MaxInteger)
}

func (q *AddRequest) validate() *Error {
	if err := checkName(q.Namespace, q.Key); err != nil {
		return err
	}
	if err := checkRange("delta", q.Delta, -MaxInteger, MaxInteger); err != nil {
		return err
	}
	return checkIDIfAny(q.ID)
}

func (q *GetRequest) validate() *Error { return checkName(q.Namespace, q.Key) }

func (q *ListRequest) validate() *Error {
	if err := checkNamespace(q.Namespace); err != nil {
		return err
	}
	if err := checkText("prefix", q.Prefix); err != nil {
		return err
	}
	if err := checkText("after", q.After); err != nil {
		return err
	}
	return checkRange("limit", int64(q.Limit), 1, MaxList)
}

func checkName(namespace, key string) *Error {
	if err := checkNamespace(namespace); err != nil {
		return err
	}
	if key == "" {
		return ErrOutOfRange.Errorf("key is empty: a key is 1 to %d bytes", MaxKey)
	}
	return checkText("key", key)
}

func checkNamespace(s string) *Error {
	if s == "" || len(s) > MaxNamespace {
		return ErrOutOfRange.Errorf("namespace is %d bytes long: it has 1 to %d", len(s), MaxNamespace)
	}
	if strings.ContainsFunc(s, notNamespaceRune) {
		return ErrOutOfRange.Errorf("namespace %s may hold only a-z, 0-9, \"_\" and \"-\"", quote(s))
	}
	return nil
}

func notNamespaceRune(r rune) bool { return notPlaceRune(r) && r != '_' }

// checkText holds what is true of a key and of its parts.
func checkText(field, s string) *Error { return checkWithin(field, s, MaxKey) }

// checkID holds what is true of an id, wherever it stands.
func checkID(field, s string) *Error {
	if s == "" {
		return ErrOutOfRange.Errorf("%s is empty: an id is 1 to %d bytes; leave it out where there is none", field, MaxID)
	}
	return checkWithin(field, s, MaxID)
}

func checkIDIfAny(s string) *Error {
	if s == "" {
		return nil
	}
	return checkID("id", s)
}

// checkWithin holds what is true of every text: no longer than most, UTF-8, no control character (C0, DEL, C1). No
// normalisation: they are compared as bytes.
func checkWithin(field, s string, most int) *Error {
	if len(s) > most {
		return ErrOutOfRange.Errorf("%s is %d bytes long: at most %d are allowed", field, len(s), most)
	}
	for i, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ErrOutOfRange.Errorf("%s has the control character %U at its byte %d: leave it out", field, r, i)
		}
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return ErrMalformed.Errorf("%s is not valid UTF-8 at its byte %d: encode it as UTF-8", field, i)
		}
	}
	return nil
}

func checkRange(field string, n, least, most int64) *Error {
	if n < least || n > most {
		return ErrOutOfRange.Errorf("%s is %d: it goes from %d to %d", field, n, least, most)
	}
	return nil
}

// milliseconds rounds away from zero, so that neither a wait that is short nor one that is a little too long vanishes.
func milliseconds(d time.Duration) int64 {
	ms := d.Milliseconds()
	switch rest := d % time.Millisecond; {
	case rest > 0:
		ms++
	case rest < 0:
		ms--
	}
	return ms
}
