package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/cockroachdb/pebble/v2"
)

// Alarm is what a kind's handler is told.
type Alarm struct {
	At      time.Time // what SetAlarm was given, rounded up to a microsecond
	Attempt int       // 1, and 1 more after each failure; a restart does not set it back
}

// How a handler that fails is tried again: after a second, then twice as long each time, up to some minutes, for ever.
// Each wait is up to half shorter or longer, at random.
const (
	alarmRetryFirst = time.Second
	alarmRetryMost  = 5 * time.Minute
)

// OnAlarm has handler run when an object's alarm goes off, as an operation of the object: in its turn, all or nothing,
// waking it first. The alarm is removed in the same commit, unless the handler set a new one. So it goes off at least
// once: again, if a crash comes before that commit is durable. If the handler returns an error or panics, all that it
// did is undone, and it is tried again later, and later still, for ever. It is Sync whatever it says, and its context
// ends when the store closes.
//
// Up to 256 handlers of one kind run at once. Alarms of kinds that have no handler stay pending until they have one, in
// this process or a later one. OnAlarm panics if the kind has a handler already.
func (k *Kind[S]) OnAlarm(handler func(tx *Tx, state S, a Alarm) error) {
	op := func(tx *Tx, state S) error {
		return handler(tx, state, Alarm{time.UnixMicro(tx.ringing.at), int(min(tx.ringing.failed, math.MaxInt32-1)) + 1})
	}
	q := &alarmQueue{kind: &k.kind, running: map[string]bool{}, from: alarmKey(k.name, 0, "")}
	q.ring = func(ctx context.Context, name string, due int64) error {
		g, err := k.run(ctx, name, op, nil, due)
		if g == nil {
			return err // the alarm is as it was
		}
		<-g.done
		return g.err
	}
	if !k.kind.alarms.CompareAndSwap(nil, q) {
		panic(fmt.Sprintf("objects: kind %q has an alarm handler already", k.name))
	}
	k.store.alarms.add(q)
}

// SetAlarm sets the object's one alarm, instead of what it was. Once the operation is committed, the kind's handler
// runs at that time or a little later, never before; at once, if the time has passed. It is rounded up to a
// microsecond, and lies between the years 1970 and 9999, else SetAlarm returns ErrInvalid.
func (tx *Tx) SetAlarm(at time.Time) error {
	if tx.o == nil {
		return errTxDone
	}
	if at.Unix() < 0 || at.Year() > 9999 {
		return invalidf("the alarm's time %v is not between the years 1970 and 9999", at)
	}
	micros := at.UnixMicro()
	if at.Nanosecond()%1000 != 0 {
		micros++
	}
	tx.puts = true
	return tx.changeAlarm(alarm{at: micros, due: max(micros, 1)})
}

// DeleteAlarm removes the object's alarm, if it has one.
func (tx *Tx) DeleteAlarm() error {
	if tx.o == nil {
		return errTxDone
	}
	return tx.changeAlarm(alarm{})
}

// Alarm returns when the object's alarm goes off, and whether there is one. One whose handler runs, or failed and waits
// to be tried again, is told as it was set; but to the handler itself there is none until it sets a new one.
func (tx *Tx) Alarm() (at time.Time, ok bool, err error) {
	if tx.o == nil {
		return time.Time{}, false, errTxDone
	}
	a, err := tx.currentAlarm()
	if err != nil || a.due == 0 {
		return time.Time{}, false, err
	}
	return time.UnixMicro(a.at), true, nil
}

// alarm is one as it is stored, under the object's empty key. Times are microseconds since 1970.
type alarm struct {
	at     int64  // as it was set
	due    int64  // when to ring, later than at after a failure; the index is ordered by it. 0: there is no alarm
	failed uint32 // attempts
}

// alarmChange is what an operation, or all operations of a group, made of an object's alarm.
type alarmChange struct {
	was int64 // due before
	now alarm
}

func (tx *Tx) changeAlarm(now alarm) error {
	if tx.alarm == nil {
		was, err := tx.currentAlarm()
		if err != nil {
			return err
		}
		if was.due == 0 && now.due == 0 {
			return nil
		}
		tx.alarm = &alarmChange{was: was.due}
	}
	tx.alarm.now = now
	return nil
}

func (tx *Tx) currentAlarm() (alarm, error) {
	if tx.alarm != nil {
		return tx.alarm.now, nil
	}
	for _, l := range tx.layers() {
		if l.alarm != nil {
			return l.alarm.now, nil
		}
	}
	tx.key = appendPrefix(tx.key[:0], tx.o.kind.name, tx.o.name)
	var a alarm
	value, there, err := tx.lookup(tx.key)
	if there {
		a, err = parseAlarm(value)
	}
	if err != nil {
		return alarm{}, tx.errorf("get the alarm", "", err)
	}
	return a, nil
}

// ring begins the operation of a handler: it takes the alarm away, if it is still the one that is due.
func (tx *Tx) ring(due int64) (bool, error) {
	a, err := tx.currentAlarm()
	if err != nil || a.due != due {
		return false, err
	}
	tx.ringing = a
	return true, tx.changeAlarm(alarm{})
}

// rearm puts the alarm of a handler that failed back, for later. Everything else was undone.
func (s *Store) rearm(tx *Tx, cause error) (*group, error) {
	a := tx.ringing
	a.failed = min(a.failed, math.MaxUint32-1) + 1
	a.due = time.Now().Add(retryAfter(a.failed)).UnixMicro()
	tx.w.reset()
	tx.alarm = &alarmChange{was: tx.ringing.due, now: a}
	tx.durability = Sync
	g, err := s.commit.publish(tx, nil)
	if err == nil {
		s.alarms.failed.Add(1)
		if f := s.opts.Events.OnAlarmError; f != nil {
			f(tx.o.kind.name, tx.o.name, int(min(a.failed, math.MaxInt32)), cause)
		}
	}
	return g, err
}

func retryAfter(failed uint32) (d time.Duration) {
	b := backoff.ExponentialBackOff{
		InitialInterval: alarmRetryFirst, MaxInterval: alarmRetryMost, Multiplier: 2, RandomizationFactor: 0.5,
	}
	b.Reset()
	for range min(failed, 32) {
		d = b.NextBackOff()
	}
	return d
}

// write adds the change to a batch: of the object's record, which prefix is the key of, and of the index.
func (a *alarmChange) write(b *pebble.Batch, prefix []byte, kind, name string) (err error) {
	if a.was != 0 && a.was != a.now.due {
		err = b.Delete(alarmKey(kind, a.was, name), nil)
	}
	if a.now.due == 0 {
		return errors.Join(err, b.Delete(prefix, nil))
	}
	return errors.Join(err, b.Set(prefix, appendAlarm(nil, a.now), nil), b.Set(alarmKey(kind, a.now.due, name), nil, nil))
}

func appendAlarm(dst []byte, a alarm) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.at))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.due))
	return binary.BigEndian.AppendUint32(dst, a.failed)
}

func parseAlarm(v []byte) (alarm, error) {
	if len(v) != 20 {
		return alarm{}, fmt.Errorf("the stored alarm is %d bytes long, want 20", len(v))
	}
	return alarm{
		at:     int64(binary.BigEndian.Uint64(v)),
		due:    int64(binary.BigEndian.Uint64(v[8:])),
		failed: binary.BigEndian.Uint32(v[16:]),
	}, nil
}
