package transport

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestURLsAreShownWithoutTheirSecrets(t *testing.T) {
	for urls, want := range map[string]string{
		"":                              "",
		"127.0.0.1:4222":                "127.0.0.1:4222",
		"nats://a:1, nats://b:2":        "nats://a:1,nats://b:2",
		"nats://a:1,":                   "nats://a:1,",
		"nats://[::1]:4222":             "nats://[::1]:4222",
		"nats://me:SECRET@a:1":          "nats://me:xxxxx@a:1",
		"me:SECRET@a:1":                 "me:xxxxx@a:1",
		"tls://SECRET@a:1":              "tls://xxxxx@a:1",
		"SECRET@a":                      "xxxxx@a",
		"nats://me:@a:1":                "nats://me:xxxxx@a:1",
		"nats://me:SE@CRET@a:1":         "nats://me:xxxxx@a:1",
		"nats://a:1,nats://me:SECRET@b": "nats://a:1,nats://me:xxxxx@b",
		"ws://me:SECRET@a/path":         "ws://me:xxxxx@a/path",
		"ws://a/path?key=SECRET":        "ws://a/path",
		"nats://me:1#SECRET@a:1":        "xxxxx",
		"nats://me:1?SECRET@a:1":        "xxxxx",
		"nats://me:1/SECRET@a:1":        "xxxxx",
		"nats://SEC/RET@a:1":            "xxxxx",
		"nats://me:x,SECRET@a:1":        "xxxxx,xxxxx@a:1",
		"nats://me:%SECRET@a:1":         "xxxxx",
		"nats://me:SECRET @a:1":         "xxxxx",
	} {
		got := RedactURLs(urls)
		if got != want {
			t.Errorf("%q is shown as %q, want %q", urls, got, want)
		}
		if again := Redact("see " + got + " there"); again != "see "+got+" there" {
			t.Errorf("%q becomes %q in a text", got, again)
		}
		if in := Redact("see " + urls + " there"); strings.Contains(urls, "://") && !strings.Contains(urls, "?key") && !strings.Contains(urls, " ") && strings.Contains(in, "SEC") {
			t.Errorf("%q becomes %q in a text", urls, in)
		}
	}
}

// TestErrorsLoseTheirSecrets: whatever quotes a URL, or a part of it.
func TestErrorsLoseTheirSecrets(t *testing.T) {
	cause := errors.New("the cause")
	for _, text := range []string{"parse %q", "user me:SE%%40CRET", "no password SE@CRET there", "dial %s"} {
		if strings.Count(text, "%") == 1 {
			text = fmt.Sprintf(text, "nats://me:SE%40CRET@a:1")
		} else {
			text = strings.ReplaceAll(text, "%%", "%")
		}
		err := quiet(fmt.Errorf("%s: %w", text, cause), "nats://b:2,nats://me:SE%40CRET@a:1")
		if strings.Contains(err.Error(), "CRET") || !errors.Is(err, cause) {
			t.Errorf("%q becomes %v", text, err)
		}
	}
	if err := quiet(cause, "nats://me:SECRET@a:1"); !errors.Is(err, cause) || err.Error() != cause.Error() {
		t.Errorf("%v", err)
	}
	if _, err := Dial("nats://me:x SECRET@127.0.0.1:1", "test", "", zerolog.Nop()); err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "server 1 of 1") {
		t.Errorf("%v", err)
	}
}
