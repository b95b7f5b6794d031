package transport

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// permit is what a check of a concurrency gets, to be released at the same place: eu.de.berlin/<session>/<serial>. The
// session is that of the place's process, in 16 hexadecimal digits: its permits end with it.
type permit struct {
	place           string
	session, serial uint64
}

// maxPermit is the most bytes that a permit has beside its place: two slashes, a session and a serial.
const maxPermit = 1 + 16 + 1 + 20

func (p permit) String() string {
	b := make([]byte, 0, len(p.place)+maxPermit)
	b = fmt.Appendf(append(b, p.place...), "/%016x/", p.session)
	return string(strconv.AppendUint(b, p.serial, 10))
}

// parsePermit reads a permit as [permit.String] writes it, and in no other way.
func parsePermit(s string) (permit, *Error) {
	place, rest, _ := strings.Cut(s, "/")
	session, serial, _ := strings.Cut(rest, "/")
	p := permit{place: place}
	var err, err2 error
	p.session, err = strconv.ParseUint(session, 16, 64)
	p.serial, err2 = strconv.ParseUint(serial, 10, 64)
	_, err3 := tiers.ParsePlace(place)
	if err != nil || err2 != nil || err3 != nil || p.String() != s {
		return permit{}, ErrMalformed.Errorf("permit %s is none: send what the check's reply had, such as %s",
			quote(s), permit{"eu.de.berlin", 0x1f3a5c7e9b2d4f60, 7})
	}
	return p, nil
}
