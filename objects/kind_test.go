package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestOperationsOnAnObjectAreSerial(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	var wg sync.WaitGroup
	for caller := range 16 {
		wg.Go(func() {
			for i := range 200 {
				if caller%2 == 0 {
					if err := k.Do(ctx, name(i%3), increment); err != nil {
						t.Error(err)
					}
					continue
				}
				wg.Add(1)
				k.Submit(name(i%3), increment, func(err error) {
					defer wg.Done()
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	if sum := value(t, k, name(0)) + value(t, k, name(1)) + value(t, k, name(2)); sum != 16*200 {
		t.Errorf("16 callers of 200 increments counted %d", sum)
	}
}

func TestAWaitingCallerLeavesWhenItsContextEnds(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	in, out := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		first <- k.Do(ctx, "a", func(*Tx, *counter) error { close(in); <-out; return nil })
	}()
	<-in
	short, cancel := context.WithCancel(ctx)
	second := make(chan error)
	go func() { second <- k.Do(short, "a", increment) }()
	third := make(chan error)
	go func() { third <- k.Do(ctx, "a", increment) }()
	cancel()
	wantError(t, <-second, context.Canceled)
	close(out)
	must(t, <-first)
	must(t, <-third)
	if n := value(t, k, "a"); n != 1 {
		t.Errorf("the counter is %d: the operation that gave up ran", n)
	}
}

func TestAFailedOperationWritesNothingAndItsStateIsDropped(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	oops := errors.New("oops")
	fails := map[string]struct {
		how  func() error
		want error
	}{
		"error": {func() error { return oops }, oops},
		"panic": {func() error { panic("boom") }, ErrPanicked},
		"nil":   {func() error { (*counter)(nil).n++; return nil }, ErrPanicked}, //nolint:govet // it must panic
	}
	for what, f := range fails {
		t.Run(what, func(t *testing.T) {
			before := s.Stats().Panics
			err := k.Do(ctx, "a", func(tx *Tx, c *counter) error {
				must(t, increment(tx, c))
				must(t, tx.Put("other", nil))
				return f.how()
			})
			wantError(t, err, f.want)
			if errors.Is(err, ErrPanicked) != (s.Stats().Panics == before+1) {
				t.Errorf("%d panics counted", s.Stats().Panics-before)
			}
			must(t, k.Do(ctx, "a", func(tx *Tx, c *counter) error {
				if _, ok, _ := tx.Get("other"); ok || c.n != 1 {
					t.Errorf("after a failed increment the counter is %d, other is there: %t", c.n, ok)
				}
				return nil
			}))
		})
	}
}

func TestARefusalKeepsTheState(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	wakes := 0
	k := Register(s, "counter", func(tx *Tx) (*counter, error) {
		wakes++
		if err := tx.Put("woken", number(uint64(wakes))); err != nil {
			return nil, err
		}
		return wakeCounter(tx)
	})
	no := errors.New("no")
	refuse := func(tx *Tx, _ *counter) error { return errors.Join(tx.Put("x", nil), Refuse(no)) }
	wantError(t, k.Do(ctx, "a", refuse), no)
	must(t, k.Do(ctx, "a", increment))
	if wakes != 2 {
		t.Errorf("%d wakes: a refusal that dropped what the waking wrote must drop the state", wakes)
	}
	if err := k.Do(ctx, "a", func(*Tx, *counter) error { return Refuse(no) }); err != no { //nolint:errorlint // it must come as it was
		t.Errorf("the refusal came as %#v", err)
	}
	wantError(t, k.Do(ctx, "a", refuse), no)
	if n := value(t, k, "a"); n != 1 || wakes != 2 {
		t.Errorf("the counter is %d after %d wakes", n, wakes)
	}
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		if _, ok, _ := tx.Get("x"); ok {
			t.Error("a refused operation's put is there")
		}
		return nil
	}))
}

func TestAnOperationThatEndsItsGoroutineFreesTheObject(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	told := make(chan error, 1)
	go k.Submit("a", func(tx *Tx, c *counter) error {
		_ = increment(tx, c)
		runtime.Goexit()
		return nil
	}, func(err error) { told <- err })
	wantError(t, <-told, ErrPanicked)
	if n := value(t, k, "a"); n != 0 {
		t.Errorf("the counter is %d", n)
	}
}

func TestAFailedWakingIsTriedAgain(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	oops := errors.New("oops")
	fail := true
	k := Register(s, "counter", func(tx *Tx) (*counter, error) {
		if fail {
			return nil, oops
		}
		return wakeCounter(tx)
	})
	wantError(t, k.Do(ctx, "a", increment), oops)
	fail = false
	must(t, k.Do(ctx, "a", increment))
}

func TestObjectsSleepLeastRecentlyUsedFirst(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem(), Memory: 3 * 150})
	var woken []string
	k := Register(s, "counter", func(tx *Tx) (*counter, error) {
		woken = append(woken, tx.Name())
		return wakeCounter(tx)
	})
	for _, n := range []string{"a", "b", "c", "a", "d", "e", "a", "b"} {
		must(t, k.Do(ctx, n, increment))
	}
	if got := strings.Join(woken, ""); got != "abcdeb" {
		t.Errorf("woken in the order %s, want abcdeb", got)
	}
	for n, want := range map[string]uint64{"a": 3, "b": 2, "c": 1, "d": 1, "e": 1} {
		if got := value(t, k, n); got != want {
			t.Errorf("%s is %d after sleep, want %d", n, got, want)
		}
	}
	if n := s.Stats().Awake; n != 3 {
		t.Errorf("%d awake", n)
	}
}

// sized is a state that says how much memory it takes.
type sized struct{ bytes int }

func (s *sized) MemoryBytes() int { return s.bytes }

func TestObjectsSleepByTheBytesTheyTake(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem(), Memory: 100_000})
	k := Register(s, "sized", func(*Tx) (*sized, error) { return &sized{bytes: 1000}, nil })
	read := Register(s, "read", func(tx *Tx) (int, error) {
		v, _, err := tx.Get("v")
		return len(v), err
	})
	use := func(n string) {
		must(t, k.Do(ctx, n, func(*Tx, *sized) error { return nil }))
	}
	grow := func(n string, bytes int) {
		must(t, k.Do(ctx, n, func(tx *Tx, s *sized) error { s.bytes = bytes; return tx.Put("v", nil) }))
	}
	figures := func(awake int, memory int64) {
		t.Helper()
		if st := s.Stats(); st.Awake != awake || st.Memory != memory {
			t.Errorf("%d objects awake in %d bytes, want %d in %d", st.Awake, st.Memory, awake, memory)
		}
	}
	for i := range 50 {
		use(fmt.Sprintf("%02d", i))
	}
	each := int64(objectBytes + 2 + 1000)
	figures(50, 50*each)
	grow("49", 50_000)
	figures(44, 44*each+49_000) // six had to go
	grow("49", 10_000)
	figures(44, 44*each+9000)
	wantError(t, k.Do(ctx, "49", func(*Tx, *sized) error { return errNo }), errNo) // drops the state
	figures(44, 44*each-1000)

	put := func(tx *Tx, _ int) error { return tx.Put("v", make([]byte, 40_000)) }
	must(t, read.Do(ctx, "r", put))
	figures(45, 44*each-1000+objectBytes+1) // its waking read nothing
	wantError(t, read.Do(ctx, "r", func(*Tx, int) error { return errNo }), errNo)
	must(t, read.Do(ctx, "r", func(*Tx, int) error { return nil }))
	figures(45, 44*each-1000+objectBytes+1+40_000)
}

func TestObjectsWithWorkInFlightDoNotSleep(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs, Memory: 150})
	k := Register(s, "counter", wakeCounter)
	fs.close()
	var told atomic.Int32
	for i := range 20 { // each object is pushed out by the next, but for its unsynced write
		for range 5 {
			k.Submit(name(i), increment, func(error) { told.Add(1) })
		}
	}
	for i := range 20 {
		k.Submit(name(i), func(_ *Tx, c *counter) error {
			if c.n != 5 {
				t.Errorf("object %d is %d before its sync", i, c.n)
			}
			return nil
		}, nil)
	}
	if n := s.Stats().Awake; n != 20 || told.Load() != 0 {
		t.Errorf("%d awake, %d told", n, told.Load())
	}
	fs.open()
	for i := range 20 {
		if n := value(t, k, name(i)); n != 5 {
			t.Errorf("object %d is %d", i, n)
		}
	}
	if must(t, k.Do(ctx, "last", increment)); s.Stats().Awake > 13 {
		t.Errorf("%d awake after the syncs", s.Stats().Awake)
	}
}

func TestListGivesNamesInOrder(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	other := Register(s, "counter-2", wakeCounter)
	names := []string{"a", "a b", "a/b", "ab", "b", "ä", "日本"}
	for i := len(names) - 1; i >= 0; i-- {
		must(t, k.Do(ctx, names[i], func(tx *Tx, c *counter) error {
			return errors.Join(tx.Put("\xff\xff", nil), increment(tx, c))
		}))
		must(t, other.Do(ctx, "other", increment))
	}
	must(t, k.Do(ctx, "empty", func(*Tx, *counter) error { return nil }))
	var got []string
	for after := ""; ; {
		page, err := k.List(ctx, after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		after = page[len(page)-1]
	}
	if !slices.Equal(got, names) {
		t.Errorf("listed %q, want %q", got, names)
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	for _, n := range []string{"", "a\x00b", "a\nb", "\xff", strings.Repeat("x", MaxNameBytes+1), "\u0085"} {
		wantError(t, k.Do(ctx, n, increment), ErrInvalid)
	}
	must(t, k.Do(ctx, strings.Repeat("x", MaxNameBytes), func(tx *Tx, _ *counter) error {
		long, big := strings.Repeat("\xff", MaxKeyBytes), make([]byte, MaxValueBytes)
		must(t, tx.Put(long, big))
		wantError(t, tx.Put("", nil), ErrInvalid)
		wantError(t, tx.Put(long+"x", nil), ErrInvalid)
		wantError(t, tx.Put("k", append(big, 1)), ErrInvalid)
		_, _, err := tx.Get(long + "x")
		wantError(t, err, ErrInvalid)
		for i := range MaxOpBytes / MaxValueBytes {
			err = tx.Put(fmt.Sprint(i), big)
		}
		wantError(t, err, ErrInvalid)
		return nil
	}))
	for _, kind := range []string{"", "Big", "under_score", "counter", strings.Repeat("x", 33)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("kind %q was registered", kind)
				}
			}()
			Register(s, kind, wakeCounter)
		}()
	}
	var kept *Tx
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error { kept = tx; return nil }))
	if err := kept.Put("k", nil); err == nil {
		t.Error("a transaction was used after its operation")
	}
}

func TestValuesAreCopies(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	v := []byte("before")
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		must(t, tx.Put("k", v))
		copy(v, "xxxxxx")
		got, _, _ := tx.Get("k")
		must(t, tx.Put("k", []byte("after!")))
		if !bytes.Equal(got, []byte("before")) {
			t.Errorf("got %q", got)
		}
		return nil
	}))
}
