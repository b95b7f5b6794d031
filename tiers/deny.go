package tiers

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file says why a check is denied. Several limits may deny one, and the
// answer speaks of one of them: the one that lets it pass last, since a caller
// that comes again when another does is denied once more. Where one of them
// never will, that is what the answer says; and where one of them cannot tell
// when it will, nobody can tell when the check passes.

// deny says why hits cannot be taken, "" if they can, and whether a share
// that comes may change that.
func (p *pool) deny(now limiter.Time, hits int64) (reason Reason, waits bool) {
	switch {
	case hits > p.limit.Burst:
		return ReasonBurst, false
	case !p.usable(now) && p.nextAt > now: // there is none to be had, says the lender
		return p.noMore(), p.nextAt != limiter.Never
	case !p.usable(now):
		return ReasonShare, !p.waits
	case hits <= p.bucket.Tokens():
		return "", false
	case p.nextAt == limiter.Never:
		return p.noMore(), false
	case p.limit.Kind == limiter.Concurrency:
		return ReasonLimit, true // others may release theirs
	case p.owner && p.limit.Kind == limiter.Budget && hits > p.promises(now):
		return ReasonSpent, false
	case hits > p.bucket.Capacity() || p.dry():
		return ReasonLimit, !p.owner
	}
	return ReasonLimit, hits <= p.promises(now)
}

// noMore is why a check is denied of which the lender has nothing more for now,
// or ever.
func (p *pool) noMore() Reason {
	if p.nextAt == limiter.Never && p.limit.Kind == limiter.Budget {
		return ReasonSpent
	}
	return ReasonLimit
}

// passes is when a limit that denies hits for a reason lets them pass, if
// nobody comes meanwhile; 0: that is not known; Never: it never does.
func (p *pool) passes(now limiter.Time, hits int64, reason Reason) limiter.Time {
	switch {
	case reason == ReasonBurst || reason == ReasonSpent:
		return limiter.Never
	case p.unconfirmed(): // when the parent has confirmed the place
		return 0
	case p.nextAt > now && p.dry(): // as the lender says, of as many as it was asked for
		if hits > p.nextFor && !p.limit.Durable() {
			return 0
		}
		return p.nextAt
	case p.owner && p.limit.Kind == limiter.Quota && (p.waits || hits > p.whole()):
		return now.Add(p.untilMore(now))
	case !p.usable(now):
		return 0
	case p.owner && p.limit.Durable(): // the disk has it, and it comes in a moment
		return now
	}
	if at, ok := p.bucket.Until(hits); ok {
		return at
	}
	return 0
}

// A refusal is what a denied check is told.
type refusal struct {
	by     *pool // nil: nothing denies it
	reason Reason
	at     limiter.Time // it passes then, if nobody comes meanwhile; 0: not known; Never: never
	verdict
}

// refuse finds which of the limits, that are up to now, refuses hits the
// longest. A soft one whose share is away lets them pass, after a wait: it is
// spoken of only where nothing else is in the way, and not if this is the last
// word.
func refuse(pools []*pool, now limiter.Time, hits int64, last bool) refusal {
	hopeful := refusal{verdict: verdict{waits: true}}
	hard, soft := hopeful, hopeful
	for _, p := range pools {
		reason, waits := p.deny(now, hits)
		switch {
		case reason == "":
		case !p.opens(now, hits):
			hard.add(p, now, hits, reason, waits)
		case !last:
			soft.add(p, now, hits, reason, waits)
		}
	}
	if hard.by == nil {
		return soft
	}
	hard.waits = hard.waits && soft.waits
	hard.soonest = max(hard.soonest, soft.soonest)
	return hard
}

// add weighs what one more limit refuses.
func (r *refusal) add(p *pool, now limiter.Time, hits int64, reason Reason, waits bool) {
	at := p.passes(now, hits, reason)
	r.waits = r.waits && waits
	if r.soonest = max(r.soonest, at); at == 0 && !waits {
		r.soonest = limiter.Never
	}
	switch was := r.by; {
	case was == nil:
	case order(at) != order(r.at):
		if order(at) < order(r.at) {
			return
		}
	case reason != r.reason: // both never, or nobody knows
		if reason > r.reason {
			return
		}
	case !p.nearer(was, now):
		return
	}
	r.by, r.reason, r.at, r.written = p, reason, at, at == now
}

// order makes times that limits let a check pass comparable: one that is not
// known is later than any that is, and earlier than never.
func order(at limiter.Time) uint64 {
	if at == 0 {
		return uint64(limiter.Never) - 1
	}
	return uint64(at)
}

// describe says in d what is refused.
func (r *refusal) describe(now limiter.Time, d *Decision) {
	r.by.describe(now, d)
	d.Reason = r.reason
	if r.at > now && r.at != limiter.Never {
		d.RetryAfter = r.at.Sub(now)
	}
}

// nearestOf finds the limit that has the least remaining here.
func nearestOf(pools []*pool, now limiter.Time) *pool {
	nearest := pools[0]
	for _, p := range pools[1:] {
		if p.nearer(nearest, now) {
			nearest = p
		}
	}
	return nearest
}

// nearer says that an answer that may speak of either limit speaks of p: it has
// less remaining here, or stands first in an order that is not that of the rules.
func (p *pool) nearer(o *pool, now limiter.Time) bool {
	if left, least := p.remaining(now), o.remaining(now); left != least {
		return left < least
	}
	return before(p.limit, o.limit)
}

// before is an order of limits that does not hang on how they stand in the rules.
func before(a, b *limiter.Limit) bool {
	switch {
	case a.Scope != b.Scope:
		return a.Scope < b.Scope
	case a.Kind != b.Kind:
		return a.Kind < b.Kind
	case a.Burst != b.Burst:
		return a.Burst < b.Burst
	case a.Rate != b.Rate:
		return a.Rate < b.Rate
	}
	return a.ID < b.ID
}

// remaining is what this place can admit now without asking.
func (p *pool) remaining(now limiter.Time) int64 {
	switch {
	case p.usable(now):
		return p.whole()
	case p.spare != nil:
		return p.spare.Tokens()
	}
	return 0
}

// describe says in d what the pool's limit is, and what is left of it here.
func (p *pool) describe(now limiter.Time, d *Decision) {
	d.Limited, d.Scope, d.Kind, d.Limit = true, p.limit.Scope, p.limit.Kind, p.limit.Figure()
	d.Remaining, d.Reset = p.remaining(now), 0
	if p.usable(now) {
		if at, ok := p.bucket.Until(p.bucket.Capacity()); ok {
			d.Reset = max(0, at.Sub(now))
		}
	}
	if p.limit.Kind == limiter.Quota {
		d.Reset = p.untilNext(now)
	}
}

// untilNext is how long it takes until a quota that something is spent of is
// whole again; 0: it is, or not known.
func (p *pool) untilNext(now limiter.Time) time.Duration {
	switch {
	case p.owner && p.whole() < p.limit.Burst:
		return p.untilMore(now)
	case !p.owner && p.nextAt > now && p.nextAt != limiter.Never:
		return p.nextAt.Sub(now) // all is spent, says the owner
	}
	return 0
}
