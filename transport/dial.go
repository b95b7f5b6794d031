package transport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
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

// ConnOptions is how a place's connection behaves: it comes back for ever, notices within seconds that its server is
// gone, has an inbox prefix of its own (so that permissions cover its replies too; NATS's own when empty), and says
// in the log when it is lost and when, and after how long, it is back.
func ConnOptions(name, inboxPrefix string, log zerolog.Logger) []nats.Option {
	var lostAt atomic.Int64
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsOut),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() || errors.Is(err, net.ErrClosed) {
				return // closed by us; the reader may notice first
			}
			lostAt.Store(time.Now().UnixNano())
			log.Warn().Err(err).Msg("connection to NATS lost")
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info().
				Str("nats", nc.ConnectedUrlRedacted()).
				Dur("after", time.Since(time.Unix(0, lostAt.Load()))).
				Msg("connection to NATS is back")
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
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

func reconnectDelay(attempts int) time.Duration {
	d := reconnectMost
	if attempts < 8 {
		d = min(d, reconnectFirst<<max(0, attempts-1))
	}
	// A city's clients do not come back all at the same instant.
	return d/2 + rand.N(d/2)
}

// Dial connects to a NATS server, or to one of several whose URLs are joined by commas. The first connection must
// succeed; once lost, it comes back by itself (see [ConnOptions]). More options may follow.
func Dial(urls, name, inboxPrefix string, log zerolog.Logger, more ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect(urls, append(ConnOptions(name, inboxPrefix, log), more...)...)
	if err != nil {
		return nil, fmt.Errorf("no NATS server can be reached at %s: %w: start one there, or name another with --nats",
			redacted(urls), err)
	}
	return nc, nil
}

// redacted hides the passwords in a list of URLs.
func redacted(urls string) string {
	list := strings.Split(urls, ",")
	for i, s := range list {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err == nil && u.User != nil:
			list[i] = u.Redacted()
		case strings.Contains(s, "@"):
			list[i] = "xxxxx" + s[strings.LastIndex(s, "@"):]
		}
	}
	return strings.Join(list, ",")
}
