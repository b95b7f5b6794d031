package main

import (
	"strings"
	"testing"
	"time"
)

func TestDemoLineSaysTheLimit(t *testing.T) {
	at := time.Now()
	before := standing{at: at, cast: 2000, counted: 1990, offered: 1861, admitted: 1641, bound: 2000}
	now := standing{at: at.Add(2 * time.Second), cast: 6352, counted: 6308, offered: 5583, admitted: 3665, bound: 4000}
	if got, want := now.since(before), "6308 votes (+2176/s); limit 1000/s: 1012 of 1861 asked admitted; 44 votes under way"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if seen, _, _ := strings.Cut("1234s  "+now.since(before), "; 44"); len(seen) > 79 {
		t.Errorf("what matters is cut off on 80 columns: %d", len(seen))
	}
	now.bound = 3664
	if got := now.since(before); !strings.Contains(got, "limit 1000/s BROKEN: 1012 of 1861 asked admitted") {
		t.Errorf("a broken limit: %s", got)
	}
}

func TestDemoSummary(t *testing.T) {
	for _, c := range []struct {
		s      standing
		want   string
		broken bool
	}{
		{standing{cast: 100, counted: 100, offered: 200, admitted: 90, bound: 95}, "In 34s 27 places: all 100 votes are counted. Limit of 1000/s, burst 1000, kept: 90 of 200 asked admitted, at most 95 allowed.\n", false},
		{standing{cast: 100, counted: 97, bound: 95}, "97 of 100 votes are counted, and 3 under way, as where a link is cut. Limit", false},
		{standing{cast: 100, counted: 102, unanswered: 2, bound: 95}, "all 100 votes are counted, and 2 whose voters got no answer. Limit", false},
		{standing{cast: 100, counted: 103, unanswered: 2, bound: 95}, "100 votes were cast, and 103 are counted. Limit", true},
		{standing{cast: 100, counted: 100, offered: 200, admitted: 96, bound: 95}, "BROKEN: 96 of 200 asked admitted", true},
	} {
		text, broken := c.s.summary(34100*time.Millisecond, 27)
		if !strings.Contains(text, c.want) || (broken != nil) != c.broken {
			t.Errorf("%+v: %q, %v", c.s, text, broken)
		}
	}
}
