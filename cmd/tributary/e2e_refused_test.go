package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-io/tributary/tiers"
)

const countOnly = "namespaces: {votes: {}}"

// TestServeRefusesToStart gives serve what it cannot work with: it says so, and what to do, and ends with 1.
func TestServeRefusesToStart(t *testing.T) {
	url := startNATS(t).ClientURL()
	c := newCluster(t, url, countOnly)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	nowhere := "nats://" + freeAddress(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sealed := filepath.Join(t.TempDir(), "sealed")
	if err := os.Mkdir(sealed, 0o500); err != nil {
		t.Fatal(err)
	}
	moved := t.TempDir()
	stopped := c.serveOn(moved, "eu.de")
	stopped.kill()
	if err := os.Rename(filepath.Join(moved, "eu.de"), filepath.Join(moved, "eu.fr")); err != nil {
		t.Fatal(err)
	}
	used := c.serve(berlin)

	for _, test := range []struct {
		name string
		data string
		args []string
		says []string
	}{
		{"folder in use", c.data, []string{"--nats", url, "--place", berlin}, []string{filepath.Join(c.data, berlin), "in use", "stop the process", "--data"}},
		{"file in place of the folder", file, []string{"--nats", url, "--place", berlin}, []string{file, "not a directory", "--data"}},
		{"folder not writable", sealed, []string{"--nats", url, "--place", berlin}, []string{sealed, "permission denied", "--data"}},
		{"port of the server in use", t.TempDir(), []string{"--listen", taken.Addr().String(), "--place", "global"}, []string{taken.Addr().String(), "in use", "--listen", "--nats"}},
		{"port of HTTP in use", t.TempDir(), []string{"--nats", url, "--place", berlin, "--http", taken.Addr().String()}, []string{taken.Addr().String(), "in use", "--http"}},
		{"no NATS server", t.TempDir(), []string{"--nats", nowhere, "--place", berlin}, []string{nowhere, "--nats"}},
		{"another place's folder", moved, []string{"--nats", url, "--place", "eu.fr"}, []string{"belongs to eu.de", "not to eu.fr", "folder of its own"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.data == sealed && os.WriteFile(filepath.Join(sealed, "x"), nil, 0o600) == nil {
				t.Skip("this user may write everywhere")
			}
			refused := *c
			refused.t = t
			p := refused.launch(test.data, test.args...)
			if code := p.exitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			said := p.stderr.String()
			for _, words := range test.says {
				if !strings.Contains(said, words) {
					t.Errorf("%q is not said in: %s", words, said)
				}
			}
			if p.stdout.String() != "" {
				t.Errorf("it says that it serves: %s", p.stdout.String())
			}
		})
	}
	c.add(berlin, 1) // who has the folder goes on
	if !used.running() {
		t.Error("the process that had the folder ended")
	}
}

var worldID = regexp.MustCompile(`world ([0-9a-f]{16})`)

// worlds are the worlds that a refusal names, sorted.
func worlds(events []event) []string {
	var ids []string
	for _, match := range worldID.FindAllStringSubmatch(events[0].Detail, -1) {
		ids = append(ids, match[1])
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// TestStoreOfAnotherWorldIsNotSummed moves a city's store under another root with the same prefix.
func TestStoreOfAnotherWorldIsNotSummed(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), countOnly)
	first := c.serve("global", "eu", "eu.de", berlin)
	c.add(berlin, 5)
	c.shows("global", "alice", 5)
	first.terminate()

	other := t.TempDir()
	parents := c.serveOn(other, "global", "eu", "eu.de")
	city := c.serve(berlin) // on the first world's folder
	for _, p := range []*process{city, parents} {
		kind := tiers.EventRefused
		if p == parents {
			kind = tiers.EventChildRefuse
		}
		eventually(t, string(kind)+" in the log", func() bool { return len(p.events(kind)) > 0 })
	}
	in, out := worlds(parents.events(tiers.EventChildRefuse)), worlds(city.events(tiers.EventRefused))
	if len(in) != 2 || !slices.Equal(in, out) {
		t.Errorf("the parent names the worlds %q, the city %q", in, out)
	}
	c.add(berlin, 3) // it counts on, for its own world
	c.serveOn(other, munich)
	c.add(munich, 7)
	c.shows("global", "alice", 7)
	c.add(munich, 1)
	c.shows("global", "alice", 8)
	c.shows("eu.de", "alice", 8)
	c.shows(berlin, "alice", 8)
	if n := len(parents.events(tiers.EventChildRefuse)); n > 2 {
		t.Errorf("the refusal was logged %d times", n)
	}
	city.terminate()
	if strings.Contains(city.stderr.String(), "has not taken the last report") {
		t.Error("the city waited for a parent that refuses it")
	}

	// Back in its own world it is summed.
	parents.kill()
	c.serve("global", "eu", "eu.de", berlin)
	c.shows("global", "alice", 8)
}

// adding adds to alice at a place, whichever process answers, until it is stopped.
type adding struct {
	mu    sync.Mutex
	tally tally
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func (c *cluster) adding(place string) *adding {
	ctx, cancel := context.WithCancel(context.Background())
	a := &adding{stop: cancel}
	client := c.hurried(place, hurry)
	for range 4 {
		a.wg.Go(func() {
			for ctx.Err() == nil {
				_, err := client.Add(context.Background(), "votes", "alice", 1)
				a.mu.Lock()
				switch {
				case err == nil:
					a.tally.Acknowledged++
				case !notDone(err):
					a.tally.Unanswered++
				}
				a.mu.Unlock()
				pause(ctx, 2*time.Millisecond)
			}
		})
	}
	c.t.Cleanup(a.end)
	return a
}

func (a *adding) end() { a.stop(); a.wg.Wait() }

func (a *adding) acknowledged() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tally.Acknowledged
}

// fenced waits until a process has ended because a newer one serves place.
func (p *process) fenced(place string) {
	p.t.Helper()
	p.expected = true
	if code := p.exitCode(); code != 1 {
		p.t.Errorf("the older twin's exit code is %d", code)
	}
	if len(p.events(tiers.EventFenced)) == 0 {
		p.t.Error("the older twin does not say that it is fenced")
	}
	if said := p.stderr.String(); !strings.Contains(said, "tributary: place "+place+": a newer session") {
		p.t.Errorf("the older twin ends with: %s", tail(said, 300))
	}
}

// TestTwins runs two processes of one place, on copies of one folder. In the second case the older one has slept
// through the newer one's start, and what it was sent meanwhile comes late.
func TestTwins(t *testing.T) {
	for _, asleep := range []bool{false, true} {
		name := map[bool]string{false: "awake", true: "asleep"}[asleep]
		t.Run(name, func(t *testing.T) {
			if asleep && sleepSignal == wakeSignal {
				t.Skip("no signal makes a process sleep here")
			}
			c := newCluster(t, startNATS(t).ClientURL(), countOnly)
			c.serve("global", "eu", "eu.de")
			c.serve(berlin).terminate()
			copied := t.TempDir()
			copyFolder(t, filepath.Join(c.data, berlin), filepath.Join(copied, berlin))

			older := c.serve(berlin)
			a := c.adding(berlin)
			eventually(t, "adds at the older twin", func() bool { return a.acknowledged() > 100 })
			if asleep {
				older.signal(sleepSignal)
			}
			newer := c.launch(copied, "--nats", c.url, "--place", berlin)
			eventually(t, "the newer twin is known", func() bool { return len(newer.events(tiers.EventJoined)) > 0 })
			if asleep {
				before := a.acknowledged()
				eventually(t, "adds at the newer twin", func() bool { return a.acknowledged() > before+50 })
				older.signal(wakeSignal)
			}
			older.fenced(berlin)
			before := a.acknowledged()
			eventually(t, "adds at the newer twin alone", func() bool { return a.acknowledged() > before+100 })
			a.end()

			low, high := a.tally.Acknowledged, a.tally.Acknowledged+a.tally.Unanswered
			var root int64
			eventually(t, "the root has what was acknowledged", func() bool {
				var known bool
				root, known = c.total("global", "alice")
				return known && root >= low
			})
			// What comes later than this has come to everybody: the last add is above all before it.
			if _, err := c.client(berlin).Add(context.Background(), "votes", "last", 1); err != nil {
				t.Fatal(err)
			}
			c.shows("global", "last", 1)
			root, _ = c.total("global", "alice")
			t.Logf("%d at the root, %d acknowledged, %d unanswered", root, low, high-low)
			if root < low || root > high {
				t.Errorf("the root has %d, but %d were acknowledged and %d unanswered", root, low, high-low)
			}
			if !newer.running() {
				t.Error("the newer twin ended, too")
			}
		})
	}
}
