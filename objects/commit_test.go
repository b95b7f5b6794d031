package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestOutputGate(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "written", increment))
	must(t, k.Do(ctx, "other", increment))

	fs.close()
	told := make(chan string, 10)
	tell := func(what string) func(error) {
		return func(err error) { told <- fmt.Sprint(what, ":", err) }
	}
	read := func(*Tx, *counter) error { return nil }
	k.Submit("written", increment, tell("write 1"))
	fs.awaitBlocked(t)
	// The batch is in Pebble now, and visible there; the layers are gone.
	k.Submit("written", read, tell("read"))
	k.Submit("written", func(*Tx, *counter) error { return Refuse(errors.New("no")) }, tell("refusal"))
	k.Submit("written", increment, tell("write 2"))
	k.Submit("written", read, tell("read 2"))
	ended, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err := k.List(ended, "", 10)
	wantError(t, err, context.DeadlineExceeded)
	late, cancelLate := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancelLate()
	wantError(t, k.Do(late, "written", read), context.DeadlineExceeded)

	if n := value(t, k, "other"); n != 1 { // does not wait for the unrelated commit
		t.Errorf("other is %d", n)
	}
	select {
	case what := <-told:
		t.Fatalf("%q was told before the sync", what)
	default:
	}

	fs.open()
	var got []string
	for range 5 {
		got = append(got, <-told)
	}
	want := []string{"write 1:<nil>", "read:<nil>", "refusal:no", "write 2:<nil>", "read 2:<nil>"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	list, err := k.List(ctx, "", 10)
	if must(t, err); len(list) != 2 {
		t.Errorf("listed %q", list)
	}
}

func TestWritesOfOneCommitShareASyncAndAKeyIsWrittenOnce(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	fs.close()
	k.Submit("first", increment, nil)
	fs.awaitBlocked(t)
	before := s.Metrics().WAL.BytesIn
	for range 1000 {
		k.Submit("a", increment, nil)
	}
	syncs := fs.syncs.Load()
	fs.open()
	if n := value(t, k, "a"); n != 1000 {
		t.Errorf("counted %d", n)
	}
	if n, bytes := fs.syncs.Load()-syncs, s.Metrics().WAL.BytesIn-before; n != 1 || bytes > 100 {
		t.Errorf("1000 increments of one key took %d syncs and %d bytes of log", n, bytes)
	}
	st := s.Stats()
	if st.Commits != 2 || st.Ops != 1001 || st.Pending != 0 || st.PendingBytes != 0 {
		t.Errorf("the figures: %+v", st)
	}
}

// TestManyWritesAreAppliedWhileOthersSync: a large group does not wait for the sync of the one before it, but its
// callers do, and a third group does.
func TestManyWritesAreAppliedWhileOthersSync(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	flying := func() int {
		s.commit.mu.Lock()
		defer s.commit.mu.Unlock()
		return len(s.commit.flying)
	}
	must(t, k.Do(ctx, "before", increment))
	fs.close()
	var told []string
	tell := func(what string) func(error) {
		return func(err error) { told = append(told, fmt.Sprint(what, ":", err)) } // by one goroutine
	}
	k.Submit("first", increment, tell("first"))
	fs.awaitBlocked(t)
	for range 2 * overlapKeys {
		k.Submit("hot", increment, nil)
	}
	for i := range overlapKeys - 2 {
		k.Submit(name(i), increment, nil)
	}
	if n := flying(); n != 1 {
		t.Fatalf("%d groups are committed", n)
	}
	k.Submit("second", increment, tell("second"))
	eventually(t, "the second group", func() bool { return flying() == 2 })
	for i := range 2 * overlapKeys {
		k.Submit(name(i), increment, nil)
	}
	k.Submit("third", increment, tell("third"))
	if n := flying(); n != maxFlying {
		t.Errorf("%d groups are committed", n)
	}
	fs.open()
	must(t, k.Do(ctx, "last", increment))
	if want := []string{"first:<nil>", "second:<nil>", "third:<nil>"}; !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
	if st := s.Stats(); st.Commits < 4 || st.Commits > 5 {
		t.Errorf("%d commits", st.Commits)
	}
}

func TestTooManyPendingOperationsAreRefused(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	fs.close()
	var wg sync.WaitGroup
	var errs [2]int
	submit := func(op func(*Tx, *counter) error) {
		wg.Add(1)
		k.Submit("a", op, func(err error) {
			defer wg.Done()
			if err == nil {
				errs[0]++
			} else if errors.Is(err, ErrOverloaded) {
				errs[1]++
			}
		})
	}
	for range MaxPending + 10 {
		submit(increment)
	}
	fs.open()
	wg.Wait()
	if errs != [2]int{MaxPending, 10} {
		t.Errorf("%d done, %d refused", errs[0], errs[1])
	}
	if n := value(t, k, "a"); n != MaxPending {
		t.Errorf("counted %d", n)
	}

	fs.close()
	errs = [2]int{}
	big := make([]byte, MaxValueBytes)
	for i := range MaxPendingBytes/MaxValueBytes + 10 {
		submit(func(tx *Tx, _ *counter) error { return tx.Put(fmt.Sprint(i), big) })
	}
	fs.open()
	wg.Wait()
	if errs[0] > MaxPendingBytes/MaxValueBytes || errs[1] < 10 {
		t.Errorf("%d puts of 2 MiB taken, %d refused", errs[0], errs[1])
	}
}

func TestOutcomesComeInTheOrderOfCommits(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	s.commit.sealAt = 500
	const n = 20_000
	var told []int
	room := make(chan struct{}, 1000)
	for i := range n {
		room <- struct{}{}
		k.Submit(name(i%7), increment, func(err error) {
			if err != nil {
				t.Error(err)
			}
			if i%100 == 0 {
				time.Sleep(50 * time.Microsecond) // later groups become durable meanwhile
			}
			told = append(told, i)
			<-room
		})
	}
	for range cap(room) {
		room <- struct{}{}
	}
	if len(told) != n || !slices.IsSorted(told) {
		t.Errorf("%d outcomes, in order: %t", len(told), slices.IsSorted(told))
	}
}

func TestAPanicOfTheCommitterFailsTheStore(t *testing.T) {
	boom := func() { panic("boom") }
	for what, f := range map[string]func(s *Store, k *Kind[*counter]){
		"done function": func(_ *Store, k *Kind[*counter]) { k.Submit("a", increment, func(error) { boom() }) },
		"event": func(s *Store, k *Kind[*counter]) {
			s.commit.events.OnCommit = func(int, int, time.Duration) { boom() }
			k.Submit("a", increment, nil)
		},
		"lost group": func(s *Store, k *Kind[*counter]) {
			_ = k.Do(ctx, "b", func(tx *Tx, _ *counter) error { tx.o.last = 1 << 40; return nil })
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, err := Open("d", Options{FS: vfs.NewMem()})
			must(t, err)
			k := Register(s, "counter", wakeCounter)
			told := make(chan error, 1)
			f(s, k)
			k.Submit("c", func(tx *Tx, c *counter) error { return errors.Join(increment(tx, c), tx.Delete("x")) },
				func(err error) { told <- err })
			eventually(t, "the store to fail", func() bool { return s.Err() != nil })
			if err := s.Err(); !strings.Contains(err.Error(), "broken invariant") {
				t.Errorf("the store failed with %v", err)
			}
			wantError(t, k.Do(ctx, "a", increment), ErrFailed)
			t.Logf("the caller was told: %v", <-told) // whatever it was
			must(t, s.Close())
		})
	}
}

// TestGroupsAreAsLargeAsTheDiskIsSlow: on a slow disk all who come while it syncs share the next one, and who is alone
// waits for one sync.
func TestGroupsAreAsLargeAsTheDiskIsSlow(t *testing.T) {
	const takes, callers, lasts = 5 * time.Millisecond, 8 * overlapKeys, time.Second
	synctest.Test(t, func(t *testing.T) {
		fs := &gateFS{FS: vfs.NewMem()}
		s, err := Open("d", Options{FS: fs})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		fs.hook(func() { time.Sleep(takes) })
		for range 3 {
			began := time.Now()
			must(t, k.Do(ctx, "alone", increment))
			if took := time.Since(began); took != takes {
				t.Errorf("an operation alone took %v, and a sync takes %v", took, takes)
			}
		}
		before, began := s.Stats(), time.Now()
		var group sync.WaitGroup
		for i := range callers {
			group.Go(func() {
				time.Sleep(time.Duration(i) * takes / callers)
				for time.Since(began) < lasts {
					must(t, k.Do(ctx, name(i), increment))
				}
			})
		}
		group.Wait()
		after := s.Stats()
		if ops, commits := after.Ops-before.Ops, after.Commits-before.Commits; ops/int64(commits) < callers/3 {
			t.Errorf("%d operations were done in %d commits", ops, commits)
		}
		must(t, s.Close())
	})
}
