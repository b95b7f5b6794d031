package transport

import (
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// BenchmarkDecision is a limit decision in process, on a key that is awake,
// beside x/time/rate: both read the clock; ours also finds the object by its
// name, takes the place's lock, and counts the demand. Without the clock and
// without the name are shown apart.
func BenchmarkDecision(b *testing.B) {
	burst := int64(limiter.MaxTokens)
	name := tiers.Name{Namespace: "api", Key: "user-42"}
	local := limiter.LimitSpec{Scope: "city", Rate: "1000000000/s", Burst: &burst}
	shared := limiter.LimitSpec{Scope: "global", Rate: "1000000000/s", Burst: &burst}
	country := limiter.LimitSpec{Scope: "country", Rate: "1000000000/s", Burst: &burst}

	b.Run("x-time-rate", func(b *testing.B) {
		l := rate.NewLimiter(1e9, 1<<30)
		for b.Loop() {
			if !l.Allow() {
				b.Fatal("denied")
			}
		}
	})
	b.Run("x-time-rate-given-time", func(b *testing.B) {
		l := rate.NewLimiter(1e9, 1<<30)
		now := time.Now()
		for b.Loop() {
			now = now.Add(time.Microsecond)
			if !l.AllowN(now, 1) {
				b.Fatal("denied")
			}
		}
	})
	for _, test := range []struct {
		name   string
		limits []limiter.LimitSpec
	}{
		{"tributary-city", []limiter.LimitSpec{local}},
		{"tributary-global", []limiter.LimitSpec{shared}},
		{"tributary-2-limits", []limiter.LimitSpec{shared, local}},
		{"tributary-3-limits", []limiter.LimitSpec{shared, country, local}},
	} {
		b.Run(test.name, func(b *testing.B) {
			w := newTree(b, testRules(b, test.limits...), world4[:4]...)
			runner := w.places["eu.de.berlin"].Runner()
			if reply, err := w.client("eu.de.berlin").Check(b.Context(), "api", "user-42", WithWait(patience)); err != nil || !reply.Allowed {
				b.Fatalf("%+v %v", reply, err)
			}
			b.ReportAllocs()
			var d tiers.Decision
			for b.Loop() {
				if err := runner.TryCheck(name, 1, &d); err != nil || !d.Allowed {
					b.Fatalf("%+v %v", d, err)
				}
			}
		})
	}
	b.Run("tributary-bucket-given-time", func(b *testing.B) {
		bucket := limiter.NewBucket(time.Second, limiter.Share{Tokens: burst, Capacity: burst, Rate: 1e9}, 0)
		now := limiter.Time(0)
		for b.Loop() {
			now += 1000
			if !bucket.Take(now, 1) {
				b.Fatal("denied")
			}
		}
	})
	b.Run("clock", func(b *testing.B) {
		c := NewClock()
		for b.Loop() {
			sink = c.Now()
		}
	})
}

var sink limiter.Time
