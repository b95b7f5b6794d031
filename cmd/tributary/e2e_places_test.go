package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// TestPlacesTreeShowsTheWorld asks real places, of which one is gone and one was forgotten.
func TestPlacesTreeShowsTheWorld(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {votes: {}}")
	c.serve("global", "eu", "eu.de", "us", "us.ca")
	city, other := c.serve(berlin), c.serve(munich)
	c.add(berlin, 1)
	c.add(munich, 1)
	c.shows("global", "alice", 2)
	states := func() map[string]string {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{"places", "tree", "--json", "--timeout", "1s", "--nats", c.url}, nil, nil, &stdout, &stderr); code != exitOK {
			return map[string]string{"error": stdout.String() + stderr.String()}
		}
		var w worldState
		if err := json.Unmarshal(stdout.Bytes(), &w); err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for _, p := range w.Places {
			all[p.Place] = p.State
			if p.State == stateServes && (p.Rules != 1 || p.Place != "global" && (p.SeenMS < 0 || p.LagMS < 0)) {
				all[p.Place] = "unsure" // it has not reported to a parent that started meanwhile
			}
		}
		return all
	}
	is := func(what string, want map[string]string) {
		t.Helper()
		var got map[string]string
		eventually(t, what, func() bool {
			got = states()
			for place, state := range want {
				if got[place] != state {
					return false
				}
			}
			return len(got) == len(want)
		})
	}
	want := map[string]string{"global": stateServes, "eu": stateServes, "eu.de": stateServes, "us": stateServes, "us.ca": stateServes, berlin: stateServes, munich: stateServes}
	is("all serve", want)
	city.kill()
	want[berlin] = stateAway
	is("Berlin is away", want)
	other.kill()
	eventually(t, "Munich is forgotten", func() bool {
		_, err := c.client("eu.de").Forget(t.Context(), munich)
		return err == nil
	})
	want[munich] = stateForgotten
	is("Munich is forgotten", want)
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"places", "tree", "--nats", c.url}, nil, nil, &stdout, &stderr)
	if !strings.Contains(stdout.String(), "\n├─ eu ") || !strings.Contains(stdout.String(), "\n│     ├─ eu.de.berlin ") || !strings.Contains(stdout.String(), "\n   └─ us.ca ") {
		t.Errorf("no tree:\n%s%s", stdout.String(), stderr.String())
	}
}
