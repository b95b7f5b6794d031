package objects

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// world is one small store of the crash test, through some lives. In each it is opened, compared with what may be there,
// and used by some clients, until it crashes, or its disk fails it, or it is closed.
//
// It runs in a synctest bubble: clients pause, operations take their time, and syncs are slow, all in simulated time,
// which makes of their races a sequence of events that the seed decides. A few seeds are rough instead: in real time,
// since their disks break Pebble down.
type world struct {
	rng   *rand.Rand
	rough bool

	clients    int
	memory     int64
	memTable   int64
	sealAt     int
	overlapAt  int
	within     time.Duration // Options.AsyncWithin
	syncMost   time.Duration // the longest sync, unless slow
	slow       bool
	pad        int // the longest value
	bulk       bool
	wakeWrites bool

	mem   *vfs.MemFS // the disk of this life
	next  *vfs.MemFS // and of the next one, made by the crash
	disk  *crashDisk
	store *Store
	kind  *Kind[*crashState]

	mu       sync.Mutex
	moment   uint64
	ops      uint32
	rings    *rand.Rand // what handlers do
	all      []*history
	down     bool // it has crashed: what it says from now on, nobody hears
	calm     bool // handlers set no alarms and do not fail
	broken   *violation
	trace    []traced
	compared bool // this life's store with the one before
}

// crashState is an object's state in memory: what it has stored, but for the alarm.
type crashState struct {
	image
	was   uint32 // woke before the waking, if fresh
	fresh bool   // the waking wrote, in the operation that runs
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &world{
		rng: rng, rough: rng.IntN(50) == 0,
		clients: 1 + rng.IntN(4), memory: 1 << 20, memTable: 64 << 10,
		sealAt: maxGroupBytes, within: 20 * time.Millisecond, syncMost: 2 * time.Millisecond,
		slow: rng.IntN(8) == 0, pad: 8, bulk: rng.IntN(6) == 0, wakeWrites: rng.IntN(8) == 0,
		mem: vfs.NewCrashableMem(), rings: rand.New(rand.NewPCG(seed, 6)),
	}
	if rng.IntN(2) == 0 {
		w.memory = 2 * 160
	}
	if rng.IntN(3) == 0 {
		w.sealAt, w.slow = 50+rng.IntN(400), true
	}
	if rng.IntN(5) == 0 {
		w.pad = 6000
	}
	w.overlapAt = overlapKeys
	if overlaps := rand.New(rand.NewPCG(seed, 7)); overlaps.IntN(3) == 0 {
		w.overlapAt = 1 + overlaps.IntN(3)
	}
	for range 2 + rng.IntN(4) {
		w.all = append(w.all, newHistory(image{}))
	}
	return w
}

func (w *world) run() {
	for range 1 + w.rng.IntN(3) {
		if w.live(); w.broken != nil {
			return
		}
	}
	w.ending()
}

// note adds a line to the trace. What it tells of must not change. mu is held.
func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, traced{w.moment, format, args})
}

// traced is a line that is written out only if it is wanted.
type traced struct {
	moment uint64
	format string
	args   []any
}

func (w *world) story() string {
	var b strings.Builder
	for _, l := range w.trace {
		fmt.Fprintf(&b, "%6d %s\n", l.moment, fmt.Sprintf(l.format, l.args...))
	}
	return b.String()
}

// fail notes the first promise that was not kept. mu is held.
func (w *world) fail(promise, format string, args ...any) {
	if w.broken == nil {
		w.broken = &violation{promise, fmt.Sprintf(format, args...)}
		w.note("BROKEN: %s: %s", promise, w.broken.text)
	}
}

func (w *world) failed(promise, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail(promise, format, args...)
}

func (w *world) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down || w.broken != nil || w.store.Err() != nil
}

// live runs the store from an open to a crash or a close.
func (w *world) live() {
	if !w.open() {
		return
	}
	stop := make(chan struct{})
	var crashes, clients sync.WaitGroup
	if w.rng.IntN(2) == 0 && !w.rough {
		at := time.NewTimer(time.Duration(w.rng.Int64N(int64(30 * time.Millisecond))))
		crashes.Go(func() {
			select {
			case <-at.C:
				w.crash("in time")
			case <-stop:
			}
		})
	}
	for range w.clients {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), 2))
		n := 4 + w.rng.IntN(40/w.clients)
		clients.Go(func() {
			for range n {
				if w.over() {
					return
				}
				w.pause(rng, 3*time.Millisecond)
				w.act(rng)
			}
		})
	}
	clients.Wait()
	if w.rng.IntN(3) == 0 && !w.rough { // nothing more comes: what is Async must still get there
		time.Sleep(w.within + time.Millisecond)
	}
	close(stop)
	crashes.Wait()
	if w.rng.IntN(2) == 0 {
		w.crash("when nothing more came")
	}
	w.close(w.rng)
}

// ending lets all alarms go off: those that are there, and one more for each object.
func (w *world) ending() {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	w.disk = nil
	if !w.open() || w.rough {
		if w.broken == nil {
			w.close(w.rng)
		}
		return
	}
	for o := range w.all {
		w.mu.Lock()
		w.ops++
		p, r := &plan{op: w.ops, object: o, effects: []effect{{what: 's', at: 5 * time.Millisecond}}}, &result{}
		w.mu.Unlock()
		w.told(p, r, w.kind.Do(ctx, name(o), func(tx *Tx, st *crashState) error { return w.operate(tx, st, p, r) }))
	}
	pending := func() (last int64, o int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, h := range w.all {
			if at := h.last().alarm; at > last {
				last, o = at, i
			}
		}
		return last, o
	}
	// What had failed waits for up to some minutes more.
	for _, more := range []time.Duration{time.Millisecond, 2 * time.Second, 20 * time.Second, 10 * time.Minute, 10 * time.Minute} {
		if at, _ := pending(); at > 0 && !w.over() {
			time.Sleep(max(0, time.Until(time.UnixMicro(at))) + more)
		}
	}
	if at, o := pending(); at > 0 {
		w.failed(alarmLost, "object %d: that of %d did not, and it is %d", o, at, time.Now().UnixMicro())
	}
	w.close(w.rng)
}

// open opens the store, and compares.
func (w *world) open() (ok bool) {
	w.mu.Lock()
	w.down, w.compared, w.next = false, false, nil
	w.note("--- open")
	w.mu.Unlock()
	w.disk = newCrashDisk(w)
	var err error
	w.store, err = Open("a/b", Options{
		FS: w.disk, MemTableBytes: w.memTable, CacheBytes: 4 * w.memTable, Memory: w.memory,
		AsyncWithin: w.within, StuckAfter: -1, MinFreeBytes: 1 << 20,
	})
	if err != nil {
		if !w.rough || !w.disk.failing.Load() {
			w.failed(storeWorks, "open: %v", err)
			return false
		}
		w.mu.Lock()
		w.note("open: %v", err)
		w.mu.Unlock()
		if w.disk.heal(); w.crashAfterFailure() { // the disk filled up again while the folder was opened
			w.mem = w.next
		}
		return false
	}
	w.store.commit.sealAt, w.store.commit.overlapAt = w.sealAt, w.overlapAt
	w.disk.guard.Store(w.store.guard)
	w.kind = Register(w.store, "thing", w.wake)
	found := make([]image, len(w.all))
	for o := range w.all {
		err := w.kind.Do(ctx, name(o), func(tx *Tx, st *crashState) (err error) {
			found[o], err = w.read(tx, st, o, true)
			if st.fresh {
				found[o].woke = st.was
			}
			return errors.Join(err, Refuse(errNo)) // a fresh state is not kept
		})
		if w.store.Err() != nil {
			break
		}
		if !errors.Is(err, errNo) {
			w.failed(storeWorks, "object %d cannot be read: %v", o, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil && !w.down && w.store.Err() == nil {
		at, v := compare(found, w.all)
		if v != nil {
			w.fail(v.promise, "%s", v.text)
		}
		for o := range at {
			w.note("object %d was version %d of %d: %v", o, at[o], len(w.all[o].versions)-1, found[o])
			w.all[o] = newHistory(found[o])
		}
		w.compared = v == nil
	}
	if w.broken != nil {
		w.mu.Unlock()
		_ = w.store.Close()
		w.mu.Lock()
		return false
	}
	if w.down || w.store.Err() != nil {
		w.mu.Unlock()
		w.close(w.rng)
		w.mu.Lock()
		return false
	}
	w.kind.OnAlarm(w.ring)
	return true
}

// crash takes what the disk would have after a crash now for the next life's.
func (w *world) crash(why string) {
	w.mu.Lock()
	if w.down {
		w.mu.Unlock()
		return
	}
	w.down = true
	now := time.Now()
	if w.compared && w.store.Err() == nil && !w.slow && !w.rough {
		for _, h := range w.all {
			for n, v := range h.versions {
				if !v.due.IsZero() && v.due.Before(now) {
					h.timely = n
				}
			}
		}
	}
	w.note("--- crash %s", why)
	w.mu.Unlock()
	w.next = w.mem.CrashClone(w.disk.keep())
}

// crashAfterFailure decides what a failed store leaves on the disk.
func (w *world) crashAfterFailure() bool {
	if w.rng.IntN(3) == 0 {
		return false // what was written and not synced is there
	}
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	if !down {
		w.crash("after the disk failed")
	}
	return true
}

// close ends a life.
func (w *world) close(rng *rand.Rand) {
	s := w.store
	w.disk.ending.Store(true)
	failed := s.Err() != nil
	if failed {
		w.crashAfterFailure()
	}
	err := s.Close()
	w.disk.heal()
	w.mu.Lock()
	switch down := w.down; {
	case err != nil && s.Err() == nil && !w.disk.failing.Load():
		w.fail(storeWorks, "close: %v", err)
	case err == nil && s.Err() == nil && !down: // all of it is durable
		for _, h := range w.all {
			h.all(w.disk.fulls.Load())
		}
	}
	w.note("--- closed: %v", s.Err())
	w.mu.Unlock()
	if rng.IntN(2) == 0 {
		w.crash("after Close")
	}
	if w.next != nil {
		w.mem = w.next
	}
}

func (w *world) pause(rng *rand.Rand, most time.Duration) {
	if !w.rough && rng.IntN(3) == 0 {
		time.Sleep(time.Duration(rng.Int64N(int64(most))))
	}
}

// plan is what an operation is going to do.
type plan struct {
	op         uint32
	object     int
	durability Durability
	submit     bool
	look       int // at its state in memory, or in storage, by list or by get
	sleep      time.Duration
	effects    []effect
	call       *plan
	ends       ending
	again      bool // the call is made once more, after the effects
}

type ending uint8

const (
	well ending = iota
	withError
	withRefusal
	withPanic
)

type effect struct {
	what byte // put, delete, bulk, clear, set an alarm, remove it
	key  int
	pad  int
	at   time.Duration
}

const effects = "ppppppddbcsssr"

func (w *world) plan(rng *rand.Rand, depth int) *plan {
	w.mu.Lock()
	w.ops++
	p := &plan{op: w.ops, object: rng.IntN(len(w.all))}
	w.mu.Unlock()
	p.durability = []Durability{Sync, Sync, Async, None}[rng.IntN(4)]
	p.submit = depth == 0 && rng.IntN(2) == 0
	p.look = rng.IntN(4)
	for range rng.IntN(5) {
		e := effect{what: effects[rng.IntN(len(effects))], key: rng.IntN(4), pad: rng.IntN(w.pad)}
		if e.what == 'b' && !w.bulk {
			e.what = 'p'
		}
		e.at = time.Duration(rng.Int64N(int64(20*time.Millisecond))) - 2*time.Millisecond
		if rng.IntN(8) == 0 {
			e.at = 3 * time.Second
		}
		p.effects = append(p.effects, e)
	}
	switch rng.IntN(12) {
	case 0:
		p.ends = withError
	case 1:
		p.ends = withRefusal
	case 2:
		if rng.IntN(3) == 0 {
			p.ends = withPanic
		}
	}
	if rng.IntN(6) == 0 && !w.rough {
		p.sleep = time.Duration(rng.Int64N(int64(2 * time.Millisecond)))
	}
	if rng.IntN(6) == 0 && depth < 2 {
		p.call = w.plan(rng, depth+1)
		p.again = rng.IntN(2) == 0
	}
	return p
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "operation %d on %d, durability %d, ends %d:", p.op, p.object, p.durability, p.ends)
	for _, e := range p.effects {
		fmt.Fprintf(&b, " %c%d", e.what, e.key)
	}
	if p.call != nil {
		fmt.Fprintf(&b, " calls (%v)", p.call)
	}
	return b.String()
}

// result is what an operation saw and did, in versions.
type result struct {
	ran   bool
	saw   map[int]int // objects to versions
	wrote *version
}

func (r *result) see(o, n int) {
	if r.saw == nil {
		r.saw = map[int]int{}
	}
	r.saw[o] = max(r.saw[o], n)
}

// act has a client do something.
func (w *world) act(rng *rand.Rand) {
	if rng.IntN(25) == 0 {
		w.list()
		return
	}
	p, r := w.plan(rng, 0), &result{}
	op := func(tx *Tx, st *crashState) error { return w.operate(tx, st, p, r) }
	if p.submit {
		w.kind.Submit(name(p.object), op, func(err error) { w.told(p, r, err) })
	} else {
		w.told(p, r, w.kind.Do(ctx, name(p.object), op))
	}
	w.mu.Lock()
	w.moment++
	r.returned(w.moment)
	w.mu.Unlock()
}

// returned notes that the operation was published before now, if it was for sure.
func (r *result) returned(now uint64) {
	if v := r.wrote; v != nil && !v.refused {
		v.before = min(v.before, now)
	}
}

// told compares an operation's outcome with what it is due.
func (w *world) told(p *plan, r *result, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return
	}
	h := w.all[p.object]
	own := errors.Is(err, errNo) || errors.Is(err, ErrPanicked)
	switch {
	case err == nil || own:
		w.note("told of %d: %.10v", p.op, err)
		if !r.ran || own == (p.ends == well) {
			w.fail(mistold, "%v was told %v (it ran: %t)", p, err, r.ran)
			return
		}
		if v := r.wrote; v != nil {
			if v.dropped {
				w.fail(mistold, "%v was told %v, and its writes were not there", p, err)
				return
			}
			v.confirmed = true
		}
		if p.durability == Sync {
			for o, n := range r.saw {
				w.all[o].sure = max(w.all[o].sure, n)
			}
		}
	case errors.Is(err, ErrFailed):
		w.note("told of %d: failed", p.op)
		if r.wrote != nil {
			r.wrote.refused = true // or it was published, and not synced
		}
		if !w.disk.failing.Load() {
			w.fail(storeWorks, "it failed: %v", err)
		}
	case errors.Is(err, ErrFull):
		w.note("told of %d: full", p.op)
		if v := r.wrote; v != nil && !h.drop(v) {
			w.fail(mistold, "%v was refused with %v, and then its writes were seen", p, err)
		}
	case errors.Is(err, ErrCycle):
	case errors.Is(err, context.Canceled) && w.disk.ending.Load(): // a handler's, when the store closes
	default:
		w.fail(storeWorks, "%v: %v", p, err)
	}
}

// operate is an operation, in the object's turn.
func (w *world) operate(tx *Tx, st *crashState, p *plan, r *result) error {
	tx.SetDurability(p.durability)
	got, err := w.read(tx, st, p.object, p.look > 0)
	if err != nil {
		return err
	}
	return w.change(tx, st, got, p, r)
}

// ring is the alarms' handler.
func (w *world) ring(tx *Tx, st *crashState, a Alarm) error {
	var o int
	if _, err := fmt.Sscanf(tx.Name(), "object-%d", &o); err != nil {
		return err
	}
	w.mu.Lock()
	rng, calm := rand.New(rand.NewPCG(w.rings.Uint64(), 3)), w.calm
	if early := time.Until(a.At); early > 0 {
		w.fail(alarmEarly, "object %d: that of %d went off %v before", o, a.At.UnixMicro(), early)
	}
	w.mu.Unlock()
	p := w.plan(rng, 1)
	if p.object, p.durability = o, Sync; calm {
		p.ends = well
		p.effects = slices.DeleteFunc(p.effects, func(e effect) bool { return e.what == 's' })
	}
	got, err := w.read(tx, st, o, p.look > 0)
	if err != nil {
		return err
	}
	if got.alarm != 0 {
		w.failed(alarmLost, "object %d: its handler finds the alarm set", o)
	}
	got.alarm = a.At.UnixMicro()
	p.effects = slices.Insert(p.effects, 0, effect{what: 'r'}) // as the store does
	r := &result{}
	if err := w.change(tx, st, got, p, r); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.wrote != nil {
		r.wrote.refused = true // nobody hears of it
	}
	return nil
}

// change compares what an operation sees with the history, and does what is planned.
func (w *world) change(tx *Tx, st *crashState, got image, p *plan, r *result) error {
	h := w.all[p.object]
	seen := got
	if st.fresh {
		seen.woke = st.was
	}
	w.mu.Lock()
	w.moment++
	n, ok := h.see(seen, w.moment, w.store.Err() != nil || w.disk.fulls.Load())
	if !ok {
		w.fail(misread, "object %d: %v sees %v; %s", p.object, p, seen, h.tail(n))
	}
	r.ran = true
	r.see(p.object, n)
	w.note("%v", p)
	w.mu.Unlock()

	was := *st
	err := w.perform(tx, st, &got, p, r)
	switch {
	case err != nil:
		return err
	case p.ends == withError:
		return errNo
	case p.ends == withRefusal:
		*st = was
		return Refuse(errNo)
	case p.ends == withPanic:
		panic("planned")
	}
	st.fresh = false
	if w.mu.Lock(); got != seen || wrote(tx) {
		w.moment++
		r.wrote = &version{image: got, op: p.op, after: w.moment}
		if p.durability == Async {
			r.wrote.due = time.Now().Add(w.within)
		}
		r.see(p.object, h.add(r.wrote))
	}
	w.mu.Unlock()
	return nil
}

func wrote(tx *Tx) bool { return !tx.w.empty() || tx.alarm != nil }

func (w *world) perform(tx *Tx, st *crashState, got *image, p *plan, r *result) error {
	if p.call != nil {
		if err := w.call(tx, p.call, r); err != nil {
			return err
		}
	}
	time.Sleep(p.sleep)
	var errs []error
	for _, e := range p.effects {
		m := mark{p.op, uint16(e.pad)}
		switch e.what {
		case 'p':
			errs = append(errs, tx.Put(keyNames[e.key], m.value()))
			got.keys[e.key] = m
		case 'd':
			errs = append(errs, tx.Delete(keyNames[e.key]))
			got.keys[e.key] = mark{}
		case 'b':
			for _, k := range bulkNames {
				errs = append(errs, tx.Put(k, m.value()))
			}
			got.bulk = m
		case 'c':
			errs = append(errs, tx.DeleteAll())
			*got = image{}
		case 's':
			at := time.Now().Add(e.at)
			errs = append(errs, tx.SetAlarm(at))
			got.alarm = at.UnixMicro()
			if at.Nanosecond()%1000 != 0 {
				got.alarm++
			}
		case 'r':
			errs = append(errs, tx.DeleteAlarm())
			got.alarm = 0
		}
	}
	st.image = *got
	st.alarm = 0
	if p.call != nil && p.again {
		again := *p.call
		w.mu.Lock()
		w.ops++
		again.op = w.ops
		w.mu.Unlock()
		errs = append(errs, w.call(tx, &again, r))
	}
	return errors.Join(errs...)
}

// call calls another object. Whatever the outcome, what the other saw, this one knows.
func (w *world) call(tx *Tx, p *plan, r *result) error {
	inner := &result{}
	err := w.kind.Do(tx.Context(), name(p.object), func(tx *Tx, st *crashState) error {
		return w.operate(tx, st, p, inner)
	})
	w.told(p, inner, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moment++
	if inner.wrote != nil {
		if inner.returned(w.moment); inner.wrote.dropped {
			return nil
		}
	}
	for o, n := range inner.saw {
		r.see(o, n)
	}
	if errors.Is(err, ErrFailed) {
		return err
	}
	return nil
}

// list lists the objects by name.
func (w *world) list() {
	w.mu.Lock()
	lows := make([]int, len(w.all))
	for o, h := range w.all {
		lows[o] = h.sure
	}
	w.mu.Unlock()
	names, err := w.kind.List(ctx, "", math.MaxInt)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.down || errors.Is(err, ErrFailed):
		return
	case err != nil || !slices.IsSorted(names):
		w.fail(badList, "%q, %v", names, err)
		return
	}
	w.note("listed %q", names)
	for o, h := range w.all {
		listed := slices.Contains(names, name(o))
		n := slices.IndexFunc(h.versions[min(lows[o], len(h.versions)-1):], func(v *version) bool { return v.empty() != listed })
		if n < 0 {
			w.fail(badList, "object %d is in it: %t; %s", o, listed, h.tail(lows[o]))
			return
		}
		h.sure = max(h.sure, lows[o]+n)
	}
}

var keyNames, bulkNames = []string{"a", "b", "c", "d"}, func() (names []string) {
	for i := range 70 {
		names = append(names, fmt.Sprintf("m%02d", i))
	}
	return names
}()

func (m mark) value() []byte {
	v := binary.BigEndian.AppendUint32(make([]byte, 0, 6+int(m.pad)), m.op)
	v = binary.BigEndian.AppendUint16(v, m.pad)
	for range m.pad {
		v = append(v, byte(m.op))
	}
	return v
}

func parseMark(v []byte) (m mark, ok bool) {
	if len(v) < 6 {
		return m, false
	}
	m = mark{binary.BigEndian.Uint32(v), binary.BigEndian.Uint16(v[4:])}
	return m, len(v) == 6+int(m.pad) && !slices.ContainsFunc(v[6:], func(b byte) bool { return b != byte(m.op) })
}

// wake reads a state, and in some worlds counts the times in storage.
func (w *world) wake(tx *Tx) (*crashState, error) {
	st := &crashState{}
	var err error
	if st.image, err = w.stored(tx, 1); err != nil {
		return nil, err
	}
	if w.wakeWrites {
		w.mu.Lock()
		w.ops++
		op := w.ops
		w.mu.Unlock()
		st.was, st.woke, st.fresh = st.woke, op, true
		return st, tx.Put("w", mark{op: op}.value())
	}
	return st, nil
}

// read returns the object as an operation sees it, in memory or in storage.
func (w *world) read(tx *Tx, st *crashState, o int, storage bool) (got image, err error) {
	got = st.image
	if storage {
		if got, err = w.stored(tx, int(tx.o.last)%2); err != nil {
			return got, err
		}
		if got != st.image {
			w.failed(misread, "object %d is %v in memory, and stored as %v", o, st.image, got)
		}
	}
	at, ok, err := tx.Alarm()
	if ok {
		got.alarm = at.UnixMicro()
	}
	return got, err
}

// stored reads all keys, one by one or by a list. Keys that are not as one operation wrote them are an error.
func (w *world) stored(tx *Tx, by int) (i image, err error) {
	bulks := 0
	put := func(key string, value []byte) {
		m, ok := parseMark(value)
		if !ok {
			w.failed(tornOperation, "%s: key %q holds %d bytes, not as they were written", tx.Name(), key, len(value))
		}
		switch {
		case key == "w":
			i.woke = m.op
		case key[0] == 'm':
			if bulks++; bulks > 1 && m != i.bulk {
				w.failed(tornOperation, "%s: key %s is by %v, others by %v", tx.Name(), key, m, i.bulk)
			}
			i.bulk = m
		default:
			i.keys[key[0]-'a'] = m
		}
	}
	if by == 0 {
		all := append([]string{"w"}, keyNames...)
		if w.bulk {
			all = append(all, bulkNames...)
		}
		for _, key := range all {
			v, ok, err := tx.Get(key)
			if err != nil {
				return i, err
			}
			if ok {
				put(key, v)
			}
		}
	} else {
		before := ""
		for e, err := range tx.List(ListOptions{}) {
			if err != nil {
				return i, err
			}
			if e.Key <= before {
				w.failed(misread, "%s: key %q comes after %q", tx.Name(), e.Key, before)
			}
			before = e.Key
			put(e.Key, e.Value)
		}
	}
	if bulks != 0 && bulks != len(bulkNames) {
		w.failed(tornOperation, "%s: %d of %d keys are there", tx.Name(), bulks, len(bulkNames))
	}
	return i, nil
}

// crashDisk is a disk with slow and failing syncs, that fills up and crashes.
type crashDisk struct {
	vfs.FS
	w     *world
	guard atomic.Pointer[guard] // the store's, once it is open

	mu      sync.Mutex
	rng     *rand.Rand
	crashAt int // at this change of it
	failAt  int // this sync of the log fails, and the later ones; in rough worlds: this change, and more
	failFor int
	fullAt  int // from this sync of the log on it has little room
	fullFor int
	changes int
	syncs   int

	ending  atomic.Bool
	healed  atomic.Bool
	failing atomic.Bool // something has failed
	fulls   atomic.Bool // it was full
}

func newCrashDisk(w *world) *crashDisk {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 4))
	d := &crashDisk{FS: w.mem, w: w, rng: rng}
	if w.calm {
		return d
	}
	if rng.IntN(2) == 0 {
		d.crashAt = 1 + rng.IntN(120)
	}
	switch {
	case w.rough:
		d.failAt, d.failFor = 1+rng.IntN(150), 1+rng.IntN(30)
	case rng.IntN(8) == 0:
		d.failAt = 3 + rng.IntN(20)
	case rng.IntN(5) == 0:
		d.fullAt, d.fullFor = 3+rng.IntN(10), 1+rng.IntN(10)
	}
	return d
}

// keep says how much of what was not synced survives a crash.
func (d *crashDisk) keep() vfs.CrashCloneCfg {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vfs.CrashCloneCfg{
		UnsyncedDataPercent: []int{0, 0, 50, 90, 100}[d.rng.IntN(5)],
		RNG:                 rand.New(rand.NewPCG(d.rng.Uint64(), 5)),
	}
}

// heal makes a disk that failed work again, for the next life.
func (d *crashDisk) heal() { d.healed.Store(true) }

// change comes before everything that changes the disk.
func (d *crashDisk) change() error {
	d.mu.Lock()
	d.changes++
	n, from, to := d.changes, d.failAt, d.failAt+d.failFor
	d.mu.Unlock()
	if n == d.crashAt {
		d.w.crash("at a change of the disk")
	}
	if d.w.rough && n >= from && n < to && from > 0 && !d.healed.Load() {
		d.failing.Store(true)
		return syscall.ENOSPC
	}
	return nil
}

// sync comes before a sync of the log.
func (d *crashDisk) sync() error {
	if err := d.change(); err != nil || d.w.rough {
		return err
	}
	d.mu.Lock()
	d.syncs++
	n := d.syncs
	took := time.Duration(d.rng.Int64N(int64(d.w.syncMost)/4)) + 1
	if d.rng.IntN(6) == 0 {
		took = time.Duration(d.rng.Int64N(int64(d.w.syncMost)))
		if d.w.slow {
			took *= 10
		}
	}
	d.mu.Unlock()
	g := d.guard.Load()
	if g == nil {
		return nil
	}
	for range 100 {
		if !g.inCommit.Load() {
			break
		}
		runtime.Gosched()
	}
	if g.inCommit.Load() {
		return nil // the log is rotated, with locks held for which others wait: simulated time would stand still
	}
	if !d.ending.Load() {
		time.Sleep(took)
	}
	if d.failAt > 0 && n >= d.failAt && !d.healed.Load() && !g.inCommit.Load() {
		d.failing.Store(true)
		return syscall.EIO
	}
	return nil
}

func (d *crashDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fullAt > 0 && d.syncs >= d.fullAt && d.syncs < d.fullAt+d.fullFor {
		d.fulls.Store(true)
		return vfs.DiskUsage{AvailBytes: 1, TotalBytes: 1 << 40}, nil
	}
	return vfs.DiskUsage{AvailBytes: 1 << 39, TotalBytes: 1 << 40}, nil
}

func (d *crashDisk) file(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return crashFile{f, d, isLogFile(name)}, nil
}

func (d *crashDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, c)
	return d.file(f, name, err)
}

func (d *crashDisk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(); err != nil {
		return nil, err
	}
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.file(f, name, err)
}

func (d *crashDisk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.file(f, "", err)
}

func (d *crashDisk) Remove(name string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

func (d *crashDisk) Rename(old, name string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.FS.Rename(old, name)
}

type crashFile struct {
	vfs.File
	d   *crashDisk
	log bool
}

func (f crashFile) Write(p []byte) (int, error) {
	if err := f.d.change(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f crashFile) sync() error {
	if f.log {
		return f.d.sync()
	}
	return f.d.change()
}

func (f crashFile) Sync() error {
	if err := f.sync(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f crashFile) SyncData() error {
	if err := f.sync(); err != nil {
		return err
	}
	return f.File.SyncData()
}
