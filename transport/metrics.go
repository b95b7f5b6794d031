package transport

import (
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
)

// Metrics are the figures of all places of a process. Labels are bounded:
// place, tier, namespace, outcome, scope, limit; never a key. Of namespaces, the
// first maxNamespaces that something was answered for have counters of their
// own; a client cannot make one up. A nil *Metrics counts nothing.
type Metrics struct {
	operations  *prometheus.CounterVec
	denials     *prometheus.CounterVec
	messages    *prometheus.HistogramVec
	reports     *prometheus.CounterVec
	entries     *prometheus.CounterVec
	events      *prometheus.CounterVec
	commits     *prometheus.HistogramVec
	commitOps   *prometheus.HistogramVec
	storeErrors *prometheus.CounterVec

	mu         sync.Mutex
	places     map[tiers.Place]*Place
	namespaces map[string]bool // that have counters of their own
}

// maxNamespaces is how many namespaces have counters of their own.
const maxNamespaces = 1000

// NewMetrics registers the figures of a program of a version.
func NewMetrics(r prometheus.Registerer, version string) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tributary", Name: name, Help: help}, append([]string{"place", "tier"}, labels...))
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "tributary", Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, append([]string{"place", "tier"}, labels...))
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tributary", Name: "build_info", Help: "1, of the program as it was built."}, []string{"version", "goversion", "revision"})
	build.WithLabelValues(version, runtime.Version(), revision()).Set(1)
	m := &Metrics{
		operations:  counter("operations_total", "Requests that were answered, by outcome: allowed, shadow, a denial's reason, ok, gone, or an error's reason.", "verb", "namespace", "outcome"),
		messages:    histogram("request_duration_seconds", "Time from a request's arrival to its answer, batches as one.", seconds, "verb"),
		reports:     counter("reports_total", "Reports to the parent: sent, acknowledged, failed (nobody listened), retried (sent again).", "outcome"),
		entries:     counter("report_entries_total", "Entries of the reports that were sent.", "kind"),
		events:      counter("events_total", "Events that are also logged, by kind.", "kind"),
		commits:     histogram("commit_duration_seconds", "Time that a commit took, sync included.", seconds),
		commitOps:   histogram("commit_operations", "Operations that shared a commit.", prometheus.ExponentialBuckets(1, 4, 8)),
		storeErrors: counter("store_errors_total", "What went wrong in the store, by kind.", "kind"),
		denials:     counter("denials_total", "Checks that were denied, by the scope of the limit that denied and the reason.", "scope", "reason"),
		places:      map[tiers.Place]*Place{},
		namespaces:  map[string]bool{},
	}
	for _, c := range []prometheus.Collector{m.operations, m.messages, m.reports, m.entries, m.events, m.commits, m.commitOps, m.storeErrors, m.denials, build, collector{m}} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// seconds are the buckets of times: fine where a check is decided, and with the
// usual bounds of objectives up to the longest that a check may wait.
var seconds = []float64{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

// revision is the commit that the program was built of, if it knows.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// carriedOut are the outcomes of operations that were carried out, and
// denialReasons those of checks that were denied.
var (
	denialReasons = []string{DeniedLimit, DeniedShare, DeniedBurst, DeniedSpent}
	carriedOut    = append([]string{OutcomeOK, OutcomeAllowed, OutcomeShadow, OutcomeGone, OutcomePassed}, denialReasons...)
)

// namespaceLabel is what a namespace is counted as. Only an operation that was
// carried out shows that there is such a namespace.
func (m *Metrics) namespaceLabel(namespace, outcome string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case namespace == "" || m.namespaces[namespace]:
		return namespace
	case !slices.Contains(carriedOut, outcome):
		return ""
	case len(m.namespaces) >= maxNamespaces:
		return others
	}
	m.namespaces[namespace] = true
	return namespace
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

	slowMu   sync.Mutex
	slowSubs map[*nats.Subscription]int // that dropped messages, and how many
}

func (m *Metrics) place(p tiers.Place) *placeMetrics {
	if m == nil {
		return nil
	}
	place, tier := string(p), p.Tier()
	// What is not there has no increase: so each begins at 0.
	for _, kind := range tiers.EventKinds {
		m.events.WithLabelValues(place, tier, string(kind))
	}
	for _, kind := range storeErrors {
		m.storeErrors.WithLabelValues(place, tier, kind)
	}
	for scope := limiter.Global; scope <= limiter.City; scope++ {
		for _, reason := range denialReasons {
			m.denials.WithLabelValues(place, tier, scope.String(), reason)
		}
	}
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

// denied counts a check that was denied.
func (m *placeMetrics) denied(d *tiers.Decision) {
	if m != nil && !d.Allowed {
		m.denials.WithLabelValues(string(m.place), m.place.Tier(), d.Scope.String(), string(d.Reason)).Inc()
	}
}

// slow notes that NATS drops messages of a subscription whose place is too slow.
func (m *placeMetrics) slow(sub *nats.Subscription) {
	if m != nil && sub != nil {
		m.slowMu.Lock()
		defer m.slowMu.Unlock()
		if m.slowSubs == nil {
			m.slowSubs = map[*nats.Subscription]int{}
		}
		m.slowSubs[sub] = max(m.slowSubs[sub], 1)
	}
}

// dropped is how many messages NATS dropped so far.
func (m *placeMetrics) dropped() (sum int) {
	m.slowMu.Lock()
	defer m.slowMu.Unlock()
	for sub := range m.slowSubs {
		if n, err := sub.Dropped(); err == nil { // else it has ended, and what it dropped stays counted
			m.slowSubs[sub] = max(m.slowSubs[sub], n)
		}
		sum += m.slowSubs[sub]
	}
	return sum
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
			k.namespace = m.namespaceLabel(namespace, outcome)
			c, _ = counters.LoadOrStore(k, m.operations.WithLabelValues(place, tier, string(v), k.namespace, outcome))
			if v == VerbCheck && k.namespace != "" { // a denial is an increase, though none came before
				for _, o := range slices.Concat([]string{OutcomeAllowed, OutcomeShadow}, denialReasons) {
					m.operations.WithLabelValues(place, tier, string(v), k.namespace, o)
				}
			}
		}
		c.(prometheus.Counter).Inc()
	}
	o.Message = func(v Verb, _ int, took time.Duration) { seconds[v].Observe(took.Seconds()) }
	return o
}

// storeErrors are the kinds of what goes wrong in a store.
var storeErrors = []string{"failure", "background", "panic", "stuck", "full", "slow"}

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
	descAwake        = desc("objects_awake", "Objects of the store in memory, as 'tributary stats' has it.")
	descKeys         = desc("keys_awake", "Keys in memory.")
	descRules        = desc("rules_version", "Version of the rules that the place follows; 0: it has not heard of the root's.")
	descAnswer       = desc("parent_answer_age_seconds", "Since the parent last took a report; +Inf: it has taken none since the start. The root has none.")
	descLease        = desc("lease_remaining_seconds", "Until all that the parent lent has ended, and hard limits deny; +Inf: nothing is lent. The root has none.")
	descDropped      = desc("messages_dropped_total", "Messages that NATS dropped since the place did not take them in time.")
	descFree         = desc("store_free_bytes", "Room on the store's file system.")
	descBackup       = desc("backup_age_seconds", "Age of the last backup in the place's folder of backups; +Inf: there is none.")
	descWaiting      = desc("checks_waiting", "Checks that wait for a share.")
	descBacklog      = desc("backlog_keys", "Keys with changes that the parent is not known to have.")
	descChildren     = desc("children", "Children that ever reported.")
	descBehind       = desc("places_behind", "Places below that are cut off or gone.")
	descAge          = desc("watermark_age_seconds", "Everything that happened below earlier than this is in the totals; +Inf: a child has not reported yet.")
	descView         = desc("view_age_seconds", "Age of the totals of a place above, as known here; +Inf: not known yet.", "of")
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

var descs = []*prometheus.Desc{
	descAwake, descKeys, descRules, descAnswer, descLease, descDropped, descFree, descBackup, descWaiting, descBacklog, descChildren, descBehind,
	descAge, descView, descReady, descLinked, descRefused, descCapacity, descRate, descLentCapacity, descLentRate, descDisk, descWAL, descL0, descStore,
}

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
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
	type series struct {
		desc   *prometheus.Desc
		labels string
	}
	sent := map[series]bool{}
	// A figure that cannot be shown, or is there twice, must not take all others of the process with it.
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d, kind, v, append([]string{string(p.cfg.Place), p.cfg.Place.Tier()}, labels...)...)
		is := series{d, strings.Join(labels, "\x00")}
		if err != nil || sent[is] {
			p.log.Error().Err(err).Stringer("figure", d).Strs("labels", labels).Msg("a figure is not shown")
			return
		}
		sent[is] = true
		ch <- m
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	s := p.runner.Stats()
	store := p.store.store.Stats()
	gauge(descAwake, float64(store.Awake))
	gauge(descKeys, float64(s.Awake))
	gauge(descWaiting, float64(s.Waiting))
	gauge(descBacklog, float64(s.Backlog))
	gauge(descChildren, float64(s.Children))
	gauge(descBehind, float64(s.Behind))
	gauge(descReady, truth(p.Ready() == nil))
	gauge(descLinked, truth(p.cfg.Conn.IsConnected()))
	for _, r := range p.refusals() {
		gauge(descRefused, truth(r.so), r.reason, r.subject)
	}
	gauge(descAge, age(s.Through))
	gauge(descRules, float64(s.Version))
	if p.cfg.Place != tiers.Root {
		gauge(descAnswer, age(s.Answered))
		gauge(descLease, age(s.Lease))
	}
	for above := p.cfg.Place; above != tiers.Root; {
		above = above.Parent()
		known := time.Duration(-1)
		if i := slices.IndexFunc(s.Above, func(w tiers.Watermark) bool { return w.Place == above }); i >= 0 {
			known = s.Above[i].Age
		}
		gauge(descView, age(known), string(above))
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
	send(descStore, prometheus.CounterValue, float64(store.Ops))
	if d, err := p.store.store.Disk(); err == nil && d.FreeBytes >= 0 {
		gauge(descFree, float64(d.FreeBytes))
	}
	since := time.Duration(-1)
	if made := p.backup.made.Load(); made != nil {
		since = max(0, time.Since(*made))
	}
	gauge(descBackup, age(since))
	send(descDropped, prometheus.CounterValue, float64(p.metrics.dropped()))
}

// age is a time in seconds; a negative one is not known, and taken to be the
// longest: an alert on what is old has to fire.
func age(d time.Duration) float64 {
	if d < 0 {
		return math.Inf(1)
	}
	return d.Seconds()
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
