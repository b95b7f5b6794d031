package objects

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A mutant is the package with one mistake in it, made by edits of its source. It shows that the crash test can fail.
type mutant struct {
	mistake string
	linear  bool // porcupine finds it, too
	edits   []edit
}

// An edit replaces old, which stands in the file exactly once.
type edit struct{ file, old, new string }

var mutants = []mutant{
	{
		mistake: "an operation is acknowledged before the sync",
		linear:  true,
		edits: []edit{
			{"commit.go", "if err := f.batch.SyncWait(); err != nil {", `c.telling.Lock()
		c.mu.Lock()
		c.durable.Store(f.group.num)
		c.mu.Unlock()
		if f.group.early = true; f.group.done != nil {
			close(f.group.done)
		}
		for _, done := range f.group.waiters {
			c.call(done, nil)
		}
		f.group.waiters = nil
		c.telling.Unlock()
		if err := f.batch.SyncWait(); err != nil {`},
			{"commit.go", "type group struct {", "type group struct {\n\tearly bool"},
			{"commit.go", "if g.done != nil { // last", "if g.done != nil && !g.early { // last"},
		},
	},
	{
		mistake: "a reply leaves before the batch that it read is durable",
		linear:  true,
		edits:   []edit{{"finish.go", "saw := tx.saw()", "saw := uint64(0)"}},
	},
	{
		mistake: "what a called object left pending does not hold back the caller",
		edits:   []edit{{"finish.go", "max(tx.o.last, tx.frame.saw.Load())", "tx.o.last"}},
	},
	{
		mistake: "a torn batch is accepted: an operation's writes are split over two",
		edits: []edit{{"commit.go", "for _, i := range c.order {\n\t\t\te := &l.ents[i]", `for j, i := range c.order {
			if j > 0 && j == len(c.order)/2 {
				if err := c.guard.commit(c.db, b); err != nil {
					return nil, err
				}
				b = c.db.NewBatch()
			}
			e := &l.ents[i]`}},
	},
	{
		mistake: "an alarm is removed before its handler's commit",
		edits: []edit{{"alarm.go", "return true, tx.changeAlarm(alarm{})", `if err := tx.changeAlarm(alarm{}); err != nil {
		return false, err
	}
	tx.durability = None
	_, err = tx.store.commit.publish(tx, nil)
	return true, err`}},
	},
	{
		mistake: "Async is acknowledged as Sync",
		edits: []edit{
			{"finish.go", "if tx.ringing.due != 0 {\n\t\ttx.durability = Sync\n\t}", `if tx.ringing.due != 0 {
		tx.durability = Sync
	} else if tx.durability == Sync && done != nil {
		tx.durability = Async
	}`},
		},
	},
	{
		mistake: "Async is never due",
		edits:   []edit{{"commit.go", "g.due = time.Now().Add(c.async)", "g.due = time.Now().Add(time.Hour)"}},
	},
	{
		mistake: "groups are committed out of order",
		edits: []edit{
			{"commit.go", "case len(c.queue) > 0:", "case len(c.queue) > 0 && c.open.ops == 0:"},
		},
	},
	{
		mistake: "layers are unlinked before Pebble has them",
		edits: []edit{
			{"commit.go", "if f.batch, err = c.apply(g); err != nil {", `layers := g.layers
		c.unlink(g)
		time.Sleep(time.Microsecond)
		g.layers = layers
		if f.batch, err = c.apply(g); err != nil {`},
			{"commit.go", "c.unlink(g)\n\t\tc.flights <- f", "c.flights <- f"},
		},
	},
	{
		mistake: "a failed sync is acknowledged",
		edits:   []edit{{"commit.go", "if err := f.batch.SyncWait(); err != nil {", "if err := f.batch.SyncWait(); err != nil && f.group == nil {"}},
	},
	{
		mistake: "a failed operation's state stays in memory",
		edits:   []edit{{"finish.go", "tx.o.awake, tx.o.state = false, nil", ""}},
	},
	{
		mistake: "a failed handler's alarm is forgotten",
		edits:   []edit{{"alarm.go", "tx.alarm = &alarmChange{was: tx.ringing.due, now: a}", "tx.alarm = &alarmChange{was: tx.ringing.due}"}},
	},
	{
		mistake: "an alarm that is set after the last one rang is not heard of",
		edits:   []edit{{"scheduler.go", "q != nil && q.goBack(due)", "q != nil && len(q.running) < 0 && q.goBack(due)"}},
	},
}

// mutantSeeds is how many seeds have to be enough.
const mutantSeeds = 3000

var caughtBy = regexp.MustCompile(`seed (\d+): ([^:]*):`)

// TestMutantsAreCaught runs the crash test on mutants.
func TestMutantsAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("each mutant is a build")
	}
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("mutants are built with the go command: %v", err)
	}
	var table strings.Builder
	for _, m := range mutants {
		t.Run(m.mistake, func(t *testing.T) {
			began := time.Now()
			program := m.build(t, goCommand)
			built := time.Since(began)
			c := hunt(t, program, "TestCrashSeeds", fmt.Sprint("TRIBUTARY_OBJECTS_SEEDS=1-", mutantSeeds))
			if m.linear {
				hunt(t, program, "TestOperationsAreLinearizableOverCrashes", "TRIBUTARY_OBJECTS_HISTORIES=1-1000")
			}
			fmt.Fprintf(&table, "%-72s %5s  %-40s %5.1f s, %.1f of them to build\n", m.mistake, c[1], c[2], time.Since(began).Seconds(), built.Seconds())
		})
	}
	t.Logf("%-72s %5s  %-40s time\n%s", "mutant", "seed", "broken promise", table.String())
}

// hunt runs one of a mutant's tests, which is to fail, and returns the seed and the promise that was broken.
func hunt(t *testing.T, program, test, seeds string) [][]byte {
	t.Helper()
	run := exec.CommandContext(t.Context(), program, "-test.run=^"+test+"$", "-test.timeout=5m")
	run.Env = append(os.Environ(), seeds)
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	c := caughtBy.FindSubmatch(out)
	switch {
	case c != nil:
	case err != nil:
		t.Fatalf("%s ended otherwise: %v\n%.4000s", test, err, out)
	default:
		t.Fatalf("%s with %s breaks no promise: a check is missing, or it is no mistake", test, seeds)
	}
	return c
}

// build makes the mutant's tests.
func (m *mutant) build(t *testing.T, goCommand string) string {
	t.Helper()
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	texts := map[string]string{}
	for _, e := range m.edits {
		text, read := texts[e.file]
		if !read {
			source, err := os.ReadFile(e.file)
			if err != nil {
				t.Fatal(err)
			}
			text = string(source)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s holds %q %d times, not once: the code changed, keep the mutant in step with it", e.file, e.old, n)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	for file, text := range texts {
		edited := filepath.Join(dir, file)
		if err := os.WriteFile(edited, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, file)] = edited
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), goCommand,
		"test", "-c", "-vet=off", "-buildvcs=false", "-ldflags=-s -w", "-overlay", list, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build, keep it in step with the code: %v\n%s", err, out)
	}
	return program
}
