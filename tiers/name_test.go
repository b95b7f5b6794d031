package tiers

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		place  string
		parent Place
		depth  int
		tier   string
	}{
		{"global", "", 0, "global"},
		{"eu", Root, 1, "region"},
		{"eu.de", "eu", 2, "country"},
		{"eu.de.berlin", "eu.de", 3, "city"},
		{"eu.de.berlin.app-7", "eu.de.berlin", 4, "tier-4"},
		{strings.Repeat("x", 32), Root, 1, "region"},
		{"a" + strings.Repeat(".b", maxDepth-1), Place("a" + strings.Repeat(".b", maxDepth-2)), maxDepth, "tier-16"},
	} {
		p, err := ParsePlace(test.place)
		if err != nil {
			t.Errorf("%s: %v", test.place, err)
			continue
		}
		if p.Parent() != test.parent || p.Depth() != test.depth || p.Tier() != test.tier {
			t.Errorf("%s: parent %q, depth %d, tier %s; want %q, %d, %s", p, p.Parent(), p.Depth(), p.Tier(), test.parent, test.depth, test.tier)
		}
	}
}

func TestBadPlacesAreRefused(t *testing.T) {
	for _, test := range []struct{ place, says string }{
		{"", "is empty"},
		{"eu.", "empty part"},
		{".eu", "empty part"},
		{"eu..de", "empty part"},
		{"eu." + strings.Repeat("x", 33), "33 bytes"},
		{"EU", `"EU" may hold only`},
		{"eu.köln", `"köln" may hold only`},
		{"eu.de berlin", `"de berlin" may hold only`},
		{"eu.*", `"*" may hold only`},
		{"eu.>", `">" may hold only`},
		{"eu/de", `"eu/de" may hold only`},
		{"eu\x00", `"eu\x00" may hold only`},
		{"global.eu", "is the root alone"},
		{"eu.global", "is the root alone"},
		{"a" + strings.Repeat(".b", maxDepth), "17 deep"},
	} {
		if _, err := ParsePlace(test.place); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%q: %v, want one that says %s", test.place, err, test.says)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for _, test := range []struct {
		key, says string // says is "" where the key is good
	}{
		{"alice", ""},
		{"a/b c.d>*", ""},
		{"köln 東京", ""},
		{strings.Repeat("x", MaxKey), ""},
		{"", "this one has 0"},
		{strings.Repeat("x", MaxKey+1), "this one has 513"},
		{strings.Repeat("ä", MaxKey/2+1), "this one has 514"},
		{"\xff", "not valid UTF-8"},
		{"a\x00b", "at byte 1"},
		{"tab\t", "at byte 3"},
		{"\u0085", "at byte 0"}, // a control character beyond ASCII
		{"del\x7f", "at byte 3"},
	} {
		err := CheckKey(test.key)
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%.20q: %v, want %q", test.key, err, test.says)
		}
	}
}

// drawPlace draws a place; the root too.
func drawPlace(t *rapid.T, label string) Place {
	if rapid.IntRange(0, 9).Draw(t, label+" is the root") == 0 {
		return Root
	}
	return Place(rapid.StringMatching(`[a-f][a-z0-9-]{0,3}(\.[a-z0-9-]{1,4}){0,3}`).Draw(t, label))
}

// drawName draws a name; keys are hard ones: separators, prefixes of each
// other.
func drawName(t *rapid.T, label string) Name {
	n := Name{
		Namespace: rapid.SampledFrom([]string{"a", "ab", "a-", "a_"}).Draw(t, label+" namespace"),
		Key:       rapid.StringMatching(`[ -/a-c./ä\x{10FFFF}]{1,4}`).Draw(t, label+" key"),
	}
	if err := CheckKey(n.Key); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParsedPlacesHaveParents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlace(t, "place")
		if parsed, err := ParsePlace(string(p)); err != nil || parsed != p {
			t.Fatalf("%s: %v", p, err)
		}
		steps := 0
		for q := p; q != Root; q = q.Parent() {
			if _, err := ParsePlace(string(q)); err != nil {
				t.Fatal(err)
			}
			steps++
		}
		if steps != p.Depth() {
			t.Fatalf("%s is %d deep, and %d steps from the root", p, p.Depth(), steps)
		}
	})
}

func TestTotalsAreNotWrapped(t *testing.T) {
	for _, test := range []struct {
		a, b Total
		fits bool
	}{
		{Total{1, 2}, Total{3, 4}, true},
		{Total{1<<64 - 1, 0}, Total{0, 1<<64 - 1}, true},
		{Total{1<<64 - 1, 0}, Total{1, 0}, false},
		{Total{0, 1 << 63}, Total{0, 1 << 63}, false},
	} {
		sum, fits := test.a.plus(test.b)
		if fits != test.fits || fits && sum != (Total{test.a.Added + test.b.Added, test.a.Removed + test.b.Removed}) {
			t.Errorf("%v + %v = %v, %v", test.a, test.b, sum, fits)
		}
	}
}
