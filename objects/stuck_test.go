package objects

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestAnOperationThatDoesNotReturnIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		s, err := Open("d", Options{FS: vfs.NewMem(), Events: Events{
			OnStuck: func(kind, name string, stuck bool) { events = append(events, fmt.Sprint(kind, name, stuck)) },
		}})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		out, in := make(chan struct{}), make(chan struct{})
		first := make(chan error, 1)
		ends, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		go func() {
			first <- k.Do(ends, "a", func(tx *Tx, c *counter) error {
				close(in)
				<-tx.Context().Done()
				<-out
				return increment(tx, c)
			})
		}()
		<-in
		for range 3 { // a busy object beside it, and a slow one
			go func() {
				_ = k.Do(ctx, "slow", func(*Tx, *counter) error { time.Sleep(50 * time.Second); return nil })
			}()
		}
		began := time.Now()
		second := k.Do(ctx, "a", increment)
		wantError(t, second, ErrStuck)
		if !strings.HasSuffix(second.Error(), `: counter "a"`) {
			t.Errorf("the error is %q", second)
		}
		if took := time.Since(began); took < DefaultStuckAfter || took > DefaultStuckAfter*3/2+time.Second {
			t.Errorf("it was marked after %v", took)
		}
		began = time.Now()
		wantError(t, k.Do(ctx, "a", increment), ErrStuck)
		must(t, k.Do(ctx, "b", increment))
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to be refused", took)
		}
		if n := s.Stats().Stuck; n != 1 {
			t.Errorf("%d are stuck", n)
		}
		time.Sleep(time.Hour) // the slow ones were never marked
		close(out)
		wantError(t, <-first, context.DeadlineExceeded) // it waited for the disk with a context that had ended
		must(t, k.Do(ctx, "a", increment))
		if n := value(t, k, "a"); n != 2 || s.Stats().Stuck != 0 {
			t.Errorf("the counter is %d; %d are stuck", n, s.Stats().Stuck)
		}
		if got := fmt.Sprint(events); got != "[counteratrue counterafalse]" {
			t.Errorf("events %s", got)
		}
		must(t, s.Close())
	})
}

func TestCloseLeavesAStuckOperationBehind(t *testing.T) {
	for _, marked := range []bool{false, true} {
		mem := vfs.NewMem()
		s, err := Open("d", Options{FS: mem, StuckAfter: 50 * time.Millisecond})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		must(t, k.Do(ctx, "a", increment))
		out, in := make(chan struct{}), make(chan struct{})
		late := make(chan error)
		go func() {
			late <- k.Do(ctx, "a", func(tx *Tx, c *counter) error {
				for e, err := range tx.List(ListOptions{}) { // it has an iterator of Pebble's in hand
					must(t, err)
					close(in)
					<-out
					must(t, tx.Put(e.Key, number(100)))
				}
				_, _, _ = tx.Get("other")
				return nil
			})
		}()
		<-in
		if marked {
			eventually(t, "the mark", func() bool { return s.Stats().Stuck == 1 })
		}
		must(t, k.Do(ctx, "b", func(tx *Tx, c *counter) error { tx.SetDurability(None); return increment(tx, c) }))
		err = s.Close()
		wantError(t, err, ErrStuck)
		if !strings.Contains(err.Error(), `counter "a"`) || s.Close() == nil {
			t.Errorf("the error is %q", err)
		}

		again, err := Open("d", Options{FS: mem})
		must(t, err)
		k = Register(again, "counter", wakeCounter)
		close(out)
		wantError(t, <-late, ErrClosed)
		if a, b := value(t, k, "a"), value(t, k, "b"); a != 1 || b != 1 {
			t.Errorf("the counters are %d and %d", a, b)
		}
		must(t, again.Close())
	}
}
