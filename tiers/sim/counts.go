package sim

import (
	"hash/fnv"
	"slices"
	"strings"

	"github.com/tributary-io/tributary/tiers"
)

// siteCount is what is true of one key at and below one place.
type siteCount struct {
	truth tiers.Total // counted by the leaves at or below, durable there, ever
	// lost is what of a leaf's truth may be gone: what no disk held at the
	// worst of times. Law 1's first exception.
	lost tiers.Total
	// ahead says that the parent may show more than this place: leaves lost
	// their disks together with it. Law 1's second exception.
	ahead    bool
	told     tiers.Total    // the most that an interior place reported
	sessions []sessionCount // of a leaf
}

// sessionCount is what one session of a leaf counted of one key.
type sessionCount struct {
	session uint64
	durable tiers.Total
	acked   tiers.Total // what clients were told is counted
	used    uint64      // what checks admitted of a limit that is counted as well
}

// recordKey is what a store's key stands for; target nil: nothing that the
// laws look at.
type recordKey struct {
	kind   byte // c: a count, b: a bucket, q: a request, r: the rules, w: a window
	target *target
	source tiers.Place
	limit  string
}

func (l *laws) key(k tiers.Key) recordKey {
	if r, ok := l.keys[k]; ok {
		return r
	}
	var r recordKey
	kind, rest, _ := strings.Cut(string(k), "/")
	name := func() string {
		text, tail, _ := strings.Cut(rest, "\x00")
		namespace, key, _ := strings.Cut(text, "/")
		r.target = l.byName[tiers.Name{Namespace: namespace, Key: key}]
		return tail
	}
	switch kind {
	case "count":
		r.kind, r.source = 'c', tiers.Place(name())
	case "bucket":
		r.kind, r.limit = 'b', name()
	case "request":
		r.kind = 'q'
		return r // too many to remember
	case "rules":
		r.kind = 'r'
	}
	l.keys[k] = r
	return r
}

// recorded is the total that a count's record adds to its place's. What an
// interior place keeps of forgotten children is its own.
func recorded(r tiers.Record, own bool) (t tiers.Total) {
	c, _ := r.(*tiers.CountRecord)
	if c == nil {
		return t
	}
	for _, p := range c.Pairs {
		t = sum(t, p.Total)
	}
	t = sum(t, c.Folded)
	if own {
		t = sum(t, c.Kept)
	}
	return t
}

// wrote is called when a step wrote a record that is not durable yet.
func (l *laws) wrote(n *Node, w tiers.Write) {
	k := l.key(w.Key)
	switch k.kind {
	case 'r':
		if r, _ := w.Record.(*tiers.RulesRecord); r != nil && r.Rules != nil {
			n.before, n.rules, n.ruledAt = n.rules, r.Rules, l.world.steps
			l.path(pathRules)
			l.follow(n)
		}
	case 'q':
		if r, _ := w.Record.(*tiers.RequestRecord); r != nil {
			l.requested(n, w.Key, r)
		}
	}
}

// durable is called when a record reaches a disk, in place of old. This is
// where Law 1 is checked: no total is above what the leaves below counted,
// none goes back, and no session counts for another.
func (l *laws) durable(n *Node, p *process, w tiers.Write, old tiers.Record) {
	k := l.key(w.Key)
	l.pathsOfRecord(w.Record, old)
	if k.kind == 'q' && w.Record != nil {
		l.requestDurable(n, w.Key)
	}
	if m, _ := w.Record.(*tiers.Meta); m != nil && m.Clean && !p.closing {
		l.broken("only a clean stop leaves a clean mark", n, "session %016x left one while it ran", p.session)
	}
	if m, _ := w.Record.(*tiers.Meta); m != nil && n.Place == tiers.Root {
		l.root.number = max(l.root.number, m.Number)
	} else if m != nil && m.Number == 1 && n.site.lost() {
		if before, _ := old.(*tiers.Meta); before == nil || before.Number != 1 {
			l.takenForNew(n.site, p.session, LostTogether)
		}
	}
	if c, _ := w.Record.(*tiers.ChildRecord); c != nil {
		before, _ := old.(*tiers.ChildRecord)
		l.folds(n, l.sites[tiers.Place(strings.TrimPrefix(string(w.Key), "child/"))], c, before)
	}
	if k.kind != 'c' || k.target == nil {
		return
	}
	l.checks++
	i := k.target.index
	own := !n.Leaf && k.source == ""
	before, now := recorded(old, own), recorded(w.Record, own)
	if w.Record != nil && !atMost(before, now) {
		l.broken("totals never decrease", n, "%s of %q was %+v, is %+v", k.target.name, k.source, before, now)
		return
	}
	l.changed = append(l.changed, changedTotal{k.target, n.totals[i]})
	n.totals[i] = sum(n.totals[i], minus(now, before)) // what is deleted wraps around, and back
	if n.Leaf {
		c, _ := w.Record.(*tiers.CountRecord)
		l.leafCounted(n, p, k.target, c)
	} else if child := l.sites[k.source]; child != nil {
		// A parent's pairs of a leaf are at most what each session counted.
		if c, _ := w.Record.(*tiers.CountRecord); child.leaf && c != nil {
			l.sessionsCovered(n, child, k.target, c.Pairs)
		}
		if !atMost(now, child.counts[i].truth) {
			l.broken("no total is above what was counted", n, "%s: %s is said to have %+v, it counted %+v", k.target.name, k.source, now, child.counts[i].truth)
		}
	}
}

// folds is called when a parent folds sessions of a child. What they counted
// that it has not heard of is only added while the leaf's disk that has it
// lacks nothing that the parent has: Law 1's third exception.
func (l *laws) folds(n *Node, child *site, now, before *tiers.ChildRecord) {
	if child == nil || !child.leaf {
		return
	}
	for _, session := range now.Folded {
		if before != nil && slices.Contains(before.Folded, session) {
			continue
		}
		for i := range child.counts {
			c := &child.counts[i]
			j := slices.IndexFunc(c.sessions, func(s sessionCount) bool { return s.session == session })
			if j < 0 {
				continue
			}
			unheard := c.sessions[j].durable
			if r, _ := n.disk.durable[countKey(l.targets[i].name, child.place)].(*tiers.CountRecord); r != nil {
				for _, p := range r.Pairs {
					if p.Session == session {
						unheard = less(unheard, p.Total)
					}
				}
			}
			if unheard != (tiers.Total{}) {
				c.lost = sum(c.lost, unheard)
				l.excepted[FoldedUnheard]++
			}
		}
	}
}

// changedTotal is a total of a node before the commit that is under way.
type changedTotal struct {
	target *target
	before tiers.Total
}

// committed is called when all writes of a commit are durable.
func (l *laws) committed(n *Node) {
	for _, c := range l.changed {
		i := c.target.index
		if !atMost(c.before, n.totals[i]) {
			l.broken("totals never decrease", n, "%s was %+v, is %+v", c.target.name, c.before, n.totals[i])
		}
		if truth := n.site.counts[i].truth; !atMost(n.totals[i], truth) {
			l.broken("no total is above what was counted", n, "%s: total %+v, counted below %+v", c.target.name, n.totals[i], truth)
		}
	}
	l.changed = l.changed[:0]
}

// leafCounted takes a leaf's durable count: its own session's pair is news,
// the others were counted before.
func (l *laws) leafCounted(n *Node, p *process, t *target, c *tiers.CountRecord) {
	if c == nil {
		return
	}
	own := p.session
	at := &n.site.counts[t.index]
	for _, pair := range c.Pairs {
		if pair.Session != own {
			continue
		}
		s := at.session(own)
		if !atMost(s.durable, pair.Total) {
			l.broken("totals never decrease", n, "%s: session %016x had %+v, has %+v", t.name, own, s.durable, pair.Total)
			return
		}
		grown := minus(pair.Total, s.durable)
		s.durable = pair.Total
		for up := n.site; up != nil; up = up.parent {
			up.counts[t.index].truth = sum(up.counts[t.index].truth, grown)
		}
	}
	l.sessionsCovered(n, n.site, t, c.Pairs)
}

// sessionsCovered checks that no session is said to have counted more than it did.
func (l *laws) sessionsCovered(n *Node, leaf *site, t *target, pairs []tiers.Pair) {
	for _, pair := range pairs {
		if s := leaf.counts[t.index].session(pair.Session); !atMost(pair.Total, s.durable) {
			l.broken("no session counted more than it did", n, "%s: session %016x of %s is said to have %+v, it counted %+v",
				t.name, pair.Session, leaf.place, pair.Total, s.durable)
		}
	}
}

func (c *siteCount) session(session uint64) *sessionCount {
	for i := len(c.sessions) - 1; i >= 0; i-- { // the latest is asked for most
		if c.sessions[i].session == session {
			return &c.sessions[i]
		}
	}
	c.sessions = append(c.sessions, sessionCount{session: session})
	return &c.sessions[len(c.sessions)-1]
}

// countedFor is called when a client is told that its votes are counted.
func (l *laws) countedFor(n *Node, session uint64, t *target, delta int64) {
	s := n.site.counts[t.index].session(session)
	if delta > 0 {
		s.acked.Added += uint64(delta)
	} else {
		s.acked.Removed += uint64(-delta)
	}
	if l.checks++; !l.async && !atMost(s.acked, s.durable) {
		l.broken("an answer follows its commit", n, "%s: session %016x acknowledged %+v, durable is %+v", t.name, session, s.acked, s.durable)
	}
}

// reports checks that only durable counts are reported, and that what was
// handed back is kept, once the report says that it came.
func (l *laws) reports(p *process, r *tiers.Report) {
	n := p.node
	l.fits(n, "report", r.Size())
	if a := p.handed; a != nil && r.Got >= a.Sequence {
		if p.handed = nil; r.Got == a.Sequence && n.Leaf {
			l.keeps(n, a)
		}
	}
	for i := range r.Counts {
		c := &r.Counts[i]
		t := l.byName[c.Name]
		if t == nil {
			continue
		}
		l.checks++
		if n.Leaf {
			for _, pair := range c.Pairs {
				if pair.Session == p.session && !atMost(pair.Total, n.site.counts[t.index].session(p.session).durable) {
					l.broken("a report follows its commit", n, "%s: reports %+v, durable is %+v", c.Name, pair.Total, n.site.counts[t.index].session(p.session).durable)
				}
			}
			continue
		}
		for _, pair := range c.Pairs {
			told := &n.site.counts[t.index].told
			*told = larger(*told, pair.Total)
			if !atMost(pair.Total, n.totals[t.index]) {
				l.broken("a report follows its commit", n, "%s: reports %+v, durable is %+v", c.Name, pair.Total, n.totals[t.index])
			}
		}
	}
}

// leastMessage is where a message has room for a few entries only.
const leastMessage = 2 << 10

// maxMessage is how many bytes a message of a node may have: where messages are
// small, each place has a bound of its own, under which many are cut.
func (l *laws) maxMessage(n *Node) int {
	if !l.small {
		return tiers.DefaultMaxMessage
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(n.Place))
	return leastMessage + int(h.Sum32()%leastMessage)
}

// fits checks that a message is not larger than what a node may send.
func (l *laws) fits(n *Node, what string, size int) {
	if l.checks++; size > l.maxMessage(n) {
		l.broken("a message fits", n, "a %s has %d bytes, at most %d may be sent", what, size, l.maxMessage(n))
	}
}

// keeps checks that a leaf has on its disk what an Ack handed back.
func (l *laws) keeps(n *Node, a *tiers.Ack) {
	for i := range a.Pairs {
		c := &a.Pairs[i]
		if l.byName[c.Name] == nil {
			continue
		}
		l.checks++
		have, _ := n.disk.durable[countKey(c.Name, "")].(*tiers.CountRecord)
		for _, pair := range c.Pairs {
			if have == nil || !holds(have, pair) {
				l.broken("what is handed back is kept", n, "%s: handed back %016x %+v, durable is %+v", c.Name, pair.Session, pair.Total, have)
				return
			}
		}
	}
}

// acknowledges checks that what is acknowledged is durable at the parent.
func (l *laws) acknowledges(n *Node, r *tiers.Report, a *tiers.Ack) {
	l.fits(n, "answer", a.Size())
	if a.MorePairs {
		l.path(pathMorePairs)
	}
	if a.MoreLines {
		l.path(pathMoreLines)
	}
	if a.Parts != nil && len(a.Parts.Pieces) > 0 {
		l.path(pathRulesPieces)
	}
	if len(a.Pairs) > 0 {
		l.path(pathHandedBack)
	}
	if a.Fenced {
		l.path(pathFenced)
	}
	if a.Refused != "" || a.Number == 0 || r.Number == 0 {
		return
	}
	if a.Acked < r.To || a.Full {
		return
	}
	if r.From == r.To && len(r.Counts) > 0 {
		l.path(pathFromDisk)
	}
	for i := range r.Counts {
		c := &r.Counts[i]
		if len(c.Pairs) > 1 {
			l.path(pathHandedOver)
		}
		l.checks++
		key := countKey(c.Name, r.Child)
		have, _ := n.disk.durable[key].(*tiers.CountRecord)
		for _, pair := range c.Pairs {
			if have != nil && holds(have, pair) {
				continue
			}
			l.broken("an acknowledgement follows its commit", n, "%s of %s: acknowledged %016x %+v, durable is %+v", c.Name, r.Child, pair.Session, pair.Total, have)
			return
		}
	}
}

// holds says that a record has a pair, or has it folded.
func holds(r *tiers.CountRecord, pair tiers.Pair) bool {
	i := slices.IndexFunc(r.Pairs, func(p tiers.Pair) bool { return p.Session == pair.Session })
	if i < 0 {
		return r.Folded != tiers.Total{} || pair.Total == tiers.Total{}
	}
	return atMost(pair.Total, r.Pairs[i].Total)
}

func countKey(n tiers.Name, source tiers.Place) tiers.Key {
	return tiers.Key("count/" + n.Namespace + "/" + n.Key + "\x00" + string(source))
}

// reopened is called when a node has another disk than before: a lost one,
// an old one, or a twin's copy. Votes that no disk holds any more may be
// lost; they are counted as such, and nothing else is.
func (l *laws) reopened(n *Node) {
	clear(n.totals)
	for k, r := range n.disk.durable {
		if key := l.key(k); key.kind == 'c' && key.target != nil {
			i := key.target.index
			n.totals[i] = sum(n.totals[i], recorded(r, !n.Leaf && key.source == ""))
		}
	}
	l.unread(n.site)
}

// unread is called when a disk of a place is read no more: it is another, or
// its process was fenced and has exited.
func (l *laws) unread(s *site) {
	if s.leaf {
		l.mayLose(s)
	}
	for _, leaf := range s.below {
		if leaf.leaf && !leaf.left {
			l.mayLose(leaf)
		}
	}
	l.unwitnessed()
	for ; s != nil; s = s.parent {
		if !s.leaf {
			l.mayBeBehind(s)
		}
	}
}

// mayBeBehind notes that a place can only be rebuilt to less than it told its
// parent: leaves lost their disks together with it.
func (l *laws) mayBeBehind(s *site) {
	for i := range s.counts {
		var held tiers.Total
		for _, child := range s.below {
			held = sum(held, child.held(i))
		}
		if c := &s.counts[i]; !c.ahead && !atMost(c.told, larger(held, s.held(i))) {
			c.ahead = true
			l.excepted[LostTogether]++
		}
	}
}

// mayLose notes what of a leaf's counts no disk holds.
func (l *laws) mayLose(leaf *site) {
	for i := range leaf.counts {
		c := &leaf.counts[i]
		gone := less(c.truth, larger(leaf.held(i), leaf.reported(i)))
		if worst := larger(c.lost, gone); worst != c.lost {
			c.lost = worst
			l.excepted[LostCounts]++
		}
	}
}

// held is the most that a disk of the place holds of a target.
func (s *site) held(i int) (most tiers.Total) {
	for _, n := range s.nodes {
		if !n.gone { // the disk of one that was fenced, and exited, is not read again
			most = larger(most, n.totals[i])
		}
	}
	return most
}

// reported is the most that a disk of the parent holds of the place.
func (s *site) reported(i int) (most tiers.Total) {
	if s.parent == nil || s.parent.nodes[0].world.laws == nil {
		return most
	}
	name := s.parent.nodes[0].world.laws.targets[i].name
	for _, n := range s.parent.nodes {
		if n.gone {
			continue
		}
		most = larger(most, recorded(n.disk.durable[countKey(name, s.place)], false))
	}
	return most
}

// shown is called when a client gets a total: what it sees is between what
// was durable when it asked and what is true.
func (l *laws) shown(n *Node, t *target, before, total tiers.Total, views []tiers.View) {
	l.checks++
	if !atMost(before, total) || !atMost(total, n.site.counts[t.index].truth) {
		l.broken("a client sees what is true", n, "%s: shows %+v, held %+v, counted %+v", t.name, total, before, n.site.counts[t.index].truth)
	}
	for _, v := range views {
		if above := l.sites[v.Place]; above == nil || !atMost(v.Total, above.counts[t.index].truth) {
			l.broken("a client sees what is true", n, "%s: shows %+v of %s", t.name, v.Total, v.Place)
		}
	}
}
