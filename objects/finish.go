package objects

import "errors"

// Durability is when an operation's outcome leaves, and when its writes become durable. Whatever it is, the writes of
// all operations become durable in the order in which these ran: what a crash leaves is all up to some moment.
type Durability uint8

const (
	// Sync is what operations have that say nothing: the outcome leaves when everything that the operation wrote and
	// everything that it saw is durable, what Async and None operations wrote included.
	Sync Durability = iota
	// Async operations do not wait: their outcome leaves at once. Their writes are durable within Options.AsyncWithin,
	// or with any commit before; a crash loses them until then. If that commit fails, the store does.
	Async
	// None is Async without the interval: the writes are durable when anything else is that comes later, when a
	// megabyte has gathered, or at Close. An operation that sets an alarm is at least Async.
	None
)

// SetDurability says when the operation's outcome leaves; the last call counts. If an operation is called by another
// one, what it left pending holds back the outcome of that, if it is Sync.
func (tx *Tx) SetDurability(d Durability) { tx.durability = d }

// finish ends an operation that returned err: its writes are published or undone, and its object is freed. The results
// are Kind.run's.
func (s *Store) finish(tx *Tx, err error, done func(error)) (g *group, _ error) {
	if tx.ringing.due != 0 {
		tx.durability = Sync
	}
	o, d := tx.o, tx.durability
	wrote := !tx.w.empty()
	switch {
	case err == nil && (wrote || tx.alarm != nil):
		if g, err = s.write(tx, done); err == nil && tx.ringing.due != 0 {
			s.alarms.rung.Add(1)
		}
	case err == nil && len(tx.effects) > 0:
		g, err = s.commit.follow(tx, tx.saw(), done)
	}
	if err != nil {
		if err = tx.undo(err); tx.ringing.due != 0 {
			if later, failed := s.rearm(tx, err); failed == nil {
				g = later
			}
		}
	}
	if wrote || tx.woken >= 0 || !o.awake {
		s.weigh(o, tx.woken)
	}
	saw := tx.saw()
	var caller *frame
	if d != Sync {
		caller = frameOf(tx.ctx)
	}
	tx.release()
	s.unlock(o)
	switch {
	case g != nil || saw <= s.commit.durable.Load():
		return g, err
	case d != Sync:
		for ; caller != nil; caller = caller.parent {
			if caller.store == s {
				caller.depend(saw)
				break
			}
		}
		return nil, err
	}
	return s.commit.gate(saw, err, done)
}

// saw returns the last group that the operation saw, or wrote to.
func (tx *Tx) saw() uint64 {
	if tx.frame == nil {
		return tx.o.last
	}
	return max(tx.o.last, tx.frame.saw.Load())
}

// write publishes what the operation wrote. It returns the group if the outcome waits for it.
func (s *Store) write(tx *Tx, done func(error)) (*group, error) {
	if tx.puts && !tx.reserve {
		if err := s.Full(); err != nil {
			s.fulls.Add(1)
			return nil, err
		}
	}
	return s.commit.publish(tx, done)
}

// undo forgets a failed operation. The object's state is dropped, since the operation may have half-changed it, unless
// it refused cleanly; a state that was woken on writes that are now dropped must go all the same.
func (tx *Tx) undo(err error) error {
	tx.dropEffects()
	var refused *refusal
	if !errors.As(err, &refused) || tx.woken >= 0 && (!tx.w.empty() || tx.alarm != nil) {
		tx.o.awake, tx.o.state = false, nil
	}
	if err == error(refused) { //nolint:errorlint // one that was wrapped again keeps its wrapping
		return refused.err
	}
	return err
}
