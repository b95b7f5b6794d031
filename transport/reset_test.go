package transport

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

func TestResetFillsWhatThePlaceOwns(t *testing.T) {
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes":  {},
		"budget": {Limits: []limiter.LimitSpec{{Scope: "global", Budget: new(int64(10))}, {Scope: "city", Rate: "1/h", Burst: new(int64(10))}}},
		"home":   {Limits: []limiter.LimitSpec{{Scope: "country", Rate: "1/h", Burst: new(int64(3))}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t, rules, world4...)
	ctx := t.Context()
	berlin, anywhere := w.client("eu.de.berlin"), w.client("")
	spend := func(namespace string, hits int64) bool {
		return must[CheckReply](t)(berlin.Check(ctx, namespace, "a", WithHits(hits), WithWait(5*time.Second))).Allowed
	}
	if !spend("budget", 10) {
		t.Fatal("10 of 10 were not spent")
	}
	for _, at := range []struct {
		place tiers.Place
		want  ResetReply
	}{
		{"", ResetReply{"global", []string{"global budget 10"}}},
		{"eu.de.berlin", ResetReply{"eu.de.berlin", []string{"city rate 1/h burst 10"}}},
	} {
		if r := must[ResetReply](t)(w.client(at.place).Reset(ctx, "budget", "a")); r.Place != at.want.Place || !slices.Equal(r.Limits, at.want.Limits) {
			t.Errorf("reset at %q: %+v", at.place, r)
		}
	}
	eventually(t, "10 are spent again", func() bool { return spend("budget", 10) })
	must[ResetReply](t)(w.client("eu.de").Reset(ctx, "home", "never asked for"))

	for _, c := range []struct {
		err    error
		reason *Error
		says   string
	}{
		{second(anywhere.Reset(ctx, "home", "a")), ErrNotOwner, "global owns no limit of home: ask each country below it"},
		{second(berlin.Reset(ctx, "home", "a")), ErrNotOwner, "eu.de.berlin owns no limit of home: ask eu.de"},
		{second(w.client("eu").Reset(ctx, "budget", "a")), ErrNotOwner, "eu owns no limit of budget: ask global, and each city below it"},
		{second(anywhere.Reset(ctx, "votes", "a")), ErrNotOwner, "that namespace has no limits"},
		{second(anywhere.Reset(ctx, "nowhere", "a")), ErrUnknownNamespace, "no rule"},
		{second(anywhere.Reset(ctx, "votes", "")), ErrOutOfRange, "key is empty"},
	} {
		if !errors.Is(c.err, c.reason) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%v, want %s: …%s…", c.err, c.reason.Reason, c.says)
		}
	}
	conn := connect(t, w.server)
	reply := ask(t, conn, "tributary.admin.reset.global", `{"namespace":"","key":"a"}`)
	refused(t, reply.Data, reply.Header.Get, ErrOutOfRange, "namespace is 0 bytes long")
	reply = ask(t, conn, "tributary.admin.reset.global", `{"namespace":"budget","key":"a"}`)
	if got, want := string(reply.Data), `{"place":"global","limits":["global budget 10"]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
