package objects_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/tributary-io/tributary/objects"
)

// account is the state of an account in memory; it is stored under "balance".
type account struct{ balance uint64 }

func wakeAccount(tx *objects.Tx) (*account, error) {
	v, ok, err := tx.Get("balance")
	if err != nil || !ok {
		return &account{}, err
	}
	return &account{balance: binary.BigEndian.Uint64(v)}, nil
}

func (a *account) save(tx *objects.Tx) error {
	return tx.Put("balance", binary.BigEndian.AppendUint64(nil, a.balance))
}

var errPoor = errors.New("not enough money")

func Example() {
	dir, err := os.MkdirTemp("", "objects")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := objects.Open(dir, objects.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	accounts := objects.Register(store, "account", wakeAccount)
	ctx := context.Background()
	err = accounts.Do(ctx, "alice", func(tx *objects.Tx, a *account) error {
		a.balance += 100
		return a.save(tx)
	})
	fmt.Println("paid in:", err) // it is on the disk

	take := func(amount uint64) error {
		return accounts.Do(ctx, "alice", func(tx *objects.Tx, a *account) error {
			if a.balance < amount {
				return objects.Refuse(errPoor) // the state is as it was
			}
			a.balance -= amount
			return a.save(tx)
		})
	}
	fmt.Println("taken:", take(70))
	fmt.Println("taken:", take(70))
	// Output:
	// paid in: <nil>
	// taken: <nil>
	// taken: not enough money
}

// A chat room stores each message under a key of its own, and reads its history in pages.
func ExampleTx_List() {
	dir, err := os.MkdirTemp("", "objects")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := objects.Open(dir, objects.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	type room struct{ messages int }
	rooms := objects.Register(store, "room", func(tx *objects.Tx) (*room, error) {
		r := &room{}
		for _, err := range tx.List(objects.ListOptions{Prefix: "message/"}) {
			if err != nil {
				return nil, err
			}
			r.messages++
		}
		return r, nil
	})
	ctx := context.Background()
	for _, text := range []string{"hello", "anyone here?", "bye"} {
		err := rooms.Do(ctx, "lobby", func(tx *objects.Tx, r *room) error {
			r.messages++
			return tx.Put(fmt.Sprintf("message/%08d", r.messages), []byte(text))
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	err = rooms.Do(ctx, "lobby", func(tx *objects.Tx, _ *room) error {
		for e, err := range tx.List(objects.ListOptions{Prefix: "message/", Start: "message/00000002"}) {
			if err != nil {
				return err
			}
			fmt.Println(e.Key, string(e.Value))
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// message/00000002 anyone here?
	// message/00000003 bye
}
