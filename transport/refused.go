package transport

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// This file keeps what a place is refused: by NATS, subjects to listen on or to publish to; by NATS or by its parent,
// its reports. NATS says so after the fact, to the connection's handler of errors, and says nothing when it is mended.
//
// A subject that NATS forbids to listen on is tried again, with a growing pause, by another subscription. When that one
// is let through, the connection is made anew: then NATS is asked for all subscriptions once more.

const (
	// A subject that is refused is tried again after listenFirst, then after twice as long each time, up to listenMost.
	listenFirst = 250 * time.Millisecond
	listenMost  = 10 * time.Second
	// refusalWithin is how long after the server's answer to a ping its refusals of before are taken to be told: they
	// come on another goroutine.
	refusalWithin = 100 * time.Millisecond
	// quietAfter is how long after the last message that NATS refused, of those that nobody acknowledges, it is over.
	quietAfter = time.Minute
)

// The reasons of the gauge tributary_refused.
const (
	refusedListen  = "listen"  // NATS forbids the place to listen on a subject
	refusedReport  = "report"  // NATS forbids it to publish its reports
	refusedParent  = "parent"  // its parent does not take them: another world, another version, ...
	refusedMessage = "message" // NATS takes only smaller messages than the place needs
)

// refusals are those of one place.
type refusals struct {
	nc     *nats.Conn
	log    zerolog.Logger
	link   *link
	served []string // subjects of its service
	stop   chan struct{}
	wake   chan struct{} // something was refused

	report, version, size spell
	other                 map[string]*spell // of messages that nobody acknowledges, by what they are

	once   sync.Once
	mu     sync.Mutex
	listen map[string]*deaf // by subject
}

// deaf is a subject that NATS forbids to listen on.
type deaf struct {
	queue string
	on    uint64 // on which connection it said so, counted
	spell
}

func newRefusals(l *link, served []string) *refusals {
	return &refusals{
		nc: l.nc, served: served, log: l.log, link: l, stop: make(chan struct{}), wake: make(chan struct{}, 1), listen: map[string]*deaf{},
		other: map[string]*spell{"a recall": {}, "an answer": {}},
	}
}

// watch hears of what NATS refuses from now on, until the link is closed.
func (r *refusals) watch() {
	before := r.nc.ErrorHandler()
	r.nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrSlowConsumer) {
			r.link.metrics.slow(sub)
		}
		if !r.heard(err) && before != nil {
			before(nc, sub, err)
		}
	})
	go r.mend()
}

// violation is how nats-server words it.
var violation = regexp.MustCompile(`(?i)permissions violation for (subscription|publish) to "([^"]+)"(?: using queue "([^"]+)")?`)

// heard takes a refusal, and says whether it is one of the place's.
func (r *refusals) heard(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	m := violation.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return false
	case strings.EqualFold(m[1], "subscription"):
		return r.refusedToListen(m[2], m[3])
	case m[2] == r.link.upSubject():
		if r.report.begin(m[2]) {
			r.log.Error().Str("subject", m[2]).Msg("NATS forbids this place to publish its reports: its parent does not hear it until its user may")
		}
	default:
		what := "an answer"
		if r.link.isDown(m[2]) {
			what = "a recall"
		}
		if r.other[what].begin(what) {
			r.log.Error().Str("subject", m[2]).Str("what", what).Msg("NATS forbids this place to publish")
		}
		r.awake()
	}
	return true
}

func (r *refusals) refusedToListen(subject, queue string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.owns(subject) {
		return false
	}
	d := r.listen[subject]
	if d == nil {
		d = &deaf{queue: queue}
		r.listen[subject] = d
	}
	d.on = r.nc.Stats().Reconnects
	if d.begin(subject) {
		r.log.Error().Str("subject", r.shown(subject)).Msg("NATS forbids this place to listen: it is tried again until its user may")
	}
	r.awake()
	return true
}

func (r *refusals) awake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// owns says that the place listens on a subject.
func (r *refusals) owns(subject string) bool {
	return slices.Contains(r.link.hears, subject) || slices.Contains(r.served, subject)
}

// shown is a subject as an operator knows it: of an inbox, all that permissions have to cover.
func (r *refusals) shown(subject string) string {
	if strings.HasPrefix(subject, r.link.inbox) {
		return strings.TrimSuffix(cmp.Or(r.nc.Opts.InboxPrefix, nats.InboxPrefix), ".") + ".>"
	}
	return subject
}

// acknowledged says that the parent took a report.
func (r *refusals) acknowledged() {
	if took, times := r.report.end(); times > 0 {
		r.log.Info().Dur("after", took).Int("times", times).Msg("NATS lets this place publish its reports again")
	}
	if took, times := r.version.end(); times > 0 {
		r.log.Info().Dur("after", took).Int("times", times).Msg("the parent speaks this place's version again")
	}
}

// otherVersion says that the parent's answers are of another version.
func (r *refusals) otherVersion(err error) {
	if r.version.begin(err.Error()) {
		r.log.Error().Err(err).Msg("the parent speaks another version")
	}
}

// sized looks whether messages may be as large as the place needs.
func (r *refusals) sized() {
	most, needs := int(r.nc.MaxPayload()), r.link.runner.NeedsMessage()
	if most == 0 || most >= needs { // 0: it was never connected
		if took, times := r.size.end(); times > 0 {
			r.log.Info().Int("max_payload", most).Dur("after", took).Msg("NATS takes messages that are large enough again")
		}
		return
	}
	why := fmt.Sprintf("NATS takes messages of %d bytes, and this place needs %d: raise max_payload at its servers", most, needs)
	if r.size.begin(why) {
		r.log.Error().Int("max_payload", most).Int("needed", needs).Msg("NATS takes only messages that are too small for this place: raise max_payload at its servers")
	}
}

// close ends what watch began.
func (r *refusals) close() { r.once.Do(func() { close(r.stop) }) }

// unready is why the place cannot work; "": it can.
func (r *refusals) unready() string {
	r.sized() // what a place needs grows with its lists
	if deaf := r.deafTo(); len(deaf) > 0 {
		return fmt.Sprintf("NATS forbids this place to listen on %s: let its user subscribe there", strings.Join(deaf, ", "))
	}
	return r.size.now()
}

// deafTo are the subjects of the place that NATS forbids to listen on, sorted, as an operator knows them.
func (r *refusals) deafTo() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, subject := range slices.Sorted(maps.Keys(r.listen)) {
		all = append(all, r.shown(subject))
	}
	return all
}

// unheard is why the parent does not hear a place that can work, if NATS or another version is the reason.
func (r *refusals) unheard() (reason, why string) {
	if subject := r.report.now(); subject != "" {
		return refusedReport, fmt.Sprintf("NATS forbids this place to publish its reports on %s: let its user publish there", subject)
	}
	if why := r.version.now(); why != "" {
		return refusedParent, why
	}
	return "", ""
}

// mend tries what is refused again.
func (r *refusals) mend() {
	for {
		select {
		case <-r.stop:
			return
		case <-r.wake:
		}
		pause := backoff.NewExponentialBackOff()
		pause.InitialInterval, pause.MaxInterval = listenFirst, listenMost
		for r.refused() {
			select {
			case <-r.stop:
				return
			case <-time.After(pause.NextBackOff()):
			}
			r.hushed()
			if r.nc.IsConnected() && r.tryToListen() {
				r.log.Debug().Msg("NATS lets this place listen: the connection is made anew")
				_ = r.nc.ForceReconnect() // one that is closed ends the place
			}
		}
	}
}

// refused says that there is something to try again, or to wait for.
func (r *refusals) refused() bool {
	for _, s := range r.other {
		if s.now() != "" {
			return true
		}
	}
	return len(r.deafTo()) > 0
}

// hushed ends what was refused long ago, and of which nobody says that it is over.
func (r *refusals) hushed() {
	for what, s := range r.other {
		if s.now() != "" && time.Since(s.lastShown()) > quietAfter {
			took, times := s.end()
			r.log.Info().Str("what", what).Dur("after", took).Int("times", times).Msg("NATS forbids this place to publish no more")
		}
	}
}

// tryToListen subscribes to what was refused, and says whether NATS lets something of it through.
func (r *refusals) tryToListen() bool {
	r.mu.Lock()
	queues := make(map[string]string, len(r.listen))
	for subject, d := range r.listen {
		queues[subject] = d.queue
	}
	r.mu.Unlock()
	began := time.Now()
	for subject, queue := range queues {
		sub, err := r.nc.QueueSubscribe(subject, queue, r.tooEarly)
		if err != nil {
			return false // the connection is closed
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	if len(queues) == 0 || r.nc.FlushTimeout(flushWithin) != nil {
		return false
	}
	select {
	case <-r.stop:
		return false
	case <-time.After(refusalWithin):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for subject := range queues {
		if d := r.listen[subject]; d != nil && d.lastShown().Before(began) {
			return true
		}
	}
	return false
}

// tooEarly answers a request that came to a subscription which only tries whether it may be.
func (r *refusals) tooEarly(m *nats.Msg) {
	if m.Reply == "" || !slices.Contains(r.served, m.Sub.Subject) {
		return // of reports and recalls the next one comes anyway
	}
	refused := ErrNotReady.Errorf("the place was not allowed to listen here until now").After(retryAfter)
	_ = r.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: replyHeader(versionOnly, refused), Data: appendError(nil, refused)})
}

// back says that the connection is there again, with all its subscriptions: what is refused on it as well is told.
func (r *refusals) back() {
	r.sized()
	connection := r.nc.Stats().Reconnects
	if r.nc.FlushTimeout(flushWithin) != nil {
		return
	}
	select {
	case <-r.stop:
		return
	case <-time.After(refusalWithin):
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for subject, d := range r.listen {
		if d.on < connection {
			took, times := d.end()
			r.log.Info().Str("subject", r.shown(subject)).Dur("after", took).Int("times", times).Msg("NATS lets this place listen again")
			delete(r.listen, subject)
		}
	}
}
