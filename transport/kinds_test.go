package transport

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// kinds is a rule for each kind of limit, and for what a rule may say beside its limits.
func kinds(t testing.TB) *limiter.Rules {
	t.Helper()
	one := func(l limiter.LimitSpec) limiter.NamespaceSpec {
		return limiter.NamespaceSpec{Limits: []limiter.LimitSpec{l}}
	}
	shadow, count := one(limiter.LimitSpec{Scope: "city", Rate: "3/h", Burst: new(int64(3))}), one(limiter.LimitSpec{Scope: "city", Rate: "5/h", Burst: new(int64(5))})
	shadow.Shadow, count.Count = true, true
	patient := one(limiter.LimitSpec{Scope: "global", Concurrency: new(int64(1))})
	patient.Wait = "10s"
	weighted := one(limiter.LimitSpec{Scope: "global", Rate: "400/s"})
	weighted.Weights = map[string]int64{"eu.de.berlin": 3}
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"budget":  one(limiter.LimitSpec{Scope: "global", Budget: new(int64(100))}),
		"quota":   one(limiter.LimitSpec{Scope: "global", Quota: "20/month"}),
		"jobs":    one(limiter.LimitSpec{Scope: "global", Concurrency: new(int64(3))}),
		"brief":   one(limiter.LimitSpec{Scope: "city", Concurrency: new(int64(1)), Hold: "1s"}),
		"soft":    one(limiter.LimitSpec{Scope: "global", Rate: "160/h", Burst: new(int64(160)), Mode: "soft"}),
		"shadow":  shadow,
		"count":   count,
		"patient": patient,
		"weights": weighted,
		"votes":   {},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// must fails the test on an error.
func must[R any](t testing.TB) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// TestBudgetIsSpentToItsLastToken asks in two cities at once until nothing is left. The last tokens may take some
// leases: a city that was lent one and does not ask any more has to give it back.
func TestBudgetIsSpentToItsLastToken(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	var spent atomic.Int64
	var wg sync.WaitGroup
	for _, city := range []tiers.Place{"eu.de.berlin", "eu.de.munich"} {
		c := w.client(city)
		wg.Go(func() {
			for end := time.Now().Add(patience); spent.Load() < 100 && time.Now().Before(end); {
				r, err := c.Check(context.Background(), "budget", "a", WithWait(time.Second))
				if err != nil || r.Kind != "budget" {
					t.Errorf("%+v, %v", r, err)
					return
				}
				if r.Allowed {
					spent.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := spent.Load(); n != 100 {
		t.Errorf("%d of 100 were spent", n)
	}
	for _, city := range []tiers.Place{"eu.de.berlin", "eu.de.munich"} {
		var r CheckReply
		eventually(t, "the city knows that nothing is left", func() bool {
			r = must[CheckReply](t)(w.client(city).Check(t.Context(), "budget", "a"))
			return r.Allowed || r.Reason == DeniedSpent
		})
		if r.Allowed || r.Limit != 100 || r.Remaining != 0 || r.RetryAfter != 0 {
			t.Errorf("one more at %s: %+v", city, r)
		}
	}
}

func TestQuotaSaysWhenItsWindowEnds(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	if r := must[CheckReply](t)(c.Check(t.Context(), "quota", "a", WithHits(20), WithWait(patience))); !r.Allowed || r.Kind != "quota" {
		t.Fatalf("%+v", r)
	}
	now := time.Now().UTC()
	end := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	var r CheckReply
	eventually(t, "the city knows that nothing is left", func() bool {
		r = must[CheckReply](t)(c.Check(t.Context(), "quota", "a"))
		return r.Allowed || r.RetryAfter > 0
	})
	if r.Allowed || r.Limit != 20 || r.Remaining != 0 {
		t.Errorf("%+v", r)
	}
	for what, d := range map[string]time.Duration{"retry_after": r.RetryAfter, "reset": r.Reset} {
		if off := time.Now().Add(d).Sub(end); off.Abs() > patience {
			t.Errorf("%s is %v, which is %v from the end of the month", what, d, off)
		}
	}
}

func TestRefundTakesBackWhatWasSpent(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	spend := func(hits int64) bool {
		return must[CheckReply](t)(c.Check(t.Context(), "count", "a", WithHits(hits), WithWait(0))).Allowed
	}
	if !spend(5) || spend(1) {
		t.Fatal("5 of 5 were not spent")
	}
	if r := must[RefundReply](t)(c.Refund(t.Context(), "count", "a", 2)); r != (RefundReply{2, "eu.de.berlin"}) {
		t.Errorf("refund of 2: %+v", r)
	}
	if r := must[RefundReply](t)(c.Refund(t.Context(), "count", "a", 100)); r.Refunded != 3 {
		t.Errorf("refund of 100 more: %+v", r)
	}
	if r := must[RefundReply](t)(c.Refund(t.Context(), "count", "a", 1)); r.Refunded != 0 {
		t.Errorf("refund of what was not spent: %+v", r)
	}
	if !spend(5) || spend(1) {
		t.Error("5 of 5 were not spent after the refund")
	}
}

func TestPermitIsReleasedOnce(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	ctx := t.Context()
	var permits []string
	for range 3 {
		r := must[CheckReply](t)(c.Check(ctx, "jobs", "a", WithWait(patience)))
		if !r.Allowed || r.Kind != "concurrency" || r.Permit == "" || r.Hold != limiter.DefaultHold {
			t.Fatalf("%+v", r)
		}
		permits = append(permits, r.Permit)
	}
	if r := must[CheckReply](t)(c.Check(ctx, "jobs", "a")); r.Allowed || r.Reason != DeniedLimit || r.Permit != "" {
		t.Fatalf("a fourth: %+v", r)
	}
	for _, gone := range []struct{ name, key, permit string }{
		{"of another key", "b", permits[0]},
		{"of another session", "a", "eu.de.berlin/0123456789abcdef/1"},
		{"of another place", "a", "eu.de.munich" + permits[0][len("eu.de.berlin"):]},
	} {
		if r := must[ReleaseReply](t)(c.Release(ctx, "jobs", gone.key, gone.permit)); r.Done {
			t.Errorf("a permit %s was released", gone.name)
		}
	}
	if r := must[ReleaseReply](t)(c.Renew(ctx, "jobs", "a", permits[0])); !r.Done {
		t.Errorf("renewed: %+v", r)
	}
	anywhere := w.client("") // it asks the place that the permit names
	for _, want := range []bool{true, false, false} {
		if r := must[ReleaseReply](t)(anywhere.Release(ctx, "jobs", "a", permits[0])); r.Done != want || r.Place != "eu.de.berlin" {
			t.Errorf("released: %+v, want %v", r, want)
		}
	}
	if r := must[ReleaseReply](t)(c.Renew(ctx, "jobs", "a", permits[0])); r.Done {
		t.Errorf("renewed after its release: %+v", r)
	}
	// One is free, once, in the other city.
	munich := w.client("eu.de.munich")
	if r := must[CheckReply](t)(munich.Check(ctx, "jobs", "a", WithWait(patience))); !r.Allowed {
		t.Errorf("after the release: %+v", r)
	}
	if r := must[CheckReply](t)(munich.Check(ctx, "jobs", "a")); r.Allowed {
		t.Errorf("a fifth: %+v", r)
	}
	// A batch to any city does not know where its permits are from.
	for _, r := range must[[]Result[ReleaseReply]](t)(anywhere.ReleaseBatch(ctx, []ReleaseRequest{{"jobs", "a", "us.ny.nyc/0123456789abcdef/1", false}})) {
		if !errors.Is(r.Err, ErrWrongPlace) {
			t.Errorf("%+v", r)
		}
	}
}

func TestPermitEndsWithItsHold(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	first := must[CheckReply](t)(c.Check(t.Context(), "brief", "a"))
	if !first.Allowed || first.Hold != time.Second {
		t.Fatalf("%+v", first)
	}
	if r := must[CheckReply](t)(c.Check(t.Context(), "brief", "a", WithWait(0))); r.Allowed {
		t.Fatalf("two at a time: %+v", r)
	}
	if r := must[CheckReply](t)(c.Check(t.Context(), "brief", "a", WithWait(patience))); !r.Allowed {
		t.Fatalf("after the hold: %+v", r)
	}
	for what, call := range map[string]func(context.Context, string, string, string) (ReleaseReply, error){"released": c.Release, "renewed": c.Renew} {
		if r := must[ReleaseReply](t)(call(t.Context(), "brief", "a", first.Permit)); r.Done {
			t.Errorf("%s after its hold", what)
		}
	}
}

func TestCheckThatDoesNotSayWaitsAsItsRuleSays(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	held := must[CheckReply](t)(c.Check(t.Context(), "patient", "a"))
	if !held.Allowed {
		t.Fatalf("%+v", held)
	}
	waited := make(chan CheckReply, 1)
	go func() {
		r, err := c.Check(context.Background(), "patient", "a")
		if err != nil {
			t.Error(err)
		}
		waited <- r
	}()
	eventually(t, "the check waits", func() bool {
		return must[Explanation](t)(c.Explain(t.Context(), "patient", "a", 1)).Path[0].Limits[0].Waiting == 1
	})
	// Meanwhile one without such a rule waits, and is denied.
	if r := must[CheckReply](t)(c.Check(t.Context(), "jobs", "a", WithHits(3))); !r.Allowed {
		t.Fatalf("%+v", r)
	}
	if r := must[CheckReply](t)(c.Check(t.Context(), "jobs", "a")); r.Allowed {
		t.Fatalf("%+v", r)
	}
	select {
	case r := <-waited:
		t.Fatalf("it did not wait: %+v", r)
	default:
	}
	must[ReleaseReply](t)(c.Release(t.Context(), "patient", "a", held.Permit))
	if r := await(t, waited, "the check that waits"); !r.Allowed {
		t.Errorf("%+v", r)
	}
}

func TestShadowAllowsAndSaysWhy(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	for i := range 5 {
		r := must[CheckReply](t)(c.Check(t.Context(), "shadow", "a"))
		want := ""
		if i >= 3 {
			want = DeniedLimit
		}
		if !r.Allowed || r.Shadow != (i >= 3) || r.Reason != want {
			t.Errorf("check %d: %+v", i, r)
		}
	}
}

func TestCountCountsWhatIsAdmitted(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	c := w.client("eu.de.berlin")
	for _, hits := range []int64{2, 0, 3, 1} {
		if r := must[CheckReply](t)(c.Check(t.Context(), "count", "a", WithHits(hits), WithWait(0))); r.Allowed != (hits != 1) {
			t.Errorf("%d hits: %+v", hits, r)
		}
	}
	eventually(t, "the root has counted what was admitted", func() bool {
		return must[GetReply](t)(w.client("global").Get(t.Context(), "count", "a")).Total.String() == "5"
	})
	must[AddReply](t)(c.Add(t.Context(), "count", "a", 1)) // it takes adds, too
	if _, err := c.Add(t.Context(), "jobs", "a", 1); !errors.Is(err, ErrNotCounted) {
		t.Errorf("an add where nothing is counted: %v", err)
	}
}

func TestSoftLimitIsOpenWithoutAParent(t *testing.T) {
	w := newTree(t, kinds(t), "eu.de.berlin")
	c := w.client("eu.de.berlin")
	for i := range 10 {
		if r := must[CheckReply](t)(c.Check(t.Context(), "soft", "a", WithWait(0))); !r.Allowed {
			t.Errorf("check %d: %+v", i, r)
		}
	}
	if r := must[CheckReply](t)(c.Check(t.Context(), "soft", "a", WithHits(5), WithWait(0))); r.Allowed || r.Reason != DeniedShare {
		t.Errorf("beyond a sixteenth of the limit: %+v", r)
	}
}

// TestWeightsDivideWhatAllWant: two cities want more than there is, and one gets three times as much as the other.
func TestWeightsDivideWhatAllWant(t *testing.T) {
	w := newTree(t, kinds(t), world4...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, city := range []tiers.Place{"eu.de.berlin", "eu.de.munich"} {
		c := w.client(city)
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Check(context.WithoutCancel(ctx), "weights", "a", WithHits(10), WithWait(0)); err != nil {
					t.Error(err)
					return
				}
				pace(ctx, 5*time.Millisecond)
			}
		})
	}
	rate := func(city tiers.Place) int64 {
		return must[Explanation](t)(w.client(city).Explain(t.Context(), "weights", "a", 1)).Path[0].Limits[0].Holds.Rate
	}
	var berlin, munich int64
	eventually(t, "Berlin has three quarters of the rate", func() bool {
		berlin, munich = rate("eu.de.berlin"), rate("eu.de.munich")
		return berlin+munich == 400 && berlin >= 280 && berlin <= 320
	})
	t.Logf("Berlin has %d of 400/s, Munich %d", berlin, munich)
}

func TestRefundOfWhatHasNoLimitIsNothing(t *testing.T) {
	w := newTree(t, kinds(t), "eu.de.berlin")
	c := w.client("eu.de.berlin")
	must[CheckReply](t)(c.Check(t.Context(), "brief", "a"))
	must[AddReply](t)(c.Add(t.Context(), "votes", "a", 3))
	for _, namespace := range []string{"votes", "brief"} {
		if r := must[RefundReply](t)(c.Refund(t.Context(), namespace, "a", 3)); r.Refunded != 0 {
			t.Errorf("%s: %+v", namespace, r)
		}
	}
	if _, err := c.Refund(t.Context(), "nowhere", "a", 3); !errors.Is(err, ErrUnknownNamespace) {
		t.Errorf("%v", err)
	}
}
