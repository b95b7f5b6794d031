package place

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// A Store keeps a machine's records.
type Store interface {
	// Update runs step alone, and commits the writes that it returns, all or
	// none. It returns when step has run, and calls done once: with nil when
	// the writes, and everything that step may have read, are durable; with
	// an error if they will not be. Calls of done come in the order of the
	// steps.
	Update(step func(tiers.Reader) ([]tiers.Write, error), done func(error))
	// Writable says why a step had better write nothing, if so.
	Writable() error
}

// A Sender carries messages between places. Its methods do not block: what
// cannot be sent is lost, as on any network.
type Sender interface {
	Report(*tiers.Report)              // to the parent
	Recall(tiers.Place, *tiers.Recall) // to a child
	Event(tiers.Event)                 // for the operator
	Wake(limiter.Time)                 // call Tick then; replaces the one before
	Broken(error)                      // the runner stopped: its store failed, or it was fenced
}

// A Runner runs one machine. It is safe for concurrent use.
//
// Every step runs inside an Update of the store, so what the machine reads
// and writes is one transaction, and its report and its answers leave in the
// Update's done. Checks of objects that are awake need no disk and take only
// the lock.
type Runner struct {
	store  Store
	sender Sender
	clock  func() limiter.Time
	wall   func() int64

	rules atomic.Pointer[limiter.Rules] // that the machine follows

	mu      sync.Mutex // the machine and what follows
	machine *tiers.Machine
	waiting map[uint64]func(tiers.Decision, error)
	checks  uint64
	broken  error
	closing bool // nothing but the close goes on
	killed  bool
}

// ErrStopped is wrapped by what a runner answers once it has stopped.
var ErrStopped = errors.New("the place has stopped")

// Start starts a machine on what the store holds, and returns once the new
// session is durable. Clock is what leases and rates are measured by; wall is
// the time of day, in Unix nanoseconds, which only windows of quotas ask for.
func Start(cfg tiers.Config, store Store, sender Sender, clock func() limiter.Time, wall func() int64) (*Runner, error) {
	r := &Runner{store: store, sender: sender, clock: clock, wall: wall, waiting: map[uint64]func(tiers.Decision, error){}}
	started := make(chan error, 1)
	store.Update(func(rd tiers.Reader) ([]tiers.Write, error) {
		cfg.Wall = wall()
		m, err := tiers.Start(clock(), cfg, rd)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.machine = m
		r.follow()
		return m.Writes(), nil
	}, func(err error) { started <- err })
	if err := <-started; err != nil {
		return nil, err
	}
	return r, nil
}

// step runs one step and does what it wants done. A store may refuse to run
// it, when too much waits: then done gets the error and nothing happened.
func (r *Runner) step(f func(m *tiers.Machine, now limiter.Time), done func(error)) {
	r.run(f, false, done)
}

// run runs a step, or one of those that close the machine: then no others run.
func (r *Runner) run(f func(m *tiers.Machine, now limiter.Time), closes bool, done func(error)) {
	var out tiers.Output
	ran := false
	r.store.Update(func(rd tiers.Reader) ([]tiers.Write, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken != nil {
			return nil, r.broken
		}
		if r.closing = r.closing || closes; r.closing != closes {
			return nil, ErrStopped
		}
		ran = true
		now := r.clock()
		r.machine.Read(rd)
		r.machine.SetWall(now, r.wall())
		f(r.machine, now)
		out = r.machine.Output(now)
		r.follow()
		r.sender.Wake(out.Wake)
		return out.Writes, out.Err
	}, func(err error) {
		if err == nil {
			err = r.crashed()
		}
		switch {
		case err == nil:
			if out.Report != nil {
				r.sender.Report(out.Report)
			}
			for _, c := range out.Recalls {
				r.sender.Recall(c.Child, c.Recall)
			}
			r.tell(out.Decided, true)
		case ran:
			r.stop(err)
		case !errors.Is(err, ErrStopped):
			r.sender.Wake(r.clock().Add(refusedRetry))
		}
		done(err)
		if err == nil && out.Commit > 0 {
			r.step(func(m *tiers.Machine, now limiter.Time) { m.Committed(now, out.Commit) }, nothing)
		}
		if err == nil && out.Exit != nil { // what it ends with is durable
			r.stop(out.Exit)
		}
	})
	for _, e := range out.Events {
		r.sender.Event(e)
	}
	r.tell(out.Decided, false)
}

// ended is why no check is decided any more, if so. The caller holds mu.
func (r *Runner) ended() error {
	if r.closing {
		return ErrStopped
	}
	return r.broken
}

// tell answers checks that waited: those whose decision needs no disk at
// once, others when their writes are durable.
func (r *Runner) tell(decisions []tiers.Decided, durably bool) {
	for _, d := range decisions {
		if d.Durably != durably {
			continue
		}
		r.mu.Lock()
		decided := r.waiting[d.ID]
		delete(r.waiting, d.ID)
		r.mu.Unlock()
		if decided != nil {
			decided(d.Decision, nil)
		}
	}
}

// refusedRetry is when a tick that the store refused is tried again.
const refusedRetry = 50 * time.Millisecond

func nothing(error) {}

// stop ends the runner: its memory may hold what the disk does not.
func (r *Runner) stop(cause error) {
	r.mu.Lock()
	first := r.broken == nil
	if first {
		r.broken = fmt.Errorf("%w: %w", ErrStopped, cause)
	}
	waiting := r.waiting
	r.waiting = map[uint64]func(tiers.Decision, error){}
	err := r.broken
	r.mu.Unlock()
	for _, decided := range waiting {
		decided(tiers.Decision{}, err)
	}
	if first && !errors.Is(cause, ErrStopped) {
		r.sender.Broken(cause)
	}
}

// Tick does what is due. The Sender's Wake says when to call it.
func (r *Runner) Tick() {
	r.step(func(m *tiers.Machine, now limiter.Time) { m.Tick(now) }, nothing)
}

// Check decides a check; done is called once, at once or within wait.
func (r *Runner) Check(name tiers.Name, hits int64, wait time.Duration, done func(tiers.Decision, error)) {
	r.mu.Lock()
	if err := r.ended(); err != nil {
		r.mu.Unlock()
		done(tiers.Decision{}, err)
		return
	}
	now := r.clock()
	var d tiers.Decision
	decided, awake, err := r.machine.CheckAwake(now, name, hits, now.Add(wait), r.checks+1, &d)
	stirred := r.machine.Stirred()
	if awake && !decided {
		r.checks++
		r.waiting[r.checks] = done
	}
	r.mu.Unlock()
	switch {
	case !awake:
		r.checkAsleep(name, hits, wait, done)
		return
	case decided:
		done(d, err)
	}
	if stirred {
		r.stir()
	}
}

// checkAsleep checks a key that has to be read from the disk first.
func (r *Runner) checkAsleep(name tiers.Name, hits int64, wait time.Duration, done func(tiers.Decision, error)) {
	var d tiers.Decision
	var ran, decided bool
	var err error
	refused := make(chan error, 1)
	r.step(func(m *tiers.Machine, now limiter.Time) {
		ran = true
		r.checks++
		if d, decided, err = m.Check(now, name, hits, now.Add(wait), r.checks); !decided {
			r.waiting[r.checks] = done
		}
	}, func(e error) { refused <- e })
	switch {
	case !ran:
		done(tiers.Decision{}, <-refused)
	case decided: // the decision waits for no disk
		done(d, err)
	}
}

// CheckID is Check for a request with an id: one that was carried out before
// gets the first one's answer. Done is called once that is durable.
func (r *Runner) CheckID(name tiers.Name, hits int64, wait time.Duration, request string, done func(tiers.Decision, error)) {
	if err := r.store.Writable(); err != nil {
		done(tiers.Decision{}, err)
		return
	}
	var d tiers.Decision
	var ran, decided bool
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) {
		ran = true
		r.checks++
		if d, decided, err = m.CheckID(now, name, hits, now.Add(wait), r.checks, request); !decided {
			r.waiting[r.checks] = done
		}
	}, func(e error) {
		if !ran || decided {
			done(d, errors.Join(err, e))
		}
	})
}

// TryCheck decides a check at once: one that would have to wait for a share
// is denied. The decision is written to d, whatever was in it: returning one
// would cost a sixth of what the check does.
func (r *Runner) TryCheck(name tiers.Name, hits int64, d *tiers.Decision) error {
	r.mu.Lock()
	if err := r.ended(); err != nil {
		r.mu.Unlock()
		return err
	}
	_, awake, err := r.machine.CheckAwake(r.clock(), name, hits, 0, 0, d)
	stirred := r.machine.Stirred()
	r.mu.Unlock()
	switch {
	case !awake:
		*d, err = r.tryAsleep(name, hits)
	case stirred:
		r.stir()
	}
	return err
}

func (r *Runner) tryAsleep(name tiers.Name, hits int64) (d tiers.Decision, err error) {
	r.checkAsleep(name, hits, 0, func(decision tiers.Decision, e error) { d, err = decision, e })
	return d, err
}

// stir does what a check that needed no disk left to do.
func (r *Runner) stir() { r.step(func(*tiers.Machine, limiter.Time) {}, nothing) }

// An Add is something to count. Request is its id, or empty.
type Add struct {
	Name    tiers.Name
	Delta   int64
	Request string
}

// Add counts n adds in one step; each is counted, or refused for itself.
// One with an id that was carried out before gets the first one's answer.
// Done is called for each, by its index: once the step is durable, or where
// the namespace's rule is async, once it ran.
func (r *Runner) Add(n int, what func(i int) Add, done func(i int, total tiers.Total, err error)) {
	if err := r.store.Writable(); err != nil {
		for i := range n {
			done(i, tiers.Total{}, err)
		}
		return
	}
	type answer struct {
		total tiers.Total
		err   error
		async bool
	}
	answers := make([]answer, n)
	async := false
	r.step(func(m *tiers.Machine, now limiter.Time) {
		for i := range answers {
			add, a := what(i), &answers[i]
			if add.Request == "" {
				a.total, a.err = m.Add(now, add.Name, add.Delta)
			} else {
				a.total, a.err = m.AddID(now, add.Name, add.Delta, add.Request)
			}
			a.async = m.Async(add.Name)
			async = async || a.async
		}
	}, func(err error) {
		for i := range answers {
			if a := &answers[i]; !a.async {
				done(i, a.total, errors.Join(a.err, err))
			}
		}
	})
	if !async {
		return
	}
	for i := range answers { // the step ran; a commit that fails ends the runner
		if a := &answers[i]; a.async {
			done(i, a.total, a.err)
		}
	}
}

// Get reads a total and the totals above; done is called once what was read
// is durable. Watched is as [tiers.Machine.Get] says.
func (r *Runner) Get(name tiers.Name, done func(total tiers.Total, views []tiers.View, watched bool, err error)) {
	var total tiers.Total
	var views []tiers.View
	var watched bool
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { total, views, watched, err = m.Get(now, name) },
		func(e error) { done(total, views, watched, errors.Join(err, e)) })
}

// List lists totals; done is called once what was read is durable.
func (r *Runner) List(namespace, prefix, after string, limit int, done func([]tiers.Listed, bool, error)) {
	var keys []tiers.Listed
	var more bool
	var err error
	r.step(func(m *tiers.Machine, _ limiter.Time) { keys, more, err = m.List(namespace, prefix, after, limit) },
		func(e error) { done(keys, more, errors.Join(err, e)) })
}

// Apply makes rules the world's, at its root; done is called once that is
// durable.
func (r *Runner) Apply(rules *limiter.Rules, done func(version uint64, err error)) {
	var version uint64
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { version, err = m.Apply(now, rules) },
		func(e error) { done(version, errors.Join(err, e)) })
}

// ApplyIf is Apply where the rules are still of a version, as
// [tiers.Machine.ApplyIf] says.
func (r *Runner) ApplyIf(expected uint64, rules *limiter.Rules, done func(version uint64, err error)) {
	var version uint64
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { version, err = m.ApplyIf(now, expected, rules) },
		func(e error) { done(version, errors.Join(err, e)) })
}

// follow notes which rules the machine follows.
func (r *Runner) follow() {
	if rules, _ := r.machine.Rules(); rules != r.rules.Load() {
		r.rules.Store(rules)
	}
}

// Current returns the rules that the place follows, without a lock.
func (r *Runner) Current() *limiter.Rules { return r.rules.Load() }

// Rules returns the rules that the place follows, and their version; 0: they
// are not the root's.
func (r *Runner) Rules() (*limiter.Rules, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Rules()
}

// Release gives a permit back; done is called with what [tiers.Machine.Release]
// said.
func (r *Runner) Release(name tiers.Name, serial uint64, done func(released bool, err error)) {
	var released bool
	r.atOnce(func(m *tiers.Machine, now limiter.Time) (err error) {
		released, err = m.Release(now, name, serial)
		return err
	}, func(err error) { done(released, err) })
}

// Renew begins the hold of a permit anew, as [tiers.Machine.Renew] says.
func (r *Runner) Renew(name tiers.Name, serial uint64, done func(renewed bool, err error)) {
	var renewed bool
	r.atOnce(func(m *tiers.Machine, now limiter.Time) (err error) {
		renewed, err = m.Renew(now, name, serial)
		return err
	}, func(err error) { done(renewed, err) })
}

// Refund takes back what checks spent, as [tiers.Machine.Refund] says.
func (r *Runner) Refund(name tiers.Name, hits int64, done func(refunded int64, err error)) {
	var refunded int64
	r.atOnce(func(m *tiers.Machine, now limiter.Time) (err error) {
		refunded, err = m.Refund(now, name, hits)
		return err
	}, func(err error) { done(refunded, err) })
}

// atOnce runs a step whose answer waits for no disk, as a check's does not:
// what it changes is in memory, and ends with it.
func (r *Runner) atOnce(f func(m *tiers.Machine, now limiter.Time) error, done func(error)) {
	ran := false
	var err error
	refused := make(chan error, 1)
	r.step(func(m *tiers.Machine, now limiter.Time) { ran, err = true, f(m, now) }, func(e error) { refused <- e })
	if !ran {
		err = <-refused
	}
	done(err)
}

// Reset fills a key's limits that the place owns; done is called once that is
// durable.
func (r *Runner) Reset(name tiers.Name, done func(error)) {
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { err = m.Reset(now, name) },
		func(e error) { done(errors.Join(err, e)) })
}

// World is the world that the place's store is of; 0: not known yet.
func (r *Runner) World() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.World()
}

// Children is [tiers.Machine.Children].
func (r *Runner) Children() []tiers.ChildState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Children(r.clock())
}

// Forget drops a child that left for good, as [tiers.Machine.Forget] says.
func (r *Runner) Forget(child tiers.Place, done func(error)) {
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { err = m.Forget(now, child) },
		func(e error) { done(errors.Join(err, e)) })
}

// Forfeit ends what a child was lent of budgets and quotas, as
// [tiers.Machine.Forfeit] says.
func (r *Runner) Forfeit(child tiers.Place, done func(lines int, err error)) {
	var lines int
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { lines, err = m.Forfeit(now, child) },
		func(e error) { done(lines, errors.Join(err, e)) })
}

// Figure says what is left of a key's limits whose disk was lost, as
// [tiers.Machine.Figure] says.
func (r *Runner) Figure(name tiers.Name, left int64, done func(error)) {
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { err = m.Figure(now, name, left) },
		func(e error) { done(errors.Join(err, e)) })
}

// Join makes the store a part of another world, as [tiers.Machine.Join] says.
func (r *Runner) Join(world uint64, force bool, done func(error)) {
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { err = m.Join(now, world, force) },
		func(e error) { done(errors.Join(err, e)) })
}

// Reported gives a child's report to the machine; reply gets the answer when
// the report is durable, and is not called where there is none.
func (r *Runner) Reported(report *tiers.Report, reply func(*tiers.Ack)) {
	full := r.store.Writable() != nil
	if full {
		// Counts wait; leases must not.
		lines := *report
		lines.Counts, lines.To = nil, report.From
		report = &lines
	}
	var ack *tiers.Ack
	r.step(func(m *tiers.Machine, now limiter.Time) {
		if ack = m.Reported(now, report); ack != nil && full {
			ack.Full, ack.Pause = true, max(ack.Pause, fullPause) // it would bring the same again
		}
	}, func(err error) {
		if err == nil && ack != nil {
			reply(ack)
		}
	})
}

// fullPause is how long a child waits whose counts could not be taken.
const fullPause = 100 * time.Millisecond

// Acknowledged gives the parent's answer to the machine.
func (r *Runner) Acknowledged(a *tiers.Ack) {
	r.step(func(m *tiers.Machine, now limiter.Time) { m.Acknowledged(now, a) }, nothing)
}

// Recalled gives the parent's recall to the machine.
func (r *Runner) Recalled(c *tiers.Recall) {
	r.step(func(m *tiers.Machine, now limiter.Time) { m.Recalled(now, c) }, nothing)
}

// Failed says that the report of that number could not be sent.
func (r *Runner) Failed(sequence uint64) {
	r.step(func(m *tiers.Machine, now limiter.Time) { m.Failed(now, sequence) }, nothing)
}

// Stop begins to end the session in good order: shares go back, and the rest
// is reported. Stopped says when that is done.
func (r *Runner) Stop() {
	r.step(func(m *tiers.Machine, now limiter.Time) { m.Stop(now) }, nothing)
}

// Stopped says that a stopping runner has told its parent all it had.
func (r *Runner) Stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken != nil || r.machine.Stopped()
}

// Close writes what a start after a good stop needs, and ends the runner.
func (r *Runner) Close() error {
	var err error
	for done := false; !done && err == nil; {
		closed := make(chan error, 1)
		r.run(func(m *tiers.Machine, now limiter.Time) { done = m.Close(now) }, true, func(err error) { closed <- err })
		err = <-closed
	}
	r.stop(ErrStopped)
	if errors.Is(err, ErrStopped) {
		return nil // it had stopped before
	}
	return err
}

// Kill ends the runner as a crash would: nothing more is said or written.
func (r *Runner) Kill() {
	r.mu.Lock()
	r.killed = true
	r.mu.Unlock()
	r.stop(ErrStopped)
}

// crashed is why nothing is said of a commit, though it is durable.
func (r *Runner) crashed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return r.broken
	}
	return nil
}

// SetMaxMessage says how many bytes a message between places may have, as
// [tiers.Machine.SetMaxMessage] says.
func (r *Runner) SetMaxMessage(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.machine.SetMaxMessage(bytes)
}

// NeedsMessage is [tiers.Machine.NeedsMessage].
func (r *Runner) NeedsMessage() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.NeedsMessage()
}

// Refused is [tiers.Machine.Refused].
func (r *Runner) Refused() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Refused()
}

// Stats returns the machine's figures.
func (r *Runner) Stats() tiers.Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Stats(r.clock())
}

// Inspect is Machine.Inspect.
func (r *Runner) Inspect(name tiers.Name, e *tiers.Explanation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Inspect(r.clock(), name, e)
}

// Explain is Machine.Explain; done is called once what was read is durable.
func (r *Runner) Explain(name tiers.Name, hits int64, done func(e tiers.Explanation, f tiers.Foreseen, awake bool, err error)) {
	var e tiers.Explanation
	var f tiers.Foreseen
	var awake bool
	var err error
	r.step(func(m *tiers.Machine, now limiter.Time) { f, awake, err = m.Explain(now, name, hits, &e) },
		func(failed error) { done(e, f, awake, errors.Join(err, failed)) })
}

// State says whether the place was fenced, and why it stopped, if it did.
func (r *Runner) State() (fenced bool, broken error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine.Fenced(), r.broken
}
