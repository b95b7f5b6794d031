package transport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

const (
	// A connection that was lost is tried again at once, then after twice as long each time. The longest pause is
	// short beside a lease (5 s), so that a server's restart costs no share.
	reconnectFirst = 50 * time.Millisecond
	reconnectMost  = time.Second
	// A peer that is gone without a word is noticed within pingEvery*(pingsOut+1).
	pingEvery = 2 * time.Second
	pingsOut  = 2
)

// ConnOptions is how a place's connection behaves: it comes back for ever, with a growing pause between two tries, also
// when the server does not know the user any more; notices within seconds that its server is gone; has an inbox prefix of
// its own (so that permissions cover its replies too; NATS's own when empty); and says in the log when it is lost, why it
// does not come back, and when, and after how long, it did.
func ConnOptions(name, inboxPrefix string, log zerolog.Logger) []nats.Option {
	var lost outage
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // else the same refusal twice ends it
		nats.CustomReconnectDelay(reconnectDelay),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsOut),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() || errors.Is(err, net.ErrClosed) {
				return // closed by us; the reader may notice first
			}
			if lost.begin("") { // else it was let in, and thrown out at once
				log.Warn().Err(err).Msg("connection to NATS lost: trying again until it is back")
			}
		}),
		nats.ReconnectErrHandler(func(nc *nats.Conn, err error) { lost.because(nc, err, log) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			took, _ := lost.end()
			log.Info().Str("nats", RedactURLs(nc.ConnectedUrl())).Dur("after", took).Msg("connection to NATS is back")
		}),
		nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if refusesUser(err) {
				lost.because(nc, err, log)
				return
			}
			event := log.Error().Err(err)
			if _, ok := errors.AsType[*net.OpError](err); ok {
				event = log.Debug().Err(err) // the connection is lost, which is told above
			}
			if sub != nil {
				event = event.Str("subject", sub.Subject)
			}
			event.Msg("NATS reports an error")
		}),
	}
	if inboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(inboxPrefix))
	}
	return opts
}

// refusesUser says that the server does not let the user in.
func refusesUser(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired)
}

// An outage is the time in which a connection is lost.
type outage struct{ spell }

// because says in the log why it is not back yet: once for each reason in a row.
func (o *outage) because(nc *nats.Conn, err error, log zerolog.Logger) {
	err = quiet(err, strings.Join(append(nc.Servers(), nc.Opts.Url), ","))
	if o.begin(err.Error()) {
		log.Warn().Err(err).Msg("connection to NATS is not back yet: trying again")
	}
}

// A spell is a trouble that lasts. The log tells of it when it begins, and when it ends: not each time that it shows.
type spell struct {
	mu    sync.Mutex
	since time.Time // zero: all is well
	last  time.Time // when it showed last
	why   string
	times int
}

// begin notes that the trouble shows, and says whether that is news: it was not there before, or for another reason;
// "": for one that is not known.
func (s *spell) begin(why string) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = s.since.IsZero() || why != "" && s.why != why
	if s.since.IsZero() {
		s.since, s.why, s.times = time.Now(), "", 0
	}
	if why != "" {
		s.why = why
	}
	s.last = time.Now()
	s.times++
	return news
}

// end notes that the trouble is over, and says how long it took and how often it showed; 0: there was none.
func (s *spell) end() (took time.Duration, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() {
		return 0, 0
	}
	took, times = time.Since(s.since), s.times
	s.since, s.why, s.times = time.Time{}, "", 0
	return took, times
}

// now is why there is trouble; "": there is none.
func (s *spell) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

func (s *spell) lastShown() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func reconnectDelay(attempts int) time.Duration {
	d := reconnectMost
	if attempts < 8 {
		d = min(d, reconnectFirst<<max(0, attempts-1))
	}
	// A city's clients do not come back all at the same instant.
	return d/2 + rand.N(d/2)
}

// Dial connects to a NATS server, or to one of several whose URLs are joined by commas. The first connection must
// succeed; once lost, it comes back by itself (see [ConnOptions]). More options may follow. No error shows a secret of
// the URLs.
func Dial(urls, name, inboxPrefix string, log zerolog.Logger, more ...nats.Option) (*nats.Conn, error) {
	if err := checkURLs(urls); err != nil {
		return nil, err
	}
	nc, err := nats.Connect(urls, append(ConnOptions(name, inboxPrefix, log), more...)...)
	if err != nil {
		return nil, fmt.Errorf("no NATS server can be reached at %s: %w: start one there, or name another with --nats",
			RedactURLs(urls), quiet(err, urls))
	}
	return nc, nil
}
