package objects

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// checkAlarms looks whether the index in Pebble holds exactly the objects' alarms, which it returns: "kind/name" with
// when they are due. Nothing may be pending.
func checkAlarms(t interface{ Errorf(string, ...any) }, s *Store) map[string]int64 {
	records, index := map[string]int64{}, map[string]int64{}
	it, err := s.db.NewIter(&pebble.IterOptions{})
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		key := string(it.Key())
		if rest, ours := strings.CutPrefix(key, alarmKeys); ours {
			of, rest, _ := strings.Cut(rest, "\x00")
			q := &alarmQueue{kind: &kind{name: of}}
			due, name, err := q.parse(it.Key())
			if err != nil || name != rest[8:] {
				t.Errorf("the index has the key %q: %v", key, err)
			}
			index[of+"/"+name] += due // twice is wrong, too
		} else if of, rest, _ := strings.Cut(key, "\x00"); of != "" && strings.HasSuffix(rest, "\x00") && strings.Count(rest, "\x00") == 1 {
			a, err := parseAlarm(it.Value())
			if err != nil || a.due < a.at || a.due == 0 {
				t.Errorf("the alarm of %q is %+v: %v", key, a, err)
			}
			records[of+"/"+rest[:len(rest)-1]] = a.due
		}
	}
	if fmt.Sprint(records) != fmt.Sprint(index) {
		t.Errorf("the index has %v, the objects %v", index, records)
	}
	return records
}

func setAlarm(in time.Duration) func(*Tx, *counter) error {
	return func(tx *Tx, _ *counter) error { return tx.SetAlarm(time.Now().Add(in)) }
}

func alarmOf(t testing.TB, k *Kind[*counter], name string) (at time.Time, ok bool) {
	t.Helper()
	must(t, k.Do(ctx, name, func(tx *Tx, _ *counter) (err error) {
		at, ok, err = tx.Alarm()
		return err
	}))
	return at, ok
}

func TestAnAlarmGoesOffInTimeAlsoAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		s, err := Open("d", Options{FS: fs})
		must(t, err)
		var mu sync.Mutex
		var rung []string
		seen := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(rung)
		}
		handle := func(tx *Tx, c *counter, a Alarm) error {
			if _, ok, err := tx.Alarm(); ok || err != nil {
				t.Errorf("the handler's alarm is still set: %v", err)
			}
			late := time.Since(a.At)
			if late < 0 || late > time.Second {
				t.Errorf("%s went off %v late", tx.Name(), late)
			}
			mu.Lock()
			rung = append(rung, fmt.Sprint(tx.Name(), " ", a.Attempt))
			mu.Unlock()
			return increment(tx, c)
		}
		k := Register(s, "counter", wakeCounter)
		k.OnAlarm(handle)
		must(t, k.Do(ctx, "b", setAlarm(2*time.Hour)))
		must(t, k.Do(ctx, "c", setAlarm(3*time.Hour)))
		must(t, k.Do(ctx, "a", setAlarm(time.Hour)))
		must(t, k.Do(ctx, "odd", func(tx *Tx, _ *counter) error { return tx.SetAlarm(time.Now().Add(time.Hour + 1)) }))
		time.Sleep(time.Hour - 1)
		synctest.Wait()
		if rung := seen(); len(rung) != 0 {
			t.Errorf("%v went off early", rung)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if rung := seen(); len(rung) != 1 {
			t.Errorf("%v went off on time", rung)
		}
		time.Sleep(time.Minute)
		if n := value(t, k, "a"); n != 1 {
			t.Errorf("the counter is %d", n)
		}
		if _, ok := alarmOf(t, k, "a"); ok {
			t.Error("the alarm is still set")
		}
		must(t, s.Close())

		time.Sleep(90 * time.Minute)
		s, err = Open("d", Options{FS: fs})
		must(t, err)
		if a := checkAlarms(t, s); len(a) != 2 {
			t.Errorf("alarms %v", a)
		}
		k = Register(s, "counter", wakeCounter)
		handle2 := func(tx *Tx, c *counter, a Alarm) error {
			mu.Lock()
			rung = append(rung, tx.Name())
			mu.Unlock()
			return increment(tx, c)
		}
		time.Sleep(time.Hour)
		k.OnAlarm(handle2)
		must(t, k.Do(ctx, "past", setAlarm(-time.Hour)))
		synctest.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		all := seen()
		slices.Sort(all[2:])
		if got := fmt.Sprint(all); got != "[a 1 odd 1 b c past]" {
			t.Errorf("went off: %v", got)
		}
		if a := checkAlarms(t, s); len(a) != 0 || s.Stats().Rung != 3 {
			t.Errorf("alarms %v, %d rung", a, s.Stats().Rung)
		}
		must(t, s.Close())
	})
}

func TestAHandlerMaySetTheNextAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("d", Options{FS: vfs.NewMem()})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		k.OnAlarm(func(tx *Tx, c *counter, a Alarm) error {
			tx.SetDurability(None)
			return errors.Join(increment(tx, c), tx.SetAlarm(a.At.Add(time.Minute)))
		})
		must(t, k.Do(ctx, "a", setAlarm(time.Minute)))
		time.Sleep(100*time.Minute + time.Second)
		if n := value(t, k, "a"); n != 100 {
			t.Errorf("it went off %d times", n)
		}
		must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error { return tx.DeleteAlarm() }))
		time.Sleep(time.Hour)
		if n := value(t, k, "a"); n != 100 {
			t.Errorf("it went off %d times after it was deleted", n)
		}
		must(t, s.Close())
	})
}

func TestAHandlerThatFailsIsTriedAgainEverLater(t *testing.T) {
	for how, fail := range map[string]func(*Tx) error{
		"error":   func(*Tx) error { return errNo },
		"refusal": func(*Tx) error { return Refuse(errNo) },
		"panic":   func(*Tx) error { panic("boom") },
		"exit":    func(*Tx) error { runtime.Goexit(); return nil },
		"forgets": func(tx *Tx) error { return errors.Join(tx.DeleteAll(), tx.SetAlarm(time.Now()), errNo) },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := vfs.NewMem()
				var failed int
				o := Options{FS: fs, Events: Events{OnAlarmError: func(_, name string, attempt int, err error) {
					if failed++; name != "a" || attempt != failed || err == nil {
						t.Errorf("failure %d was told as %s, attempt %d: %v", failed, name, attempt, err)
					}
				}}}
				var s *Store
				var k *Kind[*counter]
				var mu sync.Mutex // guards times, healed
				var times []time.Time
				healed := false
				start := func() {
					var err error
					s, err = Open("d", o)
					must(t, err)
					k = Register(s, "counter", wakeCounter)
					k.OnAlarm(func(tx *Tx, c *counter, a Alarm) error {
						mu.Lock()
						defer mu.Unlock()
						times = append(times, time.Now())
						if a.Attempt != len(times) {
							t.Errorf("attempt %d is told as %d", len(times), a.Attempt)
						}
						if err := increment(tx, c); healed || err != nil {
							return err
						}
						return fail(tx)
					})
				}
				start()
				began := time.Now()
				must(t, k.Do(ctx, "a", func(tx *Tx, c *counter) error {
					return errors.Join(increment(tx, c), tx.SetAlarm(began))
				}))
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if at, ok := alarmOf(t, k, "a"); !ok || !at.Equal(began.Truncate(time.Microsecond)) {
					t.Errorf("the failing alarm is told as %v, %t", at, ok)
				}
				must(t, s.Close())
				time.Sleep(time.Hour)
				start()
				time.Sleep(4 * time.Hour)
				synctest.Wait()
				if n := value(t, k, "a"); n != 1 {
					t.Errorf("the counter is %d: a failed handler wrote", n)
				}
				mu.Lock()
				for i := range times[1:] {
					most := min(alarmRetryFirst<<min(i, 20), alarmRetryMost) * 3 / 2
					if gap := times[i+1].Sub(times[i]); gap < most/3-time.Second || gap > most+time.Hour+time.Minute {
						t.Errorf("attempt %d came %v after the one before it", i+2, gap)
					}
				}
				if n := len(times); n < 4*60/8 || n > 4*60/2 {
					t.Errorf("%d attempts in four hours", n)
				}
				healed = true
				mu.Unlock()
				time.Sleep(alarmRetryMost * 3 / 2)
				synctest.Wait()
				if n := value(t, k, "a"); n != 2 || failed != len(times)-1 {
					t.Errorf("the counter is %d, %d failures were told", n, failed)
				}
				if a := checkAlarms(t, s); len(a) != 0 {
					t.Errorf("alarms %v", a)
				}
				must(t, s.Close())
			})
		})
	}
}

func TestAlarmsOfOneKindDoNotWaitForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("d", Options{FS: vfs.NewMem(), StuckAfter: -1})
		must(t, err)
		none, slow, quick := Register(s, "a-none", wakeCounter), Register(s, "b-slow", wakeCounter), Register(s, "c-quick", wakeCounter)
		var running, most, rung atomic.Int32
		slow.OnAlarm(func(*Tx, *counter, Alarm) error {
			n := running.Add(1)
			defer running.Add(-1)
			most.Store(max(most.Load(), n))
			time.Sleep(time.Hour)
			return nil
		})
		quick.OnAlarm(func(*Tx, *counter, Alarm) error { rung.Add(1); return nil })
		for i := range 3 * alarmsAtOnce {
			for _, k := range []*Kind[*counter]{none, slow, quick} {
				must(t, k.Do(ctx, name(i), setAlarm(time.Second)))
			}
		}
		time.Sleep(time.Minute)
		if rung.Load() != 3*alarmsAtOnce || running.Load() != alarmsAtOnce {
			t.Errorf("%d quick alarms rang beside %d slow ones", rung.Load(), running.Load())
		}
		time.Sleep(5 * time.Hour)
		if a := checkAlarms(t, s); len(a) != 3*alarmsAtOnce || most.Load() != alarmsAtOnce {
			t.Errorf("%d alarms are left, up to %d rang at once", len(a), most.Load())
		}
		must(t, s.Close())
	})
}

func TestAStuckHandlerHoldsUpNoOtherAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("d", Options{FS: vfs.NewMem()})
		must(t, err)
		k := Register(s, "counter", wakeCounter)
		k.OnAlarm(func(tx *Tx, c *counter, _ Alarm) error {
			if tx.Name() == "stuck" {
				<-tx.Context().Done()
			}
			return increment(tx, c)
		})
		must(t, k.Do(ctx, "stuck", setAlarm(time.Second)))
		for i := range 500 {
			must(t, k.Do(ctx, name(i), setAlarm(2*time.Second+time.Duration(i)*time.Millisecond)))
		}
		time.Sleep(time.Hour)
		for i := range 500 {
			if n := value(t, k, name(i)); n != 1 {
				t.Errorf("object %d rang %d times", i, n)
			}
		}
		wantError(t, k.Do(ctx, "stuck", increment), ErrStuck)
		must(t, s.Close()) // its context ends
	})
}

func TestAlarmTimesOutOfRangeAreRefused(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			wantError(t, tx.SetAlarm(at), ErrInvalid)
		}
		for _, at := range []time.Time{time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
			must(t, tx.SetAlarm(at))
			if got, ok, err := tx.Alarm(); !ok || err != nil || !got.Equal(at) {
				t.Errorf("set %v, got %v %t %v", at, got, ok, err)
			}
		}
		return nil
	}))
	k.OnAlarm(func(*Tx, *counter, Alarm) error { return nil })
	defer func() {
		if recover() == nil {
			t.Error("a second handler was taken")
		}
	}()
	k.OnAlarm(func(*Tx, *counter, Alarm) error { return nil })
}

// TestAlarmsAgainstAModel changes alarms with syncs that block, so that changes lie in several layers, and compares the
// index with what should be there.
func TestAlarmsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := &gateFS{FS: vfs.NewMem()}
		s, err := Open("d", Options{FS: fs, Memory: 150})
		if err != nil {
			t.Fatal(err)
		}
		s.commit.sealAt = 3 * alarmBytes
		k := Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
		model := map[string]int64{}
		do := func(n string, d Durability, op func(tx *Tx) error) {
			k.Submit(n, func(tx *Tx, _ int) error {
				tx.SetDurability(d)
				at, ok, err := tx.Alarm()
				if err != nil || ok != (model[n] != 0) || ok && at.UnixMicro() != model[n] {
					t.Fatalf("%s has the alarm %v %t %v, want %d", n, at, ok, err, model[n])
				}
				return op(tx)
			}, nil)
		}
		for range rapid.IntRange(1, 60).Draw(t, "ops") {
			n := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			d := Durability(rapid.IntRange(0, 2).Draw(t, "durability"))
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1, 2:
				at := rapid.Int64Range(1, 5).Draw(t, "at")
				do(n, d, func(tx *Tx) error { return tx.SetAlarm(time.UnixMicro(at)) })
				model[n] = at
			case 3:
				do(n, d, func(tx *Tx) error { return tx.DeleteAlarm() })
				delete(model, n)
			case 4:
				do(n, d, func(tx *Tx) error { return errors.Join(tx.SetAlarm(time.UnixMicro(9)), errNo) })
			case 5:
				do(n, d, func(tx *Tx) error {
					return errors.Join(tx.Put("x", nil), tx.SetAlarm(time.UnixMicro(9)), tx.DeleteAll())
				})
				delete(model, n)
			case 6:
				if fs.open(); rapid.Bool().Draw(t, "shut") {
					fs.close()
				}
			}
		}
		fs.open()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open("d", Options{FS: fs.FS}); err != nil {
			t.Fatal(err)
		}
		got := checkAlarms(t, s)
		for n, at := range model {
			if got["kind/"+n] != at {
				t.Errorf("the alarm of %s is %d, want %d", n, got["kind/"+n], at)
			}
		}
		if len(got) != len(model) {
			t.Errorf("alarms %v, want %v", got, model)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAlarmsSurviveCrashes has handlers count, crashes now and then, and wants every alarm to have been handled at
// least once, and its count and its removal to be one.
func TestAlarmsSurviveCrashes(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		mem := vfs.NewCrashableMem()
		const n = 100
		var started sync.Map
		run := func(fs vfs.FS) (*Store, *Kind[*counter]) {
			s, err := Open("d", Options{FS: fs, MemTableBytes: 64 << 10})
			must(t, err)
			checkAlarms(t, s)
			k := Register(s, "counter", wakeCounter)
			k.OnAlarm(func(tx *Tx, c *counter, _ Alarm) error {
				if c.n != 0 {
					t.Errorf("seed %d: %s was handled, and is again", seed, tx.Name())
				}
				started.Store(tx.Name(), true)
				return increment(tx, c)
			})
			return s, k
		}
		s, k := run(mem)
		for i := range n {
			must(t, k.Do(ctx, name(i), setAlarm(time.Duration(rng.IntN(20))*time.Millisecond)))
		}
		for range 3 {
			time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
			crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			must(t, s.Close())
			mem = crashed
			s, k = run(mem)
		}
		eventually(t, "all alarms to go off", func() bool {
			for i := range n {
				if value(t, k, name(i)) != 1 {
					return false
				}
			}
			return true
		})
		if a := checkAlarms(t, s); len(a) != 0 {
			t.Errorf("alarms %v are left", a)
		}
		must(t, s.Close())
	}
}

func TestManyAlarmsCostNoGoroutine(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "counter", wakeCounter)
	var rung atomic.Int32
	var most atomic.Int64
	k.OnAlarm(func(*Tx, *counter, Alarm) error {
		rung.Add(1)
		most.Store(max(most.Load(), int64(runtime.NumGoroutine())))
		return nil
	})
	before := runtime.NumGoroutine()
	const n = 5000
	at := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		k.Submit(name(i), func(tx *Tx, _ *counter) error { return tx.SetAlarm(at) }, func(error) { wg.Done() })
	}
	wg.Wait()
	if now := runtime.NumGoroutine(); now > before+5 {
		t.Errorf("%d goroutines for %d pending alarms", now-before, n)
	}
	for i := range n {
		wg.Add(1)
		k.Submit(name(i), setAlarm(0), func(error) { wg.Done() })
	}
	wg.Wait()
	eventually(t, "all alarms to go off", func() bool { return rung.Load() == n })
	if most.Load() > int64(before+3*alarmsAtOnce) { // those that end included
		t.Errorf("%d goroutines, %d before", most.Load(), before)
	}
}
