package limiter

import (
	"math"
	"time"
)

// A Window is how a quota's time is cut: into minutes, hours, days, weeks or
// months as the clocks and calendars of a time zone show them. A window is
// named by its begin, in Unix seconds, and lasts until the next one begins.
//
// Clocks are set forward and back, so windows differ in length. Minutes and
// hours begin whenever the clock shows a full one: an hour that is shown
// twice is two windows, and one that the clock jumps into belongs to the
// window before. Days, weeks and months begin when the date is first reached:
// at 01:00 where there is no midnight, at the first of two, and a date that
// was reached stays reached although the clock is set back across midnight.
// A date that a zone skipped has no window.
type Window struct {
	Unit Unit
	Zone *time.Location
}

// Unit is the length of a window.
type Unit int

// The units. A week begins on Monday.
const (
	NoUnit Unit = iota
	Minute
	Hour
	Day
	Week
	Month
)

var unitNames = []string{"", "minute", "hour", "day", "week", "month"}

func (u Unit) String() string { return unitNames[u] }

const daySeconds = 24 * 60 * 60

// zone is the name of its time zone.
func (w Window) zone() string { return w.Zone.String() }

// Begin returns the begin of the window that holds t, in Unix seconds.
func (w Window) Begin(t int64) int64 {
	length := w.clock()
	if length == 0 {
		return w.reaches(w.wall(w.number(t)))
	}
	for {
		offset, since, _ := w.offset(t)
		if full := t - floorMod(t+offset, length); full >= since {
			return full
		}
		t = since - 1
	}
}

// End returns the begin of the window after the one that holds t.
func (w Window) End(t int64) int64 {
	length := w.clock()
	if length == 0 {
		return w.reaches(w.wall(w.number(t) + 1))
	}
	for t++; ; {
		offset, _, until := w.offset(t)
		if full := t + floorMod(-t-offset, length); full < until {
			return full
		}
		t = until
	}
}

// clock is the length of the units that the clock shows, 0 of those that the
// calendar does.
func (w Window) clock() int64 {
	switch w.Unit {
	case Minute:
		return 60
	case Hour:
		return 60 * 60
	}
	return 0
}

// offset returns what the zone's clock is ahead of UTC at t, and since when
// and until when it is.
func (w Window) offset(t int64) (offset, since, until int64) {
	at := time.Unix(t, 0).In(w.Zone)
	_, seconds := at.Zone()
	since, until = math.MinInt64, math.MaxInt64
	begin, end := at.ZoneBounds()
	if !begin.IsZero() {
		since = begin.Unix()
	}
	if !end.IsZero() {
		until = end.Unix()
	}
	// On the last day of some leap years ZoneBounds returns the begin of that
	// day for an end (golang/go#81583), and nothing changes until it is over.
	// Whatever else it may return, those who walk the bounds get on.
	if until <= t {
		until = t - floorMod(t, daySeconds) + daySeconds
	}
	return int64(seconds), min(since, t), until
}

// number counts the windows of a calendar: it is the last whose first date
// the zone's clock showed at t or, if it was set back since, before t.
func (w Window) number(t int64) (n int64) {
	offset, _, _ := w.offset(t)
	days := floorDiv(t+offset, daySeconds)
	switch w.Unit {
	case Day:
		n = days
	case Week:
		n = floorDiv(days+3, 7) // 1970 began on a Thursday
	default:
		year, month, _ := time.Unix(t+offset, 0).UTC().Date()
		n = int64(year-1970)*12 + int64(month-1)
	}
	for w.reaches(w.wall(n+1)) <= t {
		n++
	}
	return n
}

// wall is what the clock shows at the first midnight of a window: the Unix
// seconds at which one in UTC would.
func (w Window) wall(n int64) int64 {
	switch w.Unit {
	case Day:
		return n * daySeconds
	case Week:
		return (7*n - 3) * daySeconds
	}
	return time.Date(1970, time.January+time.Month(n), 1, 0, 0, 0, 0, time.UTC).Unix()
}

// reaches returns the first instant at which the zone's clock shows wall or
// later.
func (w Window) reaches(wall int64) int64 {
	t := wall - daySeconds // no zone was ever a day ahead
	for {
		offset, _, until := w.offset(t)
		if at := max(t, wall-offset); at < until {
			return at
		}
		t = until
	}
}

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

func floorMod(a, b int64) int64 { return (a%b + b) % b }
