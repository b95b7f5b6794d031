package tiers

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tributary-io/tributary/limiter"
)

// TestScripts runs the scenarios of testdata: each is a page that shows which
// messages travel, and what comes of them. `go test -run Scripts -rewrite`
// writes what happens now.
//
// The commands, where a node is named by the last part of its place:
//
//	rules                       those that places start with, as compile reads them
//	apply global                the rules of the world, from now on
//	place eu eu.de …            starts places; the fourth tier are leaves
//	add berlin votes/alice 3
//	check berlin api/user 1 wait=250ms
//	release berlin jobs/user 7  a permit; renew as well
//	refund berlin api/user 3
//	reset global api/user
//	deliver                     goes on until nobody has anything urgent to say
//	tick 1s                     goes on for that long
//	wall 2026-03-01T23:59:58Z   what every wall clock shows now
//	crash, restart, wipe, stop berlin
//	cut, mend berlin            its link; cut berlin up: only what it sends is lost; down: what it is sent
//	copy, restore, twin berlin  of its disk: take a copy, go back to it, start a second process on one
//	restore berlin backup       the same, and the next start is told, as by the store's mark
//	totals votes/alice          at every place
//	ledger api/user             who holds what of its limit, and who lends it
//
// An add or a check with id=x carries that id. A message takes 1 ms; a disk
// takes no time. Reports that say nothing are not shown, no
// message is if a command ends in "brief", and nothing at all if in "quiet".
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := &script{t: t, labels: map[uint64]string{0: "nobody"}}
			datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
				s.t = t
				s.out.Reset()
				s.run(d)
				if s.out.Len() == 0 {
					return "ok"
				}
				return s.out.String()
			})
		})
	}
}

// script is a small world without faults of its own.
type script struct {
	t       *testing.T
	rules   *limiter.Rules
	now     limiter.Time
	nodes   []*scripted
	net     []message // in the order of their arrival
	labels  map[uint64]string
	session uint64
	check   uint64
	quiet   bool
	brief   bool  // messages are not shown
	wall    int64 // minus now, nanoseconds
	out     strings.Builder
}

// scripted is a process of a place, and its disk.
type scripted struct {
	label    string
	place    Place
	disk     memory
	copied   memory
	restored bool     // the next start is told that its disk is a backup's
	m        *Machine // nil: it does not run
	up       bool     // what it sends is lost
	down     bool     // what it is sent is
	starts   int
	wake     limiter.Time
}

type message struct {
	at      limiter.Time
	deliver func()
}

func (s *script) printf(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}

// at prefixes a line with the time.
func (s *script) at(format string, args ...any) {
	s.printf("%-7s "+format, append([]any{fmt.Sprintf("%.3f", time.Duration(s.now).Seconds())}, args...)...)
}

// message prints a line about one.
func (s *script) message(format string, args ...any) {
	if !s.brief {
		s.at(format, args...)
	}
}

func (s *script) run(d *datadriven.TestData) {
	args := make([]string, 0, len(d.CmdArgs))
	wait, id := time.Duration(0), ""
	s.quiet, s.brief = false, false
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "quiet":
			s.quiet = true
		case "brief":
			s.brief = true
		case "wait":
			wait = s.duration(a.Vals[0])
		case "id":
			id = a.Vals[0]
		default:
			args = append(args, a.Key)
		}
	}
	switch d.Cmd {
	case "rules":
		s.rules = s.compile(d.Input)
	case "place":
		for _, p := range args {
			n := &scripted{label: p[strings.LastIndexByte(p, '.')+1:], place: Place(p), disk: memory{}}
			s.nodes = append(s.nodes, n)
			s.start(n)
		}
	case "add":
		n := s.running(args[0])
		s.step(n, func(m *Machine) func() {
			total, err := s.add(m, name(args[1]), s.number(args[2]), id)
			if err != nil {
				s.printf("add%s", failure(err))
			} else {
				s.printf("%s has %s", n.label, total)
			}
			return nil
		})
	case "check":
		n := s.running(args[0])
		s.check++
		s.step(n, func(m *Machine) func() {
			decision, decided, err := s.decide(m, name(args[1]), s.number(args[2]), wait, id)
			switch {
			case err != nil:
				s.printf("check %d%s", s.check, failure(err))
			case decided:
				s.printf("check %d: %s", s.check, decision)
			default:
				s.printf("check %d waits", s.check)
			}
			return nil
		})
	case "deliver":
		for range 1000 {
			if next := s.next(); next > s.now.Add(10*time.Millisecond) {
				break
			}
			s.event()
		}
	case "tick":
		end := s.now.Add(s.duration(args[0]))
		for s.next() <= end {
			s.event()
		}
		s.now = end
	case "crash":
		s.running(args[0]).m = nil
	case "restart":
		s.start(s.node(args[0]))
	case "wipe":
		s.node(args[0]).disk = memory{}
	case "copy":
		n := s.node(args[0])
		n.copied = maps.Clone(n.disk)
	case "restore":
		n := s.node(args[0])
		n.disk, n.restored = maps.Clone(n.copied), slices.Contains(args, "backup")
	case "twin":
		n := s.node(args[0])
		twin := &scripted{label: n.label + "2", place: n.place, disk: maps.Clone(n.disk)}
		s.nodes = append(s.nodes, twin)
		s.start(twin)
	case "cut", "mend":
		n, one := s.node(args[0]), args[1:]
		if len(one) == 0 || one[0] == "up" {
			n.up = d.Cmd == "cut"
		}
		if len(one) == 0 || one[0] == "down" {
			n.down = d.Cmd == "cut"
		}
	case "stop":
		s.stop(s.running(args[0]))
	case "totals":
		s.totals(name(args[0]))
	case "ledger":
		s.ledger(name(args[0]))
	default:
		if !s.limits(d.Cmd, args, d.Input) {
			d.Fatalf(s.t, "unknown command %q", d.Cmd)
		}
	}
}

func (s *script) duration(text string) time.Duration {
	s.t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) number(text string) (n int64) {
	s.t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func name(text string) Name {
	namespace, key, _ := strings.Cut(text, "/")
	return Name{namespace, key}
}

func (s *script) node(label string) *scripted {
	s.t.Helper()
	for _, n := range s.nodes {
		if n.label == label {
			return n
		}
	}
	s.t.Fatalf("there is no %s", label)
	return nil
}

func (s *script) running(label string) *scripted {
	s.t.Helper()
	n := s.node(label)
	if n.m == nil {
		s.t.Fatalf("%s does not run", label)
	}
	return n
}

// start starts a process on a node's disk.
func (s *script) start(n *scripted) {
	n.starts++
	s.session++
	s.labels[s.session] = fmt.Sprintf("%s#%d", n.label, n.starts)
	m, err := Start(s.now, Config{
		Place: n.place, Partitions: 1, Leaf: n.place.Depth() == 3, Rules: s.rules, Session: s.session, NewWorld: 7,
		Wall: s.unix(), Lease: DefaultLease, Heartbeat: DefaultHeartbeat, ReportInterval: DefaultReportInterval, MaxAwake: DefaultMaxAwake,
		Restored: n.restored,
	}, n.disk)
	if err != nil {
		s.t.Fatal(err)
	}
	n.m = m
	n.disk.apply(m.Writes())
	n.restored = false
	s.tick(n)
}

func (s *script) tick(n *scripted) {
	s.step(n, func(m *Machine) func() { m.Tick(s.now); return nil })
}

// step gives an input to a machine, and does what it wants done: it writes,
// then sends. What do returns is sent last.
func (s *script) step(n *scripted, do func(*Machine) func()) {
	n.m.SetWall(s.now, s.unix())
	send := do(n.m)
	for o := n.m.idle.first; o != nil; o = o.links[byUse].next {
		for _, p := range o.pools {
			p.check()
		}
	}
	out := n.m.Output(s.now)
	n.disk.apply(out.Writes)
	n.wake = out.Wake
	for _, e := range out.Events {
		if e.Kind != EventChild { // the other end says that it joined
			s.at("%s: %s %s", n.label, e.Kind, cmp.Or(s.label(e.Detail), string(e.Place)))
		}
	}
	for _, d := range out.Decided {
		s.at("%s: check %d: %s", n.label, d.ID, d.Decision)
	}
	if send != nil {
		send()
	}
	for _, c := range out.Recalls {
		s.recall(n, c)
	}
	if out.Report != nil {
		s.report(n, out.Report)
	}
	switch {
	case out.Err != nil || out.Exit != nil:
		s.at("%s exits", n.label)
		n.m = nil
	case out.Commit > 0:
		s.step(n, func(m *Machine) func() { m.Committed(s.now, out.Commit); return nil })
	}
}

// label replaces the numbers of sessions in a text.
func (s *script) label(text string) string {
	for session, label := range s.labels {
		text = strings.ReplaceAll(text, fmt.Sprintf("session %016x", session), label)
	}
	return text
}

func (s *script) send(deliver func()) {
	s.net = append(s.net, message{s.now.Add(time.Millisecond), deliver})
}

// next is when something happens.
func (s *script) next() limiter.Time {
	at := limiter.Never
	if len(s.net) > 0 {
		at = s.net[0].at
	}
	for _, n := range s.nodes {
		if n.m != nil {
			at = min(at, n.wake)
		}
	}
	return at
}

// event lets the next thing happen.
func (s *script) event() {
	s.now = max(s.now, s.next())
	if len(s.net) > 0 && s.net[0].at <= s.now {
		deliver := s.net[0].deliver
		s.net = s.net[1:]
		deliver()
		return
	}
	for _, n := range s.nodes {
		if n.m != nil && n.wake <= s.now {
			s.tick(n)
			return
		}
	}
}

// parent is the process that a node reports to, or nil.
func (s *script) parent(n *scripted) *scripted {
	for _, p := range s.nodes {
		if p.place == n.place.Parent() && p.m != nil {
			return p
		}
	}
	return nil
}

func (s *script) report(n *scripted, r *Report) {
	process := n.m
	s.send(func() {
		to := s.parent(n)
		switch {
		case n.m != process:
			return // its connection ended with it
		case n.up:
			s.message("%s: report %d is lost", n.label, r.Sequence)
			return
		case to == nil:
			s.step(n, func(m *Machine) func() { m.Failed(s.now, r.Sequence); return nil })
			return
		}
		shown := s.sayReport(n, to, r)
		s.step(to, func(m *Machine) func() {
			ack := m.Reported(s.now, r)
			if ack == nil {
				return nil
			}
			return func() { s.ack(to, n, r, ack, shown) }
		})
	})
}

func (s *script) ack(from, to *scripted, r *Report, a *Ack, shown bool) {
	process := to.m
	s.send(func() {
		if to.m == nil || to.m != process {
			return
		}
		if to.down {
			s.message("%s: the ack of report %d is lost", to.label, r.Sequence)
			return
		}
		s.sayAck(from, to, r, a, shown)
		s.step(to, func(m *Machine) func() { m.Acknowledged(s.now, a); return nil })
	})
}

func (s *script) recall(from *scripted, c ChildRecall) {
	s.send(func() {
		for _, n := range s.nodes {
			if n.place != c.Child || n.m == nil || n.down {
				continue
			}
			s.message("%s → %s: recall after %d: %s", from.label, n.label, c.Recall.Sequence, strings.Join(grants(c.Recall.Lines), "; "))
			s.step(n, func(m *Machine) func() { m.Recalled(s.now, c.Recall); return nil })
		}
	})
}

// sayReport prints a report, unless it says nothing.
func (s *script) sayReport(n, to *scripted, r *Report) bool {
	var says []string
	if r.Number == 0 {
		says = append(says, "hello of "+s.labels[r.Session])
		if r.Previous != 0 {
			says = append(says, fmt.Sprintf("after %s, number %d", s.labels[r.Previous], r.Highest))
		}
	}
	for _, c := range r.Counts {
		first := ""
		if c.First {
			first = ", any more?"
		}
		says = append(says, fmt.Sprintf("%s %s%s", c.Name, s.pairs(c.Pairs), first))
	}
	for _, l := range r.Lines {
		says = append(says, fmt.Sprintf("%s line %d%s%s%s", l.Name, l.Line, ended(l.Ended), demand(n.m.rules.Rule(l.Name.Namespace).Limit(l.Limit), l.Demand), returned(l.Returned)))
	}
	if r.Bye {
		says = append(says, "goodbye")
	}
	if len(says) == 0 {
		return false
	}
	s.message("%s → %s: report %d (%s,%s] %s", n.label, to.label, r.Sequence, mark(r.From), mark(r.To), strings.Join(says, "; "))
	return true
}

// sayAck prints an answer, unless it says nothing and answers nothing.
func (s *script) sayAck(from, to *scripted, r *Report, a *Ack, shown bool) {
	says := []string{"has " + mark(a.Acked)}
	switch {
	case a.Refused != "":
		says = []string{"refused: " + a.Refused}
	case a.Number != r.Number:
		says = append(says, fmt.Sprintf("number %d", a.Number))
	}
	if a.Fenced {
		says = append(says, "fenced")
	}
	if a.Pause != 0 {
		says = append(says, "pause "+a.Pause.String())
	}
	for _, c := range a.Pairs {
		says = append(says, fmt.Sprintf("%s %s", c.Name, s.pairs(c.Pairs)))
	}
	says = append(says, grants(a.Lines)...)
	if shown || a.Refused != "" || a.Fenced || len(a.Pairs) > 0 || len(a.Lines) > 0 || a.Acked != r.From {
		s.message("%s → %s: ack %d: %s", from.label, to.label, a.Sequence, strings.Join(says, "; "))
	}
}

// grants prints what a lender says of lines.
func grants(lines []Grant) (says []string) {
	for _, g := range lines {
		line := "nothing"
		if g.Line != 0 {
			line = fmt.Sprintf("line %d lent %s for %s", g.Line, share(g.Lent), g.Lease.Round(time.Millisecond))
			if !g.Keep.All {
				line += fmt.Sprintf(", keep %d at %s/s", g.Keep.Capacity, perSecond(g.Keep.Rate))
			}
		}
		switch {
		case g.Wait >= forever:
			line += ", no more ever"
		case g.Wait > 0:
			line += ", more in " + g.Wait.Round(time.Millisecond).String()
		}
		says = append(says, fmt.Sprintf("%s %s", g.Name, line))
	}
	return says
}

// mark prints a change's number, in the block that its session reserved.
func mark(n uint64) string {
	if n < markBlock {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d.%d", n/markBlock, n%markBlock)
}

// twoCities are Berlin and Munich with all above them, a second after their
// start.
func twoCities(t *testing.T, rules *limiter.Rules) *script {
	s := &script{t: t, labels: map[uint64]string{0: "nobody"}, rules: rules}
	for _, p := range []Place{"global", "eu", "eu.de", "eu.de.berlin", "eu.de.munich"} {
		n := &scripted{label: string(p[strings.LastIndexByte(string(p), '.')+1:]), place: p, disk: memory{}}
		s.nodes = append(s.nodes, n)
		s.start(n)
	}
	s.until(s.now.Add(time.Second))
	return s
}

// String is for the scripts.
func (t Total) String() string {
	if t.Removed == 0 {
		return fmt.Sprintf("%d", t.Added)
	}
	return fmt.Sprintf("%d-%d", t.Added, t.Removed)
}

// String is for the scripts.
func (d Decision) String() string {
	switch {
	case !d.Limited:
		return "allowed"
	case d.Permit != 0:
		return fmt.Sprintf("allowed, %d remain, permit %d", d.Remaining, d.Permit)
	case d.Allowed:
		return fmt.Sprintf("allowed, %d remain", d.Remaining)
	case d.RetryAfter > 0:
		return fmt.Sprintf("denied (%s), %d remain, retry after %s", d.Reason, d.Remaining, d.RetryAfter.Round(time.Millisecond))
	}
	return fmt.Sprintf("denied (%s), %d remain", d.Reason, d.Remaining)
}

func (s *script) pairs(pairs []Pair) string {
	var says []string
	for _, p := range pairs {
		if p.Session == 0 {
			says = append(says, p.Total.String())
		} else {
			says = append(says, fmt.Sprintf("%s=%s", s.labels[p.Session], p.Total))
		}
	}
	return strings.Join(says, " ")
}

func failure(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func ended(is bool) string {
	if is {
		return " ended"
	}
	return ""
}

func demand(l *limiter.Limit, d Demand) string {
	if d.none() {
		return ", no demand"
	}
	shown := func(n int64) string {
		if l == nil || l.Kind != limiter.Rate {
			return strconv.FormatInt(n, 10)
		}
		return perSecond(n)
	}
	return fmt.Sprintf(", demand %s peak %s ask %d", shown(d.Now), shown(d.Peak), d.Ask)
}

func share(s limiter.Share) string {
	return fmt.Sprintf("%d of %d at %s/s", s.Tokens, s.Capacity, perSecond(s.Rate))
}

func returned(s limiter.Share) string {
	if s.IsZero() {
		return ""
	}
	return ", returned " + share(s)
}

// stop stops a process in good order, and lets its parents follow.
func (s *script) stop(n *scripted) {
	s.step(n, func(m *Machine) func() { m.Stop(s.now); return nil })
	for range 100 {
		if n.m.Stopped() {
			break
		}
		s.event()
	}
	s.step(n, func(m *Machine) func() { m.Close(s.now); return nil })
	s.printf("%s stopped, clean: %v", n.label, n.m.meta.Clean)
	n.m = nil
}

func (s *script) totals(of Name) {
	for _, n := range s.nodes {
		if n.m == nil {
			s.printf("%s: down", n.label)
			continue
		}
		c := n.m.counted(n.m.object(s.now, n.m.space(of.Namespace), of.Key))
		var sources []string
		for _, from := range c.sources {
			if from.place == "" {
				sources = append(sources, s.pairs(from.pairs))
			} else {
				sources = append(sources, fmt.Sprintf("%s: %s", from.place, s.pairs(from.pairs)))
			}
		}
		s.printf("%s: %s (%s)", n.label, c.total, strings.Join(sources, ", "))
	}
}

func (s *script) ledger(of Name) {
	for _, n := range s.nodes {
		if n.m == nil || n.m.spaces[of.Namespace].objects[of.Key] == nil {
			s.printf("%s: nothing", n.label)
			continue
		}
		for _, p := range n.m.spaces[of.Namespace].objects[of.Key].pools {
			p.bucket.Settle(s.now)
			says := fmt.Sprintf("%s: %s", n.label, share(p.bucket.Share()))
			if p.held.number != 0 {
				says += fmt.Sprintf("; borrows line %d%s, %s left", p.held.number, ended(p.held.ended), max(0, p.held.expires.Sub(s.now)).Round(time.Millisecond))
			}
			for _, l := range slices.DeleteFunc(slices.Clone(p.lines), func(l *line) bool { return l.number == 0 }) {
				says += fmt.Sprintf("; lends %s line %d, %s, %s left", s.labels[l.session], l.number, share(l.out()), l.expires.Sub(s.now).Round(time.Millisecond))
			}
			s.printf("%s", says)
		}
	}
}

// perSecond shows a rate, which is of a day, as of a second.
func perSecond(rate int64) string {
	return strconv.FormatFloat(float64(rate)*float64(time.Second)/float64(limiter.RatePeriod), 'g', 5, 64)
}
