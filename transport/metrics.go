package transport

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// Metrics are the figures of all places of a process. Labels are bounded:
// place, tier, namespace, outcome; never a key. A nil *Metrics counts
// nothing.
type Metrics struct {
	operations  *prometheus.CounterVec
	messages    *prometheus.HistogramVec
	reports     *prometheus.CounterVec
	entries     *prometheus.CounterVec
	events      *prometheus.CounterVec
	commits     *prometheus.HistogramVec
	commitOps   *prometheus.HistogramVec
	storeErrors *prometheus.CounterVec

	mu     sync.Mutex
	places map[tiers.Place]*Place
}

// NewMetrics registers the figures.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tributary", Name: name, Help: help}, append([]string{"place", "tier"}, labels...))
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "tributary", Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, append([]string{"place", "tier"}, labels...))
	}
	seconds := prometheus.ExponentialBuckets(20e-6, 2.5, 14) // 20 µs to 3 s
	m := &Metrics{
		operations:  counter("operations_total", "Requests that were answered, by outcome: allowed, shadow, a denial's reason, ok, gone, or an error's reason.", "verb", "namespace", "outcome"),
		messages:    histogram("request_seconds", "Time from a request's arrival to its answer, batches as one.", seconds, "verb"),
		reports:     counter("reports_total", "Reports to the parent: sent, acknowledged, failed (nobody listened), retried (sent again).", "outcome"),
		entries:     counter("report_entries_total", "Entries of the reports that were sent.", "kind"),
		events:      counter("events_total", "Events that are also logged, by kind.", "kind"),
		commits:     histogram("commit_seconds", "Time that a commit took, sync included.", seconds),
		commitOps:   histogram("commit_operations", "Operations that shared a commit.", prometheus.ExponentialBuckets(1, 4, 8)),
		storeErrors: counter("store_errors_total", "What went wrong in the store, by kind.", "kind"),
		places:      map[tiers.Place]*Place{},
	}
	for _, c := range []prometheus.Collector{m.operations, m.messages, m.reports, m.entries, m.events, m.commits, m.commitOps, m.storeErrors, collector{m}} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// placeMetrics are the figures of one place. A nil one counts nothing.
type placeMetrics struct {
	*Metrics
	place       tiers.Place
	labels      prometheus.Labels
	lastReport  atomic.Uint64
	sent        prometheus.Counter
	retried     prometheus.Counter
	acked       prometheus.Counter
	failed      prometheus.Counter
	counts      prometheus.Counter
	lines       prometheus.Counter
	commit, ops prometheus.Observer
}

func (m *Metrics) place(p tiers.Place) *placeMetrics {
	if m == nil {
		return nil
	}
	place, tier := string(p), p.Tier()
	return &placeMetrics{
		Metrics: m, place: p, labels: prometheus.Labels{"place": place},
		sent:    m.reports.WithLabelValues(place, tier, "sent"),
		retried: m.reports.WithLabelValues(place, tier, "retried"),
		acked:   m.reports.WithLabelValues(place, tier, "acknowledged"),
		failed:  m.reports.WithLabelValues(place, tier, "failed"),
		counts:  m.entries.WithLabelValues(place, tier, "count"),
		lines:   m.entries.WithLabelValues(place, tier, "line"),
		commit:  m.commits.WithLabelValues(place, tier),
		ops:     m.commitOps.WithLabelValues(place, tier),
	}
}

func (m *placeMetrics) observe(p *Place) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.places[m.place] = p
	}
}

func (m *placeMetrics) forget() {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.places, m.place)
	}
}

func (m *placeMetrics) reportSent(r *tiers.Report) {
	if m == nil {
		return
	}
	m.sent.Inc()
	if m.lastReport.Swap(r.Sequence) > 0 && r.Got+1 < r.Sequence {
		m.retried.Inc() // the one before was not acknowledged
	}
	m.counts.Add(float64(len(r.Counts)))
	m.lines.Add(float64(len(r.Lines)))
}

func (m *placeMetrics) reportAcknowledged() {
	if m != nil {
		m.acked.Inc()
	}
}

func (m *placeMetrics) reportFailed() {
	if m != nil {
		m.failed.Inc()
	}
}

func (m *placeMetrics) event(e tiers.Event) {
	if m != nil {
		m.events.WithLabelValues(string(m.place), m.place.Tier(), string(e.Kind)).Inc()
	}
}

// Observer tells the figures and the log what a service of a place does: of its counters, or of a kind of its objects.
func (m *Metrics) Observer(p tiers.Place, log zerolog.Logger) Observer {
	o := Observer{
		Panic: func(v Verb, value any, stack []byte) {
			log.Error().Str("verb", string(v)).Interface("panic", value).Bytes("stack", stack).Msg("a request panicked")
		},
		Unsent: func(v Verb, err error) {
			log.Debug().Err(err).Str("verb", string(v)).Msg("an answer was not sent")
		},
		Fault: func(err error) { log.Error().Err(err).Msg("the service reports an error") },
	}
	if m == nil {
		return o
	}
	place, tier := string(p), p.Tier()
	seconds := map[Verb]prometheus.Observer{}
	for _, v := range append(slices.Clone(verbs), VerbObject) {
		seconds[v] = m.messages.WithLabelValues(place, tier, string(v))
	}
	type key struct {
		verb               Verb
		namespace, outcome string
	}
	var counters sync.Map // key to prometheus.Counter: cheaper than the vector's own map
	o.Operation = func(v Verb, namespace, outcome string) {
		k := key{v, namespace, outcome}
		c, ok := counters.Load(k)
		if !ok {
			c, _ = counters.LoadOrStore(k, m.operations.WithLabelValues(place, tier, string(v), namespace, outcome))
		}
		c.(prometheus.Counter).Inc()
	}
	o.Message = func(v Verb, _ int, took time.Duration) { seconds[v].Observe(took.Seconds()) }
	return o
}

// storeEvents tells the figures and the log what a store does, before the
// events that are set already.
func (m *placeMetrics) storeEvents(e objects.Events, log zerolog.Logger) objects.Events {
	count := func(kind string) {
		if m != nil {
			m.storeErrors.WithLabelValues(string(m.place), m.place.Tier(), kind).Inc()
		}
	}
	before := e
	e.OnCommit = func(ops, bytes int, took time.Duration) {
		if m != nil {
			m.commit.Observe(took.Seconds())
			m.ops.Observe(float64(ops))
		}
		if before.OnCommit != nil {
			before.OnCommit(ops, bytes, took)
		}
	}
	e.OnFailure = func(err error) {
		count("failure")
		log.Error().Err(err).Msg("the store has failed")
		if before.OnFailure != nil {
			before.OnFailure(err)
		}
	}
	e.OnBackgroundError = func(err error, times int) {
		count("background")
		log.Error().Err(err).Int("times", times).Msg("the store cannot write in the background")
	}
	e.OnPanic = func(kind, name string, err error) {
		count("panic")
		log.Error().Err(err).Str("kind", kind).Str("object", name).Msg("an operation panicked")
	}
	e.OnStuck = func(kind, name string, stuck bool) {
		count("stuck")
		log.Error().Bool("stuck", stuck).Str("kind", kind).Str("object", name).Msg("an operation that does not return")
	}
	e.OnFull = func(full bool, free int64) {
		count("full")
		log.Error().Bool("full", full).Int64("free_bytes", free).Msg("room on the disk")
	}
	e.OnWriteStall = func(stalled bool, reason string) {
		log.Warn().Bool("stalled", stalled).Str("reason", reason).Msg("writes wait for flushes or compactions")
	}
	e.OnSlowDisk = func(path string, took time.Duration) {
		count("slow")
		log.Warn().Str("file", path).Dur("took", took).Msg("the disk is slow")
	}
	return e
}

// collector reads the places' figures when they are asked for.
type collector struct{ *Metrics }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tributary_"+name, help, append([]string{"place", "tier"}, labels...), nil)
}

var (
	descAwake        = desc("objects_awake", "Objects in memory.")
	descWaiting      = desc("checks_waiting", "Checks that wait for a share.")
	descBacklog      = desc("backlog_keys", "Keys with changes that the parent is not known to have.")
	descChildren     = desc("children", "Children that ever reported.")
	descBehind       = desc("places_behind", "Places below that are cut off or gone.")
	descAge          = desc("watermark_age_seconds", "Everything that happened below earlier than this is in the totals.")
	descView         = desc("view_age_seconds", "Age of the totals of a place above, as known here.", "of")
	descReady        = desc("ready", "1 if the place takes requests.")
	descLinked       = desc("connected", "1 if the place is connected to NATS.")
	descRefused      = desc("refused", "1 while a place is refused something: listen (NATS forbids a subject), report (NATS forbids its reports), parent (the parent does not take them), message (NATS takes only smaller messages than it needs).", "reason", "subject")
	descCapacity     = desc("share_capacity_tokens", "Tokens that what is here of a limit can hold, over all awake keys; what is lent to children is not here, so the places of a limit sum to it.", "namespace", "scope", "limit")
	descRate         = desc("share_rate_tokens_per_second", "Tokens that what is here of a limit gains in a second, over all awake keys.", "namespace", "scope", "limit")
	descLentCapacity = desc("share_lent_capacity_tokens", "Tokens that what is lent to children of a limit can hold, over all awake keys.", "namespace", "scope", "limit")
	descLentRate     = desc("share_lent_rate_tokens_per_second", "Tokens that what is lent to children of a limit gains in a second, over all awake keys.", "namespace", "scope", "limit")
	descDisk         = desc("store_disk_bytes", "What the store takes on disk.")
	descWAL          = desc("store_wal_bytes_total", "Bytes written to the store's log.")
	descL0           = desc("store_l0_sublevels", "Sublevels of the store's level 0: many mean that compactions do not keep up.")
	descStore        = desc("store_operations_total", "Operations that were committed.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAwake, descWaiting, descBacklog, descChildren, descBehind, descAge, descView, descReady, descLinked, descRefused, descCapacity, descRate, descLentCapacity, descLentRate, descDisk, descWAL, descL0, descStore} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	places := make([]*Place, 0, len(c.places))
	for _, p := range c.places {
		places = append(places, p)
	}
	c.mu.Unlock()
	for _, p := range places {
		p.collect(ch)
	}
}

func (p *Place) collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{string(p.cfg.Place), p.cfg.Place.Tier()}, labels...)...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	s := p.runner.Stats()
	gauge(descAwake, float64(s.Awake))
	gauge(descWaiting, float64(s.Waiting))
	gauge(descBacklog, float64(s.Backlog))
	gauge(descChildren, float64(s.Children))
	gauge(descBehind, float64(s.Behind))
	gauge(descReady, truth(p.Ready() == nil))
	gauge(descLinked, truth(p.cfg.Conn.IsConnected()))
	for _, r := range p.refusals() {
		gauge(descRefused, truth(r.so), r.reason, r.subject)
	}
	if s.Through >= 0 {
		gauge(descAge, s.Through.Seconds())
	}
	for _, v := range s.Above {
		if v.Age >= 0 {
			gauge(descView, v.Age.Seconds(), string(v.Place))
		}
	}
	for i := range s.Pools {
		l := &s.Pools[i]
		namespace, scope, limit := limitLabels(l)
		gauge(descCapacity, wide(l.Here.Capacity), namespace, scope, limit)
		gauge(descRate, wide(l.Here.RatePerDay)/secondsPerDay, namespace, scope, limit)
		gauge(descLentCapacity, wide(l.Lent.Capacity), namespace, scope, limit)
		gauge(descLentRate, wide(l.Lent.RatePerDay)/secondsPerDay, namespace, scope, limit)
	}
	if m := p.store.store.Metrics(); m != nil {
		gauge(descDisk, float64(m.DiskSpaceUsage()))
		send(descWAL, prometheus.CounterValue, float64(m.WAL.BytesWritten))
		gauge(descL0, float64(m.Levels[0].Sublevels))
	}
	send(descStore, prometheus.CounterValue, float64(p.store.store.Stats().Ops))
}

const secondsPerDay = 24 * 60 * 60

func wide(w tiers.Wide) float64 { return float64(w.High)*(1<<64) + float64(w.Low) }

// limitLabels name a limit: no two of a namespace have the same. Those of the
// sum of all limits beyond the bound could not be a namespace's.
func limitLabels(s *tiers.PoolStats) (namespace, scope, limit string) {
	if s.Limit == nil {
		return others, others, others
	}
	scope = s.Limit.Scope.String()
	return s.Namespace, scope, strings.TrimPrefix(s.Limit.String(), scope+" ")
}

// others stands for the names beyond a bound.
const others = "(others)"
