package transport

import (
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// link carries a place's messages to and from its parent and children. A
// message that cannot be sent is lost: the machines say it again.
type link struct {
	nc       *nats.Conn
	subjects Subjects
	place    tiers.Place
	number   int // partition
	log      zerolog.Logger
	odd      zerolog.Logger // for messages that cannot be read: some a minute are enough
	metrics  *placeMetrics

	inbox   string
	hears   []string // subjects that it listens on
	runner  *place.Runner
	refused *refusals
	closed  func() // is called when the connection is closed for good
	cut     atomic.Bool
	last    atomic.Uint64 // sequence of the last report
	back    chan nats.Status
	subs    []*nats.Subscription
}

func newLink(nc *nats.Conn, subjects Subjects, p tiers.Place, leaf bool, partition uint32, log zerolog.Logger, m *placeMetrics) *link {
	l := &link{nc: nc, subjects: subjects, place: p, number: int(partition), log: log, odd: log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Minute}), metrics: m, inbox: nc.NewRespInbox()}
	if p != tiers.Root {
		l.hears = append(l.hears, l.inbox+".*", subjects.Down(l.number, string(p)))
	}
	if !leaf {
		l.hears = append(l.hears, subjects.UpTo(l.number, string(p)))
	}
	l.refused = newRefusals(l, subjects.served(string(p), leaf))
	return l
}

// upSubject is where the place's reports go.
func (l *link) upSubject() string { return l.subjects.Up(l.number, string(l.place)) }

// isDown says that a subject is one of those on which children hear Recalls.
func (l *link) isDown(subject string) bool {
	return strings.HasPrefix(subject, strings.TrimSuffix(l.subjects.Down(l.number, "x"), "x"))
}

// listen takes messages for a runner from now on.
func (l *link) listen(r *place.Runner, leaf bool) error {
	l.runner = r
	subscribe := func(subject string, handle nats.MsgHandler) error {
		sub, err := l.nc.Subscribe(subject, handle)
		if err == nil {
			l.subs = append(l.subs, sub)
		}
		return err
	}
	l.refused.watch()
	l.refused.sized()
	if l.place != tiers.Root {
		if err := subscribe(l.inbox+".*", l.acknowledged); err != nil {
			return err
		}
		if err := subscribe(l.subjects.Down(l.number, string(l.place)), l.recalled); err != nil {
			return err
		}
	}
	if !leaf {
		if err := subscribe(l.subjects.UpTo(l.number, string(l.place)), l.reported); err != nil {
			return err
		}
	}
	back := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	l.back = back
	go func() {
		for status := range back { // closed by close, or with the connection
			if status == nats.CLOSED {
				l.closed()
				return
			}
			l.again()
			go l.refused.back()
		}
	}()
	return l.nc.Flush()
}

// again sends without waiting for the last report's timeout: it was lost with
// the link that is back now, perhaps to a server that takes smaller messages.
func (l *link) again() {
	l.runner.SetMaxMessage(int(l.nc.MaxPayload()))
	if sequence := l.last.Load(); sequence > 0 {
		l.runner.Failed(sequence)
	}
}

func (l *link) close() {
	if l.back != nil {
		l.nc.RemoveStatusListener(l.back)
		l.back = nil
	}
	for _, sub := range l.subs {
		_ = sub.Unsubscribe() // a closed connection has none
	}
	l.subs = nil
	l.refused.close()
}

// setCut loses every message between the place and its parent.
func (l *link) setCut(cut bool) {
	if was := l.cut.Swap(cut); was && !cut {
		l.again()
	}
}

func (l *link) report(r *tiers.Report) {
	l.metrics.reportSent(r)
	l.last.Store(r.Sequence)
	data, err := wire.MarshalReport(r)
	if err == nil && !l.cut.Load() {
		err = l.nc.PublishRequest(l.upSubject(), l.inbox+"."+strconv.FormatUint(r.Sequence, 10), data)
	}
	if err != nil {
		l.log.Debug().Err(err).Msg("a report was not sent")
		l.tooLarge(err)
		l.runner.Failed(r.Sequence)
	}
}

// tooLarge has messages be smaller from now on, if that is why one did not leave.
func (l *link) tooLarge(err error) {
	if errors.Is(err, nats.ErrMaxPayload) {
		l.runner.SetMaxMessage(int(l.nc.MaxPayload()))
		l.refused.sized()
	}
}

// acknowledged takes the answer to a report, or NATS's word that nobody
// listens for it.
func (l *link) acknowledged(m *nats.Msg) {
	if l.cut.Load() {
		return
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		sequence, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
		if err == nil {
			l.metrics.reportFailed()
			l.runner.Failed(sequence)
		}
		return
	}
	a, err := wire.UnmarshalAck(m.Data)
	if errors.Is(err, wire.ErrVersion) {
		l.refused.otherVersion(err)
		return
	}
	if err != nil {
		l.odd.Error().Err(err).Str("from", string(l.place.Parent())).Msg("an answer to a report cannot be read")
		return
	}
	l.metrics.reportAcknowledged()
	l.refused.acknowledged()
	l.runner.Acknowledged(a)
}

// reported takes a child's report.
func (l *link) reported(m *nats.Msg) {
	r, err := wire.UnmarshalReport(m.Data)
	if err != nil {
		l.odd.Error().Err(err).Str("subject", m.Subject).Msg("a report cannot be read")
		if errors.Is(err, wire.ErrVersion) {
			l.answer(m, &tiers.Ack{Refused: err.Error()}) // in our version: the child's log then names both
		}
		return
	}
	if _, child, err := l.subjects.ParseUp(m.Subject); err != nil || child != string(r.Child) {
		l.odd.Error().Str("subject", m.Subject).Str("child", string(r.Child)).Msg("a report came on another place's subject")
		return
	}
	l.runner.Reported(r, func(a *tiers.Ack) { l.answer(m, a) })
}

func (l *link) answer(m *nats.Msg, a *tiers.Ack) {
	data, err := wire.MarshalAck(a)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		l.log.Debug().Err(err).Msg("an answer was not sent")
		l.tooLarge(err)
	}
}

func (l *link) recall(child tiers.Place, r *tiers.Recall) {
	data, err := wire.MarshalRecall(r)
	if err == nil {
		err = l.nc.Publish(l.subjects.Down(l.number, string(child)), data)
	}
	if err != nil {
		l.log.Debug().Err(err).Msg("a recall was not sent")
		l.tooLarge(err)
	}
}

func (l *link) recalled(m *nats.Msg) {
	if l.cut.Load() {
		return
	}
	r, err := wire.UnmarshalRecall(m.Data)
	if err != nil {
		l.odd.Error().Err(err).Msg("a recall cannot be read")
		return
	}
	l.runner.Recalled(r)
}
