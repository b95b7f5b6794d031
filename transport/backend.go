package transport

import (
	"cmp"
	"errors"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// backend is a place as its service sees it.
type backend struct{ *Place }

func (b backend) Ready() *Error {
	fenced, broken := b.runner.State()
	switch {
	case fenced:
		return ErrFenced.Errorf("a newer process serves %s", b.cfg.Place)
	case b.draining.Load():
		return ErrDraining.Errorf("%s is stopping", b.cfg.Place)
	case broken != nil:
		return ErrStorage.Errorf("%s has stopped and will be started again: %v", b.cfg.Place, b.Err()).After(time.Second)
	}
	return nil // also while its parent cannot be reached
}

func (b backend) Check(req CheckRequest, done func(CheckReply, *Error)) {
	name := tiers.Name{Namespace: req.Namespace, Key: req.Key}
	answer := func(d tiers.Decision, err error) {
		if err != nil {
			done(CheckReply{}, b.idError(req.Namespace, req.ID, err))
			return
		}
		b.metrics.denied(&d)
		reply := CheckReply{Allowed: d.Allowed, Place: string(b.cfg.Place)}
		if d.Limited {
			reply.Reason, reply.Scope = string(d.Reason), d.Scope.String()
			reply.Limit, reply.Remaining, reply.RetryAfter, reply.Reset = d.Limit, d.Remaining, d.RetryAfter, d.Reset
			reply.Shadow = d.Shadow
			if d.Kind != limiter.Rate {
				reply.Kind = d.Kind.String()
			}
			if d.Permit != 0 {
				reply.Permit, reply.Hold = permit{string(b.cfg.Place), cmp.Or(d.Session, b.session), d.Permit}.String(), d.Hold
			}
		}
		done(reply, nil)
	}
	if req.ID != "" {
		b.runner.CheckID(name, req.Hits, b.wait(req), req.ID, answer)
		return
	}
	b.runner.Check(name, req.Hits, b.wait(req), answer)
}

// wait is how long a check may wait: what it says, or its rule, or [DefaultWait].
func (b backend) wait(req CheckRequest) time.Duration {
	wait := req.Wait
	if wait == RuleWait {
		wait = DefaultWait
		if rule := b.runner.Current().Rule(req.Namespace); rule != nil && rule.Wait >= 0 {
			wait = rule.Wait
		}
	}
	if req.Timeout > 0 {
		wait = min(wait, placeWaits(req.Timeout))
	}
	return wait
}

// placeWaits is how long a place lets a check wait whose asker waits so long: its answer has to travel.
func placeWaits(timeout time.Duration) time.Duration {
	return timeout - min(timeout/10, 250*time.Millisecond)
}

func (b backend) Release(req ReleaseRequest, done func(ReleaseReply, *Error)) {
	reply := ReleaseReply{Renew: req.Renew, Place: string(b.cfg.Place)}
	p, refused := parsePermit(req.Permit)
	if refused != nil || p.place != string(b.cfg.Place) || p.session != b.session {
		done(reply, refused) // gone with its session, and a retry would not bring it back
		return
	}
	step := b.runner.Release
	if req.Renew {
		step = b.runner.Renew
	}
	step(tiers.Name{Namespace: req.Namespace, Key: req.Key}, p.serial, func(ok bool, err error) {
		if err != nil {
			done(ReleaseReply{}, b.wireError(err))
			return
		}
		reply.Done = ok
		done(reply, nil)
	})
}

func (b backend) Refund(req RefundRequest, done func(RefundReply, *Error)) {
	b.runner.Refund(tiers.Name{Namespace: req.Namespace, Key: req.Key}, req.Hits, func(refunded int64, err error) {
		if err != nil {
			done(RefundReply{}, b.wireError(err))
			return
		}
		done(RefundReply{Refunded: refunded, Place: string(b.cfg.Place)}, nil)
	})
}

func (b backend) Add(n int, req func(i int) *AddRequest, done func(i int, r AddReply, err *Error)) {
	b.runner.Add(n, func(i int) place.Add {
		r := req(i)
		return place.Add{Name: tiers.Name{Namespace: r.Namespace, Key: r.Key}, Delta: r.Delta, Request: r.ID}
	}, func(i int, t tiers.Total, err error) {
		if err != nil {
			done(i, AddReply{}, b.idError(req(i).Namespace, req(i).ID, err))
			return
		}
		done(i, AddReply{Total: Total(t), Place: string(b.cfg.Place)}, nil)
	})
}

func (b backend) Get(req GetRequest, done func(GetReply, *Error)) {
	b.runner.Get(tiers.Name{Namespace: req.Namespace, Key: req.Key}, func(t tiers.Total, views []tiers.View, watched bool, err error) {
		if err != nil {
			done(GetReply{}, b.wireError(err))
			return
		}
		reply := GetReply{Place: string(b.cfg.Place), Total: Total(t), Unwatched: !watched}
		now := time.Now()
		for _, v := range views {
			if v.Age < 0 {
				continue // nothing is known of it yet
			}
			reply.Views = append(reply.Views, View{Place: string(v.Place), Total: Total(v.Total), Through: now.Add(-v.Age), Age: v.Age, Behind: v.Behind})
		}
		done(reply, nil)
	})
}

func (b backend) List(req ListRequest, done func(ListReply, *Error)) {
	b.runner.List(req.Namespace, req.Prefix, req.After, req.Limit, func(keys []tiers.Listed, more bool, err error) {
		if err != nil {
			done(ListReply{}, b.wireError(err))
			return
		}
		reply := ListReply{Place: string(b.cfg.Place), More: more, Keys: make([]KeyTotal, 0, len(keys))}
		for _, k := range keys {
			reply.Keys = append(reply.Keys, KeyTotal{Key: k.Key, Total: Total(k.Total)})
		}
		done(reply, nil)
	})
}

// idError says what failed of a request that may have an id.
func (b backend) idError(namespace, id string, err error) *Error {
	switch {
	case errors.Is(err, tiers.ErrNoDedupe):
		return ErrUnsupportedID.Errorf("id %s: the rule of %s remembers no ids; give it for example dedupe: 1h, or leave the id out", quote(id), namespace)
	case errors.Is(err, tiers.ErrIDReused):
		return ErrIDReused.Errorf("id %s was another request's, with another verb, key, hits or delta: give each request of %s an id of its own", quote(id), namespace)
	}
	return b.wireError(err)
}

// wireError says what failed as the caller is told.
func (b backend) wireError(err error) *Error {
	switch {
	case errors.Is(err, tiers.ErrUnknownNamespace):
		return ErrUnknownNamespace.Errorf("no rule names this namespace at %s: add it to the rules file", b.cfg.Place)
	case errors.Is(err, tiers.ErrLimited):
		return ErrNotCounted.Errorf("a namespace with limits is not counted: use check, give its rule count: true, or use a namespace without limits")
	case errors.Is(err, tiers.ErrNotLeaf):
		return ErrNotServed.Errorf("%s is no leaf: ask a city", b.cfg.Place)
	case errors.Is(err, tiers.ErrTotalRange):
		return ErrOutOfRange.Errorf("this add would take the key's total at %s past 2^53-1", b.cfg.Place)
	case errors.Is(err, objects.ErrOverloaded):
		return ErrOverloaded.Errorf("too much waits for the disk of %s", b.cfg.Place).After(retryAfter)
	case errors.Is(err, objects.ErrFull):
		return ErrStorage.Errorf("the disk of %s is full: %v", b.cfg.Place, err).After(time.Second)
	case errors.Is(err, place.ErrStopped):
		if ready := b.Ready(); ready != nil {
			return ready
		}
		return ErrNotReady.Errorf("%s is starting again", b.cfg.Place).After(time.Second)
	}
	return ErrStorage.Errorf("%s: %v", b.cfg.Place, err).After(time.Second)
}
