package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tributary-io/tributary/transport"
)

// unfinished sends SIGTERM to a process that has nobody to say goodbye to: it must say which places did not finish, and
// exit with 1.
func (p *process) unfinished(places ...string) {
	p.t.Helper()
	p.expected = true
	p.signal(syscall.SIGTERM)
	if code := p.exitCode(); code != 1 {
		p.t.Errorf("%s: exit code %d after SIGTERM", p.name, code)
	}
	if want := strings.Join(places, ", ") + ": the parent has not taken the last report"; !strings.Contains(p.stderr.String(), want) {
		p.t.Errorf("%s does not say %q", p.name, want)
	}
}

// TestStopWithoutAnybodyElse stops places that have nobody to say goodbye to. They say so, and lose nothing.
func TestStopWithoutAnybodyElse(t *testing.T) {
	const rules = "namespaces: {votes: {}}"
	t.Run("parent", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t, startNATS(t).ClientURL(), rules)
		others, p := c.serve("global", "eu.de"), c.serve("eu", berlin)
		c.add(berlin, 5)
		c.shows("global", "alice", 5)
		others.kill()
		c.add(berlin, 5)
		p.unfinished(berlin, "eu")
		c.serve("global", "eu.de")
		c.serve("eu", berlin)
		c.shows("global", "alice", 10)
		c.quiet()
	})
	t.Run("NATS", func(t *testing.T) {
		t.Parallel()
		server := startNATS(t)
		c := newCluster(t, server.ClientURL(), rules)
		p := c.serve("global", "eu", "eu.de", berlin)
		c.add(berlin, 5)
		server.Shutdown()
		p.unfinished(berlin, "eu.de", "eu")
		c.quiet()
	})
}

// TestSecondSignalEndsAtOnce: who will not wait for a stop in good order says so twice, and loses nothing by it.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {votes: {}}")
	above, p := c.serve("global", "eu", "eu.de"), c.serveWith(c.data, []string{"--stop-within", "1h"}, berlin)
	c.add(berlin, 5)
	c.shows("global", "alice", 5)
	above.kill()
	c.add(berlin, 5)
	p.expected = true
	p.signal(syscall.SIGTERM)
	eventually(t, "it stops", func() bool { return strings.Contains(p.stderr.String(), "a second signal ends the process at once") })
	p.signal(syscall.SIGTERM)
	p.exitCode()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.cmd.ProcessState)
	}
	c.serve("global", "eu", "eu.de")
	c.serve(berlin)
	c.shows("global", "alice", 10)
	c.quiet()
}

// TestManyPlacesWithManyKeysStopCleanly: 27 places of one process hold 50,000 keys, all of them lent shares, when it is told
// to stop.
func TestManyPlacesWithManyKeysStopCleanly(t *testing.T) {
	if testing.Short() {
		t.Skip("27 places and 50,000 keys take long under the race detector; the full run has them")
	}
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {votes: {}, api: {limits: [{scope: global, rate: 1000/h}, {scope: city, rate: 300/h}]}}")
	places, cities := []string{"global"}, []string{}
	for _, region := range []string{"eu", "us"} {
		places = append(places, region)
		for _, country := range []string{"aa", "bb", "cc"} {
			places = append(places, region+"."+country)
			for _, city := range []string{"xx", "yy", "zz"} {
				cities = append(cities, region+"."+country+"."+city)
			}
		}
	}
	const keys, each, batch = 50_000, 2_800, 400
	p := c.serveWith(c.data, []string{"--stop-within", "1m"}, append(places, cities...)...) // a machine that is shared is slow
	for i, city := range cities {
		for first := i * each; first < min(keys, (i+1)*each); first += batch {
			var checks []transport.CheckRequest
			for k := range batch {
				checks = append(checks, transport.CheckRequest{Namespace: "api", Key: fmt.Sprintf("user-%d", first+k), Hits: 1})
			}
			if _, err := c.client(city).CheckBatch(t.Context(), checks); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.terminate()
	c.quiet()
}

// TestHangupDoesNotEndServe: nor does a reader of its log that went away.
func TestHangupDoesNotEndServe(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {votes: {}}")
	p := c.serve("global", "eu", "eu.de", berlin)
	c.add(berlin, 1)
	p.signal(syscall.SIGHUP)
	eventually(t, "it says what a hangup does", func() bool { return strings.Contains(p.stderr.String(), "SIGHUP changes nothing") })
	c.add(berlin, 1)
	c.shows("global", "alice", 2)
	p.terminate()

	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p = startLogging(t, writer, "global", "tributary", "serve", "--data", c.data, "--nats", c.url, "--http", "off", "--place", "global")
	_ = writer.Close()
	if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil { // it logs
		t.Fatal(err)
	}
	_ = reader.Close()
	c.ready(p, "global")
	p.signal(syscall.SIGHUP) // which is logged, to nobody
	p.signal(syscall.SIGHUP)
	c.shows("global", "alice", 2)
	p.terminate()
}

// TestDemoLeavesNothingBehind: neither Ctrl-C nor a terminal that is closed leaves its stores, and it says what came of it.
func TestDemoLeavesNothingBehind(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			folder := t.TempDir()
			t.Setenv("TMPDIR", folder)
			p := start(t, "demo", "tributary", "demo", "--http", "off", "--listen", "127.0.0.1:0")
			eventually(t, "a line", func() bool { return strings.Contains(p.stdout.String(), " asked admitted") })
			p.expected = true
			p.signal(signal)
			if code := p.exitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if out := p.stdout.String(); !strings.Contains(out, "\nIn ") || !strings.Contains(out, " votes are counted") || !strings.Contains(out, "Limit of 1000/s, burst 1000, kept: ") {
				t.Errorf("there is no summary: %s", out)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}
