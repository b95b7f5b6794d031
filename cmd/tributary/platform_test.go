package main

import (
	"strings"
	"testing"
)

func TestServeSaysWhatThePlatformLacks(t *testing.T) {
	for system, want := range map[string]string{"linux": "", "darwin": "", "windows": "loss of power", "freebsd": "clock"} {
		got := strings.Join(lacks(system), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("on %s: %q", system, got)
		}
	}
}
