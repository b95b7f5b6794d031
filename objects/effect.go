package objects

// maxUnwanted is how many effects a group may gather that nobody waits for, before it is committed for their sake.
const maxUnwanted = MaxPending / 16

// OnDurable gives the operation an effect, such as a message: f is called once, when everything that the operation
// wrote and everything that it saw is durable, and never if the operation fails, or the store does before. The effects
// of one object come in the order of its operations, and of their calls to OnDurable.
//
// The effects of a Sync operation come before Do returns, or Submit's done is called. Those of an Async or None
// operation come later than that, whenever what it wrote and saw becomes durable: they hurry no commit. A crash before
// then takes them along with the operation; one that comes after, but before f was called, leaves the operation without
// its effect. So an effect comes at most once; what must come at least once is an alarm's to do (SetAlarm).
//
// f runs like Submit's done: in the committer's goroutine, or in the operation's own, still in the object's turn, if
// all is durable already. Others wait meanwhile, so it must be quick, and must not wait for an object or for Close; if
// it panics, the store fails. Until it has run, it counts as an operation that waits (MaxPending).
func (tx *Tx) OnDurable(f func()) {
	if tx.o == nil {
		panic(errTxDone)
	}
	tx.effects = append(tx.effects, func(err error) {
		if err == nil {
			f()
		}
	})
}

// attach makes the group tell effects, in their place among all that it tells. mu is held.
func (c *committer) attach(g *group, effects []func(error)) {
	g.waiters = append(g.waiters, effects...)
	g.members += len(effects)
	c.pending.Add(int64(len(effects)))
	if g.members > maxUnwanted && !g.wanted {
		g.wanted = true
		c.offer()
	}
}

// follow takes care of the effects of an operation that wrote nothing, and saw the group num. The caller has the
// object's turn. The result is publish's.
func (c *committer) follow(tx *Tx, num uint64, done func(error)) (*group, error) {
	c.mu.Lock()
	g, err := c.undurable(num)
	if g != nil {
		tx.o.last = max(tx.o.last, num) // or later effects would be called before these
		c.attach(g, tx.effects)
		if tx.durability == Sync {
			c.add(g, done)
		}
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		return nil, c.broken(err)
	case g != nil && tx.durability == Sync:
		return g, nil
	case g != nil:
		return nil, nil
	}
	if num > c.told.Load() { // those who waited for it are being told, and the object's earlier effects are among them
		c.telling.Lock()
		c.telling.Unlock() //nolint:staticcheck // whoever had it is done with them
	}
	for _, f := range tx.effects {
		c.call(f, nil)
	}
	return nil, nil
}

func (tx *Tx) dropEffects() {
	clear(tx.effects)
	if tx.effects = tx.effects[:0]; cap(tx.effects) > 16 {
		tx.effects = nil
	}
}
