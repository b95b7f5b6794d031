package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// VerbExplain is the admin verb that says what a place knows of a key's limits.
const VerbExplain Verb = "admin.explain"

// maxExplained is the most lines that an explanation shows of one limit, unless one child is named; fewer where they do
// not fit an answer. Its Children says how many there are.
const maxExplained = 100

// ExplainRequest asks what a place knows of a key's limits, and at a city how a check would be answered.
type ExplainRequest struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
	// Hits are those of the check, which is not carried out; nil: [DefaultHits].
	Hits *int64 `json:"hits,omitzero"`
	// Child, if not empty, is the one whose lines are shown.
	Child string `json:"child,omitzero"`
}

// ExplainReply is what one place knows of a key's limits.
type ExplainReply struct {
	Place   string                `json:"place"`
	Version uint64                `json:"version"` // of the rules; 0: they are not the root's
	Rule    limiter.NamespaceSpec `json:"rule"`
	// Awake says that the key was in memory. One that was not has full buckets, or what the disk says; shares it has none.
	Awake bool `json:"awake"`
	// Verdict is how a check would be answered; nil where the place is no city.
	Verdict *Verdict `json:"verdict,omitzero"`
	// Unconfirmed says that the parent has not confirmed since the place started that its disk is the place's last: until
	// then it owns and borrows nothing. Refused is why the parent takes no reports; Fenced, that a newer process of the
	// place runs.
	Unconfirmed bool               `json:"unconfirmed,omitzero"`
	Refused     string             `json:"refused,omitzero"`
	Fenced      bool               `json:"fenced,omitzero"`
	Limits      []LimitExplanation `json:"limits"` // in the order of the rule, but for those that are owned below
}

// shorter shows at most half as many lines of each limit.
func (r ExplainReply) shorter() (ExplainReply, bool) {
	most := 0
	for _, l := range r.Limits {
		most = max(most, len(l.Lines))
	}
	r.Limits = slices.Clone(r.Limits)
	for i := range r.Limits {
		l := &r.Limits[i]
		l.Lines = l.Lines[:min(len(l.Lines), most/2)]
	}
	return r, most > 0
}

// A Verdict is how a check would be answered that does not wait.
type Verdict struct {
	Hits    int64 `json:"hits"`
	Allowed bool  `json:"allowed"`
	Shadow  bool  `json:"shadow,omitzero"`
	// Reason is why it is denied, as in a [CheckReply]; Waits says that it would wait for what may come first.
	Reason string `json:"reason,omitzero"`
	Waits  bool   `json:"waits,omitzero"`
	// Limit is the one of the reply's Limits that denies, or is nearest to it.
	Limit        int   `json:"limit"`
	Remaining    int64 `json:"remaining"`
	RetryAfterMS int64 `json:"retry_after_ms,omitzero"` // 0: not known
}

// A LimitExplanation is one limit of a key at one place.
type LimitExplanation struct {
	Limit    string `json:"limit"` // such as "global rate 1000/s burst 2000"
	Owner    string `json:"owner"` // the place that owns it
	PeriodMS int64  `json:"period_ms,omitzero"`
	// Holds is what the place has of the limit, lent out or not; Here what of it is here, in tokens too.
	Holds ShareFigures `json:"holds"`
	Here  ShareFigures `json:"here"`
	// Borrowed is the line that the place holds; nil: none, or it is the owner.
	Borrowed *BorrowedLine `json:"borrowed,omitzero"`
	Demand   DemandFigures `json:"demand"`
	Lines    []LentLine    `json:"lines,omitempty"` // to children
	Children int           `json:"children,omitzero"`
	Recall   *RecallNote   `json:"recall,omitzero"` // the last one
	// Out are permits that are out, and those of lines that ended, which come back when their hold is over.
	Out     int64 `json:"out,omitzero"`
	Waiting int   `json:"waiting,omitzero"` // checks
	Pooled  bool  `json:"pooled,omitzero"`  // it is too little to be divided: whole tokens are lent to those that ask
	// SilentMS is how long an owner lends nothing yet, after a crash. NeedsReset: it lost its disk, and waits for an
	// operator. MoreMS is when the lender could have more; Spent says that it never will.
	SilentMS   int64     `json:"silent_ms,omitzero"`
	NeedsReset bool      `json:"needs_reset,omitzero"`
	MoreMS     int64     `json:"more_ms,omitzero"`
	Spent      bool      `json:"spent,omitzero"`
	Window     time.Time `json:"window,omitzero"` // of a quota: when it began
}

// ShareFigures are a part of a limit.
type ShareFigures struct {
	Tokens   int64 `json:"tokens"`
	Capacity int64 `json:"capacity"`
	Rate     int64 `json:"rate"` // per period
}

// KeepFigures are what a lender wants a borrower to keep.
type KeepFigures struct {
	Capacity int64 `json:"capacity"`
	Rate     int64 `json:"rate"`
}

// DemandFigures are what is asked for at and below a place: now and lately, per period, and tokens that checks wait for.
type DemandFigures struct {
	Now  int64 `json:"now"`
	Peak int64 `json:"peak"`
	Ask  int64 `json:"ask"`
}

// A BorrowedLine is a line as the place sees it that holds it.
type BorrowedLine struct {
	LeaseMS int64        `json:"lease_ms"` // what is left of it; 0: it is over
	Ended   bool         `json:"ended,omitzero"`
	Keep    *KeepFigures `json:"keep,omitzero"` // nil: all
}

// A LentLine is a line as the place sees it that lends it.
type LentLine struct {
	Child    string        `json:"child"`
	Session  string        `json:"session"`
	Lent     ShareFigures  `json:"lent"` // less what was returned; tokens as they were lent
	LeaseMS  int64         `json:"lease_ms"`
	Demand   DemandFigures `json:"demand"`
	Keep     *KeepFigures  `json:"keep,omitzero"`     // nil: all
	Recalled bool          `json:"recalled,omitzero"` // a recall is under way
}

// A RecallNote is the last recall that came from the parent.
type RecallNote struct {
	AgoMS int64        `json:"ago_ms"`
	Count uint64       `json:"count"`         // since the key woke
	Keep  *KeepFigures `json:"keep,omitzero"` // nil: it said that there is more to be had
}

// Explain is [Admin.Explain].
func (b backend) Explain(q ExplainRequest, done func(ExplainReply, *Error)) {
	hits := int64(DefaultHits)
	if q.Hits != nil {
		hits = *q.Hits
	}
	if err := either(checkName(q.Namespace, q.Key), checkRange("hits", hits, 0, MaxInteger)); err != nil {
		done(ExplainReply{}, err)
		return
	}
	name := tiers.Name{Namespace: q.Namespace, Key: q.Key}
	b.runner.Explain(name, hits, func(e tiers.Explanation, f tiers.Foreseen, awake bool, err error) {
		if err != nil {
			done(ExplainReply{}, b.wireError(err))
			return
		}
		r := ExplainReply{
			Place: string(e.Place), Version: e.Version, Rule: b.runner.Current().Spec().Namespaces[q.Namespace], Awake: awake,
			Unconfirmed: !e.Judged, Refused: e.Refused, Fenced: e.Fenced, Limits: []LimitExplanation{},
		}
		for i := range e.Limits {
			r.Limits = append(r.Limits, explainLimit(&e, &e.Limits[i], q.Child))
		}
		if b.cfg.Leaf {
			d := &f.Decision
			r.Verdict = &Verdict{
				Hits: hits, Allowed: d.Allowed, Shadow: d.Shadow, Reason: string(d.Reason), Waits: f.Waits,
				Limit: f.Limit, Remaining: d.Remaining, RetryAfterMS: milliseconds(d.RetryAfter),
			}
		}
		done(r, nil)
	})
}

// explainLimit is a limit as it travels, with the lines of one child, or of the first.
func explainLimit(e *tiers.Explanation, s *tiers.LimitState, child string) LimitExplanation {
	left := func(until limiter.Time) int64 { return milliseconds(max(0, until.Sub(e.Now))) }
	x := LimitExplanation{
		Limit: s.Limit.String(), Owner: string(e.Place.Ancestor(int(s.Limit.Scope))),
		Holds: figures(s.Limit, s.Holding), Here: figures(s.Limit, s.Bucket), Demand: demandFigures(s.Limit, s.Demand),
		Out: s.Frozen, Waiting: s.Waiting, Pooled: s.Pooled, NeedsReset: s.Waits, Spent: s.Next == limiter.Never,
	}
	x.Here.Tokens += s.Stored
	if s.Limit.Kind == limiter.Rate {
		x.PeriodMS = s.Limit.Written.Milliseconds()
	}
	if s.Owner {
		x.Owner, x.SilentMS = string(e.Place), left(s.Quiet)
	}
	if s.Next > e.Now && s.Next != limiter.Never {
		x.MoreMS = left(s.Next)
	}
	if s.Limit.Kind == limiter.Quota && s.Window != 0 {
		x.Window = time.Unix(s.Window, 0).UTC()
	}
	if s.Held != nil {
		x.Borrowed = &BorrowedLine{LeaseMS: left(s.Held.Expires), Ended: s.Held.Ended, Keep: keepFigures(s.Limit, s.Held.Keep)}
	}
	if s.Recalls > 0 {
		x.Recall = &RecallNote{AgoMS: milliseconds(e.Now.Sub(s.Recalled)), Count: s.Recalls, Keep: keepFigures(s.Limit, s.Recall)}
	}
	x.Children = len(s.Lines)
	for _, l := range s.Lines {
		if child != "" && string(l.Child) != child || len(x.Lines) == maxExplained {
			continue
		}
		x.Lines = append(x.Lines, LentLine{
			Child: string(l.Child), Session: fmt.Sprintf("%016x", l.Session), Lent: figures(s.Limit, l.Lent.Minus(l.Returned)),
			LeaseMS: left(l.Expires), Demand: demandFigures(s.Limit, l.Demand), Keep: keepFigures(s.Limit, l.Keep), Recalled: l.Called,
		})
	}
	return x
}

// figures says a share of a limit with its rate in the unit that the limit is written in, as its demand is.
func figures(l *limiter.Limit, s limiter.Share) ShareFigures {
	return ShareFigures{Tokens: s.Tokens, Capacity: s.Capacity, Rate: l.InWritten(s.Rate)}
}

func demandFigures(l *limiter.Limit, d tiers.Demand) DemandFigures {
	return DemandFigures{Now: l.InWritten(d.Now), Peak: l.InWritten(d.Peak), Ask: d.Ask}
}

func keepFigures(l *limiter.Limit, k tiers.Keep) *KeepFigures {
	if k.All {
		return nil
	}
	return &KeepFigures{Capacity: k.Capacity, Rate: l.InWritten(k.Rate)}
}

// An Explanation is what the places from one up to the root know of a key's limits.
type Explanation struct {
	Namespace string             `json:"namespace"`
	Key       string             `json:"key"`
	Hits      int64              `json:"hits"`
	Path      []PlaceExplanation `json:"path"` // the place that was asked first, the root last
}

// A PlaceExplanation is what one of them answered; where it did not, the reply is nil, and Unanswered says why.
type PlaceExplanation struct {
	Place string `json:"place"`
	*ExplainReply
	Unanswered string `json:"unanswered,omitzero"`
}

// MarshalJSON is what tributary explain --json prints.
func (e Explanation) MarshalJSON() ([]byte, error) {
	type plain Explanation
	return json.Marshal(plain(e), json.Deterministic(true))
}

// Explain asks the client's place, which [WithPlace] must name, what it knows of a key's limits and how a check of so many
// hits would be answered; and the places above it, each for what it lends to the one below. One of those that does not
// answer is marked. No check is carried out.
func (c *Client) Explain(ctx context.Context, namespace, key string, hits int64) (Explanation, error) {
	e := Explanation{Namespace: namespace, Key: key, Hits: hits}
	if c.place == "" {
		return e, ErrOutOfRange.Errorf("no place is named: what there is to explain differs from place to place; say which, by WithPlace")
	}
	if err := either(checkName(namespace, key), checkRange("hits", hits, 0, MaxInteger)); err != nil {
		return e, err
	}
	var places []string
	for p := tiers.Place(c.place); p != ""; p = p.Parent() {
		places = append(places, string(p))
	}
	e.Path = make([]PlaceExplanation, len(places))
	failures := make([]error, len(places))
	var asked sync.WaitGroup
	for i, place := range places {
		q := ExplainRequest{Namespace: namespace, Key: key, Hits: &hits}
		if i > 0 {
			q.Child = places[i-1]
		}
		asked.Go(func() {
			at := *c
			at.place = place
			reply, err := admin[ExplainRequest, ExplainReply](ctx, &at, VerbExplain, q)
			e.Path[i].Place, e.Path[i].ExplainReply, failures[i] = place, &reply, err
		})
	}
	asked.Wait()
	for i, err := range failures {
		switch {
		case err == nil:
		case i == 0:
			return e, err
		default:
			e.Path[i].ExplainReply, e.Path[i].Unanswered = nil, err.Error()
			if refused, ok := errors.AsType[*Error](err); ok {
				e.Path[i].Unanswered = refused.Message
			}
		}
	}
	return e, nil
}
