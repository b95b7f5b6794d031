package transport

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tributary-io/tributary/limiter"
)

// explained are the rules of the tests of explain.
func explained(t *testing.T) *limiter.Rules {
	t.Helper()
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {},
		"world": {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1/h", Burst: new(int64(100))}}},
		"api":   {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1/h", Burst: new(int64(100))}, {Scope: "city", Rate: "1/h", Burst: new(int64(90))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestExplainShowsTheWayOfAShare spends a global limit in one city, and asks why the other city is denied.
func TestExplainShowsTheWayOfAShare(t *testing.T) {
	w := newTree(t, explained(t), world4...)
	ctx := t.Context()
	berlin := w.client("eu.de.berlin")
	if r := must[CheckReply](t)(berlin.Check(ctx, "api", "a", WithHits(90), WithWait(patience))); !r.Allowed {
		t.Fatalf("%+v", r)
	}
	must[CheckReply](t)(berlin.Check(ctx, "api", "a", WithHits(50), WithWait(0))) // it would like more, and keeps what it has

	e := must[Explanation](t)(berlin.Explain(ctx, "api", "a", 1))
	if len(e.Path) != 4 || e.Namespace != "api" || e.Key != "a" || e.Hits != 1 {
		t.Fatalf("%+v", e)
	}
	for i, place := range []string{"eu.de.berlin", "eu.de", "eu", "global"} {
		p := e.Path[i]
		if p.Place != place || p.Unanswered != "" || !p.Awake || p.Version != 1 || len(p.Rule.Limits) != 2 {
			t.Fatalf("place %d: %+v", i, p)
		}
		global := p.Limits[0]
		if global.Limit != "global rate 1/h burst 100" || global.Owner != "global" || global.PeriodMS != 3600000 || global.Holds.Capacity != 100 {
			t.Errorf("%s: the limit is %+v", place, global)
		}
		if owner := place == "global"; owner != (global.Borrowed == nil) {
			t.Errorf("%s borrows %+v", place, global.Borrowed)
		} else if !owner && (global.Borrowed.LeaseMS <= 0 || global.Borrowed.LeaseMS > 5000 || global.Borrowed.Ended) {
			t.Errorf("%s: the lease is %+v", place, global.Borrowed)
		}
		if i == 0 {
			continue
		}
		if p.Verdict != nil || len(p.Limits) != 1 {
			t.Errorf("%s is no city: %+v", place, p)
		}
		if lines := global.Lines; len(lines) != 1 || lines[0].Child != e.Path[i-1].Place || lines[0].Lent.Capacity != 100 || lines[0].LeaseMS <= 0 {
			t.Errorf("%s lends %+v", place, lines)
		}
	}
	city := e.Path[0]
	if v := city.Verdict; v == nil || v.Allowed || v.Reason != DeniedLimit || v.Limit != 1 || v.Hits != 1 || v.RetryAfterMS < 30*60*1000 {
		t.Errorf("verdict: %+v", v)
	}
	if here := city.Limits[0].Here; here.Tokens != 10 || here.Capacity != 100 {
		t.Errorf("Berlin has %+v of the global limit", here)
	}
	if own := city.Limits[1]; own.Owner != "eu.de.berlin" || own.Here.Tokens != 0 || own.Borrowed != nil {
		t.Errorf("Berlin's own limit: %+v", own)
	}
	// Nothing of this was spent, and the verdict is what comes.
	if v := must[Explanation](t)(berlin.Explain(ctx, "api", "a", 0)).Path[0].Verdict; !v.Allowed || v.Limit != 1 || v.Remaining != 0 {
		t.Errorf("verdict of a look: %+v", v)
	}
	if v := must[Explanation](t)(berlin.Explain(ctx, "api", "b", 1000)).Path[0].Verdict; v.Allowed || v.Reason != DeniedBurst {
		t.Errorf("verdict of 1000: %+v", v)
	}

	// In Munich nobody asked yet; once somebody did, Berlin is asked to give back.
	munich := w.client("eu.de.munich")
	munich.timeout = patience // on a busy machine
	eventually(t, "Munich knows that its disk is its last", func() bool {
		return !must[Explanation](t)(munich.Explain(ctx, "api", "other", 1)).Path[0].Unconfirmed
	})
	e = must[Explanation](t)(munich.Explain(ctx, "api", "a", 1))
	if p := e.Path[0]; p.Awake || p.Verdict.Allowed || p.Verdict.Reason != DeniedShare || !p.Verdict.Waits || p.Limits[1].Here.Tokens != 90 {
		t.Errorf("Munich: %+v, %+v", p, p.Verdict)
	}
	if lines := e.Path[1].Limits[0].Lines; len(lines) != 0 || e.Path[1].Limits[0].Children != 1 {
		t.Errorf("eu.de lends Munich %+v", lines)
	}
	must[CheckReply](t)(munich.Check(ctx, "api", "a", WithHits(8), WithWait(0)))
	eventually(t, "a recall in Berlin", func() bool {
		r := must[Explanation](t)(berlin.Explain(ctx, "api", "a", 1)).Path[0].Limits[0].Recall
		return r != nil && r.Count > 0 && r.AgoMS >= 0 && r.Keep != nil && r.Keep.Capacity < 100
	})

	// One that does not answer is marked.
	if err := w.places["eu"].Kill(); err != nil {
		t.Fatal(err)
	}
	e = must[Explanation](t)(munich.Explain(ctx, "api", "a", 1))
	if p := e.Path[2]; p.Place != "eu" || p.ExplainReply != nil || !strings.Contains(p.Unanswered, "nobody listens on tributary.admin.explain.eu") {
		t.Errorf("eu: %+v", p)
	}
	if p := e.Path[3]; p.Unanswered != "" {
		t.Errorf("global: %+v", p)
	}
	if text, err := e.MarshalJSON(); err != nil || !jsontext.Value(text).IsValid() || !strings.Contains(string(text), `{"place":"eu","unanswered":"nobody`) {
		t.Errorf("%s, %v", text, err)
	}
	w.start("eu") // so that eu.de can say goodbye
}

// TestExplainOfADeniedGlobalLimit: all of it was spent in the city, and each place above shows where it went.
func TestExplainOfADeniedGlobalLimit(t *testing.T) {
	w := newTree(t, explained(t), world4...)
	berlin := w.client("eu.de.berlin")
	if r := must[CheckReply](t)(berlin.Check(t.Context(), "world", "a", WithHits(100), WithWait(patience))); !r.Allowed {
		t.Fatalf("%+v", r)
	}
	e := must[Explanation](t)(berlin.Explain(t.Context(), "world", "a", 1))
	if v := e.Path[0].Verdict; v.Allowed || v.Reason != DeniedLimit || v.Limit != 0 || v.Remaining != 0 {
		t.Errorf("verdict: %+v", v)
	}
	if here := e.Path[0].Limits[0].Here; here.Tokens != 0 || here.Capacity != 100 || here.Rate != 1 {
		t.Errorf("Berlin has %+v", here)
	}
	for i, p := range e.Path[1:] {
		if l := p.Limits[0]; l.Here.Capacity != 0 || len(l.Lines) != 1 || l.Lines[0].Child != e.Path[i].Place || l.Lines[0].Lent != (ShareFigures{100, 100, 1}) {
			t.Errorf("%s: %+v", p.Place, l)
		}
	}
}

func TestExplainSaysWhatCannotBeExplained(t *testing.T) {
	w := newTree(t, explained(t), world4...)
	ctx := t.Context()
	berlin := w.client("eu.de.berlin")
	if p := must[Explanation](t)(berlin.Explain(ctx, "votes", "a", 1)).Path[0]; !p.Verdict.Allowed || len(p.Limits) != 0 || len(p.Rule.Limits) != 0 {
		t.Errorf("without limits: %+v", p)
	}
	for _, c := range []struct {
		err    error
		reason *Error
		says   string
	}{
		{second(w.client("").Explain(ctx, "api", "a", 1)), ErrOutOfRange, "WithPlace"},
		{second(berlin.Explain(ctx, "nowhere", "a", 1)), ErrUnknownNamespace, "no rule"},
		{second(berlin.Explain(ctx, "api", "", 1)), ErrOutOfRange, "key is empty"},
		{second(berlin.Explain(ctx, "api", "a", -1)), ErrOutOfRange, "hits is -1"},
		{second(w.client("us").Explain(ctx, "api", "a", 1)), ErrNoResponders, "nobody listens"},
	} {
		if !errors.Is(c.err, c.reason) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%v, want %s: …%s…", c.err, c.reason.Reason, c.says)
		}
	}
}
