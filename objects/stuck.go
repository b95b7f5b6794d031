package objects

import (
	"fmt"
	"time"
)

// The watch marks objects whose operation does not return. It costs operations nothing: the turn counts itself, and
// the order of use says which objects can have begun one since the last look. An object that is met in a turn is a
// suspect until the turn is free; once it was met StuckAfter long in the same one, it is marked. So a mark comes
// between StuckAfter and one and a half times that.

type suspect struct {
	turn  uint32
	since time.Time
}

func (s *Store) watch() {
	defer s.watching.Done()
	look := time.NewTicker(max(s.opts.StuckAfter/4, 1))
	defer look.Stop()
	suspects := map[*object]suspect{}
	for {
		select {
		case <-s.unwatch:
			return
		case <-look.C:
		}
		for i := range s.shards {
			s.shards[i].suspect(suspects)
		}
		now := time.Now()
		for o, was := range suspects {
			number, taken := o.turn.running()
			switch {
			case !taken:
				delete(suspects, o)
			case was.since.IsZero() || number != was.turn:
				suspects[o] = suspect{number, now}
			case now.Sub(was.since) >= s.opts.StuckAfter && o.turn.mark(number):
				s.stuck.Add(1)
				s.tellStuck(o, true)
			}
		}
	}
}

// suspect adds the objects that are in a turn and were used in this tick or the last.
func (sh *shard) suspect(all map[*object]suspect) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for o := sh.ring.older; o != nil && o != &sh.ring && o.used+1 >= sh.tick; o = o.older {
		if _, taken := o.turn.running(); taken {
			if _, known := all[o]; !known {
				all[o] = suspect{}
			}
		}
	}
	sh.tick++
}

func (s *Store) tellStuck(o *object, stuck bool) {
	if f := s.opts.Events.OnStuck; f != nil {
		f(o.kind.name, o.name, stuck)
	}
}

// unlock ends an operation's turn.
func (s *Store) unlock(o *object) {
	if o.turn.unlock() {
		s.stuck.Add(-1)
		s.tellStuck(o, false)
	}
}

// stuckError says which object it is, and how many more there are.
func stuckError(o *object, more int) error {
	if more > 0 {
		return fmt.Errorf("%w: %s %.40q, and %d more", ErrStuck, o.kind.name, o.name, more)
	}
	return fmt.Errorf("%w: %s %.40q", ErrStuck, o.kind.name, o.name)
}
