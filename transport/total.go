package transport

import (
	"fmt"
	"strconv"
)

// Total is what was counted: two sums that only grow. On the wire it is their difference, one JSON integer, printed
// in full: it may lie beyond what int64, or JavaScript, holds. A Total that was read from the wire has the net in one
// of the two sums and 0 in the other, so compare totals with [Total.Net] or [Total.String], not with ==.
type Total struct {
	Added, Removed uint64
}

// Net returns the difference as a sign and a size, which cannot overflow.
func (t Total) Net() (negative bool, size uint64) {
	if t.Removed > t.Added {
		return true, t.Removed - t.Added
	}
	return false, t.Added - t.Removed
}

// Int64 returns the difference, and whether it fits.
func (t Total) Int64() (n int64, fits bool) {
	negative, size := t.Net()
	if negative {
		// The conversion wraps to the right value also for 1<<63, the size of the least int64.
		return -int64(size), size <= 1<<63
	}
	return int64(size), size <= 1<<63-1
}

// String returns the difference in decimal.
func (t Total) String() string { return string(t.appendJSON(make([]byte, 0, 21))) }

// MarshalJSON returns the difference as a JSON integer.
func (t Total) MarshalJSON() ([]byte, error) { return t.appendJSON(nil), nil }

// UnmarshalJSON reads a JSON integer between -(2⁶⁴-1) and 2⁶⁴-1.
func (t *Total) UnmarshalJSON(data []byte) error {
	digits, negative := data, false
	if len(digits) > 0 && digits[0] == '-' {
		digits, negative = digits[1:], true
	}
	// ParseUint takes no sign, no fraction, no exponent, and in base 10 no underscore.
	size, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return fmt.Errorf("total %s is no integer of at most 64 bits and a sign: the server may be newer "+
			"than this client", quote(string(data)))
	}
	*t = Total{Added: size}
	if negative {
		*t = Total{Removed: size}
	}
	return nil
}

func (t Total) appendJSON(b []byte) []byte {
	negative, size := t.Net()
	if negative {
		b = append(b, '-')
	}
	return strconv.AppendUint(b, size, 10)
}
