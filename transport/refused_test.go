package transport

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// A configured server is a NATS server whose configuration changes while it runs.
type configured struct {
	*server.Server
	t    testing.TB
	file string
	port int
}

func newConfigured(t testing.TB, text string) *configured {
	t.Helper()
	c := &configured{t: t, file: filepath.Join(t.TempDir(), "nats.conf"), port: server.RANDOM_PORT}
	c.write(text)
	opts, err := server.ProcessConfigFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	opts.NoSigs, opts.NoLog = true, true
	if c.Server, err = server.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	c.Start()
	t.Cleanup(func() {
		c.Shutdown()
		c.WaitForShutdown()
	})
	if !c.ReadyForConnections(patience) {
		t.Fatal("the server takes no connections")
	}
	return c
}

func (c *configured) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.file, fmt.Appendf(nil, "listen: \"127.0.0.1:%d\"\n%s", c.port, text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reload changes the configuration.
func (c *configured) reload(text string) {
	c.t.Helper()
	c.write(text)
	if err := c.Reload(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *configured) dial(user string, opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(c.ClientURL(), append(opts, nats.UserInfo(user, "secret"))...)
}

// users are accounts of world4 and "client"; restricted says what some of them may.
func users(restricted map[string]string) string {
	var b strings.Builder
	b.WriteString("authorization { users: [\n")
	for _, user := range append([]string{"client"}, slices.Collect(func(yield func(string) bool) {
		for _, p := range world4 {
			if !yield(string(p)) {
				return
			}
		}
	})...) {
		fmt.Fprintf(&b, "{ user: %q, password: \"secret\"", user)
		if what := restricted[user]; what != "" {
			fmt.Fprintf(&b, ", permissions: { %s }", what)
		}
		b.WriteString(" }\n")
	}
	return b.String() + "] }\n"
}

// restrictedTree starts world4 on a server where some users may not do all.
func restrictedTree(t *testing.T, restricted map[string]string) (*tree, *configured, *prometheus.Registry) {
	s := newConfigured(t, users(restricted))
	w := newTree(t, testRules(t))
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry, "0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w.dial, w.logs, w.metrics = s.dial, &logs{}, metrics
	for _, p := range world4 {
		w.start(p)
	}
	return w, s, registry
}

// gauge is a sample of a gauge with such labels.
func gauge(t *testing.T, registry *prometheus.Registry, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			matches := 0
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] == l.GetValue() {
					matches++
				}
			}
			if f.GetName() == name && matches >= len(labels) {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// votesReach says whether a vote at Berlin comes to the root.
func votesReach(w *tree) {
	w.t.Helper()
	key := fmt.Sprint("k", len(w.askers), w.t.Name())
	if _, err := w.client("eu.de.berlin").Add(w.t.Context(), "votes", key, 1); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "a vote reaches the root", func() bool { return w.total(tiers.Root, key) == 1 })
}

// TestPlaceThatMayNotListenIsNotReady: NATS forbids it some subject of its own. It says so, names the subject, and works
// when that is permitted, without a new start; also where it is forbidden while the place runs.
func TestPlaceThatMayNotListenIsNotReady(t *testing.T) {
	for _, test := range []struct {
		place, subject string
		times          int
	}{
		{"eu.de", "tributary.up.0.eu.de.*", 2},
		{"eu", "tributary.down.0.eu", 1},
		{"eu.de.berlin", "tributary.add", 1},
		{"eu", "tributary.admin.stats.eu", 1},
		{"eu.de.berlin", "_INBOX.>", 1},
	} {
		t.Run(test.place+" "+test.subject, func(t *testing.T) {
			deny := map[string]string{test.place: fmt.Sprintf("subscribe: { deny: [ %q ] }", test.subject)}
			w, s, registry := restrictedTree(t, deny)
			place, labels := w.places[tiers.Place(test.place)], map[string]string{"place": test.place, "reason": "listen", "subject": test.subject}
			for range test.times {
				eventually(t, "it is not ready", func() bool {
					err := place.Ready()
					return err != nil && strings.Contains(err.Error(), "forbids this place to listen on "+test.subject)
				})
				if n := gauge(t, registry, "tributary_refused", labels); n != 1 {
					t.Errorf("tributary_refused%v is %v", labels, n)
				}
				if !w.logs.about(test.place, "NATS forbids this place to listen: it is tried again until its user may", test.subject) {
					t.Error("the log does not say so")
				}
				s.reload(users(nil))
				eventually(t, "it is ready", func() bool { return place.Ready() == nil })
				eventually(t, "the log says so", func() bool {
					return w.logs.about(test.place, "NATS lets this place listen again", test.subject)
				})
				if n := gauge(t, registry, "tributary_refused", map[string]string{"place": test.place, "reason": "listen", "subject": ""}); n != 0 {
					t.Errorf("tributary_refused is %v", n)
				}
				votesReach(w)
				s.reload(users(deny))
			}
		})
	}
}

// TestPlaceThatMayNotReportIsRefused: it works like one whose parent is away, says why, and goes on when its user may.
func TestPlaceThatMayNotReportIsRefused(t *testing.T) {
	w, s, registry := restrictedTree(t, map[string]string{"eu.de": `publish: { deny: [ "tributary.up.>" ] }`})
	place, labels := w.places["eu.de"], map[string]string{"place": "eu.de", "reason": "report", "subject": "tributary.up.0.eu.de"}
	eventually(t, "it is refused", func() bool {
		return strings.Contains(place.Refused(), "forbids this place to publish its reports on tributary.up.0.eu.de")
	})
	if err := place.Ready(); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	if n := gauge(t, registry, "tributary_refused", labels); n != 1 {
		t.Errorf("tributary_refused is %v", n)
	}
	s.reload(users(nil))
	eventually(t, "it is heard", func() bool { return place.Refused() == "" })
	if n := gauge(t, registry, "tributary_refused", labels); n != 0 {
		t.Errorf("tributary_refused is %v", n)
	}
	votesReach(w)
	if n := w.logs.times("NATS forbids this place to publish its reports: its parent does not hear it until its user may"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

// TestDocumentedPermissionsSuffice: those of docs/operations.md, for each place of a world.
func TestDocumentedPermissionsSuffice(t *testing.T) {
	permitted := map[string]string{}
	for _, p := range world4 {
		below := string(p) + "."
		if p == tiers.Root {
			below = ""
		}
		hears := []string{
			"tributary.*." + string(p), "tributary.admin.*." + string(p), "tributary.down.0." + string(p),
			"_INBOX.tributary." + string(p) + ".>", "$SRV.>", "tributary.up.0." + below + "*",
		}
		if p.Depth() == 3 {
			hears = append(hears, "tributary.*")
		}
		permitted[string(p)] = fmt.Sprintf(`subscribe: { allow: [ "%s" ] }, publish: { allow: [ "tributary.up.0.%s", "tributary.down.0.%s*" ] }, allow_responses: { max: -1 }`,
			strings.Join(hears, `", "`), p, below)
	}
	s := newConfigured(t, users(permitted))
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "1000/s"}))
	w.logs = &logs{}
	w.dial = func(user string, opts ...nats.Option) (*nats.Conn, error) {
		return s.dial(user, append(opts, nats.CustomInboxPrefix("_INBOX.tributary."+user))...)
	}
	for _, p := range world4 {
		w.start(p)
	}
	votesReach(w)
	berlin := w.client("eu.de.berlin")
	eventually(t, "the limit is lent", func() bool {
		reply, err := berlin.Check(t.Context(), "api", "user")
		return err == nil && reply.Allowed
	})
	anywhere := w.client("")
	if _, err := anywhere.Add(t.Context(), "votes", "bob", 1); err != nil {
		t.Error(err)
	}
	if _, err := berlin.Explain(t.Context(), "api", "user", 1); err != nil {
		t.Error(err)
	}
	for _, p := range world4 {
		if err := w.places[p].Ready(); err != nil {
			t.Error(err)
		}
	}
	for _, message := range []string{"NATS forbids this place to publish", "NATS reports an error"} {
		if n := w.logs.times(message); n > 0 {
			t.Errorf("%d times %q is logged", n, message)
		}
	}
}

// TestPlaceOfAnotherWorldSaysThatItIsRefused: its parent does not take its reports.
func TestPlaceOfAnotherWorldSaysThatItIsRefused(t *testing.T) {
	w := newTree(t, testRules(t))
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry, "0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w.metrics = metrics
	for _, p := range world4[:2] {
		w.start(p)
	}
	eventually(t, "eu knows its world", func() bool { return w.places["eu"].Runner().World() != 0 })
	w.stop(tiers.Root)
	if err := os.RemoveAll(filepath.Join(w.dir, string(tiers.Root))); err != nil {
		t.Fatal(err)
	}
	w.start(tiers.Root)
	eu := w.places["eu"]
	eventually(t, "it is refused", func() bool { return strings.Contains(eu.Refused(), "does not take its reports") })
	if err := eu.Ready(); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	if n := gauge(t, registry, "tributary_refused", map[string]string{"place": "eu", "reason": "parent", "subject": ""}); n != 1 {
		t.Errorf("tributary_refused is %v", n)
	}
}

// TestPlaceWhoseParentSpeaksAnotherVersionSaysSo: it cannot read what it is answered.
func TestPlaceWhoseParentSpeaksAnotherVersionSaysSo(t *testing.T) {
	w := newTree(t, testRules(t))
	w.logs = &logs{}
	nc, err := w.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	newer, err := proto.Marshal(&wire.Ack{Version: wire.Version + 1, Refused: "version"})
	if err != nil {
		t.Fatal(err)
	}
	parent, err := nc.Subscribe("tributary.up.0.*", func(m *nats.Msg) { _ = m.Respond(newer) })
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	eu := w.start("eu")
	eventually(t, "it is refused", func() bool { return strings.Contains(eu.Refused(), "run the same version everywhere") })
	if err := eu.Ready(); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	if err := parent.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	w.start(tiers.Root)
	eventually(t, "it is heard", func() bool { return eu.Refused() == "" })
	if n := w.logs.times("the parent speaks another version"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

// TestConnectionComesBackToWhoeverIsLetIn: the server does not know the place's user for a while, which the NATS library
// takes for the end when it is told twice.
func TestConnectionComesBackToWhoeverIsLetIn(t *testing.T) {
	w, s, _ := restrictedTree(t, nil)
	place := w.places["eu.de"]
	var refused atomic.Int64
	before := place.cfg.Conn.ErrorHandler()
	place.cfg.Conn.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		if refusesUser(err) {
			refused.Add(1)
		}
		before(nc, sub, err)
	})
	s.reload(strings.Replace(users(nil), `{ user: "eu.de", password: "secret"`, `{ user: "eu.de", password: "another"`, 1))
	eventually(t, "it is turned away several times", func() bool { return refused.Load() > 3 })
	if err := place.Ready(); err == nil || !strings.Contains(err.Error(), "not connected to NATS") {
		t.Errorf("ready: %v", err)
	}
	if n := w.logs.times("connection to NATS is not back yet: trying again"); n != 1 {
		t.Errorf("that it is turned away is logged %d times", n)
	}
	s.reload(users(nil))
	eventually(t, "it is ready", func() bool { return place.Ready() == nil })
	votesReach(w)
	if n := w.logs.times("connection to NATS is back"); n < 1 {
		t.Error("that it is back is not logged")
	}
}

// TestClosedConnectionEndsThePlace: so that it is started again on another one.
func TestClosedConnectionEndsThePlace(t *testing.T) {
	w := newTree(t, testRules(t), world4...)
	place := w.places["eu.de"]
	place.cfg.Conn.Close()
	<-place.Done()
	if err := place.Err(); err == nil || !strings.Contains(err.Error(), ErrDisconnected.Error()) {
		t.Errorf("it ended with %v", err)
	}
	if err := place.Ready(); err == nil {
		t.Error("it is ready")
	}
	w.stop("eu.de")
	w.start("eu.de")
	votesReach(w)
}

// TestTooSmallMaxPayloadIsSaid: a place whose messages may not be as large as one entry says so.
func TestTooSmallMaxPayloadIsSaid(t *testing.T) {
	s := newConfigured(t, "max_payload: 16384\n"+users(nil))
	w := newTree(t, testRules(t))
	w.dial, w.logs = s.dial, &logs{}
	for _, p := range world4[:2] {
		w.start(p)
	}
	eu := w.places["eu"]
	if err := eu.Ready(); err == nil || !strings.Contains(err.Error(), "takes messages of 16384 bytes, and this place needs 32768: raise max_payload") {
		t.Errorf("ready: %v", err)
	}
	if n := w.logs.times("NATS takes only messages that are too small for this place: raise max_payload at its servers"); n != 2 {
		t.Errorf("it is logged %d times", n)
	}
	s.reload("max_payload: 65536\n" + users(nil))
	if err := eu.cfg.Conn.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool { return eu.Ready() == nil })
}

// about reports whether a place logged a message about a subject.
func (l *logs) about(place, message, subject string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line logged) bool {
		return line.Place == place && line.Message == message && line.Subject == subject
	})
}

// times is how often a message was logged.
func (l *logs) times(message string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.Message == message {
			n++
		}
	}
	return n
}
