package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// TestRetriesOverAKillCountOnce kills a city while requests with ids are under way, each of which is asked again until it
// is answered. After the kill a request that was answered gets the same answer, and at the root each is counted once.
func TestRetriesOverAKillCountOnce(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), `
namespaces:
  votes: {dedupe: 1h}
  api: {dedupe: 1h, count: true, limits: [{scope: city, rate: 1/h, burst: 100000}]}
`)
	c.serve("global", "eu", "eu.de")
	city := c.serve(berlin)
	client, ctx := c.client(berlin), t.Context()

	added, err := client.Add(ctx, "votes", "bob", 3, transport.WithID("first"))
	if err != nil {
		t.Fatal(err)
	}
	checked, err := client.Check(ctx, "api", "bob", transport.WithHits(7), transport.WithID("first"))
	if err != nil || !checked.Allowed {
		t.Fatalf("%+v, %v", checked, err)
	}
	same := func() {
		t.Helper()
		if again, err := client.Add(ctx, "votes", "bob", 3, transport.WithID("first")); err != nil || again != added {
			t.Errorf("an add was answered %+v, and its retry %+v, %v", added, again, err)
		}
		if again, err := client.Check(ctx, "api", "bob", transport.WithHits(7), transport.WithID("first")); err != nil || again != checked {
			t.Errorf("a check was answered %+v, and its retry %+v, %v", checked, again, err)
		}
	}
	same()

	// Whoever gets no answer asks again.
	const callers, each = 8, 40
	hurried := c.hurried(berlin, hurry)
	var done, retried atomic.Int64
	errs := make(chan error, callers)
	for caller := range callers {
		go func() {
			errs <- func() error {
				for i := range each {
					id := transport.WithID(fmt.Sprintf("%d/%d", caller, i))
					for tries := 0; ; tries++ {
						_, err := hurried.Add(context.Background(), "votes", "alice", 1, id)
						if err == nil {
							break
						}
						if tries == 200 || errors.Is(err, transport.ErrIDReused) {
							return err
						}
						retried.Add(1)
						pause(ctx, 20*time.Millisecond)
					}
					done.Add(1)
					pause(ctx, 5*time.Millisecond)
				}
				return nil
			}()
		}()
	}
	for _, after := range []int64{callers * each / 4, callers * each / 2} {
		eventually(t, "some adds are answered", func() bool { return done.Load() >= after })
		city.kill()
		city = c.serve(berlin)
		same()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if retried.Load() == 0 {
		t.Error("nothing was asked twice")
	}
	c.shows("global", "alice", callers*each)
	c.shows("global", "bob", 3)
	eventually(t, "the root has counted the check once", func() bool {
		reply, err := c.hurried("global", hurry).Get(ctx, "api", "bob")
		return err == nil && reply.Total.String() == "7"
	})
	t.Logf("%d adds, %d times asked again", done.Load(), retried.Load())
	c.quiet()
}

// TestTwinsShareNoLimit starts a second process of a place, on a copy of its folder, while a limit that the world shares
// is asked for below it and elsewhere: the older one is fenced and says so, and both together keep the limit. Of a country,
// both answer its cities in turns until then.
func TestTwinsShareNoLimit(t *testing.T) {
	for _, place := range []string{berlin, "eu.de"} {
		t.Run(place, func(t *testing.T) { testTwinsShareNoLimit(t, place) })
	}
}

func testTwinsShareNoLimit(t *testing.T, place string) {
	const rate, burst = 100, 100
	c := newCluster(t, startNATS(t).ClientURL(), `
lease: 1s
namespaces:
  votes: {}
  api: {limits: [{scope: global, rate: 100/s, burst: 100}]}
`)
	c.serve(slices.DeleteFunc([]string{"global", "eu", "eu.de", munich, berlin}, func(other string) bool { return other == place })...)
	c.serve(place).terminate()
	copied := t.TempDir()
	copyFolder(t, filepath.Join(c.data, place), filepath.Join(copied, place))

	older := c.serve(place)
	h := c.hammer(berlin, munich)
	admitted := func(since time.Time) {
		t.Helper()
		for _, city := range []string{berlin, munich} {
			eventually(t, "checks are admitted at "+city, func() bool { return h.since(city, since) >= 20 })
		}
	}
	admitted(time.Now())
	c.add(berlin, 5)
	newer := c.launch(copied, "--nats", c.url, "--place", place)
	eventually(t, "the newer twin is known", func() bool { return len(newer.events(tiers.EventJoined)) > 0 })
	older.fenced(place)
	fenced := older.events(tiers.EventFenced)[0]
	if fenced.Level != "error" || fenced.Place != place || !strings.Contains(fenced.Detail, "takes no more requests, reports what it has, and exits") {
		t.Errorf("the older twin logged %+v", fenced)
	}
	c.add(berlin, 4)
	c.shows("global", "alice", 9)
	c.shows(berlin, "alice", 9) // the older one's, too
	admitted(time.Now().Add(time.Second * 102 / 100))
	h.end()
	if worst := h.excess(rate, burst); worst > 0 {
		t.Errorf("%.1f of %d checks were admitted beyond the limit", worst, len(h.all))
	}
	if !newer.running() {
		t.Error("the newer twin ended, too")
	}
	for _, e := range newer.events("") {
		if e.Level == "error" {
			t.Errorf("the newer twin logged %+v", e)
		}
	}
}
