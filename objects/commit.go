package objects

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// The group commit, and the output gate.
//
// # Protocol
//
// An operation writes into its own transaction. When it has returned, still in its turn on the object, its writes are
// published (committer.publish): added, under mu, to the open group, where they replace what earlier operations of
// the same object wrote to the same keys in that group. What one object wrote in one group is a layer, and an
// object's layers, newest first, are what its operations see before they look into Pebble.
//
//	open ──take──▶ flying ──apply──▶ (in Pebble, layers unlinked) ──sync──▶ durable
//
// One goroutine (commitLoop) takes the oldest group that has writes, makes one Pebble batch of it, applies it, unlinks
// its layers, and hands it on. It takes the next when that is durable: the sync that runs is the window in which the
// next group gathers, and an idle store commits at once. If the next is large by then (overlapKeys), it is applied while
// the last one syncs, or else the cores would wait for the disk, and the disk for the cores. A group that nobody waits
// for, because only Async and None operations wrote, is taken when it is due, or sealed, or someone comes who waits. A
// second goroutine (syncLoop) waits for the sync, moves the durable number, and then tells those who waited, while the
// first makes the next batch. A group that grows beyond maxGroupBytes is sealed and queued, and a new one opened.
//
// Groups are numbered from 1. An object remembers the number of the last group it wrote to (object.last). That is the
// output gate: whatever an operation saw was written by its object at or before that group, so its result may leave
// once durable >= last. If that holds when the operation returns, the result leaves at once. Otherwise the operation
// joins the group, also if it only read or failed: an error is a result, too. Pebble shows a batch to readers before
// it is synced, so "I read it from Pebble" proves nothing; the number does. An operation that is not Sync passes the gate
// at once; if another one called it, it leaves the number there (frame.saw), for that one's gate.
//
// An operation's effects (Tx.OnDurable) are told like its outcome, by the group that it wrote to or else the one that it
// saw, and before it. They join the group while the operation has its object's turn, which is what keeps them in order.
// If that group is durable they are called at once, in the turn, but not before those who joined it were told: told
// follows durable.
//
// # Who owns what
//
//   - object.turn: the object's state, last, and the content of its layer in the open group. Held while an operation
//     runs and publishes.
//   - committer.mu: the groups, which group is open, the layers' newer pointers, failed. It is taken inside a turn,
//     briefly; nothing under it calls Pebble, a callback, or waits.
//   - committer.telling: held while groups are settled and their waiters told, so that this happens in group order.
//     mu is taken inside it, and callbacks run in it.
//   - a sealed group (taken or queued) and its layers' contents change no more: the commit loop and the operations read
//     them without a lock.
//
// # Invariants
//
//  1. Settled in order: a group's waiters are told after all of the groups before it were.
//  2. One operation is in one group, and one group is one Pebble batch: all or nothing.
//  3. A read misses no write. A layer is unlinked only after its batch was applied, and an operation looks once which
//     layers there are (Tx.layers), before it makes an iterator of Pebble. So if it does not see the layer, its iterator
//     sees the batch. An unlinked layer that it still sees is what Pebble holds as well, or what newer layers hide.
//  4. Layers are unlinked oldest first, since groups are applied in order: the unlinked layer is its object's last,
//     and the list is cut at its newer neighbour.
//  5. An object that is put to sleep has last <= told, so it has no layers, what a waking reads is durable, and none of
//     its effects is still to come.
//  6. Nothing is told nil after failed is set, nor is anything told twice: whoever removes a group from the committer
//     under mu tells its waiters.
//
// # Failure
//
// The first error of a commit, a sync, or of Pebble's own making (guard.go) sets failed, for good. Memory and Pebble's
// memtable may by then hold what the disk does not, so from then on nothing is told nil and every operation is refused.
// All groups are removed and told ErrFailed, after those whose success is being told at that moment. A group that was
// applied may yet be found on the disk after a restart: ErrFailed means "not known", as any crash does.
type committer struct {
	db     *pebble.DB
	events *Events
	space  *space
	guard  *guard
	alarms *scheduler
	async  time.Duration // from an Async operation to the start of its commit

	mu        sync.Mutex
	open      *group   // gathers; never nil
	queue     []*group // sealed by size, oldest first, all before open
	flying    []*group // taken, not durable yet, oldest first; before queue
	worth     int      // keys that make the open group worth a sync right after the one that runs
	idle      bool     // the commit loop sleeps and wants a kick
	closing   bool
	batches   []*pebble.Batch // at most maxFlying, for their memory
	order     []int32         // the commit loop's own
	sealAt    int             // maxGroupBytes, less in tests
	overlapAt int             // overlapKeys, less in tests
	slab      slab

	telling sync.Mutex

	durable  atomic.Uint64 // number of the last durable group
	told     atomic.Uint64 // number of the last durable group whose waiters were told
	failed   atomic.Pointer[error]
	pending  atomic.Int64 // operations that wait, and effects
	pendingB atomic.Int64 // bytes published and not settled
	ops      atomic.Int64 // durable operations that wrote
	bytes    atomic.Int64 // and their keys and values

	kick     chan struct{}
	flights  chan flight
	loops    sync.WaitGroup
	failures sync.WaitGroup
}

// maxGroupBytes keeps a batch well under half a default memtable, where Pebble stops copying it into the memtable and
// rotates the log and the memtable for it alone.
const maxGroupBytes = 1 << 20

const (
	// maxFlying is how many groups are committed at once: one syncs, and the next is applied.
	maxFlying = 2
	// A group is worth a sync of its own right after the one that runs if it has overlapKeys, and takes a quarter of the
	// time to apply that the last sync took: keyTime for each. Else more would wait for two syncs than gain by it.
	// It was measured: on a disk that syncs in 0.1 ms, 64 callers do half as many operations more than without.
	overlapKeys = 32
	keyTime     = 1500 * time.Nanosecond
)

// alarmBytes is what a change of an alarm counts as.
const alarmBytes = 64

// group is what one commit makes durable.
type group struct {
	num     uint64
	wanted  bool      // someone waits for it
	due     time.Time // when it is to be committed at the latest; zero: when it is wanted or sealed
	layers  []*layer
	ops     int
	bytes   int
	keys    int           // that its batch writes, alarms aside
	waiters []func(error) // outcomes and effects, in the order of each object's operations
	members int           // how many wait: waiters, and those on done
	done    chan struct{} // made by the first who waits on it; closed when settled
	err     error         // valid once done is closed
}

type flight struct {
	group   *group
	batch   *pebble.Batch
	started time.Time
}

func newCommitter(db *pebble.DB, opts *Options, sp *space, gd *guard, alarms *scheduler) *committer {
	c := &committer{
		db: db, events: &opts.Events, space: sp, guard: gd, alarms: alarms, async: opts.AsyncWithin / 2,
		open:      &group{num: 1},
		sealAt:    maxGroupBytes,
		overlapAt: overlapKeys,
		worth:     math.MaxInt, // until the disk is known
		kick:      make(chan struct{}, 1),
		flights:   make(chan flight, maxFlying),
	}
	c.loops.Add(2)
	go c.commitLoop()
	go c.syncLoop()
	return c
}

func (c *committer) failure() error {
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// admit refuses an operation before it runs.
func (c *committer) admit() error {
	if err := c.failure(); err != nil {
		return err
	}
	if c.pending.Load() >= MaxPending || c.pendingB.Load() >= MaxPendingBytes {
		return ErrOverloaded
	}
	return nil
}

// publish adds an operation's writes to the open group. The caller has the object's turn. If it is Sync, either done
// will be told, or, if it is nil, the caller waits on the group that is returned. Else there is none.
func (c *committer) publish(tx *Tx, done func(error)) (*group, error) {
	o, w := tx.o, &tx.w
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.failure(); err != nil {
		return nil, err
	}
	if c.closing { // an operation that Close did not wait for
		return nil, ErrClosed
	}
	g := c.open
	l := o.newest.Load()
	if l == nil || l.group != g.num {
		older := l
		l = c.slab.layer()
		l.obj, l.group = o, g.num
		l.adopt(w, &c.slab)
		l.older.Store(older)
		if older != nil {
			older.newer = l
		}
		o.newest.Store(l)
		g.layers = append(g.layers, l)
	} else {
		g.keys -= len(l.ents)
		l.merge(w)
	}
	g.keys += len(l.ents)
	bytes := w.bytes
	if tx.alarm != nil {
		bytes += alarmBytes
		if l.alarm == nil {
			l.alarm = tx.alarm
		} else {
			l.alarm.now = tx.alarm.now
		}
	}
	o.last = g.num
	if len(tx.effects) > 0 {
		c.attach(g, tx.effects)
	}
	g.ops++
	g.bytes += bytes
	c.pendingB.Add(int64(bytes))
	if g.bytes >= c.sealAt {
		c.queue = append(c.queue, g)
		c.open = &group{num: g.num + 1}
	}
	switch {
	case tx.durability == Sync:
		c.add(g, done)
		return g, nil
	case (tx.durability == Async || tx.alarm != nil) && g.due.IsZero():
		g.due = time.Now().Add(c.async)
		c.wake()
	default:
		c.offer()
	}
	return nil, nil
}

// offer wakes the commit loop if there is a group for it to take. mu is held.
func (c *committer) offer() {
	if c.idle && c.next() != nil {
		c.wake()
	}
}

// wake makes the commit loop look again. mu is held.
func (c *committer) wake() {
	if c.idle {
		c.idle = false
		c.kick <- struct{}{} // has room: the loop was idle
	}
}

// hurry commits what is pending, though nobody may wait for it.
func (c *committer) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open.ops > 0 && !c.open.wanted {
		c.open.wanted = true
		c.offer()
	}
}

// join makes an operation that wrote nothing wait for the group whose writes it saw. It returns nil if that is durable
// by now.
func (c *committer) join(num uint64, done func(error)) (*group, error) {
	c.mu.Lock()
	g, err := c.undurable(num)
	if g != nil {
		c.add(g, done)
	}
	c.mu.Unlock()
	if err != nil {
		return nil, c.broken(err)
	}
	return g, nil
}

// undurable returns the group num, nil if it is durable by now; or why there will be none. mu is held.
func (c *committer) undurable(num uint64) (*group, error) {
	if err := c.failure(); err != nil {
		return nil, err
	}
	if num <= c.durable.Load() {
		return nil, nil
	}
	if g := c.find(num); g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("broken invariant: group %d is neither durable nor pending (open is %d)", num, c.open.num)
}

// broken fails the store for an error of undurable, unless it is its failure already.
func (c *committer) broken(err error) error {
	c.fail(err)
	return c.failure()
}

func (c *committer) find(num uint64) *group {
	if c.open.num == num {
		return c.open
	}
	for _, groups := range [][]*group{c.flying, c.queue} {
		for _, g := range groups {
			if g.num == num {
				return g
			}
		}
	}
	return nil
}

// gate joins the group num with an operation's outcome err, which leaves when the group is durable. Without a group the
// outcome is final.
func (c *committer) gate(num uint64, err error, done func(error)) (*group, error) {
	if done != nil && err != nil {
		outcome, tell := err, done
		done = func(err error) {
			if err == nil {
				err = outcome
			}
			tell(err)
		}
	}
	g, failed := c.join(num, done)
	if failed != nil {
		return nil, failed
	}
	return g, err
}

// applied returns the number of the last group that Pebble may have applied.
func (c *committer) applied() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.flying); n > 0 {
		return c.flying[n-1].num
	}
	return c.durable.Load()
}

func (c *committer) add(g *group, done func(error)) {
	if done != nil {
		g.waiters = append(g.waiters, done)
	} else if g.done == nil {
		g.done = make(chan struct{})
	}
	g.members++
	c.pending.Add(1)
	g.wanted = true
	c.offer()
}

// take returns the group to commit, waiting for one; nil when the store is closed and all is committed, or has failed.
func (c *committer) take() *group {
	for {
		c.mu.Lock()
		g := c.next()
		switch {
		case c.failure() != nil, g == nil && c.closing && len(c.queue) == 0 && c.open.ops == 0:
			c.mu.Unlock()
			return nil
		case g == nil:
			var due time.Time
			if len(c.flying) == 0 { // else the sync loop wakes this one
				due = c.open.due
			}
			c.idle = true
			c.mu.Unlock()
			c.sleep(due)
			continue
		case g == c.open:
			c.open = &group{num: g.num + 1}
		default:
			c.queue = c.queue[1:]
		}
		c.flying = append(c.flying, g)
		c.mu.Unlock()
		return g
	}
}

// next returns the oldest group that is not taken, if it is to be now. mu is held.
func (c *committer) next() *group {
	g, flying := c.open, len(c.flying)
	switch {
	case flying == maxFlying:
		return nil
	case len(c.queue) > 0:
		return c.queue[0]
	case g.ops > 0 && (flying == 0 && (g.wanted || c.closing || g.overdue()) || flying > 0 && g.keys >= c.worth):
		return g
	}
	return nil
}

// wait waits until the group is settled, or ctx ends.
func (g *group) wait(ctx context.Context) error {
	ended := ctx.Done()
	if ended == nil { // a receive costs half of a select
		<-g.done
		return g.err
	}
	select {
	case <-g.done:
		return g.err
	case <-ended:
		return ctx.Err()
	}
}

func (g *group) overdue() bool { return !g.due.IsZero() && time.Until(g.due) <= 0 }

// sleep waits for a kick, or until due.
func (c *committer) sleep(due time.Time) {
	if due.IsZero() {
		<-c.kick
		return
	}
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	select {
	case <-c.kick:
		return
	case <-t.C:
	}
	c.mu.Lock()
	kicked := !c.idle
	c.idle = false
	c.mu.Unlock()
	if kicked {
		<-c.kick
	}
}

// survive makes a panic in a loop the store's failure.
func (c *committer) survive(loop string) {
	if r := recover(); r != nil { //nolint:revive // it is deferred
		c.fail(fmt.Errorf("broken invariant: the %s loop panicked: %v\n%s", loop, r, debug.Stack()))
	}
}

func (c *committer) commitLoop() {
	defer c.loops.Done()
	defer close(c.flights)
	defer c.survive("commit")
	for {
		g := c.take()
		if g == nil {
			return
		}
		f := flight{group: g, started: time.Now()}
		var err error
		if f.batch, err = c.apply(g); err != nil {
			c.fail(err)
			return
		}
		c.unlink(g)
		c.flights <- f
	}
}

// apply makes the group's batch and has Pebble log and apply it, without waiting for the sync.
func (c *committer) apply(g *group) (b *pebble.Batch, err error) {
	defer func() {
		// Pebble panics when it cannot go on in a commit, and leaves its locks as they are.
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v\n%s", r, debug.Stack())
			}
			err = fmt.Errorf("commit: pebble panicked: %w", cause)
			c.guard.breakDown(err)
		}
	}()
	c.mu.Lock()
	if n := len(c.batches); n > 0 {
		b, c.batches = c.batches[n-1], c.batches[:n-1]
	}
	alone := len(c.flying) == 1
	c.mu.Unlock()
	if b == nil {
		b = c.db.NewBatch(pebble.WithMaxRetainedSizeBytes(2 * maxGroupBytes))
	}
	if !alone {
		if err := early(b); err != nil {
			return nil, err
		}
	}
	// Pebble's memtable takes keys in order in about half the time.
	slices.SortFunc(g.layers, inKeyOrder)
	var prefix []byte
	for _, l := range g.layers {
		prefix = appendPrefix(prefix[:0], l.obj.kind.name, l.obj.name)
		if l.cleared {
			if err := b.DeleteRange(prefix, successor(prefix), nil); err != nil {
				return nil, err
			}
		}
		if l.alarm != nil {
			if err := l.alarm.write(b, prefix, l.obj.kind.name, l.obj.name); err != nil {
				return nil, err
			}
		}
		c.order = l.inKeyOrder(c.order[:0])
		for _, i := range c.order {
			e := &l.ents[i]
			n := len(prefix) + int(e.keyLen)
			var op *pebble.DeferredBatchOp
			if e.del {
				op = b.DeleteDeferred(n)
			} else {
				op = b.SetDeferred(n, int(e.valLen))
				copy(op.Value, l.value(e))
			}
			copy(op.Key[copy(op.Key, prefix):], l.key(e))
			if err := op.Finish(); err != nil {
				return nil, err
			}
		}
	}
	if err := c.guard.commit(c.db, b); err != nil {
		return nil, err
	}
	// Pebble reports a commit it could not make to its logger alone (guard.Fatalf), and returns nil; there may then be
	// no sync to wait for.
	if err := c.failure(); err != nil {
		return nil, err
	}
	for _, l := range g.layers {
		if l.alarm != nil && l.alarm.now.due != 0 {
			c.alarms.set(l.obj.kind, l.alarm.now.due)
		}
	}
	return b, nil
}

// unlink takes the group's layers out of what operations look at: Pebble has their content now.
func (c *committer) unlink(g *group) {
	const chunk = 512 // so that publishers wait for microseconds only
	for part := range slices.Chunk(g.layers, chunk) {
		c.mu.Lock()
		for _, l := range part {
			if l.newer == nil {
				l.obj.newest.Store(nil)
			} else {
				l.newer.older.Store(nil)
			}
		}
		c.mu.Unlock()
	}
	g.layers = nil
}

func (c *committer) syncLoop() {
	defer c.loops.Done()
	defer c.survive("sync")
	for f := range c.flights {
		began := time.Now()
		if err := f.batch.SyncWait(); err != nil {
			c.fail(fmt.Errorf("sync: %w", err))
			return
		}
		took, synced := time.Since(f.started), time.Since(began)
		f.batch.Reset()
		g := f.group

		c.telling.Lock()
		c.mu.Lock()
		if c.failure() != nil {
			c.mu.Unlock()
			c.telling.Unlock()
			return
		}
		c.flying = slices.Delete(c.flying, 0, 1)
		c.durable.Store(g.num)
		c.worth = max(c.overlapAt, int(synced/(4*keyTime)))
		c.batches = append(c.batches, f.batch)
		c.wake()
		c.mu.Unlock()
		c.ops.Add(int64(g.ops))
		c.bytes.Add(int64(g.bytes))
		c.space.written.Add(int64(g.bytes))
		c.tell(g, nil)
		c.telling.Unlock()
		if c.events.OnCommit != nil {
			c.events.OnCommit(g.ops, g.bytes, took)
		}
	}
}

// tell tells those who waited for a group that was removed. telling is held.
func (c *committer) tell(g *group, err error) {
	c.pending.Add(-int64(g.members))
	c.pendingB.Add(-int64(g.bytes))
	g.err = err
	for i, done := range g.waiters {
		g.waiters[i] = nil
		c.call(done, err)
	}
	if err == nil {
		c.told.Store(g.num)
	}
	if g.done != nil { // last: the effects of those who wait on it came before
		close(g.done)
	}
}

func (c *committer) call(done func(error), err error) {
	defer c.survive("done function or effect called by the sync")
	done(err)
}

// fail ends the store. It may be called from anywhere, also from inside Pebble with its locks held.
func (c *committer) fail(cause error) {
	c.mu.Lock()
	if c.failure() != nil {
		c.mu.Unlock()
		return
	}
	err := fmt.Errorf("%w: %w", ErrFailed, cause)
	c.failed.Store(&err)
	c.wake()
	c.failures.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.failures.Done()
		c.telling.Lock()
		c.mu.Lock()
		groups := append(slices.Concat(c.flying, c.queue), c.open)
		c.flying, c.queue, c.open = nil, nil, &group{num: c.open.num + 1}
		c.mu.Unlock()
		for _, g := range groups {
			c.tell(g, err)
		}
		c.telling.Unlock()
		if c.events.OnFailure != nil {
			c.events.OnFailure(err)
		}
	}()
}

// close commits what is pending and ends the loops. No operation runs any more.
func (c *committer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	c.wake()
}
