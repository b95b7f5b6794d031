package objects

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// TestStorageAgainstAModel runs random operations on two objects against maps, with syncs that block, so that writes
// lie in the transaction, in layers of several groups, in Pebble's memtable and in its tables.
func TestStorageAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := &gateFS{FS: vfs.NewMem()}
		s, err := Open("d", Options{FS: fs, Memory: 150})
		if err != nil {
			t.Fatal(err)
		}
		s.commit.sealAt = 100 // so that an object has layers in many groups at once
		defer func() {
			fs.open()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}()
		k := Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
		key := rapid.StringOfN(rapid.RuneFrom([]rune{'a', 'b', 0, 'ÿ'}), 1, 3, -1)
		models := map[string]map[string]string{"a": {}, "b": {}}
		var refused error = fmt.Errorf("no")
		t.Repeat(map[string]func(*rapid.T){
			"gate": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "shut") {
					fs.open()
					fs.close()
				} else {
					fs.open()
				}
			},
			"flush": func(t *rapid.T) {
				fs.open()
				if err := s.db.Flush(); err != nil {
					t.Fatal(err)
				}
			},
			"many": func(t *rapid.T) {
				n := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
				count := rapid.SampledFrom([]int{30, 90}).Draw(t, "count") // 90 are too many to delete one by one
				k.Submit(n, func(tx *Tx, _ int) error {
					for i := range count {
						key := fmt.Sprintf("m%02d", i)
						models[n][key] = key
						if err := tx.Put(key, []byte(key)); err != nil {
							return err
						}
					}
					return nil
				}, nil)
			},
			"op": func(t *rapid.T) {
				n := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
				model := maps.Clone(models[n])
				commit := rapid.Bool().Draw(t, "commit")
				k.Submit(n, func(tx *Tx, _ int) error {
					for range rapid.IntRange(0, 20).Draw(t, "steps") {
						step(t, tx, key, model)
					}
					if !commit {
						return refused
					}
					return nil
				}, nil)
				if commit {
					models[n] = model
				}
			},
		})
	})
}

func step(t *rapid.T, tx *Tx, anyKey *rapid.Generator[string], model map[string]string) {
	key := anyKey.Draw(t, "key")
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0:
		v := rapid.StringN(0, 8, -1).Draw(t, "value")
		if err := tx.Put(key, []byte(v)); err != nil {
			t.Fatal(err)
		}
		model[key] = v
	case 1:
		if err := tx.Delete(key); err != nil {
			t.Fatal(err)
		}
		delete(model, key)
	case 2:
		v, ok, err := tx.Get(key)
		if want, there := model[key]; err != nil || ok != there || string(v) != want {
			t.Fatalf("get %q: %q %t %v, want %q %t", key, v, ok, err, want, there)
		}
	case 3:
		o := ListOptions{
			Prefix:  rapid.SampledFrom([]string{"", "", "a", "m", "m1", "ÿ", "b\x00", "\xff"}).Draw(t, "prefix"),
			Start:   rapid.SampledFrom([]string{"", "", "a", "m11", "m11\x00", key}).Draw(t, "start"),
			End:     rapid.SampledFrom([]string{"", "", "b", "m2", key}).Draw(t, "end"),
			Limit:   rapid.IntRange(0, 40).Draw(t, "limit"),
			Reverse: rapid.Bool().Draw(t, "reverse"),
		}
		keys := slices.Sorted(maps.Keys(model))
		if o.Reverse {
			slices.Reverse(keys)
		}
		var want, got []string
		for _, k := range keys {
			if strings.HasPrefix(k, o.Prefix) && k >= o.Start && (o.End == "" || k < o.End) && (o.Limit == 0 || len(want) < o.Limit) {
				want = append(want, k+"="+model[k])
			}
		}
		leaveAt := rapid.IntRange(1, 100).Draw(t, "leave at")
		for e, err := range tx.List(o) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, e.Key+"="+string(e.Value)); len(got) == leaveAt {
				break
			}
		}
		if want = want[:min(len(want), leaveAt)]; !slices.Equal(got, want) {
			t.Fatalf("list %+v: %q, want %q", o, got, want)
		}
	case 4:
		if rapid.IntRange(0, 3).Draw(t, "delete all") != 0 {
			return
		}
		if err := tx.DeleteAll(); err != nil {
			t.Fatal(err)
		}
		clear(model)
	}
}

func TestListShowsTheStartOfTheLoop(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
	fill := func(tx *Tx, _ int) error {
		for i := range 100 {
			must(t, tx.Put(fmt.Sprintf("%03d", i), bytes.Repeat([]byte{'x'}, 10)))
		}
		return nil
	}
	must(t, k.Do(ctx, "a", func(tx *Tx, _ int) error {
		must(t, fill(tx, 0))
		n := 0
		for e, err := range tx.List(ListOptions{}) {
			must(t, err)
			if string(e.Value) != "xxxxxxxxxx" {
				t.Fatalf("%s is %q", e.Key, e.Value)
			}
			for i := range 100 { // overwrites the values, and grows the buffer
				must(t, tx.Put(fmt.Sprintf("%03d", i), []byte("yyyyyyyyyy")))
			}
			must(t, tx.Put(e.Key+"+", bytes.Repeat([]byte{'z'}, 100)))
			n++
		}
		if n != 100 {
			t.Errorf("the loop saw %d entries", n)
		}
		for e, err := range tx.List(ListOptions{}) {
			must(t, err)
			must(t, tx.Delete(e.Key))
		}
		for e, err := range tx.List(ListOptions{}) {
			must(t, err)
			t.Errorf("%s is left", e.Key)
		}
		return nil
	}))
}

func TestWritesKeepTheLastOfEachKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w writes
		model := map[string]string{}
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			k := fmt.Sprint(rapid.IntRange(0, 60).Draw(t, "key"))
			v := rapid.StringN(0, 6, -1).Draw(t, "value")
			if rapid.IntRange(0, 50).Draw(t, "reset") == 0 {
				w.reset()
				clear(model)
			}
			w.put([]byte(k), []byte(v), false)
			model[k] = v
		}
		var copied writes
		copied.put([]byte("7"), []byte("older"), false)
		copied.merge(&w)
		if len(w.ents) != len(model) {
			t.Fatalf("%d entries for %d keys", len(w.ents), len(model))
		}
		for k, v := range model {
			for _, w := range []*writes{&w, &copied} {
				if e := w.find([]byte(k)); e == nil || string(w.value(e)) != v {
					t.Fatalf("key %s is lost", k)
				}
			}
		}
	})
}

func TestListRefusesWhatIsOutOfRange(t *testing.T) {
	s := open(t, "d", Options{FS: vfs.NewMem()})
	k := Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
	long := strings.Repeat("x", MaxKeyBytes+2)
	must(t, k.Do(ctx, "a", func(tx *Tx, _ int) error {
		for _, o := range []ListOptions{{Prefix: long}, {Start: long}, {End: long}, {Limit: -1}} {
			for _, err := range tx.List(o) {
				wantError(t, err, ErrInvalid)
			}
		}
		for e, err := range tx.List(ListOptions{Start: long[2:] + "\x00", End: "a"}) {
			t.Errorf("an empty range has %+v, %v", e, err)
		}
		return nil
	}))
}

func TestDeleteAllSparesTheNeighbours(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a", "a b", "aa", "b"}
	for _, count := range []int{3, 500} { // one by one, and as a range
		s, err := Open(dir, Options{})
		must(t, err)
		k := Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
		for _, n := range names {
			must(t, k.Do(ctx, n, func(tx *Tx, _ int) error {
				for i := range count {
					must(t, tx.Put(fmt.Sprint(i), nil))
				}
				return nil
			}))
		}
		must(t, k.Do(ctx, "a", func(tx *Tx, _ int) error {
			must(t, tx.Put("before", nil))
			must(t, tx.DeleteAll())
			return tx.Put("after", nil)
		}))
		must(t, s.Close())
		s, err = Open(dir, Options{})
		must(t, err)
		k = Register(s, "kind", func(*Tx) (int, error) { return 0, nil })
		for _, n := range names {
			want := count
			if n == "a" {
				want = 1
			}
			must(t, k.Do(ctx, n, func(tx *Tx, _ int) error {
				got := 0
				for e, err := range tx.List(ListOptions{}) {
					must(t, err)
					if got++; n == "a" && e.Key != "after" {
						t.Errorf("%s is left", e.Key)
					}
				}
				if got != want {
					t.Errorf("%s has %d entries, want %d", n, got, want)
				}
				return tx.DeleteAll()
			}))
		}
		list, err := k.List(ctx, "", 10)
		if must(t, err); len(list) != 0 {
			t.Errorf("objects %q are left", list)
		}
		must(t, s.Close())
	}
}

// TestAnOperationReadsWhatLeavesMemoryMeanwhile: what an earlier operation wrote is in a layer when an operation looks into
// Pebble first, and only in Pebble when it looks for it.
func TestAnOperationReadsWhatLeavesMemoryMeanwhile(t *testing.T) {
	fs := &gateFS{FS: vfs.NewMem()}
	s := open(t, "d", Options{FS: fs})
	k := Register(s, "counter", wakeCounter)
	must(t, k.Do(ctx, "a", increment))
	fs.close()
	k.Submit("other", increment, nil)
	fs.awaitBlocked(t)
	k.Submit("a", func(tx *Tx, _ *counter) error { return tx.Put("b", []byte("there")) }, nil)
	must(t, k.Do(ctx, "a", func(tx *Tx, _ *counter) error {
		if _, found, err := tx.Get("none"); found || err != nil {
			t.Errorf("found %v: %v", found, err)
		}
		layer := tx.o.newest.Load()
		if layer == nil {
			t.Error("nothing is in memory")
		}
		fs.open()
		eventually(t, "the layer to leave memory", func() bool { return tx.o.newest.Load() == nil })
		value, found, err := tx.Get("b")
		if err != nil || !found || string(value) != "there" {
			t.Errorf("it reads %q, %v: %v", value, found, err)
		}
		for e, err := range tx.List(ListOptions{Prefix: "b"}) {
			if err != nil || string(e.Value) != "there" {
				t.Errorf("it lists %+v: %v", e, err)
			}
			return nil
		}
		t.Error("it lists nothing")
		return nil
	}))
}
