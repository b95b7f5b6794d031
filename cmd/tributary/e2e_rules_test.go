package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorldKeepsItsRules: a root that is started without --rules, or with another file, follows the rules in its store,
// and says so.
func TestWorldKeepsItsRules(t *testing.T) {
	c := newCluster(t, startNATS(t).ClientURL(), "namespaces: {votes: {}, jobs: {}}")
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte("namespaces: {votes: {}, mail: {}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.serve("global").terminate()
	for _, args := range [][]string{nil, {"--rules", other}} {
		p := start(t, "global", "tributary", append([]string{"serve", "--place", "global", "--data", c.data, "--nats", c.url, "--http", "off"}, args...)...)
		c.all = append(c.all, p)
		c.ready(p, "global")
		reply, err := c.client("global").Rules(t.Context())
		if _, has := reply.Rules.Namespaces["jobs"]; err != nil || reply.Version != 1 || len(reply.Rules.Namespaces) != 2 || !has {
			t.Fatalf("with %v: %+v %v", args, reply, err)
		}
		eventually(t, "it says which rules it follows", func() bool {
			return strings.Contains(p.stdout.String(), "rules  version 1, from the store") &&
				strings.Contains(p.stderr.String(), "follows the rules in its store")
		})
		if warned := strings.Contains(p.stderr.String(), "tributary rules apply "+other); warned != (args != nil) {
			t.Errorf("with %v: %s", args, p.stderr.String())
		}
		p.terminate()
	}
}
