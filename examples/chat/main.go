// Chat serves the chat room of a country as a durable object, for any NATS client to join (README, Objects):
//
//	go run ./examples/chat
//	go run ./examples/chat --place eu.fr --nats nats://127.0.0.1:4222
//
// A room lives at its country's place. Its members hear what is on its disk, and only that, and it is all there after
// the process was killed. A room that is silent for a day is forgotten.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

// room numbers its messages by the microsecond. Each is stored under its number.
type room struct{ last int64 }

func wake(tx *objects.Tx) (*room, error) {
	r := &room{}
	for e, err := range tx.List(objects.ListOptions{Limit: 1, Reverse: true}) {
		if r.last, _ = strconv.ParseInt(e.Key, 10, 64); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// say stores a message, and tells the members once it is durable.
func (r *room) say(tx *objects.Tx, text []byte, tell func(line []byte), silence time.Duration) ([]byte, error) {
	if len(text) > 1000 {
		return nil, objects.Refuse(transport.ErrOutOfRange.Errorf("this is %d bytes: say at most 1000", len(text)))
	}
	r.last = max(r.last+1, time.Now().UnixMicro())
	key := fmt.Sprintf("%016d", r.last)
	line := fmt.Appendf(nil, "%s %s", key, text)
	tx.OnDurable(func() { tell(line) })
	return line, errors.Join(tx.Put(key, text), tx.SetAlarm(time.Now().Add(silence)))
}

// history is the last hundred messages.
func history(tx *objects.Tx) (lines []byte, _ error) {
	for e, err := range tx.List(objects.ListOptions{Limit: 100, Reverse: true}) {
		if err != nil {
			return nil, err
		}
		lines = fmt.Appendf(nil, "%s %s\n%s", e.Key, e.Value, lines)
	}
	return lines, nil
}

func main() {
	place := flag.String("place", "eu.de", "the country whose room is served")
	url := flag.String("nats", "", "NATS server; without it one runs in the process, on 127.0.0.1:4222")
	data := flag.String("data", "chat-data", "folder of the stores")
	silence := flag.Duration("forget", 24*time.Hour, "after how long a silence a room is forgotten")
	flag.Parse()
	if *url == "" {
		*url = must(transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:4222"})).ClientURL()
	}
	nc := must(transport.Dial(*url, "chat "+*place, "", zerolog.New(os.Stderr)))
	store := must(objects.Open(filepath.Join(*data, *place), objects.Options{}))
	rooms := objects.Register(store, "room", wake)
	rooms.OnAlarm(func(tx *objects.Tx, _ *room, _ objects.Alarm) error { return tx.DeleteAll() })
	countryOf := func(room string) tiers.Place { return tiers.Place(room) } // a room is named like its country
	service := must(transport.ServeObjects(nc, rooms, transport.ObjectsConfig{Place: tiers.Place(*place), PlaceOf: countryOf},
		func(tx *objects.Tx, r *room, q transport.ObjectRequest) ([]byte, error) {
			if subject := "chat." + tx.Name(); len(q.Data) > 0 {
				return r.say(tx, q.Data, func(line []byte) { _ = nc.Publish(subject, line) }, *silence)
			}
			return history(tx)
		}))
	log.Printf("the room %s is open: tributary.object.room on %s", *place, transport.RedactURLs(*url))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	must(0, errors.Join(service.Stop(context.Background()), store.Close()))
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
