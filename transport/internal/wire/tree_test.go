package wire

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
	"github.com/tributary-io/tributary/tiers"
)

// disk is a store in which every write is durable at once; it keeps records
// as they are written down.
type disk map[tiers.Key][]byte

func (d disk) Get(k tiers.Key) (tiers.Record, error) {
	data, ok := d[k]
	if !ok {
		return nil, nil
	}
	return ParseRecord(k, data)
}

func (d disk) Scan(prefix, after tiers.Key, yield func(tiers.Key, tiers.Record) bool) error {
	for _, k := range slices.Sorted(maps.Keys(d)) {
		if strings.HasPrefix(string(k), string(prefix)) && k > after {
			r, err := ParseRecord(k, d[k])
			if err != nil || !yield(k, r) {
				return err
			}
		}
	}
	return nil
}

// tree is a small world whose places talk in bytes. It keeps what was said.
type tree struct {
	t     testing.TB
	now   limiter.Time
	nodes []*node
	queue []func()

	reports, acks, recalls [][]byte
}

// node is a place of a tree. Its session is its index and one.
type node struct {
	place   tiers.Place
	machine *tiers.Machine
	disk    disk
	wake    limiter.Time
	last    *tiers.Report // that it sent
	gone    bool
}

const (
	root = iota
	region
	country
	berlin
	munich
)

var (
	alice = tiers.Name{Namespace: "votes", Key: "alice"}
	user  = tiers.Name{Namespace: "api", Key: "user"}
)

// plant starts a root, a region, a country and two cities, and lets them
// count, borrow, watch and recall.
func plant(t testing.TB) *tree {
	t.Helper()
	burst := int64(100)
	rules, err := limiter.Compile(limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{
		"votes": {}, "api": {Limits: []limiter.LimitSpec{{Scope: "global", Rate: "10/s", Burst: &burst}, {Scope: "country", Rate: "1000/s"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w := &tree{t: t, now: limiter.Time(time.Minute)}
	for i, p := range []tiers.Place{tiers.Root, "eu", "eu.de", "eu.de.berlin", "eu.de.munich"} {
		n := &node{place: p, disk: disk{}}
		n.machine, err = tiers.Start(w.now, tiers.Config{
			Place: p, Partitions: 1, Leaf: p.Depth() == 3, Rules: rules, Session: uint64(i + 1), NewWorld: 7,
			Lease: tiers.DefaultLease, Heartbeat: tiers.DefaultHeartbeat, ReportInterval: tiers.DefaultReportInterval, MaxAwake: 1000,
		}, n.disk)
		if err != nil {
			t.Fatal(err)
		}
		w.write(n, n.machine.Writes())
		w.nodes = append(w.nodes, n)
		w.step(n, func(m *tiers.Machine) { m.Tick(w.now) })
		w.run(200 * time.Millisecond)
	}
	w.use(berlin)
	w.run(300 * time.Millisecond)
	w.use(munich)
	w.run(300 * time.Millisecond)
	return w
}

// use does what clients do at a city.
func (w *tree) use(city int) {
	w.step(w.nodes[city], func(m *tiers.Machine) {
		_, _ = m.Add(w.now, alice, 3)
		_, _, _, _ = m.Get(w.now, alice)
		for id := range uint64(3) {
			_, _, _ = m.Check(w.now, user, 10, w.now.Add(100*time.Millisecond), id+1)
		}
	})
}

func (w *tree) write(n *node, writes []tiers.Write) {
	for _, wr := range writes {
		if wr.Record == nil {
			delete(n.disk, wr.Key)
			continue
		}
		data, err := AppendRecord(nil, wr.Record)
		if err != nil {
			w.t.Fatal(err)
		}
		n.disk[wr.Key] = data
	}
}

// step gives an input to a machine, and does what it wants done. Whatever it
// says, another place can read.
func (w *tree) step(n *node, do func(*tiers.Machine)) {
	if n.gone {
		return
	}
	do(n.machine)
	out := n.machine.Output(w.now)
	n.machine.Stats(w.now)
	w.write(n, out.Writes)
	n.wake = out.Wake
	if out.Exit != nil || out.Err != nil {
		n.gone = true
		return
	}
	for _, c := range out.Recalls {
		data, err := MarshalRecall(c.Recall)
		if err != nil {
			w.t.Fatal(err)
		}
		w.recalls = append(w.recalls, data)
		for _, to := range w.nodes {
			if to.place == c.Child {
				w.queue = append(w.queue, func() { w.recall(to, data) })
			}
		}
	}
	if out.Report != nil {
		n.last = out.Report
		data, err := MarshalReport(out.Report)
		if err != nil {
			w.t.Fatal(err)
		}
		w.reports = append(w.reports, data)
		for _, to := range w.nodes {
			if to.place == n.place.Parent() {
				w.queue = append(w.queue, func() { w.report(to, n, data) })
			}
		}
	}
}

func (w *tree) recall(to *node, data []byte) {
	r, err := UnmarshalRecall(data)
	if err != nil {
		w.t.Fatalf("%s says what cannot be read: %v", to.place.Parent(), err)
	}
	w.step(to, func(m *tiers.Machine) { m.Recalled(w.now, r) })
}

func (w *tree) report(to, from *node, data []byte) {
	r, err := UnmarshalReport(data)
	if err != nil {
		w.t.Fatalf("%s says what cannot be read: %v", from.place, err)
	}
	w.reported(to, from, r)
}

// reported gives a report to a machine, and sends the answer.
func (w *tree) reported(to, from *node, r *tiers.Report) {
	var a *tiers.Ack
	w.step(to, func(m *tiers.Machine) { a = m.Reported(w.now, r) })
	if a == nil {
		return
	}
	data, err := MarshalAck(a)
	if err != nil {
		w.t.Fatal(err)
	}
	w.acks = append(w.acks, data)
	w.queue = append(w.queue, func() {
		a, err := UnmarshalAck(data)
		if err != nil {
			w.t.Fatalf("%s says what cannot be read: %v", to.place, err)
		}
		w.step(from, func(m *tiers.Machine) { m.Acknowledged(w.now, a) })
	})
}

// run lets the tree go on for d; messages take no time, but a bound number
// of them can be said in it.
func (w *tree) run(d time.Duration) {
	end := w.now.Add(d)
	for range 1000 {
		if len(w.queue) > 0 {
			deliver := w.queue[0]
			w.queue = w.queue[1:]
			w.now++
			deliver()
			continue
		}
		next := limiter.Never
		for _, n := range w.nodes {
			if !n.gone {
				next = min(next, n.wake)
			}
		}
		if next > end {
			break
		}
		w.now = max(w.now, next)
		for _, n := range w.nodes {
			if n.wake <= w.now {
				w.step(n, func(m *tiers.Machine) { m.Tick(w.now) })
			}
		}
	}
	w.now = max(w.now, end)
}

// TestPlacesTalkInBytes: the exchange that the fuzz targets begin with says
// something of everything.
func TestPlacesTalkInBytes(t *testing.T) {
	w := plant(t)
	if total, _, _, err := w.nodes[root].machine.Get(w.now, alice); err != nil || total.Added != 6 {
		t.Errorf("the root has %v, %v", total, err)
	}
	_, views, _, err := w.nodes[berlin].machine.Get(w.now, alice)
	if err != nil || len(views) != 3 {
		t.Errorf("views %v, %v", views, err)
	}
	if s := w.nodes[munich].machine.Stats(w.now); len(s.Pools) != 2 || s.Pools[0].Here.Capacity.Low == 0 || s.Pools[1].Here.Capacity.Low == 0 {
		t.Errorf("munich borrows %+v", s.Pools)
	}
	if len(w.reports) < 10 || len(w.acks) < 10 || len(w.recalls) < 3 {
		t.Errorf("%d reports, %d acks, %d recalls", len(w.reports), len(w.acks), len(w.recalls))
	}
	kept := map[string]bool{}
	for _, n := range w.nodes {
		for k := range n.disk {
			kind, _, _ := strings.Cut(string(k), "/")
			kept[kind] = true
		}
	}
	if !kept["meta"] || !kept["child"] || !kept["count"] {
		t.Errorf("records of %v", kept)
	}
}
