package limiter

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := loadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestWindow shows the windows of some instants of interest. Times are
// written as the zone's clock shows them, with its offset: an hour may be
// shown twice.
func TestWindow(t *testing.T) {
	const layout = "2006-01-02 15:04:05 -0700"
	for _, test := range []struct {
		name, zone     string
		unit           Unit
		at, begin, end string
	}{
		{"a minute", "UTC", Minute, "2026-03-04 05:06:07 +0000", "2026-03-04 05:06:00 +0000", "2026-03-04 05:07:00 +0000"},
		{"an hour", "UTC", Hour, "2026-03-04 05:06:07 +0000", "2026-03-04 05:00:00 +0000", "2026-03-04 06:00:00 +0000"},
		{"a day", "UTC", Day, "2026-03-04 05:06:07 +0000", "2026-03-04 00:00:00 +0000", "2026-03-05 00:00:00 +0000"},
		{"a week", "UTC", Week, "2026-03-04 05:06:07 +0000", "2026-03-02 00:00:00 +0000", "2026-03-09 00:00:00 +0000"},
		{"a month", "UTC", Month, "2026-03-04 05:06:07 +0000", "2026-03-01 00:00:00 +0000", "2026-04-01 00:00:00 +0000"},
		{"a begin is in its window", "UTC", Day, "2026-03-04 00:00:00 +0000", "2026-03-04 00:00:00 +0000", "2026-03-05 00:00:00 +0000"},
		{"a last second", "UTC", Day, "2026-03-03 23:59:59 +0000", "2026-03-03 00:00:00 +0000", "2026-03-04 00:00:00 +0000"},
		{"a Monday", "UTC", Week, "2026-03-02 00:00:00 +0000", "2026-03-02 00:00:00 +0000", "2026-03-09 00:00:00 +0000"},
		{"a Sunday", "UTC", Week, "2026-03-01 23:59:59 +0000", "2026-02-23 00:00:00 +0000", "2026-03-02 00:00:00 +0000"},
		{"a week across a year", "UTC", Week, "2027-01-01 12:00:00 +0000", "2026-12-28 00:00:00 +0000", "2027-01-04 00:00:00 +0000"},
		{"December", "UTC", Month, "2026-12-31 23:59:59 +0000", "2026-12-01 00:00:00 +0000", "2027-01-01 00:00:00 +0000"},
		{"a February of 29 days", "UTC", Month, "2028-02-29 12:00:00 +0000", "2028-02-01 00:00:00 +0000", "2028-03-01 00:00:00 +0000"},
		{"before 1970", "UTC", Month, "1969-12-31 23:59:59 +0000", "1969-12-01 00:00:00 +0000", "1970-01-01 00:00:00 +0000"},
		{"a week before 1970", "UTC", Week, "1969-12-28 23:59:59 +0000", "1969-12-22 00:00:00 +0000", "1969-12-29 00:00:00 +0000"},

		{"a day of 23 hours", "Europe/Berlin", Day, "2026-03-29 12:00:00 +0200", "2026-03-29 00:00:00 +0100", "2026-03-30 00:00:00 +0200"},
		{"a day of 25 hours", "Europe/Berlin", Day, "2026-10-25 02:30:00 +0100", "2026-10-25 00:00:00 +0200", "2026-10-26 00:00:00 +0100"},
		{"a week of 167 hours", "Europe/Berlin", Week, "2026-03-24 12:00:00 +0100", "2026-03-23 00:00:00 +0100", "2026-03-30 00:00:00 +0200"},
		{"a month with a change", "Europe/Berlin", Month, "2026-10-31 12:00:00 +0100", "2026-10-01 00:00:00 +0200", "2026-11-01 00:00:00 +0100"},
		{"the hour before one that is not there", "Europe/Berlin", Hour, "2026-03-29 01:59:59 +0100", "2026-03-29 01:00:00 +0100", "2026-03-29 03:00:00 +0200"},
		{"an hour for the first time", "Europe/Berlin", Hour, "2026-10-25 02:30:00 +0200", "2026-10-25 02:00:00 +0200", "2026-10-25 02:00:00 +0100"},
		{"an hour for the second time", "Europe/Berlin", Hour, "2026-10-25 02:30:00 +0100", "2026-10-25 02:00:00 +0100", "2026-10-25 03:00:00 +0100"},

		{"no midnight", "America/Sao_Paulo", Day, "2018-11-04 12:00:00 -0200", "2018-11-04 01:00:00 -0200", "2018-11-05 00:00:00 -0200"},
		{"the day before no midnight", "America/Sao_Paulo", Day, "2018-11-03 23:59:59 -0300", "2018-11-03 00:00:00 -0300", "2018-11-04 01:00:00 -0200"},
		{"a week with no midnight", "America/Sao_Paulo", Week, "2018-11-03 23:59:59 -0300", "2018-10-29 00:00:00 -0300", "2018-11-05 00:00:00 -0200"},
		{"midnight that is set back", "America/Sao_Paulo", Day, "2018-02-17 23:30:00 -0300", "2018-02-17 00:00:00 -0200", "2018-02-18 00:00:00 -0300"},
		{"no first midnight of a month", "America/Asuncion", Month, "2017-10-15 00:00:00 -0300", "2017-10-01 01:00:00 -0300", "2017-11-01 00:00:00 -0300"},
		{"the month before that", "America/Asuncion", Month, "2017-09-30 23:59:59 -0400", "2017-09-01 00:00:00 -0400", "2017-10-01 01:00:00 -0300"},
		{"midnight twice", "America/Havana", Day, "2026-11-01 00:30:00 -0500", "2026-11-01 00:00:00 -0400", "2026-11-02 00:00:00 -0500"},
		{"a date that comes again", "America/St_Johns", Day, "2010-11-06 23:30:00 -0330", "2010-11-07 00:00:00 -0230", "2010-11-08 00:00:00 -0330"},
		{"a date that was skipped", "Pacific/Apia", Day, "2011-12-29 12:00:00 -1000", "2011-12-29 00:00:00 -1000", "2011-12-31 00:00:00 +1400"},
		{"the date after it", "Pacific/Apia", Day, "2011-12-31 12:00:00 +1400", "2011-12-31 00:00:00 +1400", "2012-01-01 00:00:00 +1400"},

		{"an hour of a zone of half hours", "Asia/Kolkata", Hour, "2026-03-04 05:06:07 +0530", "2026-03-04 05:00:00 +0530", "2026-03-04 06:00:00 +0530"},
		{"an hour of a zone of quarters", "Asia/Kathmandu", Hour, "2026-03-04 05:59:59 +0545", "2026-03-04 05:00:00 +0545", "2026-03-04 06:00:00 +0545"},
		{"half an hour forward", "Australia/Lord_Howe", Hour, "2026-10-04 02:45:00 +1100", "2026-10-04 01:00:00 +1030", "2026-10-04 03:00:00 +1100"},
		{"half an hour back", "Australia/Lord_Howe", Hour, "2026-04-05 01:45:00 +1030", "2026-04-05 01:00:00 +1100", "2026-04-05 02:00:00 +1030"},
		{"a day of 24.5 hours", "Australia/Lord_Howe", Day, "2026-04-05 12:00:00 +1030", "2026-04-05 00:00:00 +1100", "2026-04-06 00:00:00 +1030"},
		{"the last day of a leap year", "America/New_York", Day, "2028-12-31 12:00:00 -0500", "2028-12-31 00:00:00 -0500", "2029-01-01 00:00:00 -0500"},
		{"the last hour of a leap year", "Europe/Berlin", Hour, "2296-12-31 23:30:00 +0100", "2296-12-31 23:00:00 +0100", "2297-01-01 00:00:00 +0100"},
		{"a year far ahead", "Europe/Berlin", Day, "2499-07-01 12:00:00 +0200", "2499-07-01 00:00:00 +0200", "2499-07-02 00:00:00 +0200"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := Window{test.unit, zone(t, test.zone)}
			at, err := time.Parse(layout, test.at)
			if err != nil {
				t.Fatal(err)
			}
			show := func(unix int64) string { return time.Unix(unix, 0).In(w.Zone).Format(layout) }
			if show(at.Unix()) != test.at {
				t.Fatalf("the clock shows %s then, not %s", show(at.Unix()), test.at)
			}
			if begin, end := show(w.Begin(at.Unix())), show(w.End(at.Unix())); begin != test.begin || end != test.end {
				t.Errorf("%s is in\n     %s to %s, want\n     %s to %s", test.at, begin, end, test.begin, test.end)
			}
		})
	}
}

var zones = []string{
	"UTC", "Europe/Berlin", "Europe/Dublin", "America/New_York", "America/Sao_Paulo", "America/Asuncion", "America/Havana", "America/St_Johns",
	"America/Juneau", "America/Nuuk", "Africa/Casablanca", "Africa/Monrovia", "Antarctica/Troll", "Asia/Kolkata", "Asia/Kathmandu",
	"Asia/Tehran", "Asia/Gaza", "Asia/Manila", "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kwajalein", "Pacific/Chatham", "Etc/GMT+12",
}

// TestWindowsFollowOneAnother draws instants, many of them next to a change
// of the clock.
func TestWindowsFollowOneAnother(t *testing.T) {
	locations := map[string]*time.Location{}
	for _, name := range zones {
		locations[name] = zone(t, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		w := Window{Unit(rapid.IntRange(int(Minute), int(Month)).Draw(t, "unit")), locations[rapid.SampledFrom(zones).Draw(t, "zone")]}
		at := rapid.Int64Range(-4_000_000_000, 20_000_000_000).Draw(t, "at") // 1843 to 2603
		switch beside := rapid.Int64Range(-3*daySeconds, 3*daySeconds).Draw(t, "beside"); rapid.SampledFrom([]string{"any", "change", "year"}).Draw(t, "near") {
		case "year":
			at = time.Date(time.Unix(at, 0).UTC().Year(), 1, 1, 0, 0, 0, 0, time.UTC).Unix() + beside
		case "change":
			if _, end := time.Unix(at, 0).In(w.Zone).ZoneBounds(); !end.IsZero() {
				at = end.Unix() + beside
			}
		}
		begin, end := w.Begin(at), w.End(at)
		show := func(unix int64) string { return time.Unix(unix, 0).In(w.Zone).Format(time.RFC3339) }
		if begin > at || at >= end {
			t.Fatalf("%s is not in %s to %s", show(at), show(begin), show(end))
		}
		if w.Begin(begin) != begin || w.End(begin) != end {
			t.Fatalf("%s begins %s to %s, not to %s", show(begin), show(w.Begin(begin)), show(w.End(begin)), show(end))
		}
		if w.Begin(end) != end {
			t.Fatalf("%s ends %s, and the next begins %s", show(at), show(end), show(w.Begin(end)))
		}
		if w.Begin(end-1) != begin || w.End(end-1) != end {
			t.Fatalf("%s to %s ends as %s to %s", show(begin), show(end), show(w.Begin(end-1)), show(w.End(end-1)))
		}

		// A window begins when the clock shows it, or where the clock changes.
		clock, length := time.Unix(begin, 0).In(w.Zone), end-begin
		changes := func(unix int64) bool { // is an end or a begin of the zone's
			since, _ := time.Unix(unix, 0).In(w.Zone).ZoneBounds()
			return !since.IsZero() && since.Unix() == unix
		}
		changed := changes(begin)
		midnight := clock.Hour() == 0 && clock.Minute() == 0 && clock.Second() == 0
		var right bool
		var least, most int64
		switch w.Unit {
		case Minute:
			right, least, most = clock.Second() == 0, 60, 2*60-1
		case Hour: // 23:30 became 00:00 in Pyongyang
			right, least, most = clock.Minute() == 0 && clock.Second() == 0, 3600, 2*3600-1
		case Day:
			right, least, most = midnight || changed, daySeconds-3*3600, 2*daySeconds+3*3600
		case Week:
			right, least, most = midnight && clock.Weekday() == time.Monday || changed, 6*daySeconds-3*3600, 8*daySeconds+3*3600
		default:
			right, least, most = midnight && clock.Day() == 1 || changed, 27*daySeconds-3*3600, 32*daySeconds+3*3600
		}
		if w.clock() > 0 && changes(end) {
			least = 1
		}
		if !right || length < least || length > most {
			t.Fatalf("the %s of %s is %s to %s: %d s", w.Unit, show(at), show(begin), show(end), length)
		}
	})
}
