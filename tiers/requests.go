package tiers

import (
	"errors"
	"fmt"

	"github.com/tributary-io/tributary/limiter"
)

// This file remembers requests that carry an id, so that a retried one gets
// the first one's answer and is not carried out twice. What a request did and
// that it did it are one commit. It is remembered here and nowhere else, for
// the rule's dedupe window at least, by this place's running time: clocks that
// are set, and time while the place was down, make nobody forget.
//
// Records stand in slots, each a window long. Of the newest two all are read;
// the others are deleted in time (prune.go).

// ErrIDReused says that a request's id is another request's.
var ErrIDReused = errors.New("this id was used for another request")

// Async says that a namespace's adds are answered before they are durable.
func (m *Machine) Async(name Name) bool {
	s := m.spaces[name.Namespace]
	return s != nil && s.rule != nil && s.rule.Async
}

// ErrNoDedupe says that the namespace's rule remembers no ids.
var ErrNoDedupe = errors.New("the namespace remembers no request ids")

// MaxID is the longest id of a request, in bytes.
const MaxID = 128

// slots are a namespace's in this session.
type slots struct {
	newest int64
	since  limiter.Time
}

func slotsKey(namespace string) Key { return windowPrefix + Key(namespace) + "/requests" }

func requestKey(namespace string, slot int64, id string) Key {
	return requestPrefix + Key(fmt.Sprintf("%s/%016x/%s", namespace, slot, id))
}

// slotsOf brings a namespace's slots up to now.
func (m *Machine) slotsOf(now limiter.Time, s *space) *slots {
	window := s.rule.Dedupe
	if s.slots == nil {
		s.slots = &slots{since: now}
		if r, _ := m.read(slotsKey(s.name)).(*WindowRecord); r != nil {
			s.slots.newest = r.Begin
		}
	}
	if over := now.Sub(s.slots.since); over >= window {
		s.slots.newest += int64(min(over/window, 2))
		s.slots.since = now
		m.write(slotsKey(s.name), &WindowRecord{Begin: s.slots.newest})
	}
	return s.slots
}

// remembered finds the request of an id. Another one under the same id is an
// error.
func (m *Machine) remembered(now limiter.Time, s *space, id string, key string, add bool, hits int64) (*RequestRecord, error) {
	if s.rule.Dedupe <= 0 {
		return nil, ErrNoDedupe
	}
	newest := m.slotsOf(now, s).newest
	for _, slot := range []int64{newest, newest - 1} {
		k := requestKey(s.name, slot, id)
		r := m.answered[k]
		if r == nil {
			r, _ = m.read(k).(*RequestRecord)
		}
		if r != nil {
			if r.Key != key || r.Add != add || r.Hits != hits {
				return nil, ErrIDReused
			}
			return r, nil
		}
	}
	return nil, nil
}

// remember writes down what a request did.
func (m *Machine) remember(now limiter.Time, s *space, id string, r *RequestRecord) {
	r.Session = m.cfg.Session
	k := requestKey(s.name, m.slotsOf(now, s).newest, id)
	m.write(k, r)
	if m.answered == nil {
		m.answered = map[Key]*RequestRecord{}
	}
	m.answered[k] = r
}

// CheckID is Check for a request with an id. What it decides may leave only
// when the writes of the step's Output are durable. A retry that comes while
// the first still waits is decided with it, by the first one's deadline.
func (m *Machine) CheckID(now limiter.Time, name Name, hits int64, deadline limiter.Time, id uint64, request string) (d Decision, decided bool, err error) {
	s := m.spaces[name.Namespace]
	switch {
	case s == nil || s.rule == nil:
		return d, true, ErrUnknownNamespace
	case !m.cfg.Leaf:
		return d, true, ErrNotLeaf
	}
	r, err := m.remembered(now, s, request, name.Key, false, hits)
	switch {
	case err != nil:
		return d, true, err
	case r != nil:
		return r.Decision, true, nil
	}
	if first := m.underWay[requestID{s.name, request}]; first != nil {
		if first.name != name || first.hits != hits {
			return d, true, ErrIDReused
		}
		first.others = append(first.others, id) // it gets the same answer
		return d, false, nil
	}
	d, decided, err = m.Check(now, name, hits, deadline, id)
	switch {
	case err != nil:
	case !decided:
		if m.underWay == nil {
			m.underWay = map[requestID]*waitingRequest{}
			m.requests = map[uint64]requestID{}
		}
		m.underWay[requestID{s.name, request}] = &waitingRequest{name: name, hits: hits}
		m.requests[id] = requestID{s.name, request}
	case d.Allowed:
		m.rememberCheck(now, s, request, name.Key, hits, d)
	}
	return d, decided, err
}

// rememberCheck writes down a check that was allowed, and what it counts: no
// retry will.
func (m *Machine) rememberCheck(now limiter.Time, s *space, request, key string, hits int64, d Decision) {
	if d.Permit != 0 {
		d.Session = m.cfg.Session
	}
	m.remember(now, s, request, &RequestRecord{Key: key, Hits: hits, Decision: d})
	if o := s.objects[key]; o != nil {
		m.countUse(o)
	}
}

// A requestID is an id of a namespace's requests.
type requestID struct{ namespace, id string }

// A waitingRequest is a check with an id that waits, and the retries of it
// that came meanwhile.
type waitingRequest struct {
	name   Name
	hits   int64
	others []uint64
}

// carriedOut notes the decision on a check that waited.
func (m *Machine) carriedOut(now limiter.Time, id uint64, d *Decision) {
	request, waits := m.requests[id]
	m.out.Decided = append(m.out.Decided, Decided{id, *d, waits})
	if !waits {
		return
	}
	w := m.underWay[request]
	delete(m.requests, id)
	delete(m.underWay, request)
	if s := m.spaces[request.namespace]; d.Allowed && s.rule != nil && s.rule.Dedupe > 0 {
		m.rememberCheck(now, s, request.id, w.name.Key, w.hits, *d)
	}
	for _, other := range w.others {
		m.out.Decided = append(m.out.Decided, Decided{other, *d, true})
	}
}

// AddID is Add for a request with an id.
func (m *Machine) AddID(now limiter.Time, name Name, delta int64, request string) (Total, error) {
	s := m.spaces[name.Namespace]
	if s == nil || s.rule == nil {
		return Total{}, ErrUnknownNamespace
	}
	r, err := m.remembered(now, s, request, name.Key, true, delta)
	switch {
	case err != nil:
		return Total{}, err
	case r != nil:
		return r.Total, nil
	case m.underWay[requestID{s.name, request}] != nil: // of a check
		return Total{}, ErrIDReused
	}
	total, err := m.Add(now, name, delta)
	if err == nil {
		m.remember(now, s, request, &RequestRecord{Key: name.Key, Add: true, Hits: delta, Total: total})
	}
	return total, err
}
