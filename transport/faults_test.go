package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/objects"
	"github.com/tributary-io/tributary/tiers"
	"github.com/tributary-io/tributary/transport/internal/wire"
)

// faultLease is short, so that a test can outlast a few.
const faultLease = time.Second

// faultRules have a namespace for each kind of limit; none of them is ever spent.
func faultRules(t testing.TB) *limiter.Rules {
	t.Helper()
	const plenty = "100000000/s"
	global, city := limiter.LimitSpec{Scope: "global", Rate: plenty}, limiter.LimitSpec{Scope: "city", Rate: plenty}
	r, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {}, "world": {Limits: []limiter.LimitSpec{global}}, "city": {Limits: []limiter.LimitSpec{city}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// startOn starts a place with short leases on a file system; nil is the machine's.
func (w *tree) startOn(p tiers.Place, fs vfs.FS) *Place {
	w.t.Helper()
	nc, err := w.server.Connect(ConnOptions(string(p), "", zerolog.Nop())...)
	if err != nil {
		w.t.Fatal(err)
	}
	place, err := StartPlace(PlaceConfig{
		Place: p, Leaf: p.Depth() >= 3, Dir: filepath.Join(w.dir, string(p)), Conn: nc, Rules: w.rules, Lease: faultLease,
		Backups: filepath.Join(w.dir, "backups", string(p)),
		Version: "0.0.1", Metrics: w.metrics, Store: objects.Options{FS: fs}, Logger: w.log(),
	})
	if err != nil {
		nc.Close()
		w.t.Fatal(err)
	}
	w.places[p] = place
	return place
}

// faultTree starts world4 with short leases, one place of it on a file system of its own.
func faultTree(t testing.TB, odd tiers.Place, fs vfs.FS) *tree {
	t.Helper()
	w := newTree(t, faultRules(t))
	for _, p := range world4 {
		if p == odd {
			w.startOn(p, fs)
		} else {
			w.startOn(p, nil)
		}
	}
	return w
}

// kill ends a place as a crash would.
func (w *tree) kill(p tiers.Place) {
	w.t.Helper()
	if err := w.places[p].Kill(); err != nil {
		w.t.Errorf("kill %s: %v", p, err)
	}
	delete(w.places, p)
}

// total is a key's total at a place, -1 while it does not answer.
func (w *tree) total(p tiers.Place, key string) int64 {
	w.t.Helper()
	if w.askers[p] == nil {
		w.askers[p] = w.client(p)
	}
	reply, err := w.askers[p].Get(w.t.Context(), "votes", key)
	if err != nil {
		return -1
	}
	n, _ := reply.Total.Int64()
	return n
}

// converges waits until the root's total of alice is what the cities acknowledged.
func (w *tree) converges(want int64) {
	w.t.Helper()
	root, got := w.client("global"), int64(-1)
	for end := time.Now().Add(patience); got != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("the root has %d votes, %d were acknowledged", got, want)
		}
		if reply, err := root.Get(w.t.Context(), "votes", "alice"); err == nil {
			got, _ = reply.Total.Int64()
		}
	}
}

// voters add to alice at a place until they are stopped.
type voters struct {
	acked, refused, unknown atomic.Int64
	other                   atomic.Pointer[error] // something else than an answer that a voter may get
	stop                    context.CancelFunc
	wg                      sync.WaitGroup
}

func (w *tree) vote(at tiers.Place, n int) *voters {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	v := &voters{stop: cancel}
	for range n {
		c := w.client(at)
		v.wg.Go(func() {
			for ctx.Err() == nil {
				_, err := c.Add(context.WithoutCancel(ctx), "votes", "alice", 1)
				switch {
				case err == nil:
					v.acked.Add(1)
				case errors.Is(err, ErrStorage):
					v.refused.Add(1)
				case errors.Is(err, ErrNotReady), errors.Is(err, ErrDraining), errors.Is(err, ErrNoResponders): // not done
				case errors.Is(err, context.DeadlineExceeded):
					v.unknown.Add(1)
				default:
					v.other.Store(&err)
				}
				pace(ctx, 2*time.Millisecond)
			}
		})
	}
	w.t.Cleanup(v.end)
	return v
}

func (v *voters) end() { v.stop(); v.wg.Wait() }

// pace spaces what is repeated, so that a test leaves the machine some air.
func pace(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// checksGoOn checks at a place for a while, once at least: all must be admitted, at once or when the share is there again
// that the place borrows (with a slow disk above it is late).
func checksGoOn(t testing.TB, c *Client, within time.Duration, namespaces ...string) {
	t.Helper()
	n := 0
	for end := time.Now().Add(within); n == 0 || time.Now().Before(end); pace(t.Context(), 5*time.Millisecond) {
		for _, namespace := range namespaces {
			if reply, err := c.Check(t.Context(), namespace, "user-42", WithWait(patience)); err != nil || !reply.Allowed {
				t.Fatalf("check %d in %s: %+v, %v", n, namespace, reply, err)
			}
			n++
		}
	}
}

// disk is a file system that has as much room as it is told.
type disk struct {
	vfs.FS
	free atomic.Int64 // bytes; negative: the truth
}

func newDisk() *disk {
	d := &disk{FS: vfs.Default}
	d.free.Store(-1)
	return d
}

func (d *disk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	usage, err := d.FS.GetDiskUsage(path)
	if free := d.free.Load(); free >= 0 {
		usage.AvailBytes = uint64(free)
	}
	return usage, err
}

// fullDisks are disks that fill up: to where adds are refused, and all at once to where nothing is left.
var fullDisks = []struct {
	name string
	free int64
}{{"below what adds need", 32 << 20}, {"nothing left", 0}}

func TestFullDiskOfACityRefusesOnlyAdds(t *testing.T) {
	for _, full := range fullDisks {
		t.Run(full.name, func(t *testing.T) {
			disk := newDisk()
			w := faultTree(t, "eu.de.berlin", disk)
			berlin := w.client("eu.de.berlin")
			checksGoOn(t, berlin, 0, "world", "city")
			v := w.vote("eu.de.berlin", 8)
			eventually(t, "there are votes", func() bool { return v.acked.Load() > 100 })

			disk.free.Store(full.free)
			var refusal *Error
			eventually(t, "adds are refused", func() bool {
				_, err := berlin.Add(t.Context(), "votes", "bob", 1)
				return errors.As(err, &refusal)
			})
			if refusal.Code != 503 || !errors.Is(refusal, ErrStorage) || refusal.RetryAfter <= 0 {
				t.Errorf("refused with %d %v, again after %s", refusal.Code, refusal, refusal.RetryAfter)
			}
			checksGoOn(t, berlin, 2*faultLease, "world", "city")
			if v.refused.Load() == 0 {
				t.Error("no voter was refused")
			}
			if err := w.places["eu.de.berlin"].Err(); err != nil {
				t.Fatalf("the place broke: %v", err)
			}

			acked := v.acked.Load()
			disk.free.Store(-1)
			eventually(t, "adds are taken again", func() bool { return v.acked.Load() > acked+10 })
			v.end()
			if err := v.other.Load(); err != nil {
				t.Errorf("a voter got: %v", *err)
			}
			w.converges(v.acked.Load())
		})
	}
}

func TestFullDiskOfAnInteriorPlaceMakesOnlyCountsWait(t *testing.T) {
	for _, full := range fullDisks {
		t.Run(full.name, func(t *testing.T) {
			disk := newDisk()
			w := faultTree(t, "eu.de", disk)
			berlin := w.client("eu.de.berlin")
			checksGoOn(t, berlin, 0, "world", "city")
			v := w.vote("eu.de.berlin", 4)
			eventually(t, "there are votes", func() bool { return v.acked.Load() > 100 })

			disk.free.Store(full.free)
			eventually(t, "eu.de knows that its disk is full, and has written what it wrote", func() bool {
				store := w.places["eu.de"].store.store
				return store.Full() != nil && store.Stats().Pending == 0
			})
			var above, acked int64
			eventually(t, "counts wait below the full disk", func() bool {
				if n := w.total("eu.de", "alice"); n != above {
					above, acked = n, v.acked.Load()
				}
				return v.acked.Load() > acked+100
			})
			checksGoOn(t, berlin, 2*faultLease, "world", "city")
			if n := w.total("eu.de", "alice"); n != above {
				t.Errorf("eu.de counted on, from %d to %d", above, n)
			}
			// A session that begins meanwhile is known, and is lent shares.
			w.kill("eu.de.munich")
			w.startOn("eu.de.munich", nil)
			munich := w.client("eu.de.munich")
			eventually(t, "a city that starts meanwhile has a share", func() bool {
				reply, err := munich.Check(t.Context(), "world", "user-42")
				return err == nil && reply.Allowed
			})
			if err := w.places["eu.de"].Err(); err != nil {
				t.Fatalf("the place broke: %v", err)
			}
			if _, err := munich.Add(t.Context(), "votes", "alice", 1); err != nil {
				t.Fatal(err)
			}

			disk.free.Store(-1)
			v.end()
			if err := v.other.Load(); err != nil {
				t.Errorf("a voter got: %v", *err)
			}
			w.converges(v.acked.Load() + 1)
		})
	}
}

// TestChildrenOfAFullDiskDoNotFlood bounds what a parent that cannot take counts is told.
func TestChildrenOfAFullDiskDoNotFlood(t *testing.T) {
	disk := newDisk()
	disk.free.Store(0)
	w := newTree(t, faultRules(t))
	w.startOn("global", nil)
	w.startOn("eu", nil)
	disk.free.Store(-1)
	w.startOn("eu.de", disk)
	w.startOn("eu.de.berlin", nil)
	berlin := w.client("eu.de.berlin")
	vote := func() {
		t.Helper()
		if _, err := berlin.Add(t.Context(), "votes", "alice", 1); err != nil {
			t.Fatal(err)
		}
	}
	vote()
	w.converges(1)
	disk.free.Store(0)
	n := int64(1)
	eventually(t, "a count waits", func() bool {
		vote()
		n++
		end := time.Now().Add(200 * time.Millisecond)
		for w.total("eu.de", "alice") != n {
			if time.Now().After(end) {
				return true
			}
		}
		return false
	})
	nc, err := w.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	subjects, _ := NewSubjects("")
	sub, err := nc.SubscribeSync(subjects.Up(0, "eu.de.berlin"))
	if err != nil {
		t.Fatal(err)
	}
	reports := 0
	for end := time.Now().Add(faultLease); time.Now().Before(end); {
		if _, err := sub.NextMsg(time.Until(end)); err == nil {
			reports++
		}
	}
	if reports > 50 {
		t.Errorf("%d reports in %s, and nothing new in them", reports, faultLease)
	}
	disk.free.Store(-1)
	w.converges(n)
}

func TestFailedSyncEndsThePlaceAndLosesNothing(t *testing.T) {
	oops := errors.New("the disk does not sync")
	for _, odd := range []tiers.Place{"eu.de.berlin", "eu.de", "global"} {
		t.Run(string(odd), func(t *testing.T) {
			var broken atomic.Bool
			fs := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
				if broken.Load() && sync && strings.HasSuffix(op.Path, ".log") {
					return oops
				}
				return nil
			}))
			w := faultTree(t, odd, fs)
			v := w.vote("eu.de.berlin", 8)
			eventually(t, "there are votes at the root", func() bool { return w.total("global", "alice") > 100 })
			place := w.places[odd]
			broken.Store(true)
			select {
			case <-place.Done():
			case <-time.After(patience):
				t.Fatal("the place goes on without its disk")
			}
			if err := place.Err(); !errors.Is(err, objects.ErrFailed) || !errors.Is(err, oops) {
				t.Errorf("the place broke with: %v", err)
			}
			var refusal *Error
			if err := place.Ready(); !errors.As(err, &refusal) || refusal.Code != 503 || refusal.RetryAfter <= 0 {
				t.Errorf("ready: %v", err)
			}
			if odd == "eu.de.berlin" {
				_, err := w.client(odd).Add(t.Context(), "votes", "bob", 1)
				if !errors.As(err, &refusal) || !errors.Is(err, ErrStorage) || refusal.Code != 503 || refusal.RetryAfter <= 0 {
					t.Errorf("an add got: %v", err)
				}
			}

			broken.Store(false)
			w.stop(odd)
			w.startOn(odd, fs)
			acked := v.acked.Load()
			eventually(t, "votes are taken", func() bool { return v.acked.Load() > acked+10 })
			v.end()
			if err := v.other.Load(); err != nil {
				t.Errorf("a voter got: %v", *err)
			}
			// Those that were refused when the sync failed may have been done.
			at := w.total("eu.de.berlin", "alice")
			if low, high := v.acked.Load(), v.acked.Load()+v.refused.Load()+v.unknown.Load(); at < low || at > high {
				t.Errorf("the city has %d votes, %d were acknowledged and %d may have been done", at, low, high-low)
			}
			w.converges(at)
			eventually(t, "checks are admitted", func() bool {
				reply, err := w.client("eu.de.berlin").Check(t.Context(), "world", "user-42")
				return err == nil && reply.Allowed
			})
		})
	}
}

// TestGarbageBetweenPlacesHarmsNobody sends what no place says on the subjects between places.
func TestGarbageBetweenPlacesHarmsNobody(t *testing.T) {
	w := faultTree(t, "", nil)
	nc, err := w.server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	subjects, _ := NewSubjects("")
	berlin := w.client("eu.de.berlin")
	checksGoOn(t, berlin, 0, "world", "city")
	v := w.vote("eu.de.berlin", 2)

	valid := func(child tiers.Place) []byte {
		data, err := wire.MarshalReport(&tiers.Report{
			Child: child, Session: 7, Number: 1 << 40, Highest: 1 << 40, Sequence: 1, To: 5, Rules: w.rules.Hash,
			Counts: []tiers.Count{{Name: tiers.Name{Namespace: "votes", Key: "zzzzzz"}, Pairs: []tiers.Pair{{Session: 7, Total: tiers.Total{Added: 1 << 50}}}, First: true}},
			Lines:  []tiers.LineReport{{Name: tiers.Name{Namespace: "world", Key: "zzzzzz"}, Limit: w.rules.Rule("world").Limits[0].ID, Demand: tiers.Demand{Now: 1, Ask: 1}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	encode := func(m proto.Message) []byte {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	negative := &wire.Share{Tokens: -1, Capacity: -1 << 63, Rate: -1}
	name := &wire.Name{Namespace: "world", Key: "user-42"}
	garbage := [][]byte{
		nil,
		{0},
		{0xff},
		[]byte("hello"), []byte(`{"namespace":"votes","key":"alice","delta":1}`),
		noise(10), noise(1000), noise(500_000), make([]byte, 1000), slices.Repeat([]byte{0xff}, 1000),
		valid("eu.de.berlin")[:20], valid("eu.de.munich"), valid("eu.fr"), valid("global"),
		encode(&wire.Report{Version: wire.Version + 98, Child: "eu.de.berlin", Session: 7, Number: 1 << 40}),
		encode(&wire.Report{Version: wire.Version, Child: "eu.de.berlin", Session: 0, Number: 1 << 40}),
		encode(&wire.Report{Version: wire.Version, Child: "eu.de.berlin", Session: 7, Number: 1 << 40, From: 2, To: 1}),
		encode(&wire.Report{Version: wire.Version, Child: "eu.de.berlin", Session: 7, Number: 1 << 40, Lines: []*wire.LineReport{{Name: name, Returned: negative}}}),
		encode(&wire.Report{Version: wire.Version, Child: "eu.de.berlin", Session: 7, Number: 1 << 40, Counts: []*wire.Count{{Name: &wire.Name{Namespace: "votes", Key: "a\x01b"}}}}),
		encode(&wire.Report{Version: wire.Version, Child: "eu.de.berlin", Session: 7, Number: 1 << 40, Counts: []*wire.Count{{}}}),
		encode(&wire.Report{Version: wire.Version, Child: "EU/DE", Session: 7, Number: 1 << 40}),
		encode(&wire.Ack{Version: wire.Version + 98, Fenced: true}),
		encode(&wire.Ack{Version: wire.Version, Fenced: true, Session: 7}),
		encode(&wire.Ack{Version: wire.Version, Lines: []*wire.Grant{{Name: name, Lent: negative, Lease: -1}}}),
		encode(&wire.Recall{Version: wire.Version + 98}),
		encode(&wire.Recall{Version: wire.Version, Parent: 7, Lines: []*wire.Grant{{Name: name, Keep: &wire.Keep{Capacity: -1}}}}),
	}
	var to []string
	for _, p := range world4 {
		to = append(to, subjects.Down(0, string(p)))
		if p != "global" {
			to = append(to, w.places[p].link.inbox+".1", w.places[p].link.inbox+".x")
			if p != "eu.de.munich" { // whose own report is among the garbage, and would be taken
				to = append(to, subjects.Up(0, string(p)))
			}
		}
	}
	to = append(to, subjects.Up(0, "eu.de.nowhere"), subjects.Up(0, "us.ny"), subjects.Up(0, "EU"), subjects.Up(1, "eu"), subjects.Up(0, "eu.de._"))
	for _, subject := range to {
		for i, data := range garbage {
			if strings.HasSuffix(subject, ".eu.fr") {
				continue
			}
			if err := nc.PublishRequest(subject, nc.NewRespInbox(), data); err != nil {
				t.Fatalf("%s, message %d: %v", subject, i, err)
			}
		}
	}
	// A child that nobody started says almost what a child would say.
	for i := range 3000 {
		data := valid("us")
		for range 1 + i%4 {
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		}
		if err := nc.Publish(subjects.Up(0, "us"), data); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}

	acked := v.acked.Load()
	eventually(t, "votes go on", func() bool { return v.acked.Load() > acked+50 })
	checksGoOn(t, berlin, faultLease+faultLease/2, "world", "city")
	v.end()
	w.converges(v.acked.Load())
	for p, place := range w.places {
		if err := place.Err(); err != nil {
			t.Errorf("%s broke: %v", p, err)
		}
	}
}

func TestLinkCutForLongerThanALease(t *testing.T) {
	w := faultTree(t, "", nil)
	berlin, munich := w.client("eu.de.berlin"), w.client("eu.de.munich")
	checksGoOn(t, berlin, 0, "world", "city")
	v := w.vote("eu.de.berlin", 2)

	w.places["eu.de.berlin"].SetLink(false)
	cut := time.Now()
	check := func() CheckReply {
		t.Helper()
		reply, err := berlin.Check(t.Context(), "world", "user-42", WithWait(0))
		if err != nil {
			t.Fatal(err)
		}
		if !reply.Allowed && reply.Reason != DeniedShare {
			t.Fatalf("denied because of the %s", reply.Reason)
		}
		return reply
	}
	sent := time.Now()
	for ; check().Allowed; sent = time.Now() {
		if sent.Sub(cut) > faultLease { // the lease began before the cut
			t.Fatalf("a check is admitted %s after the cut, by a lease of %s", sent.Sub(cut), faultLease)
		}
		checksGoOn(t, berlin, 0, "city")
	}
	t.Logf("no share %s after the cut", time.Since(cut))
	acked := v.acked.Load()
	for end := time.Now().Add(faultLease); time.Now().Before(end); pace(t.Context(), 5*time.Millisecond) {
		if check().Allowed {
			t.Fatal("a check is admitted after the lease's end")
		}
		checksGoOn(t, berlin, 0, "city")
		checksGoOn(t, munich, 0, "world")
	}
	if v.acked.Load() < acked+50 {
		t.Errorf("%d adds in %s", v.acked.Load()-acked, faultLease)
	}
	if above, here := w.total("global", "alice"), w.total("eu.de.berlin", "alice"); above >= here {
		t.Errorf("the root has %d votes, and Berlin %d: the link is not cut", above, here)
	}

	w.places["eu.de.berlin"].SetLink(true)
	// A report that was lost is given up after lastTimeout at most.
	eventually(t, "checks are admitted again", func() bool { return check().Allowed })
	v.end()
	w.converges(v.acked.Load())
	checksGoOn(t, berlin, faultLease, "world", "city")
}

func TestCityStartsWithoutItsParent(t *testing.T) {
	w := faultTree(t, "", nil)
	berlin := w.client("eu.de.berlin")
	vote := func(n int) {
		t.Helper()
		for range n {
			if _, err := berlin.Add(t.Context(), "votes", "alice", 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	vote(5)
	w.kill("eu.de")
	vote(5)
	w.kill("eu.de.berlin")
	w.startOn("eu.de.berlin", nil)
	if err := w.places["eu.de.berlin"].Ready(); err != nil {
		t.Errorf("not ready without a parent: %v", err)
	}
	vote(5)
	checksGoOn(t, berlin, 0, "city")
	if n := w.total("eu.de.berlin", "alice"); n != 15 {
		t.Errorf("%d votes", n)
	}
	if reply, err := berlin.Check(t.Context(), "world", "user-42", WithWait(0)); err != nil || reply.Allowed || reply.Reason != DeniedShare {
		t.Errorf("a check without a share: %+v, %v", reply, err)
	}
	w.startOn("eu.de", nil)
	w.converges(15)
	eventually(t, "checks are admitted", func() bool {
		reply, err := berlin.Check(t.Context(), "world", "user-42")
		return err == nil && reply.Allowed
	})
}

// TestStopDoesNotWaitForChecks stops a place while a check waits for a share.
func TestStopDoesNotWaitForChecks(t *testing.T) {
	w := newTree(t, faultRules(t), world4...)
	w.kill("global")
	w.start("global") // lends nothing for a lease
	answered := make(chan error, 1)
	berlin := w.client("eu.de.berlin")
	go func() {
		reply, err := berlin.Check(context.WithoutCancel(t.Context()), "world", "user-42", WithWait(time.Minute))
		if err == nil && reply.Allowed {
			err = errors.New("admitted without a share")
		}
		answered <- err
	}()
	eventually(t, "the check waits", func() bool { return w.places["eu.de.berlin"].Runner().Stats().Waiting == 1 })
	w.stop("eu.de.berlin")
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience / 2): // by itself it waits for a minute
		t.Error("the check that waited has no answer")
	}
}
