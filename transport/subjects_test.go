package transport

import (
	"strings"
	"testing"

	"github.com/tributary-io/tributary/tiers"
)

func TestSubjects(t *testing.T) {
	s, err := NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		s.Any(VerbCheck):                  "tributary.check",
		s.At(VerbList, "eu.de.berlin"):    "tributary.list.eu.de.berlin",
		s.At(VerbGet, string(tiers.Root)): "tributary.get.global",
		s.Up(0, "eu.de.berlin"):           "tributary.up.0.eu.de.berlin",
		s.UpTo(0, "eu.de"):                "tributary.up.0.eu.de.*",
		s.UpTo(3, string(tiers.Root)):     "tributary.up.3.*",
		s.Down(0, "eu.de"):                "tributary.down.0.eu.de",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	partition, place, err := s.ParseUp(s.Up(12, "eu.de.berlin"))
	if partition != 12 || place != "eu.de.berlin" || err != nil {
		t.Errorf("%d %s %v", partition, place, err)
	}
	for _, bad := range []string{"", "tributary.up", "tributary.up.0", "tributary.up.x.eu", "tributary.up.01.eu", "tributary.up.-1.eu", "tributary.up.0.EU", "other.up.0.eu"} {
		if _, _, err := s.ParseUp(bad); err == nil {
			t.Errorf("%q is a report's", bad)
		}
	}
}

func TestBadPrefixIsRefused(t *testing.T) {
	for _, good := range []string{"tributary", "a.b-c_D9"} {
		if s, err := NewSubjects(good); err != nil || s.Prefix() != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{".", "a.", "a..b", "a b", "a.*", ">", "é", "$SRV"} {
		if _, err := NewSubjects(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestBadPlaceIsRefused(t *testing.T) {
	for _, good := range []string{"global", "eu", "eu.de.berlin", "us.ca-1.0", strings.Repeat("a", 32), "a.b.c.d.e.f"} {
		if _, err := tiers.ParsePlace(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"":                      "empty",
		".":                     "empty part",
		"eu.":                   "empty part",
		"eu..de":                "empty part",
		"EU":                    `the part "EU" may hold only`,
		"eu.*":                  "may hold only",
		"eu.>":                  "may hold only",
		"eu de":                 "may hold only",
		"münchen":               "may hold only",
		strings.Repeat("a", 33): "33 bytes long",
		"eu.global":             "the root alone",
	} {
		if _, err := tiers.ParsePlace(bad); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
