package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/tiers/place"
)

// PlaceConfig says what a place is and what it runs on.
type PlaceConfig struct {
	Place tiers.Place
	Leaf  bool   // it takes checks and adds
	Dir   string // of its store; nobody else's
	// Backups is where its backups go, nobody else's either; empty: nowhere, and they are refused.
	Backups string
	Conn    *nats.Conn
	Prefix  string // of all subjects; [DefaultPrefix] when empty
	Rules   *limiter.Rules

	Lease          time.Duration // the rules' when 0
	Heartbeat      time.Duration // tiers.DefaultHeartbeat when 0
	ReportInterval time.Duration // tiers.DefaultReportInterval when 0
	MaxAwake       int           // keys in memory; tiers.DefaultMaxAwake when 0

	Version string          // the program's
	Store   objects.Options // of its store
	Clock   *Clock          // a new one when nil
	Metrics *Metrics        // may be nil
	Logger  zerolog.Logger
}

// A Place is one running place: its store, its machine, its links and its
// service.
type Place struct {
	cfg     PlaceConfig
	log     zerolog.Logger
	store   *placeStore
	runner  *place.Runner
	link    *link
	service *Service
	metrics *placeMetrics
	clock   *Clock
	session uint64 // of its permits, too
	backup  backupJob
	uploads uploads

	draining atomic.Bool
	timer    *time.Timer
	broken   chan struct{} // closed when the runner stopped by itself
	cause    error         // why; set before broken is closed
	breaks   sync.Once
	closed   sync.Once
}

// StartPlace starts a place. Stop must be called in the end, also after the
// place broke.
func StartPlace(cfg PlaceConfig) (*Place, error) {
	if cfg.Clock == nil {
		cfg.Clock = NewClock()
	}
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, tiers.DefaultHeartbeat)
	cfg.ReportInterval = cmp.Or(cfg.ReportInterval, tiers.DefaultReportInterval)
	subjects, err := NewSubjects(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	p := &Place{
		cfg: cfg, clock: cfg.Clock, session: random(), broken: make(chan struct{}),
		log:     cfg.Logger.With().Str("place", string(cfg.Place)).Logger(),
		metrics: cfg.Metrics.place(cfg.Place),
	}
	cfg.Store.Events = p.metrics.storeEvents(cfg.Store.Events, p.log)
	if p.store, err = openPlaceStore(cfg.Dir, 0, cfg.Store); err != nil {
		return nil, fmt.Errorf("place %s: %w", cfg.Place, err)
	}
	if info, err := objects.Inspect(cfg.Backups, objects.FolderOptions{FS: cfg.Store.FS}); cfg.Backups != "" && err == nil {
		p.backup.made.Store(&info.Made)
	}
	p.link = newLink(cfg.Conn, subjects, cfg.Place, cfg.Leaf, 0, p.log, p.metrics)
	p.link.closed = p.disconnected
	p.timer = time.AfterFunc(time.Hour, p.tick)
	p.timer.Stop()
	p.runner, err = place.Start(tiers.Config{
		Place: cfg.Place, Partition: 0, Partitions: 1, Leaf: cfg.Leaf, Rules: cfg.Rules,
		Session: p.session, NewWorld: random(), Lease: cfg.Lease, Heartbeat: cfg.Heartbeat,
		ReportInterval: cfg.ReportInterval, MaxAwake: cmp.Or(cfg.MaxAwake, tiers.DefaultMaxAwake), MaxMessage: int(cfg.Conn.MaxPayload()), Restored: p.store.store.Restored(),
	}, p.store, sender{p}, p.clock.Now, func() int64 { return time.Now().UnixNano() })
	if err == nil { // what the machine makes of it is durable
		err = p.store.store.ClearRestored(context.Background())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("place %s: %w", cfg.Place, err), p.store.store.Close())
	}
	if err := p.serve(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("place %s: %w", cfg.Place, err), p.Stop(ctx))
	}
	return p, nil
}

func (p *Place) serve() (err error) {
	if err := p.link.listen(p.runner, p.cfg.Leaf); err != nil {
		return err
	}
	p.metrics.observe(p)
	p.service, err = NewService(p.cfg.Conn, ServiceConfig{
		Prefix: p.cfg.Prefix, Place: string(p.cfg.Place), Leaf: p.cfg.Leaf, Version: p.cfg.Version,
		Drain: p.runner.Stop, Admin: backend{p}, Observe: p.cfg.Metrics.Observer(p.cfg.Place, p.log),
	}, backend{p})
	if err != nil {
		return err
	}
	p.runner.Tick()
	return nil
}

// random is a number that nobody else draws, not 0.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program first
	return binary.LittleEndian.Uint64(b[:]) | 1
}

func (p *Place) tick() {
	if !p.isBroken() {
		p.runner.Tick()
	}
}

// ErrUnreported says that a place ended before its parent had taken its last report.
var ErrUnreported = errors.New("the parent has not taken the last report, which is sent after the next start; shares that it did not give back are out of use until their leases end, and of budgets and quotas count as spent")

// Stop ends the place in good order, as far as ctx allows: it takes no more
// requests, answers those that came, returns its shares, reports the rest to
// its parent, and closes its store, for which it takes the time that it needs.
// The error says what ctx did not allow: [ErrUnreported] of the parent. It can
// be called again.
func (p *Place) Stop(ctx context.Context) (err error) {
	p.closed.Do(func() { err = p.stop(ctx) })
	return err
}

func (p *Place) stop(ctx context.Context) error {
	p.draining.Store(true)
	var errs []error
	if p.service != nil {
		errs = append(errs, p.service.Stop(ctx))
	}
	if _, stopped := p.runner.State(); stopped == nil {
		p.runner.Stop()
		for !p.runner.Stopped() && !p.isBroken() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-p.broken:
			case <-time.After(stopPoll):
			}
		}
		if !p.runner.Stopped() {
			errs = append(errs, ErrUnreported)
		}
		errs = append(errs, p.runner.Close())
	}
	p.timer.Stop()
	p.link.close()
	p.metrics.forget()
	return errors.Join(append(errs, p.store.store.Close())...)
}

// Kill ends the place as a crash would, for tests and demonstrations: the
// parent is told nothing, and requests that wait stay unanswered.
func (p *Place) Kill() (err error) {
	p.closed.Do(func() {
		p.draining.Store(true)
		p.runner.Kill()
		p.timer.Stop()
		p.link.close()
		p.metrics.forget()
		p.cfg.Conn.Close()
		err = p.store.store.Close()
		p.breaks.Do(func() {
			p.cause = place.ErrStopped
			close(p.broken)
		})
	})
	return err
}

// stopPoll is how often a stopping place looks whether it is done.
const stopPoll = 5 * time.Millisecond

// ErrDisconnected is wrapped by the Err of a place whose connection to NATS is
// closed for good: started again on another one, it goes on.
var ErrDisconnected = errors.New("the connection to NATS was closed, and does not come back by itself")

// disconnected is called when the connection is closed for good.
func (p *Place) disconnected() {
	if p.draining.Load() {
		return
	}
	err := ErrDisconnected
	if last := p.cfg.Conn.LastError(); last != nil {
		err = fmt.Errorf("%w: %s", ErrDisconnected, Redact(last.Error()))
	}
	sender{p}.Broken(err)
}

// Done is closed when the place stopped by itself: its store failed, its
// connection was closed, or a newer process of the same place runs. Err says
// why.
func (p *Place) Done() <-chan struct{} { return p.broken }

// Err says why the place broke, if it did.
func (p *Place) Err() error {
	if !p.isBroken() {
		return nil
	}
	return p.cause
}

func (p *Place) isBroken() bool {
	select {
	case <-p.broken:
		return true
	default:
		return false
	}
}

// Ready says why the place cannot take requests, if so. A parent that cannot
// be reached is no reason.
func (p *Place) Ready() error {
	if err := (backend{p}).Ready(); err != nil {
		return err
	}
	if !p.cfg.Conn.IsConnected() {
		return ErrNotReady.Errorf("%s is not connected to NATS", p.cfg.Place)
	}
	if why := p.link.refused.unready(); why != "" {
		return ErrNotReady.Errorf("%s: %s", p.cfg.Place, why)
	}
	return nil
}

// Refused says why the place's parent does not hear it, or does not take what
// it says, if that is so; "": it is not. The place itself can work, as if its
// parent was away.
func (p *Place) Refused() string {
	_, why := p.refusal()
	return why
}

// A refusal is a series of the gauge tributary_refused.
type refusal struct {
	reason, subject string
	so              bool
}

// refusals are all that a place can be refused; one that is not has a series as well.
func (p *Place) refusals() (all []refusal) {
	deaf := p.link.refused.deafTo()
	for _, subject := range deaf {
		all = append(all, refusal{refusedListen, subject, true})
	}
	if len(deaf) == 0 {
		all = append(all, refusal{refusedListen, "", false})
	}
	all = append(all, refusal{refusedMessage, "", p.link.refused.size.now() != ""})
	if p.cfg.Place == tiers.Root { // it reports to nobody
		return all
	}
	reason, _ := p.refusal()
	return append(all,
		refusal{refusedReport, p.link.upSubject(), reason == refusedReport},
		refusal{refusedParent, "", reason == refusedParent})
}

func (p *Place) refusal() (reason, why string) {
	if reason, why := p.link.refused.unheard(); why != "" {
		return reason, why
	}
	if why := p.runner.Refused(); why != "" {
		return refusedParent, fmt.Sprintf("%s does not take its reports: %s", p.cfg.Place.Parent(), why)
	}
	return "", ""
}

// Name is the place's name.
func (p *Place) Name() tiers.Place { return p.cfg.Place }

// SetLink cuts the place's link to its parent, or mends it: while it is cut,
// every message between the two is lost.
func (p *Place) SetLink(up bool) { p.link.setCut(!up) }

// Linked says that the link to the parent is not cut.
func (p *Place) Linked() bool { return !p.link.cut.Load() }

// Runner is the place's machine, for those in the same process.
func (p *Place) Runner() *place.Runner { return p.runner }
