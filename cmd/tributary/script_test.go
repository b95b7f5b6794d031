package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tributary": main})
}

// TestScripts runs the command line as people do. The scripts find in their environment NATS, a server with the place
// eu.de.berlin on it (see fakeBackend), IDLE, a server that nobody serves on, and NOWHERE, where no server is.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("each line starts a process, which takes long under the race detector; the full run has them")
	}
	serving, idle := startNATS(t), startNATS(t)
	nc, err := serving.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for _, cfg := range []transport.ServiceConfig{
		{Prefix: "tributary", Place: berlin, Leaf: true},
		{Prefix: "tributary", Place: "eu.de"},
		{Prefix: "tributary", Place: "eu"},
		{Prefix: "tributary", Place: "global"},
		{Prefix: "acme", Place: berlin, Leaf: true},
	} {
		cfg.Version, cfg.Admin = version, fakeAdmin{cfg.Place}
		if _, err := transport.NewService(nc, cfg, fakeBackend{}); err != nil {
			t.Fatal(err)
		}
	}
	answerAsStranger(t, nc)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("NATS", serving.ClientURL())
			env.Setenv("IDLE", idle.ClientURL())
			env.Setenv("NOWHERE", "nats://"+freeAddress(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "envsubst": envsubst, "root": startRoot},
	})
}

// exits runs a program and compares its exit code: exits 3 tributary check …
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits code program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// envsubst copies a file, with the environment put in: envsubst from to.
func envsubst(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: envsubst from to")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// startRoot starts the root of a new world with a rules file, and has the commands that follow ask it: root rules.yaml.
func startRoot(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: root file")
	}
	rules, err := loadRules(ts.MkAbs(args[0]))
	ts.Check(err)
	server, err := transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0", Logger: zerolog.Nop()})
	ts.Check(err)
	ts.Defer(server.Shutdown)
	nc, err := server.Connect()
	ts.Check(err)
	ts.Defer(nc.Close)
	root, err := transport.StartPlace(transport.PlaceConfig{Place: tiers.Root, Dir: ts.MkAbs("root"), Conn: nc, Rules: rules, Version: version, Logger: zerolog.Nop()})
	ts.Check(err)
	ts.Defer(func() { ts.Check(root.Stop(context.Background())) })
	ts.Setenv("TRIBUTARY_NATS", server.ClientURL())
}

func startNATS(t *testing.T) *transport.Server {
	t.Helper()
	s, err := transport.StartServer(transport.ServerConfig{Listen: "127.0.0.1:0", Logger: zerolog.New(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// answerAsStranger answers on stranger.check as something that is no tributary.
func answerAsStranger(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if _, err := nc.Subscribe("stranger.check", func(m *nats.Msg) { _ = m.Respond([]byte("{}")) }); err != nil {
		t.Fatal(err)
	}
}

// fakeBackend answers by what it is asked for: a key says how.
type fakeBackend struct{}

func (fakeBackend) Ready() *transport.Error { return nil }

func (fakeBackend) Check(q transport.CheckRequest, done func(transport.CheckReply, *transport.Error)) {
	reply := transport.CheckReply{Scope: "global", Limit: 1000, Remaining: 412 - q.Hits, Place: "eu.de.berlin"}
	switch q.Key {
	case "silent":
		return
	case "free":
		reply = transport.CheckReply{Allowed: true, Place: "eu.de.berlin"}
	case "spent":
		reply.Reason, reply.Remaining, reply.RetryAfter = transport.DeniedLimit, 0, 12*time.Millisecond
	case "cold":
		reply.Reason, reply.Remaining = transport.DeniedShare, 0
	case "huge":
		reply.Reason = transport.DeniedBurst
	case "busy":
		done(reply, transport.ErrOverloaded.After(100*time.Millisecond))
		return
	case "wait":
		reply.Allowed, reply.Remaining = true, q.Wait.Milliseconds()
		if q.Wait == transport.RuleWait {
			reply.Remaining = 250
		}
	case "shadow":
		reply.Allowed, reply.Shadow, reply.Reason, reply.Remaining = true, true, transport.DeniedLimit, 0
	case "held":
		reply.Allowed, reply.Kind, reply.Permit, reply.Hold = true, "concurrency", "eu.de.berlin/1f3a5c7e9b2d4f60/7", 30*time.Second
	case "gone":
		reply.Kind, reply.Reason, reply.Remaining = "budget", transport.DeniedSpent, 0
	case "slow":
		reply.Reason, reply.Remaining, reply.RetryAfter = transport.DeniedLimit, 0, 61*time.Second+time.Millisecond
	case "quota":
		reply.Kind, reply.Reason, reply.Remaining = "quota", transport.DeniedLimit, 0
		reply.RetryAfter, reply.Reset = time.Hour, time.Hour
	default:
		reply.Allowed = true
	}
	done(reply, either(unknownNamespace(q.Namespace), takenID(q.ID)))
}

func (fakeBackend) Release(q transport.ReleaseRequest, done func(transport.ReleaseReply, *transport.Error)) {
	done(transport.ReleaseReply{Renew: q.Renew, Done: strings.HasSuffix(q.Permit, "/7"), Place: "eu.de.berlin"}, unknownNamespace(q.Namespace))
}

func (fakeBackend) Refund(q transport.RefundRequest, done func(transport.RefundReply, *transport.Error)) {
	done(transport.RefundReply{Refunded: min(q.Hits, 5), Place: "eu.de.berlin"}, unknownNamespace(q.Namespace))
}

func (fakeBackend) Add(n int, req func(int) *transport.AddRequest, done func(int, transport.AddReply, *transport.Error)) {
	for i := range n {
		q := req(i)
		total := transport.Total{Added: 1000}
		if q.Delta < 0 {
			total.Removed = uint64(-q.Delta)
		} else {
			total.Added += uint64(q.Delta)
		}
		done(i, transport.AddReply{Total: total, Place: "eu.de.berlin"}, either(unknownNamespace(q.Namespace), takenID(q.ID)))
	}
}

func (fakeBackend) Get(q transport.GetRequest, done func(transport.GetReply, *transport.Error)) {
	reply := transport.GetReply{Place: "eu.de.berlin", Total: transport.Total{Added: 1042}}
	if q.Key != "new" {
		through := time.Date(2026, 1, 2, 15, 4, 5, 123e6, time.UTC)
		reply.Views = []transport.View{
			{Place: "eu.de", Total: transport.Total{Added: 5310}, Through: through, Age: 8 * time.Millisecond},
			{Place: "eu", Total: transport.Total{Added: 90210}, Through: through, Age: 12 * time.Millisecond},
			{Place: "global", Total: transport.Total{Added: 1234567}, Through: through, Age: 75 * time.Second, Behind: 2},
		}
	}
	reply.Unwatched = q.Key == "crowded"
	done(reply, unknownNamespace(q.Namespace))
}

func (fakeBackend) List(q transport.ListRequest, done func(transport.ListReply, *transport.Error)) {
	reply := transport.ListReply{Place: "eu.de.berlin"}
	for _, key := range []string{"al's café", "alice", "bob"} {
		if !strings.HasPrefix(key, q.Prefix) || key <= q.After && q.After != "" {
			continue
		}
		if len(reply.Keys) == q.Limit {
			reply.More = true
			break
		}
		reply.Keys = append(reply.Keys, transport.KeyTotal{Key: key, Total: transport.Total{Added: uint64(len(key)) * 100}})
	}
	done(reply, unknownNamespace(q.Namespace))
}

// fakeAdmin answers operators at a place.
type fakeAdmin struct{ place string }

func (a fakeAdmin) Rules(_ transport.RulesRequest, done func(transport.RulesReply, *transport.Error)) {
	rules := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{"api": {}, "votes": {}}}
	done(transport.RulesReply{Place: a.place, Version: 7, Rules: rules}, nil)
}

func (a fakeAdmin) Reset(q transport.ResetRequest, done func(transport.ResetReply, *transport.Error)) {
	if q.Key == "home" {
		done(transport.ResetReply{}, transport.ErrNotOwner.Errorf("%s owns no limit of %s: ask each city below it", a.place, q.Namespace))
		return
	}
	done(transport.ResetReply{Place: a.place, Limits: []string{"global rate 1000/s burst 2000"}}, unknownNamespace(q.Namespace))
}

// Explain shows a share that is spent: the further up, the more there is.
func (a fakeAdmin) Explain(q transport.ExplainRequest, done func(transport.ExplainReply, *transport.Error)) {
	const global, city = "global rate 1000/s burst 2000", "city rate 300/s burst 300"
	spec := limiter.NamespaceSpec{Limits: []limiter.LimitSpec{{Scope: "global", Rate: "1000/s", Burst: new(int64(2000))}, {Scope: "city", Rate: "300/s"}}}
	r := transport.ExplainReply{Place: a.place, Version: 3, Rule: spec, Awake: true, Limits: []transport.LimitExplanation{}}
	if q.Namespace == "votes" {
		r.Rule = limiter.NamespaceSpec{}
		done(r, nil)
		return
	}
	up := map[string]int64{berlin: 1, "eu.de": 2, "eu": 5, "global": 10}[a.place]
	l := transport.LimitExplanation{
		Limit: global, Owner: "global", PeriodMS: 1000,
		Holds:    transport.ShareFigures{Capacity: 200 * up, Rate: 100 * up},
		Here:     transport.ShareFigures{Tokens: 3, Capacity: 20, Rate: 10},
		Demand:   transport.DemandFigures{Now: 120 * up, Peak: 150 * up},
		Borrowed: &transport.BorrowedLine{LeaseMS: 3000 + 100*up},
		Recall:   &transport.RecallNote{AgoMS: 1200, Count: 4, Keep: &transport.KeepFigures{Capacity: 200 * up, Rate: 100 * up}},
	}
	if a.place == "global" {
		l.Borrowed, l.Recall = nil, nil
	}
	if a.place != berlin {
		l.Children = 2
		l.Lines = []transport.LentLine{{Child: q.Child, Lent: transport.ShareFigures{Tokens: 9, Capacity: 100 * up, Rate: 50 * up}, LeaseMS: 3100 + 100*up}}
		r.Limits = append(r.Limits, l)
		done(r, unknownNamespace(q.Namespace))
		return
	}
	l.Here = transport.ShareFigures{Tokens: 0, Capacity: 200, Rate: 100}
	r.Verdict = &transport.Verdict{Hits: *q.Hits, Reason: transport.DeniedLimit, RetryAfterMS: 10}
	switch q.Key {
	case "fresh":
		l.Here.Tokens, r.Awake = 200, false
		r.Verdict = &transport.Verdict{Hits: *q.Hits, Allowed: true, Remaining: 200}
	case "away":
		l.Borrowed, l.Holds, l.Here = nil, transport.ShareFigures{}, transport.ShareFigures{}
		l.Demand, l.Waiting = transport.DemandFigures{Ask: 2}, 2
		r.Verdict = &transport.Verdict{Hits: *q.Hits, Reason: transport.DeniedShare, Waits: true}
	}
	own := transport.LimitExplanation{
		Limit: city, Owner: a.place, PeriodMS: 1000, Holds: transport.ShareFigures{Capacity: 300, Rate: 300},
		Here: transport.ShareFigures{Tokens: 300, Capacity: 300, Rate: 300},
	}
	r.Limits = append(r.Limits, l, own)
	done(r, unknownNamespace(q.Namespace))
}

func takenID(id string) *transport.Error {
	if id == "taken" {
		return transport.ErrIDReused.Errorf("id %q was another request's", id)
	}
	return nil
}

func either(first, second *transport.Error) *transport.Error {
	if first != nil {
		return first
	}
	return second
}

func unknownNamespace(namespace string) *transport.Error {
	if slices.Contains([]string{"unknown", "ap", "vote"}, namespace) {
		return transport.ErrUnknownNamespace.Errorf("namespace %q is in no rule: add it to the rules", namespace)
	}
	return nil
}

func (a fakeAdmin) Places(_ transport.PlacesRequest, done func(transport.PlacesReply, *transport.Error)) {
	switch a.place {
	case "global":
		done(transport.PlacesReply{Place: a.place, Rules: 7, Places: []transport.ChildPlace{
			{Place: "eu", SeenMS: 120, LagMS: 250, Starts: 3, Rules: 7, Behind: 1, Lines: 4},
			{Place: "sa", SeenMS: -1, LagMS: -1, Starts: 1, Forgotten: true},
			{Place: "us", SeenMS: -1, LagMS: -1, Starts: 2, Refused: "of another world"},
		}}, nil)
	case berlin:
		done(transport.PlacesReply{}, transport.ErrDraining)
	default:
		below := map[string]string{"eu": "eu.de", "eu.de": berlin}[a.place]
		done(transport.PlacesReply{Place: a.place, Rules: 7, Places: []transport.ChildPlace{
			{Place: below, SeenMS: 1500, LagMS: -1, Starts: 1, Rules: 7},
			{Place: "global", SeenMS: 1, LagMS: 1}, // a lie, of which the tree must not become a circle
		}}, nil)
	}
}

func (a fakeAdmin) Forget(q transport.ChildRequest, done func(transport.ForgetReply, *transport.Error)) {
	done(transport.ForgetReply{Place: a.place, Child: q.Child}, nil)
}

func (a fakeAdmin) Forfeit(q transport.ChildRequest, done func(transport.ForfeitReply, *transport.Error)) {
	done(transport.ForfeitReply{Place: a.place, Child: q.Child, Lines: 2}, nil)
}

// Backup takes three looks.
func (a fakeAdmin) Backup(q transport.BackupRequest, done func(transport.BackupReply, *transport.Error)) {
	r := transport.BackupReply{Place: a.place, ID: "1", Folder: "/backups/" + a.place, TotalBytes: 3 << 20}
	switch {
	case a.place == "eu":
		done(r, transport.ErrStorage.Errorf("the backup of eu failed, and the one before is as it was: no space left on device"))
		return
	case q.ID == "":
	case q.ID == "1":
		r.ID, r.DoneBytes = "2", 1<<20
	default:
		r.Done, r.DoneBytes, r.Made, r.Files = true, 3<<20, time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), 7
		r.Bytes, r.CopiedBytes, r.LinkedBytes, r.KeptBytes = 3<<20, 1<<20, 1<<19, 3<<19
	}
	done(r, nil)
}

func (a fakeAdmin) Stats(_ transport.StatsRequest, done func(transport.StatsReply, *transport.Error)) {
	done(transport.StatsReply{Place: a.place, KeysAwake: 7, StoreStats: transport.StoreStats{
		Store: "1f3a5c7e9b2d4f60", Format: 1, Awake: 1, Operations: 1200, Commits: 300, WrittenBytes: 5 << 20, DiskBytes: 9 << 20, FreeBytes: 5 << 30,
		LogBytes: 1 << 20, TableBytes: 8 << 20, Tables: 3, Levels: []transport.LevelStats{{Level: 0, Tables: 1, Bytes: 1 << 20}, {Level: 6, Tables: 2, Bytes: 7 << 20}},
		Flushes: 2, Compactions: 1, WriteAmplification: 2.5, ReadAmplification: 3, CacheBytes: 4 << 20, CacheHits: 90, CacheMisses: 10, MemTableBytes: 1 << 20,
	}}, nil)
}

func (a fakeAdmin) Join(q transport.JoinRequest, done func(transport.JoinReply, *transport.Error)) {
	if a.place == "global" && !q.Force {
		done(transport.JoinReply{}, transport.ErrConflict.Errorf("global is no root on a new disk"))
		return
	}
	done(transport.JoinReply{Place: a.place, World: q.World}, nil)
}
