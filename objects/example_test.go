package objects_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tributary-io/tributary/objects"
)

var ctx = context.Background()

// openStore opens a store that lives in memory, for the examples; yours has a folder.
func openStore() *objects.Store {
	store, err := objects.Open("data", objects.Options{FS: vfs.NewMem()})
	if err != nil {
		log.Fatal(err)
	}
	return store
}

// counter is an object's state in memory; it is stored as one value.
type counter struct{ n uint64 }

func wakeCounter(tx *objects.Tx) (*counter, error) {
	v, ok, err := tx.Get("n")
	if err != nil || !ok {
		return &counter{}, err
	}
	return &counter{n: binary.BigEndian.Uint64(v)}, nil
}

func (c *counter) save(tx *objects.Tx) error {
	return tx.Put("n", binary.BigEndian.AppendUint64(nil, c.n))
}

var errNotEnough = errors.New("not enough left")

// A counter that cannot go below zero.
func Example_counter() {
	store := openStore()
	defer store.Close()
	counters := objects.Register(store, "counter", wakeCounter)

	add := func(name string, n uint64) error {
		return counters.Do(ctx, name, func(tx *objects.Tx, c *counter) error {
			c.n += n
			return c.save(tx)
		})
	}
	take := func(name string, n uint64) error {
		return counters.Do(ctx, name, func(tx *objects.Tx, c *counter) error {
			if c.n < n {
				return objects.Refuse(errNotEnough) // the state is as it was, and is kept
			}
			c.n -= n
			return c.save(tx)
		})
	}
	fmt.Println("added:", add("apples", 100)) // it is on the disk
	fmt.Println("taken:", take("apples", 70))
	fmt.Println("taken:", take("apples", 70))
	// Output:
	// added: <nil>
	// taken: <nil>
	// taken: not enough left
}

// A store of sessions, each an object that ends half an hour after its last use. It keeps no state in memory.
func Example_sessions() {
	const idle = 30 * time.Minute
	store := openStore()
	defer store.Close()
	type none = struct{}
	sessions := objects.Register(store, "session", func(*objects.Tx) (none, error) { return none{}, nil })
	sessions.OnAlarm(func(tx *objects.Tx, _ none, _ objects.Alarm) error {
		return tx.DeleteAll()
	})

	set := func(id, key, value string) error {
		return sessions.Do(ctx, id, func(tx *objects.Tx, _ none) error {
			return errors.Join(tx.Put(key, []byte(value)), tx.SetAlarm(time.Now().Add(idle)))
		})
	}
	get := func(id, key string) (value string, err error) {
		err = sessions.Do(ctx, id, func(tx *objects.Tx, _ none) error {
			v, ok, err := tx.Get(key)
			if err != nil || !ok {
				return err
			}
			value = string(v)
			tx.SetDurability(objects.Async) // that it was used a moment ago may be lost in a crash
			return tx.SetAlarm(time.Now().Add(idle))
		})
		return value, err
	}
	logout := func(id string) error {
		return sessions.Do(ctx, id, func(tx *objects.Tx, _ none) error { return tx.DeleteAll() })
	}

	fmt.Println(set("c0ffee", "user", "alice"))
	fmt.Println(get("c0ffee", "user"))
	fmt.Println(logout("c0ffee"))
	fmt.Println(get("c0ffee", "user"))
	// Output:
	// <nil>
	// alice <nil>
	// <nil>
	//  <nil>
}

// room is a chat room in memory: who listens, and how many messages there are. The messages are keys of their own.
type room struct {
	last      uint64
	listeners []func(text string)
}

func messageKey(n uint64) string { return fmt.Sprintf("message/%020d", n) }

func wakeRoom(tx *objects.Tx) (*room, error) {
	r := &room{}
	for e, err := range tx.List(objects.ListOptions{Prefix: "message/", Reverse: true, Limit: 1}) {
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Sscanf(e.Key, "message/%d", &r.last); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// A chat room with its history. What its members hear is on the disk. Each message is also counted for its author, by an
// object that the room calls.
func Example_chatRoom() {
	store := openStore()
	defer store.Close()
	rooms := objects.Register(store, "room", wakeRoom)
	authors := objects.Register(store, "author", wakeCounter)

	say := func(name, author, text string) error {
		var hear []func(string)
		err := rooms.Do(ctx, name, func(tx *objects.Tx, r *room) error {
			err := authors.Do(tx.Context(), author, func(tx *objects.Tx, c *counter) error {
				c.n++
				return c.save(tx)
			})
			if err != nil {
				return err
			}
			r.last++
			hear = r.listeners
			return tx.Put(messageKey(r.last), []byte(author+": "+text))
		})
		if err == nil { // nobody hears what may be lost
			for _, f := range hear {
				f(author + ": " + text)
			}
		}
		return err
	}
	// join returns the last messages, oldest first. (A listener is gone when its room falls asleep: a server keeps
	// its connections elsewhere, or has the room's Sizer count them and its members join again.)
	join := func(name string, last int, listen func(text string)) (history []string, err error) {
		err = rooms.Do(ctx, name, func(tx *objects.Tx, r *room) error {
			for e, err := range tx.List(objects.ListOptions{Prefix: "message/", Reverse: true, Limit: last}) {
				if err != nil {
					return err
				}
				history = append([]string{string(e.Value)}, history...)
			}
			r.listeners = append(r.listeners, listen)
			return nil
		})
		return history, err
	}

	fmt.Println(say("lobby", "alice", "hello"), say("lobby", "alice", "anyone here?"), say("lobby", "bob", "yes"))
	history, err := join("lobby", 2, func(text string) { fmt.Println("heard:", text) })
	fmt.Printf("%q %v\n", history, err)
	fmt.Println(say("lobby", "bob", "welcome, carol"))
	// Output:
	// <nil> <nil> <nil>
	// ["alice: anyone here?" "bob: yes"] <nil>
	// heard: bob: welcome, carol
	// <nil>
}

// A long list is read in pages, each by an operation of its own.
func ExampleTx_List() {
	store := openStore()
	defer store.Close()
	type none = struct{}
	lists := objects.Register(store, "list", func(*objects.Tx) (none, error) { return none{}, nil })
	err := lists.Do(ctx, "fruit", func(tx *objects.Tx, _ none) error {
		for _, k := range []string{"apple", "banana", "cherry"} {
			if err := tx.Put(k, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	for start := ""; ; {
		var page []string
		err := lists.Do(ctx, "fruit", func(tx *objects.Tx, _ none) error {
			for e, err := range tx.List(objects.ListOptions{Start: start, Limit: 2}) {
				if err != nil {
					return err
				}
				page = append(page, e.Key)
			}
			return nil
		})
		if err != nil || len(page) == 0 {
			break
		}
		fmt.Println(page)
		start = page[len(page)-1] + "\x00" // what comes after it
	}
	// Output:
	// [apple banana]
	// [cherry]
}
