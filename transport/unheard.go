package transport

import (
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A check that waited may be allowed when its asker has long given up. The permit that it got would belong to nobody
// until its hold is over, and keep others out. So such an answer is sent like a request, with a subject for replies: an
// asker sends none, but where nobody listens any more the NATS server says so there, and the permit is released.

// unheard are answers that the NATS server may yet say of that nobody heard them.
type unheard struct {
	mu     sync.Mutex
	sub    *nats.Subscription
	prefix string
	undo   map[string]func()
	last   uint64
}

// unheardFor is how long the NATS server has to say so: it does at once, but the connection may be away.
const unheardFor = 30 * time.Second

// maxUnheard bounds the answers that are remembered: beyond, permits end with their holds.
const maxUnheard = MaxInFlight

// listenForUnheard hears what the NATS server says of answers.
func (s *Service) listenForUnheard() (err error) {
	u := &s.unheard
	inbox := s.nc.NewInbox()
	u.prefix, u.undo = inbox+".", map[string]func(){}
	u.sub, err = s.nc.Subscribe(inbox+".*", func(msg *nats.Msg) {
		if undo := u.take(msg.Subject); undo != nil && nobodyListened(msg) {
			undo()
		}
	})
	return err
}

// remember returns the subject on which the server is to say that an answer was not heard.
func (u *unheard) remember(undo func()) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.undo) >= maxUnheard {
		return ""
	}
	u.last++
	subject := u.prefix + strconv.FormatUint(u.last, 36)
	u.undo[subject] = undo
	time.AfterFunc(unheardFor, func() { u.take(subject) })
	return subject
}

// take forgets an answer, and returns how to undo it.
func (u *unheard) take(subject string) func() {
	u.mu.Lock()
	defer u.mu.Unlock()
	undo := u.undo[subject]
	delete(u.undo, subject)
	return undo
}

// returnTo is where the server is to say that nobody heard the answer, or empty if that does not matter.
func (m *message[Q, R]) returnTo() string {
	for i := range m.slots {
		if m.slots[i].holds() {
			return m.endpoint.svc.unheard.remember(m.undo)
		}
	}
	return ""
}

// holdsPermit says that a check was given a permit that nobody else has. One with an id may be asked again, and is
// answered with the same permit then.
func holdsPermit(q *CheckRequest, r *CheckReply) bool { return r.Permit != "" && q.ID == "" }

// takeBack releases the permit of a check whose answer nobody gets.
func (s *Service) takeBack(q *CheckRequest, r *CheckReply) {
	release := s.endpoints[VerbRelease].gate
	if release.enter(1) != nil { // the place stops, and its permits end with it
		return
	}
	s.backend.Release(ReleaseRequest{Namespace: q.Namespace, Key: q.Key, Permit: r.Permit},
		func(ReleaseReply, *Error) { release.leave(1) })
}
