package transport

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-io/tributary/tiers"
)

// This file serves what operators ask of a place: one request in a message, JSON both ways, on the place's own subject.
// It happens seldom, so reflection reads and writes it.

// adminVerbs are the verbs that operators ask a place for.
var adminVerbs = []Verb{VerbRules, VerbReset, VerbExplain, VerbPlaces, VerbForget, VerbForfeit, VerbJoin, VerbBackup, VerbStats}

// Admin is what a place does for its operator. Each method calls done once, from any goroutine.
type Admin interface {
	// Rules reads the rules that the place follows, or at the root applies new ones.
	Rules(q RulesRequest, done func(RulesReply, *Error))
	// Reset fills a key's limits again that the place owns.
	Reset(q ResetRequest, done func(ResetReply, *Error))
	// Explain says what the place knows of a key's limits.
	Explain(q ExplainRequest, done func(ExplainReply, *Error))
	// Places says what the place knows of those below it.
	Places(q PlacesRequest, done func(PlacesReply, *Error))
	// Forget drops a place below that left for good, and keeps what it counted.
	Forget(q ChildRequest, done func(ForgetReply, *Error))
	// Forfeit ends what a place below was lent of budgets and quotas.
	Forfeit(q ChildRequest, done func(ForfeitReply, *Error))
	// Join makes the place's store a part of another world.
	Join(q JoinRequest, done func(JoinReply, *Error))
	// Backup makes a backup of the place's store, or says how far one is.
	Backup(q BackupRequest, done func(BackupReply, *Error))
	// Stats says what the place's store holds and does.
	Stats(q StatsRequest, done func(StatsReply, *Error))
}

// registerAdmin serves the admin verbs.
func (s *Service) registerAdmin() error {
	return errors.Join(
		serveAdmin(s, VerbRules, s.cfg.Admin.Rules),
		serveAdmin(s, VerbReset, s.cfg.Admin.Reset),
		serveAdmin(s, VerbExplain, s.cfg.Admin.Explain),
		serveAdmin(s, VerbPlaces, s.cfg.Admin.Places),
		serveAdmin(s, VerbForget, s.cfg.Admin.Forget),
		serveAdmin(s, VerbForfeit, s.cfg.Admin.Forfeit),
		serveAdmin(s, VerbJoin, s.cfg.Admin.Join),
		serveAdmin(s, VerbBackup, s.cfg.Admin.Backup),
		serveAdmin(s, VerbStats, s.cfg.Admin.Stats),
	)
}

// endpointName is what micro calls a verb's endpoint: of a place, or of any leaf (and of an admin verb) where that is
// empty. No place has an underscore, so [verbOf] can read it back.
func endpointName(v Verb, place string) string {
	name := strings.ReplaceAll(string(v), ".", "_")
	if place != "" {
		name += "_" + strings.ReplaceAll(place, ".", "_")
	}
	return name
}

// verbOf is the verb of an endpoint's name.
func verbOf(name string) Verb {
	verb, rest, _ := strings.Cut(name, "_")
	if admin, _, _ := strings.Cut(rest, "_"); verb == "admin" {
		verb += "." + admin
	}
	return Verb(verb)
}

// serveAdmin serves one verb.
func serveAdmin[Q, R any](s *Service, v Verb, ask func(Q, func(R, *Error))) error {
	d := &door{s.endpoints[v], s.nc, s.subjects, v, &s.cfg.Observe}
	handle := func(req micro.Request) {
		answer := func(body []byte, refused *Error) { d.answer(req, "", body, refused) }
		if err := d.gate.enter(1); err != nil {
			answer(nil, err)
			return
		}
		var answered atomic.Bool
		done := func(reply R, refused *Error) {
			if answered.Swap(true) {
				return
			}
			defer d.gate.leave(1)
			if refused != nil {
				answer(nil, refused)
				return
			}
			room := int(s.nc.MaxPayload()) - headerRoom
			body, err := json.Marshal(reply, json.Deterministic(true))
			for err == nil && len(body) > room {
				long, ok := any(reply).(interface{ shorter() (R, bool) })
				if !ok {
					break
				}
				if reply, ok = long.shorter(); !ok {
					break
				}
				body, err = json.Marshal(reply, json.Deterministic(true))
			}
			switch {
			case err != nil:
				answer(nil, ErrInternal.Errorf("the request was done, but its answer cannot be written: %v", err))
			case len(body) > room:
				answer(nil, ErrTooLarge.Errorf("the answer is %d bytes, and the NATS server takes %d: raise max_payload", len(body), room))
			default:
				answer(body, nil)
			}
		}
		defer func() {
			if value := recover(); value != nil {
				if s.cfg.Observe.Panic != nil {
					s.cfg.Observe.Panic(v, value, debug.Stack())
				}
				var none R
				done(none, ErrInternal.Errorf("the service failed on this request, which may have been done: its log says how"))
			}
		}()
		var q Q
		if err := json.Unmarshal(req.Data(), &q, json.RejectUnknownMembers(true)); err != nil && len(req.Data()) > 0 {
			var none R
			done(none, ErrMalformed.Errorf("the request is not JSON of %s: %v", v, err))
			return
		}
		ask(q, done)
	}
	return s.micro.AddEndpoint(endpointName(v, ""), micro.HandlerFunc(handle), micro.WithEndpointSubject(s.subjects.At(v, s.cfg.Place)))
}

// admin asks the client's place, or without one the root.
func admin[Q, R any](ctx context.Context, c *Client, v Verb, q Q) (reply R, err error) {
	at := *c
	if at.place == "" {
		at.place = string(tiers.Root)
	}
	body, err := json.Marshal(q, json.Deterministic(true))
	if err != nil {
		return reply, err
	}
	err = at.roundTrip(ctx, &nats.Msg{Subject: at.subject(v), Header: versionOnly, Data: body}, waiting{}, &reply)
	return reply, err
}
