package transport

import (
	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// sender is a place as its runner sees it: it implements place.Sender.
type sender struct{ *Place }

func (s sender) Report(r *tiers.Report) { s.link.report(r) }

func (s sender) Recall(child tiers.Place, r *tiers.Recall) { s.link.recall(child, r) }

func (s sender) Wake(at limiter.Time) {
	if at == limiter.Never {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(0, at.Sub(s.clock.Now())))
}

func (s sender) Broken(err error) {
	s.breaks.Do(func() {
		s.cause = err
		s.log.Error().Err(err).Msg("the place has stopped")
		close(s.broken)
	})
}

func (s sender) Event(e tiers.Event) {
	s.metrics.event(e)
	line := s.log.Info()
	switch e.Kind {
	case tiers.EventFenced, tiers.EventOverflow:
		line = s.log.Error()
	case tiers.EventRefused, tiers.EventChildRefuse, tiers.EventRulesDiffer, tiers.EventRefill, tiers.EventLost, tiers.EventSilent,
		tiers.EventForgotten, tiers.EventForfeit, tiers.EventWorld:
		line = s.log.Warn()
	case tiers.EventWindow, tiers.EventFold:
		line = s.log.Debug()
	case tiers.EventJoined, tiers.EventAccepted, tiers.EventChild, tiers.EventRules:
	}
	if e.Detail != "" {
		line = line.Str("detail", e.Detail)
	}
	line.Str("event", string(e.Kind)).Str("about", string(e.Place)).Msg(eventTexts[e.Kind])
}

var eventTexts = map[tiers.EventKind]string{
	tiers.EventJoined:      "the parent knows this place",
	tiers.EventFenced:      "fenced",
	tiers.EventRefused:     "the parent refuses our reports",
	tiers.EventAccepted:    "the parent takes our reports again",
	tiers.EventChild:       "a child reports",
	tiers.EventChildRefuse: "a child's reports are refused",
	tiers.EventRulesDiffer: "the rules of two neighbours differ",
	tiers.EventRefill:      "the parent lost its disk, or runs on an old one",
	tiers.EventRules:       "newer rules came from the root",
	tiers.EventWindow:      "a quota's window closed while it was lent",
	tiers.EventLost:        "this store is not the place's last",
	tiers.EventSilent:      "after a crash an owner of limits waits until old leases have ended",
	tiers.EventOverflow:    "a total does not fit",
	tiers.EventFold:        "a session ended long ago: its counts are folded",
	tiers.EventForgotten:   "a child left for good",
	tiers.EventForfeit:     "what a child was lent is forfeited",
	tiers.EventWorld:       "joined to another world",
}
