package objects

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler rings alarms. A pending alarm is a key in Pebble and nothing else: for each kind the keys lie in the order
// of time, so one goroutine reads on where it left off, until a key is not due yet, and sleeps until that is. A commit
// that sets an earlier alarm sends it back (alarmQueue.set).
//
// The index may be behind the objects, whose changes wait in layers: so a handler's operation looks first whether its
// object's alarm is still the one that the index said.
type scheduler struct {
	store *Store
	rings context.Context // the handlers'
	stop  context.CancelFunc
	kick  chan struct{}
	loop  sync.WaitGroup
	all   sync.WaitGroup // of the handlers

	mu      sync.Mutex
	queues  []*alarmQueue
	stopped bool

	rung, failed atomic.Int64
}

// alarmQueue is the index of one kind that has a handler.
type alarmQueue struct {
	kind *kind
	ring func(ctx context.Context, name string, due int64) error // an error leaves the alarm as it was

	mu      sync.Mutex
	from    []byte          // every alarm before this key is running, and every one set later moves it back
	running map[string]bool // keys whose handlers run
}

const (
	// alarmsAtOnce is how many handlers of a kind run at once: one group commit holds them all.
	alarmsAtOnce = 256
	// alarmPause is for what cannot be helped at once: a store that is overloaded, an object that is stuck.
	alarmPause = time.Second
	// alarmSleep is the longest sleep, because the clock on the wall may be set.
	alarmSleep = time.Minute
)

// The index of alarms:
//
//	0x00 "alarm" 0x00 kind 0x00 due (8 bytes, big endian, microseconds since 1970) name
const alarmKeys = "\x00alarm\x00"

func alarmKey(kind string, due int64, name string) []byte {
	dst := append(append([]byte(alarmKeys), kind...), 0)
	return append(binary.BigEndian.AppendUint64(dst, uint64(due)), name...)
}

// parse returns what a key of the index says.
func (q *alarmQueue) parse(key []byte) (due int64, name string, err error) {
	n := len(alarmKeys) + len(q.kind.name) + 1
	if len(key) <= n+8 {
		return 0, "", fmt.Errorf("objects: the stored alarm %.60q has no name in it", key)
	}
	return int64(binary.BigEndian.Uint64(key[n:])), string(key[n+8:]), nil
}

// end is the key after the last alarm there can be.
func (q *alarmQueue) end() []byte {
	return append(append([]byte(alarmKeys), q.kind.name...), 1)
}

func newScheduler(s *Store) *scheduler {
	sc := &scheduler{store: s, kick: make(chan struct{}, 1)}
	sc.rings, sc.stop = context.WithCancel(context.Background())
	return sc
}

// add begins to ring a kind's alarms.
func (sc *scheduler) add(q *alarmQueue) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.stopped {
		return
	}
	if sc.queues = append(sc.queues, q); len(sc.queues) == 1 {
		sc.loop.Add(1)
		go sc.run()
	}
	sc.wake()
}

func (sc *scheduler) wake() {
	select {
	case sc.kick <- struct{}{}:
	default:
	}
}

// set hears of an alarm that is in Pebble now.
func (sc *scheduler) set(k *kind, due int64) {
	if q := k.alarms.Load(); q != nil && q.goBack(due) {
		sc.wake()
	}
}

func (q *alarmQueue) goBack(due int64) bool {
	key := alarmKey(q.kind.name, due, "")
	q.mu.Lock()
	defer q.mu.Unlock()
	if bytes.Compare(key, q.from) >= 0 {
		return false
	}
	q.from = key
	return true
}

// close rings nothing more, and ends the handlers' context; wait waits for those that run.
func (sc *scheduler) close() {
	sc.mu.Lock()
	sc.stopped = true
	sc.mu.Unlock()
	sc.stop()
	sc.loop.Wait()
}

func (sc *scheduler) wait() { sc.all.Wait() }

func (sc *scheduler) run() {
	defer sc.loop.Done()
	defer sc.store.commit.survive("alarm")
	for {
		wait := alarmSleep
		sc.mu.Lock()
		queues := sc.queues
		sc.mu.Unlock()
		for _, q := range queues {
			d, err := sc.look(q)
			if err != nil {
				sc.store.guard.background(err)
				d = alarmPause
			}
			wait = min(wait, d)
		}
		t := time.NewTimer(wait)
		select {
		case <-sc.kick:
		case <-t.C:
		case <-sc.rings.Done():
		}
		t.Stop()
		if sc.rings.Err() != nil || sc.store.Err() != nil {
			return
		}
	}
}

// look rings what is due, as far as there is room, and returns when to look again, if nothing happens before.
func (sc *scheduler) look(q *alarmQueue) (wait time.Duration, err error) {
	now := time.Now().UnixMicro()
	q.mu.Lock()
	from, room := q.from, alarmsAtOnce-len(q.running)
	if due, _, err := q.parse(from); err == nil && due > now {
		q.mu.Unlock()
		return time.Duration(due-now) * time.Microsecond, nil
	}
	if room == 0 || bytes.Equal(from, q.end()) {
		q.mu.Unlock()
		return alarmSleep, nil
	}
	q.from = q.end() // what is set from here on, and the iterator may not see, moves it back
	q.mu.Unlock()

	left := q.end()
	defer func() {
		q.mu.Lock()
		if bytes.Compare(left, q.from) < 0 {
			q.from = left
		}
		q.mu.Unlock()
	}()
	it, err := sc.store.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: q.end()})
	if err != nil {
		left = from
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		due, name, err := q.parse(it.Key())
		if err != nil {
			return 0, err
		}
		if due > now || room == 0 {
			left = bytes.Clone(it.Key())
			return max(time.Duration(due-now)*time.Microsecond, 0), nil
		}
		key := string(it.Key())
		q.mu.Lock()
		running := q.running[key]
		q.running[key] = true
		q.mu.Unlock()
		if !running {
			room--
			sc.all.Add(1)
			go sc.ringOne(q, key, name, due)
		}
	}
	if err := it.Error(); err != nil {
		left = from
		return 0, err
	}
	return alarmSleep, nil
}

func (sc *scheduler) ringOne(q *alarmQueue, key, name string, due int64) {
	defer sc.all.Done()
	rung := false
	defer func() { // also when the handler ends its goroutine
		q.mu.Lock()
		delete(q.running, key)
		q.mu.Unlock()
		if !rung {
			q.goBack(due)
		}
		sc.wake()
	}()
	if err := q.ring(sc.rings, name, due); err == nil {
		rung = true
		return
	}
	t := time.NewTimer(alarmPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-sc.rings.Done():
	}
}
