package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tributary-io/tributary/transport"
)

// TestWorldOfTheFormatBeforeGoesOn starts the stores of a world that a program of format 1 wrote: the places down to
// Berlin, stopped in good order. Its rules were changed once, from a budget of 1,000 to 2,000. Berlin had counted 42 votes
// for alice and 7 for bob, and spent 300 of the budget of t1.
func TestWorldOfTheFormatBeforeGoesOn(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {started: {}}") // the disks' rules hold
	unpack(t, filepath.Join("testdata", "world-format-1.tar.gz"), c.data)
	world := []string{"global", "eu", "eu.de", berlin}
	running := c.serve(world...)
	for _, place := range world {
		rules, err := c.client(place).Rules(t.Context())
		if err != nil || rules.Version != 2 || *rules.Rules.Namespaces["tokens"].Limits[0].Budget != 2000 {
			t.Errorf("%s follows %+v %v", place, rules, err)
		}
		c.shows(place, "alice", 42)
		c.shows(place, "bob", 7)
	}
	if _, err := c.client(berlin).Add(t.Context(), "votes", "alice", 1); err != nil {
		t.Fatal(err)
	}
	c.shows("global", "alice", 43)

	spend := func(hits int64) (allowed bool) {
		t.Helper()
		eventually(t, "its shares are there", func() bool {
			r, err := c.client(berlin).Check(t.Context(), "tokens", "t1", transport.WithHits(hits))
			allowed = r.Allowed
			return err == nil && r.Reason != transport.DeniedShare
		})
		return allowed
	}
	if spend(201) {
		t.Error("more than is left of the city's budget of 500 is allowed")
	}
	if !spend(200) {
		t.Error("what is left of both budgets is denied")
	}
	if spend(1) {
		t.Error("more than the city's budget of 500 is allowed")
	}
	// A rate's bucket begins empty, once: what it held has a name that nobody knows any more. One of 60/h takes a minute.
	eventually(t, "a share of the rate is there", func() bool {
		r, err := c.client(berlin).Check(t.Context(), "api", "u")
		return err == nil && (r.Allowed || r.Reason == transport.DeniedLimit)
	})
	running.terminate()
	c.serve(world...)
	c.shows("global", "alice", 43)
	if spend(1) {
		t.Error("more than the city's budget of 500 is allowed after another start")
	}
}

// unpack makes the files of an archive in a folder.
func unpack(t *testing.T, archive, folder string) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for in := tar.NewReader(zipped); ; {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, filepath.FromSlash(head.Name))
		if head.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(in); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
