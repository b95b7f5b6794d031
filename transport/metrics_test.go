package transport

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// shown is what a scrape says, by name and labels: `name{place="eu",scope="global"}`, without the tier.
type shown map[string]float64

// scrape reads all figures of a process.
func scrape(t *testing.T, g prometheus.Gatherer) shown {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := shown{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if l.GetName() != "tier" {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			slices.Sort(labels)
			value := m.Gauge.GetValue() + m.Counter.GetValue()
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

// is fails unless a figure is there with a value; NaN: with any.
func (f shown) is(t *testing.T, name string, want float64) {
	t.Helper()
	if got, there := f[name]; !there || !math.IsNaN(want) && got != want {
		t.Errorf("%s is %v (there: %v), want %v", name, got, there, want)
	}
}

var anything = math.NaN()

// everyLimit has every kind in every scope, and of each several that differ in as little as limits can.
func everyLimit() map[string]limiter.NamespaceSpec {
	spaces := map[string]limiter.NamespaceSpec{}
	for _, scope := range []string{"global", "region", "country", "city"} {
		with := func(l limiter.LimitSpec) limiter.LimitSpec { l.Scope = scope; return l }
		spaces[scope] = limiter.NamespaceSpec{Limits: []limiter.LimitSpec{
			with(limiter.LimitSpec{Rate: "1000/s"}), with(limiter.LimitSpec{Rate: "1000/s", Burst: new(int64(2000))}), with(limiter.LimitSpec{Rate: "1000/m"}),
			with(limiter.LimitSpec{Quota: "1000/day"}), with(limiter.LimitSpec{Quota: "1000/day", Zone: "Europe/Berlin"}), with(limiter.LimitSpec{Quota: "1000/hour"}),
			with(limiter.LimitSpec{Budget: new(int64(1000))}), with(limiter.LimitSpec{Budget: new(int64(2000))}),
			with(limiter.LimitSpec{Concurrency: new(int64(1000))}), with(limiter.LimitSpec{Concurrency: new(int64(1000)), Hold: "1m"}),
			with(limiter.LimitSpec{Concurrency: new(int64(1000)), Mode: "soft"}),
		}}
	}
	return spaces
}

// TestScrapeNamesEveryLimit: no two limits have the same series, whatever they share.
func TestScrapeNamesEveryLimit(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: everyLimit()})
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t, rules, "global", "eu", "eu.de", "eu.de.berlin")
	for namespace := range everyLimit() {
		eventually(t, "a check of "+namespace+" to be allowed", func() bool {
			r, err := w.client("eu.de.berlin").Check(t.Context(), namespace, "key", WithWait(patience))
			return err == nil && r.Allowed
		})
	}
	all := scrape(t, w.registry)
	series := map[string]int{}
	for name := range all {
		if rest, is := strings.CutPrefix(name, "tributary_share_capacity_tokens{"); is {
			_, place, _ := strings.Cut(rest, `place="`)
			place, _, _ = strings.Cut(place, `"`)
			series[place]++
		}
	}
	for place, want := range map[string]int{"global": 11, "eu": 22, "eu.de": 33, "eu.de.berlin": 44} {
		if series[place] != want {
			t.Errorf("%s shows %d limits, want %d", place, series[place], want)
		}
	}
	all.is(t, `tributary_share_rate_tokens_per_second{limit="rate 1000/m burst 17",namespace="city",place="eu.de.berlin",scope="city"}`, 1000.0/60)
	// A share is somewhere once: here, or at the one that it is lent to.
	eventually(t, "the parts of a limit to be the whole", func() bool {
		all := scrape(t, w.registry)
		var sum float64
		for _, place := range []string{"global", "eu", "eu.de", "eu.de.berlin"} {
			sum += all[fmt.Sprintf(`tributary_share_rate_tokens_per_second{limit="rate 1000/s burst 2000",namespace="global",place=%q,scope="global"}`, place)]
		}
		return sum == 1000
	})
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestFiguresStay: what is not known is not gone, and what has not happened is 0.
func TestFiguresStay(t *testing.T) {
	w := newTree(t, testRules(t, limiter.LimitSpec{Scope: "global", Rate: "1000/s"}), "eu.de.berlin")
	all := scrape(t, w.registry)
	for name, want := range map[string]float64{
		`tributary_parent_answer_age_seconds{place="eu.de.berlin"}`:                   math.Inf(1),
		`tributary_lease_remaining_seconds{place="eu.de.berlin"}`:                     math.Inf(1),
		`tributary_view_age_seconds{of="eu.de",place="eu.de.berlin"}`:                 math.Inf(1),
		`tributary_view_age_seconds{of="eu",place="eu.de.berlin"}`:                    math.Inf(1),
		`tributary_view_age_seconds{of="global",place="eu.de.berlin"}`:                math.Inf(1),
		`tributary_backup_age_seconds{place="eu.de.berlin"}`:                          math.Inf(1),
		`tributary_rules_version{place="eu.de.berlin"}`:                               0,
		`tributary_messages_dropped_total{place="eu.de.berlin"}`:                      0,
		`tributary_backlog_keys{place="eu.de.berlin"}`:                                0,
		`tributary_keys_awake{place="eu.de.berlin"}`:                                  0,
		`tributary_objects_awake{place="eu.de.berlin"}`:                               float64(w.places["eu.de.berlin"].store.store.Stats().Awake),
		`tributary_store_free_bytes{place="eu.de.berlin"}`:                            anything,
		`tributary_store_errors_total{kind="full",place="eu.de.berlin"}`:              0,
		`tributary_events_total{kind="lost",place="eu.de.berlin"}`:                    0,
		`tributary_denials_total{place="eu.de.berlin",reason="share",scope="global"}`: 0,
		`tributary_reports_total{outcome="acknowledged",place="eu.de.berlin"}`:        0,
	} {
		all.is(t, name, want)
	}
	for _, kind := range tiers.EventKinds {
		all.is(t, fmt.Sprintf(`tributary_events_total{kind=%q,place="eu.de.berlin"}`, kind), anything)
	}
	if r, err := w.client("eu.de.berlin").Check(t.Context(), "api", "key"); err != nil || r.Allowed {
		t.Fatalf("%+v, %v", r, err)
	}
	all = scrape(t, w.registry)
	all.is(t, `tributary_denials_total{place="eu.de.berlin",reason="share",scope="global"}`, 1)
	eventually(t, "the denial to be counted, which is after its answer", func() bool {
		all = scrape(t, w.registry)
		return all[`tributary_operations_total{namespace="api",outcome="share",place="eu.de.berlin",verb="check"}`] == 1
	})
	all.is(t, `tributary_operations_total{namespace="api",outcome="allowed",place="eu.de.berlin",verb="check"}`, 0)

	for _, p := range []tiers.Place{"global", "eu", "eu.de"} {
		w.start(p)
	}
	eventually(t, "a check to be allowed", func() bool {
		r, err := w.client("eu.de.berlin").Check(t.Context(), "api", "key", WithWait(patience))
		return err == nil && r.Allowed
	})
	all = scrape(t, w.registry)
	all.is(t, `tributary_rules_version{place="eu.de.berlin"}`, 1)
	if left := all[`tributary_lease_remaining_seconds{place="eu.de.berlin"}`]; left <= 0 || left > 5 {
		t.Errorf("%v seconds of the lease are left", left)
	}
	if age := all[`tributary_parent_answer_age_seconds{place="eu.de.berlin"}`]; age < 0 || math.IsInf(age, 1) {
		t.Errorf("the parent's last answer is %v seconds old", age)
	}
	for _, name := range []string{"tributary_parent_answer_age_seconds", "tributary_lease_remaining_seconds"} {
		if _, there := all[name+`{place="global"}`]; there {
			t.Errorf("the root, which has no parent, has %s", name)
		}
	}
	for _, p := range []tiers.Place{"eu.de", "eu", "global"} {
		w.stop(p)
	}
	eventually(t, "the lease to end", func() bool {
		all := scrape(t, w.registry)
		return all[`tributary_lease_remaining_seconds{place="eu.de.berlin"}`] == 0
	})
}

// TestClientsMakeNoSeries: a namespace that no rule names is counted without its name, whatever the answer; and of
// those that are there so many have counters of their own.
func TestClientsMakeNoSeries(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := NewMetrics(registry, "0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	o := m.Observer("eu.de.berlin", zerolog.Nop())
	for i := range 50 {
		o.Operation(VerbCheck, fmt.Sprintf("invented%d", i), ErrOverloaded.Reason)
	}
	for i := range maxNamespaces + 20 {
		o.Operation(VerbAdd, fmt.Sprintf("n%d", i), OutcomeOK)
		o.Operation(VerbAdd, fmt.Sprintf("n%d", i), OutcomeOK)
	}
	all := scrape(t, registry)
	series := 0
	for name := range all {
		if strings.HasPrefix(name, "tributary_operations_total{") {
			series++
		}
	}
	if series != maxNamespaces+2 {
		t.Errorf("%d series", series)
	}
	all.is(t, `tributary_operations_total{namespace="",outcome="overloaded",place="eu.de.berlin",verb="check"}`, 50)
	all.is(t, `tributary_operations_total{namespace="(others)",outcome="ok",place="eu.de.berlin",verb="add"}`, 40)
	all.is(t, `tributary_operations_total{namespace="n999",outcome="ok",place="eu.de.berlin",verb="add"}`, 2)
}

// TestTimesHaveBucketsForObjectives: up to the longest that a check may wait.
func TestTimesHaveBucketsForObjectives(t *testing.T) {
	for _, bound := range []float64{0.0001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, limiter.MaxWait.Seconds()} {
		if !slices.Contains(seconds, bound) {
			t.Errorf("there is no bucket that ends at %v s", bound)
		}
	}
	if !slices.IsSorted(seconds) {
		t.Error("buckets are not in order")
	}
}

// TestBuildIsShown, so that it can be told which programs run.
func TestBuildIsShown(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := NewMetrics(registry, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	all := scrape(t, registry)
	for name, value := range all {
		if strings.HasPrefix(name, "tributary_build_info{") && strings.Contains(name, `version="1.2.3"`) && strings.Contains(name, `goversion="go`) && strings.Contains(name, `revision="`) && value == 1 {
			return
		}
	}
	t.Errorf("the build is not among %d figures", len(all))
}

// TestBackupHasAnAge, of the one in the folder, whichever process made it.
func TestBackupHasAnAge(t *testing.T) {
	w := newTree(t, testRules(t))
	w.startOn("global", vfs.Default)
	name := `tributary_backup_age_seconds{place="global"}`
	scrape(t, w.registry).is(t, name, math.Inf(1))
	if _, err := w.client("global").Backup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if age := scrape(t, w.registry)[name]; age < 0 || age > patience.Seconds() {
		t.Errorf("the backup is %v s old", age)
	}
	w.stop("global")
	w.startOn("global", vfs.Default)
	if age := scrape(t, w.registry)[name]; age < 0 || math.IsInf(age, 1) {
		t.Errorf("after a start the backup is %v s old", age)
	}
}

// TestDroppedMessagesAreCounted: NATS drops what a subscription has no room for.
func TestDroppedMessagesAreCounted(t *testing.T) {
	w := newTree(t, testRules(t), "global")
	nc := w.places["global"].cfg.Conn
	sub, err := nc.SubscribeSync("flood")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, -1); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := nc.Publish("flood", nil); err != nil {
			t.Fatal(err)
		}
	}
	dropped := func() float64 { return scrape(t, w.registry)[`tributary_messages_dropped_total{place="global"}`] }
	eventually(t, "nine messages to be dropped", func() bool { return dropped() == 9 })
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if n := dropped(); n != 9 {
		t.Errorf("when the subscription is gone, %v were dropped", n)
	}
}
