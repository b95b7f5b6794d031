package objects

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const (
	killFolder  = "TRIBUTARY_OBJECTS_KILL" // the folder that the process to be killed uses
	killObjects = 5
	killCallers = 8
)

// wakePair wakes a counter that is stored twice.
func wakePair(tx *Tx) (*counter, error) {
	c, err := wakeCounter(tx)
	if err != nil {
		return nil, err
	}
	v, _, err := tx.Get("copy")
	if n := uint64(0); err == nil {
		if len(v) > 0 {
			n = binary.BigEndian.Uint64(v)
		}
		if n != c.n {
			err = fmt.Errorf("%s is %d, its copy %d", tx.Name(), c.n, n)
		}
	}
	return c, err
}

// TestKillHelper is the process that is killed. It counts, and says so.
func TestKillHelper(*testing.T) {
	dir := os.Getenv(killFolder)
	if dir == "" {
		return
	}
	s, err := Open(dir, Options{MemTableBytes: 64 << 10})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	k := Register(s, "counter", wakePair)
	var wg sync.WaitGroup
	for range killCallers {
		wg.Go(func() {
			for {
				o := rand.IntN(killObjects)
				var n uint64
				err := k.Do(ctx, name(o), func(tx *Tx, c *counter) error {
					c.n++
					n = c.n
					return errors.Join(tx.Put("n", number(n)), tx.Put("copy", number(n)))
				})
				if err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				fmt.Printf("%d %d\n", o, n) // one write each: a line is whole or not there
			}
		})
	}
	wg.Wait()
}

// TestAKilledProcessKeepsWhatItAcknowledged kills a process that uses a folder on the machine's disk, some times over.
// While it runs, this process cannot open the folder.
func TestAKilledProcessKeepsWhatItAcknowledged(t *testing.T) {
	program, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	var acked [killObjects]uint64
	for round := range 4 {
		child := exec.CommandContext(t.Context(), program, "-test.run=^TestKillHelper$")
		child.Env = append(os.Environ(), killFolder+"="+dir)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		read := 0
		for killAt := 50 + rand.IntN(1000); lines.Scan(); {
			var o int
			var n uint64
			if _, err := fmt.Sscanf(lines.Text(), "%d %d", &o, &n); err != nil {
				t.Fatalf("the process says %q", lines.Text())
			}
			acked[o] = max(acked[o], n)
			if read++; read == killAt {
				_, err := Open(dir, Options{})
				wantError(t, err, ErrInUse)
				if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "this or another process") {
					t.Errorf("the error is %q", err)
				}
				must(t, child.Process.Kill())
			}
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the process was not killed")
		}

		s, err := Open(dir, Options{})
		must(t, err)
		k := Register(s, "counter", wakePair)
		var more uint64
		for o := range acked {
			n := value(t, k, name(o))
			if n < acked[o] {
				t.Errorf("round %d: object %d is %d, acknowledged were %d", round, o, n, acked[o])
			}
			more += n - acked[o]
			acked[o] = n
		}
		if more > killCallers {
			t.Errorf("round %d: %d operations were done that nobody was told of, by %d callers", round, more, killCallers)
		}
		must(t, s.Close())
		t.Logf("round %d: killed after %d answers, %d more were done", round, read, more)
	}
}
