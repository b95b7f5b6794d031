package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

const (
	berlin = "eu.de.berlin"
	munich = "eu.de.munich"
)

// admission is one admitted check, by the caller's clock.
type admission struct {
	city           string
	sent, answered time.Time
}

// caller hammers one key of a hard limit at all cities, and remembers what was admitted.
type caller struct {
	mu   sync.Mutex
	all  []admission
	stop context.CancelFunc
	wg   sync.WaitGroup
}

func (c *cluster) hammer(cities ...string) *caller {
	ctx, cancel := context.WithCancel(context.Background())
	h := &caller{stop: cancel}
	for _, city := range cities {
		client := c.hurried(city, hurry)
		for range 3 {
			h.wg.Go(func() {
				for ctx.Err() == nil {
					sent := time.Now()
					if reply, err := client.Check(context.Background(), "api", "user-42"); err == nil && reply.Allowed {
						h.mu.Lock()
						h.all = append(h.all, admission{city, sent, time.Now()})
						h.mu.Unlock()
					}
					pause(ctx, 10*time.Millisecond)
				}
			})
		}
	}
	c.t.Cleanup(h.end)
	return h
}

func (h *caller) end() { h.stop(); h.wg.Wait() }

// since counts the checks admitted at a city that were sent after an instant.
func (h *caller) since(city string, at time.Time) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.all) - 1; i >= 0 && h.all[i].answered.After(at); i-- {
		if h.all[i].city == city && h.all[i].sent.After(at) {
			n++
		}
	}
	return n
}

// excess is how many checks more than burst + rate·t were admitted in the worst of all intervals that begin with a
// request and end with a reply; at most 0 where the limit was kept.
func (h *caller) excess(rate, burst float64) float64 {
	bySent, byAnswer := slices.Clone(h.all), slices.Clone(h.all)
	slices.SortFunc(bySent, func(a, b admission) int { return a.sent.Compare(b.sent) })
	slices.SortFunc(byAnswer, func(a, b admission) int { return a.answered.Compare(b.answered) })
	worst := -burst
	for _, first := range bySent {
		n := 0.0
		for _, last := range byAnswer {
			if !last.sent.Before(first.sent) {
				n++
				worst = max(worst, n-burst-rate*last.answered.Sub(first.sent).Seconds())
			}
		}
	}
	return worst
}

// TestWorldOfProcessesSurvivesKills is a world of separate processes over an external NATS server, of which each is
// killed in turn, under load.
func TestWorldOfProcessesSurvivesKills(t *testing.T) {
	const rate, burst = 200, 100
	server := start(t, "nats", "nats")
	eventually(t, "the NATS server's URL", func() bool { return strings.HasSuffix(server.stdout.String(), "\n") })
	c := newCluster(t, strings.TrimSpace(server.stdout.String()), `
namespaces:
  votes: {}
  api: {limits: [{scope: global, rate: 200/s, burst: 100}]}
`)
	places := []string{"global", "eu", "eu.de", berlin, munich}
	cities := places[3:]
	running := map[string]*process{}
	for _, place := range places {
		running[place] = c.serve(place)
	}
	adders := start(t, "adders", "adders", c.url, strings.Join(cities, ","))
	h := c.hammer(cities...)

	victims := places
	if testing.Short() {
		victims = []string{"eu.de", berlin} // and leases are not waited for
	}
	grown := func(at []string, by int64) {
		t.Helper()
		for _, place := range at {
			before, known := c.total(place, "alice")
			eventually(t, "more votes at "+place, func() bool {
				now, ok := c.total(place, "alice")
				if ok && !known {
					before, known = now, true
				}
				return ok && now >= before+by
			})
		}
	}
	for _, victim := range victims {
		grown(places, 20)
		began := time.Now()
		running[victim].kill()
		killed := time.Now()
		grown(slices.DeleteFunc(slices.Clone(cities), func(city string) bool { return city == victim }), 20)
		restarted := time.Now()
		running[victim] = c.serve(victim)
		after := killed.Add(tiers.DefaultLease * 102 / 100)
		if testing.Short() {
			after = time.Now()
		}
		for _, city := range cities {
			eventually(t, "checks are admitted again at "+city, func() bool {
				return h.since(city, after) >= 10
			})
		}
		t.Logf("%s: killed and started again after %s, all is well after %s", victim, restarted.Sub(began).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	grown(places, 20)

	h.end()
	if worst := h.excess(rate, burst); worst > 0 {
		t.Errorf("%.1f checks were admitted beyond the limit", worst)
	}
	if worst := h.excess(rate/4, burst); worst <= 0 {
		t.Errorf("%d checks were admitted: so few would not exceed a limit of a quarter either", len(h.all))
	}
	adders.expected = true
	adders.signal(syscall.SIGTERM)
	if code := adders.exitCode(); code != 0 {
		t.Fatalf("adders: exit code %d", code)
	}
	var tallies map[string]tally
	if err := json.Unmarshal([]byte(adders.stdout.String()), &tallies); err != nil {
		t.Fatal(err)
	}
	for key, delta := range adderKeys {
		var root, sum int64
		eventually(t, "the root's "+key+" is the sum of the cities'", func() bool {
			sum = 0
			for _, city := range cities {
				n, known := c.total(city, key)
				if !known {
					return false
				}
				sum += n
			}
			var known bool
			root, known = c.total("global", key)
			return known && root == sum
		})
		n := tallies[key]
		t.Logf("%s: %d at the root, %d acknowledged, %d unanswered", key, root, n.Acknowledged, n.Unanswered)
		if low, high := n.Acknowledged, n.Acknowledged+n.Unanswered; n.Acknowledged == 0 || root*delta < low || root*delta > high {
			t.Errorf("%s: the root has %d, but %d were acknowledged and %d unanswered", key, root, n.Acknowledged, n.Unanswered)
		}
	}
	t.Logf("%d checks admitted", len(h.all))
	c.quiet()
}

// TestWorldAroundAnEmbeddedServer is a world whose NATS server runs in the root's process, and whose processes are
// stopped in good order.
func TestWorldAroundAnEmbeddedServer(t *testing.T) {
	address := freeAddress(t)
	c := newCluster(t, "nats://"+address, `
namespaces:
  votes: {}
  api: {limits: [{scope: global, rate: 1/h, burst: 100}]}
`)
	serveRoot := func() *process {
		p := c.launch(c.data, "--listen", address, "--place", "global")
		c.ready(p, "global")
		return p
	}
	root := serveRoot()
	above := c.serve("eu", "eu.de")
	b, m := c.serve(berlin), c.serve(munich)
	c.add(berlin, 30)
	c.add(munich, 20)
	c.shows("global", "alice", 50)

	check := func(city string, hits int64) {
		t.Helper()
		// The wait is shorter than a lease: who lends has it, or got it back.
		reply, err := c.client(city).Check(context.Background(), "api", "user-42", transport.WithHits(hits), transport.WithWait(2*time.Second))
		if err != nil || !reply.Allowed {
			t.Fatalf("a check of %d at %s: %+v, %v", hits, city, reply, err)
		}
	}
	check(berlin, 10)
	b.terminate()
	check(munich, 90)

	b = c.serve(berlin)
	c.shows(berlin, "alice", 30)
	c.add(berlin, 5)
	m.terminate()
	m = c.serve(munich)
	c.shows(munich, "alice", 20)
	c.add(munich, 5)
	// Its children go on counting, and what they report last is not lost.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	added := make(chan int, 1)
	client := c.client(munich)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if _, err := client.Add(context.Background(), "votes", "bob", 1); err != nil {
				t.Errorf("add at %s: %v", munich, err)
			}
		}
		added <- n
	}()
	eventually(t, "bobs at the root", func() bool { n, _ := c.total("global", "bob"); return n > 100 })
	above.terminate()
	if strings.Contains(above.stderr.String(), "has not taken the last report") {
		t.Error("eu and eu.de had parents to say goodbye to, and did not")
	}
	c.add(berlin, 5)
	cancel()
	above = c.serve("eu", "eu.de")
	c.shows("global", "alice", 65)
	c.shows("global", "bob", int64(<-added))
	root.terminate()
	root = serveRoot()
	c.shows("global", "alice", 65)
	eventually(t, "Berlin answers again", func() bool { _, known := c.total(berlin, "alice"); return known })
	c.add(berlin, 5)
	c.shows("global", "alice", 70)

	for _, p := range []*process{b, m, above, root} {
		p.terminate()
	}
	root = serveRoot()
	c.shows("global", "alice", 70)
	above, b = c.serve("eu", "eu.de"), c.serve(berlin)
	c.shows("eu", "alice", 70)
	c.shows(berlin, "alice", 45)
	for _, p := range []*process{b, above, root} {
		p.terminate()
	}
	c.quiet()
}
