package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A mutant is the core with one mistake in it, made by edits of its source:
// the mistakes that the design exists to avoid. It shows that the checkers
// can fail.
type mutant struct {
	mistake string
	edits   []edit
	quick   bool   // it is run with -short too
	test    string // catches it, where chance seldom brings about what it takes: "tiers TestX"
}

// An edit replaces old, which stands in file exactly once, file being named
// from the module's root. Short texts outlive the changes around them.
type edit struct{ file, old, new string }

var mutants = []mutant{
	// What leaves a place before it is durable there.
	{
		mistake: "a report is acknowledged before its commit", quick: true,
		edits: []edit{{"tiers/place/runner.go", "if ack = m.Reported(now, report); ack != nil && full {", `if ack = m.Reported(now, report); ack != nil {
			reply(ack)
		}
		if ack != nil && full {`}},
	},
	{
		mistake: "a report leaves before its commit",
		edits: []edit{{"tiers/place/runner.go", "r.sender.Wake(out.Wake)", `r.sender.Wake(out.Wake)
		if out.Report != nil {
			r.sender.Report(out.Report)
			out.Report = nil
		}`}},
	},
	{
		mistake: "a Recall leaves before its commit",
		edits: []edit{{"tiers/place/runner.go", "r.sender.Wake(out.Wake)", `r.sender.Wake(out.Wake)
		for _, c := range out.Recalls {
			r.sender.Recall(c.Child, c.Recall)
		}
		out.Recalls = nil`}},
		test: "tiers/place TestNoRecallBeforeItIsDurable",
	},
	// What a get is told of the tiers above.
	{
		mistake: "an answer that left totals out says that it held all",
		edits:   []edit{{"tiers/watch.go", "a.Partial = w.queue.Len() > 0 || m.upper.wishes.stale()", "a.Partial = false"}},
		test:    "tiers TestViewsAreNoOlderThanTheySay",
	},
	{
		mistake: "totals of a lost answer are not told again",
		edits:   []edit{{"tiers/watch.go", "			lost.tell()\n", "			_ = lost\n"}},
		test:    "tiers TestViewsAreNoOlderThanTheySay",
	},
	{
		mistake: "totals are said to be complete by a report that may be lost",
		edits:   []edit{{"tiers/upper.go", "	u.inFlight, u.builtAt, u.hurry = r, now, false\n", "	u.inFlight, u.builtAt, u.hurry = r, now, false\n	if u.full {\n		u.complete, u.whole = now, true\n	}\n"}},
		test:    "tiers TestViewsAreNoOlderThanTheySay",
	},
	{
		mistake: "totals are said to be as complete as the last full report is old",
		edits:   []edit{{"tiers/upper.go", "u.builtAt.Add(-r.Age), true", "u.builtAt, true"}},
		test:    "tiers TestViewsAreNoOlderThanTheySay",
	},
	{
		mistake: "keys of another session of the parent are taken to be watched",
		edits:   []edit{{"tiers/upper.go", "		u.wishes.turn()\n", ""}},
		test:    "tiers TestViewsAreNoOlderThanTheySay",
	},
	{
		mistake: "who watches many keys leaves no room for others",
		edits:   []edit{{"tiers/watch.go", "if o.watch.order.Len() > most.watch.order.Len() {", "if false {"}},
		test:    "tiers TestCitiesShareWhatTheirParentWatches",
	},
	// What a check is told.
	{
		mistake: "a denied check is told of the limit that passes first",
		edits:   []edit{{"tiers/deny.go", "if order(at) < order(r.at) {", "if order(at) > order(r.at) {"}},
		test:    "tiers TestAnswerIsOfTheLimitThatPassesLast",
	},
	{
		mistake: "a vote is answered before its commit",
		edits:   []edit{{"tiers/place/runner.go", "a.async = m.Async(add.Name)", "a.async = true"}},
	},

	// Counts.
	{
		mistake: "an interior place reports what came since the last report",
		edits: []edit{
			{"tiers/count.go", "type count struct {", "type count struct {\n\tsaid Total"},
			{"tiers/upper.go", "entry.Pairs = []Pair{{Total: c.total}}", `entry.Pairs = []Pair{{Total: Total{c.total.Added - c.said.Added, c.total.Removed - c.said.Removed}}}
			c.said = c.total`},
		},
	},
	{
		mistake: "a parent adds up what a child reports", quick: true,
		edits: []edit{{"tiers/count.go", "if found && larger == old {", `if s.place != "" {
			larger = Total{old.Added + p.Added, old.Removed + p.Removed}
		}
		if found && larger == old {`}},
	},
	{
		mistake: "a start counts on in the replica of the one before",
		edits:   []edit{{"tiers/count.go", "own := Pair{Session: m.cfg.Session}", "own := Pair{Session: cmp.Or(m.prior.Session, m.cfg.Session)}"}},
	},
	{
		mistake: "a child trusts its own memory of what was acknowledged",
		edits:   []edit{{"tiers/upper.go", "acked := min(a.Acked, m.mark)", "acked := max(u.acked, min(a.Acked, m.mark))"}},
	},
	{
		mistake: "a parent acknowledges across a gap",
		edits:   []edit{{"tiers/lower.go", "if r.From <= progress.Acked && r.To > progress.Acked", "if r.To > progress.Acked"}},
		test:    "tiers/sim TestLostDiskOfACountry",
	},
	{
		mistake: "a parent acknowledges what only its session before was told",
		edits:   []edit{{"tiers/lower.go", "(r.Rest == 0 || r.Rest == m.cfg.Session)", "true"}},
		test:    "tiers TestRestThatAnotherSessionWasTold",
	},
	{
		mistake: "what a parent acknowledged is taken to be on the disk that it started on since",
		edits:   []edit{{"tiers/upper.go", "m.retellPass()", "_ = u.pass"}},
		test:    "tiers TestBacklogSurvivesItsParentsDisk",
	},
	{
		mistake: "a parent whose disk was full is taken to have what it was told from the child's",
		edits:   []edit{{"tiers/backlog.go", "p.sent != r.Sequence || a.Full ||", "p.sent != r.Sequence ||"}},
		test:    "tiers TestBacklogIsToldAgainWhereItsAnswerIsLost",
	},
	{
		mistake: "what changed while changes were told from the disk is forgotten",
		edits:   []edit{{"tiers/backlog.go", "if u.pass = nil; p.again {", "if u.pass = nil; false {"}},
		test:    "tiers TestBacklogGrowsWhileItIsTold",
	},
	{
		mistake: "what is handed back is no news to another session of the parent",
		edits:   []edit{{"tiers/upper.go", "c.handed = 0\n\t\tm.changed(c, s)", "m.record(c, s)"}},
		test:    "tiers TestWhatIsHandedBackIsTold",
	},
	{
		mistake: "what had no room in an answer is taken to be handed back",
		edits:   []edit{{"tiers/lower.go", "!a.MorePairs && (r.Rest", "(r.Rest"}, {"tiers/upper.go", "!a.Full && !a.MorePairs {", "!a.Full {"}},
		test:    "tiers TestAllIsHandedBackHoweverMuch",
	},
	{
		mistake: "parts of a count that another session of the parent was told are taken to be on the disk of this one",
		edits:   []edit{{"tiers/upper.go", "; part.upto != 0 && part.parent == m.upper.parent {", "; part.upto != 0 {"}, {"tiers/upper.go", "f.after != 0 && c.part != (partTold{f.after, u.parent, u.handings}):", "false:"}},
		test:    "tiers TestCountOfManySessionsIsToldInParts",
	},
	{
		mistake: "a report holds more than fits", quick: true,
		edits: []edit{{"tiers/size.go", "if *r-room(n) < keep {", "if false {"}},
		test:  "tiers TestBacklogFitsItsMessages",
	},
	{
		mistake: "lines that an answer had no room for are asked for no more",
		edits:   []edit{{"tiers/upper.go", "if a.MoreLines && ", "if false && "}},
		test:    "tiers TestLinesWithoutRoomAreAskedForAgain",
	},
	{
		mistake: "an owner whose disk was lost is silent for as long as its own rules say",
		edits:   []edit{{"tiers/lower.go", "m.hearLease(now, r.Longest)\n", ""}},
		test:    "tiers TestLeasesThatChildrenKnow",
	},
	{
		mistake: "the same, where only its parent knows of longer leases",
		edits:   []edit{{"tiers/upper.go", "m.hearLease(now, a.Longest)\n", ""}},
		test:    "tiers/sim TestLeasesOfRulesThatALostDiskKnew",
	},
	{
		mistake: "an owner that hears of longer leases has filled until then",
		edits:   []edit{{"tiers/machine.go", "m.hush(p)\n", ""}},
		test:    "tiers TestLeasesThatChildrenKnow",
	},
	{
		mistake: "what is left of an open window is deleted",
		edits:   []edit{{"tiers/prune.go", "return saved.Window < m.calendarOf", "return saved.Window <= m.calendarOf"}},
		test:    "tiers TestEndedWindowsLeaveTheDisk",
	},
	{
		mistake: "a saved bucket is deleted before it is full",
		edits:   []edit{{"tiers/prune.go", "return now >= from && b.Tokens() == l.Burst", "return now >= from"}},
		test:    "tiers TestSavedBucketsLeaveTheDiskWhenTheyAreFull",
	},
	{
		mistake: "a place that crashed amid a forgetting never goes on with it",
		edits:   []edit{{"tiers/lower.go", "c.seenAt = m.began; c.record.Leaving {", "c.seenAt = m.began; false {"}},
		test:    "tiers TestForgettingGoesOnAfterACrash",
	},
	{
		mistake: "a key is used before it follows the rules that its place follows", quick: true,
		edits: []edit{
			{"tiers/machine.go", "return m.current(now, o)", "return o"},
			{"tiers/check.go", "if o == nil || o.swept != m.sweep.given {", "if o == nil {"},
		},
		test: "tiers TestKeyIsBroughtUpBeforeItIsUsed",
	},
	{
		mistake: "a key refills by its old figures until its place comes to it",
		edits:   []edit{{"tiers/sweep.go", "t.do(t.at, o)", "t.do(t.at.Add(time.Minute), o)"}},
		test:    "tiers TestKeyIsBroughtUpBeforeItIsUsed",
	},
	{
		mistake: "a place does with all keys at once what concerns all",
		edits:   []edit{{"tiers/sweep.go", "n > 0 && !m.swept(); n--", "!m.swept(); n--"}},
		test:    "tiers TestNoStepGrowsWithTheKeys",
	},
	{
		mistake: "all keys that are due are seen to in one step",
		edits:   []edit{{"tiers/machine.go", "for range m.maxStep() {", "for {"}},
		test:    "tiers TestNoStepGrowsWithTheKeys",
	},
	{
		mistake: "rules are followed although a piece of them is missing",
		edits:   []edit{{"tiers/parts.go", "!= told.ID:\n", "!= told.ID && len(c.parts) == 0:\n"}},
		test:    "tiers TestPiecesOfRulesSurviveFaults",
	},
	{
		mistake: "pieces of different rules are put together",
		edits:   []edit{{"tiers/parts.go", "if hashOf(whole.Data) != whole.ID {", "if false {"}},
		test:    "tiers TestPiecesThatAreWrong",
	},
	{
		mistake: "rules that came in pieces come without their holds",
		edits:   []edit{{"tiers/parts.go", "record.Holds = append(record.Holds, c.parts[i].Holds...)", "_ = c.parts[i].Holds"}},
		test:    "tiers TestHoldsComeWithPieces",
	},
	{
		mistake: "a version is followed whose holds are still to come",
		edits:   []edit{{"tiers/rules.go", "told = m.collect(r, a); told == nil {", "told = m.collect(r, a); told == nil && a.Hash != m.rules.Hash {"}},
		test:    "tiers TestHoldsComeWithPieces",
	},
	{
		mistake: "an owner forgets its longest lease with the rules that say so",
		edits:   []edit{{"tiers/rules.go", "m.meta.Lease = max(m.meta.Lease, lease)", "m.meta.Lease = lease"}},
		test:    "tiers TestLongLeaseIsForgotten",
	},
	{
		mistake: "a leaf ignores what is handed back to it",
		edits:   []edit{{"tiers/upper.go", "range a.Pairs {", "range a.Pairs[:0] {"}},
	},
	{
		mistake: "marks of a disk that was set back pass for new ones",
		edits:   []edit{{"tiers/upper.go", "acked = min(acked, u.start)", "_ = u.start"}},
		test:    "tiers/sim TestOldDiskWithLowMarks",
	},
	{
		mistake: "an old mark vouches for a new session",
		edits:   []edit{{"tiers/upper.go", "if u.joined { // the parent knows", "if false { // the parent knows"}},
		test:    "tiers/sim TestOldMarkVouchesForNoNewSession",
	},
	{
		mistake: "a twin is not fenced",
		edits:   []edit{{"tiers/lower.go", "= r.Number, r.Session != c.session", "= r.Number, false"}},
	},

	// Shares: what is lent, returned and taken back.
	{
		mistake: "more is lent than the ledger says", quick: true,
		edits: []edit{{"tiers/lower.go", "Lent: l.lent,", "Lent: l.lent.Plus(limiter.Share{Capacity: 1}),"}},
	},
	{
		mistake: "what is lent stays in the bucket",
		edits:   []edit{{"limiter/bucket.go", "b.tokens -= s.Tokens", ""}},
	},
	{
		mistake: "a return comes back full",
		edits:   []edit{{"tiers/pool.go", "got.Tokens = min(got.Tokens, got.Capacity)", "got.Tokens = got.Capacity"}},
	},
	{
		mistake: "a return is taken with each report that tells of it",
		edits:   []edit{{"tiers/pool.go", "l.returned = returned\n", "_ = returned\n"}},
	},
	{
		mistake: "a line's totals carry over to the next line",
		edits: []edit{{"tiers/pool.go", "p.bucket.Add(now, out)", `p.bucket.Add(now, out)
	defer func(lent limiter.Share) { l.lent, l.returned = lent, lent }(l.lent)`}},
	},
	{
		mistake: "a return to an earlier session of the lender is taken",
		edits:   []edit{{"tiers/lower.go", "named := l.Line == n.number && l.Lender == m.cfg.Session", "named := l.Line == n.number"}},
		test:    "tiers TestReturnToAnEarlierLender",
	},
	{
		mistake: "a new lender's line is taken for the old one's",
		edits:   []edit{{"tiers/upper.go", "if h.number != g.Line || h.lender != m.upper.parent {", "if h.number != g.Line {"}},
		test:    "tiers TestLineOfANewLender",
	},
	{
		mistake: "a line that was left is taken up again",
		edits:   []edit{{"tiers/upper.go", "g.Line <= m.upper.old", "false"}},
		test:    "tiers TestLineOfANewLender",
	},
	{
		mistake: "a lender that answers again does not hear that its line was left",
		edits:   []edit{{"tiers/upper.go", "m.tell(p) // or a lender that does not know", "// a lender that does not know"}},
		test:    "tiers TestChildSaysThatItLeftALine",
	},
	{
		mistake: "a line that was left is renewed",
		edits:   []edit{{"tiers/lower.go", "left := n.number != 0 && !named && n.said != 0 && n.said <= r.Got", "left := false"}},
		test:    "tiers TestLineThatWasLeft",
	},
	{
		mistake: "an expired line gives its tokens back",
		edits:   []edit{{"tiers/pool.go", "out.Tokens = 0", "out.Tokens = max(0, min(out.Tokens, out.Capacity))"}},
	},

	{
		mistake: "a Recall after another report is taken",
		edits:   []edit{{"tiers/upper.go", "if r.Sequence != u.got || ", "if "}},
	},
	{
		mistake: "a Recall to another session is taken",
		edits:   []edit{{"tiers/upper.go", "|| r.Session != m.cfg.Session ", ""}},
		test:    "tiers TestRecallIsTakenOnceAndInOrder",
	},
	{
		mistake: "of two Recalls the older is taken last",
		edits:   []edit{{"tiers/upper.go", "|| g.Line < p.held.number && p.held.lender == r.Parent", ""}},
		test:    "tiers TestRecallIsTakenOnceAndInOrder",
	},
	{
		mistake: "what a lost Recall said is not said again",
		edits:   []edit{{"tiers/lower.go", "if u.line.said != r.Sequence &&", "if false &&"}},
		test:    "tiers TestLostRecallIsSaidAgain",
	},
	{
		mistake: "a line whose answer was lost is not said again where the rules differ",
		edits:   []edit{{"tiers/lower.go", "if !a.Fenced && !named && !left {", "if false {"}},
		test:    "tiers TestLostGrantIsSaidAgain",
	},

	// Leases.
	{
		mistake: "the parent's lease ends before the child's",
		edits:   []edit{{"tiers/pool.go", "return max(0, d/102*100)", "return max(0, d/98*100)"}},
	},
	{
		mistake: "clocks are trusted not to drift",
		edits:   []edit{{"tiers/pool.go", "return max(0, d/102*100)", "return max(0, d)"}},
	},
	{
		mistake: "the child's lease begins when the answer comes", quick: true,
		edits: []edit{{"tiers/upper.go", "h.expires = max(h.expires, m.upper.gotAt.Add(g.Lease))", "h.expires = max(h.expires, now.Add(g.Lease))"}},
	},
	{
		mistake: "a child spends on when its lease has ended",
		edits: []edit{
			{"tiers/check.go", "&& now < p.held.expires", "&& now < p.held.expires.Add(time.Second)"},
			{"tiers/check.go", "!h.ended && now >= h.expires &&", "!h.ended && now >= h.expires.Add(time.Second) &&"},
			{"tiers/check.go", "at = min(at, h.expires)", "at = min(at, h.expires.Add(time.Second))"},
		},
	},
	{
		mistake: "a lease outlives the one it is cut from",
		edits:   []edit{{"tiers/pool.go", "return max(0, p.held.expires.Sub(now)/100*98)", "return configured"}},
	},
	{
		mistake: "a parent renews what the report does not name",
		edits: []edit{{"tiers/lower.go", "c.reported, c.seenAt", `for o := m.idle.first; o != nil; o = o.links[byUse].next {
		for _, p := range o.pools {
			for _, l := range p.lines {
				if l.child == c && l.session == r.Session {
					l.expires = max(l.expires, now.Add(lenderLease(m.lease())))
				}
			}
		}
	}
	c.reported, c.seenAt`}},
	},
	{
		mistake: "a child renews what the answer does not name",
		edits: []edit{{"tiers/upper.go", "m.seen(r, a)", `for o := m.idle.first; o != nil; o = o.links[byUse].next {
		for _, p := range o.pools {
			p.held.expires = max(p.held.expires, u.builtAt.Add(m.lease()))
		}
	}
	m.seen(r, a)`}},
	},

	// Starts: what is believed of the time before.
	{
		mistake: "an owner lends while it is silent",
		edits:   []edit{{"tiers/lower.go", "(now < m.quiet(p) || !m.judged)", "!m.judged"}},
	},
	{
		mistake: "the root believes a clean disk, and asks nobody",
		edits:   []edit{{"tiers/machine.go", "m.judged, m.intact = m.isNew || cfg.Restored, m.isNew", "m.judged, m.intact = true, m.promises()"}},
		test:    "tiers TestRootThatWasSetBack",
	},
	{
		mistake: "a root that is joined to another world believes its budgets",
		edits:   []edit{{"tiers/operate.go", "m.lose(now)\n", ""}},
		test:    "tiers/sim TestFigureOfALostBudget",
	},
	{
		mistake: "the root lends to who may not be its witness",
		edits:   []edit{{"tiers/lower.go", "m.rulesFor(c, r, a) && heard", "m.rulesFor(c, r, a) && (heard || true)"}},
	},
	{
		mistake: "an owner's bucket fills while it is silent",
		edits: []edit{
			{"tiers/asleep.go", "return 0, max(m.began, m.silent)", "return 0, m.began"},
			{"tiers/machine.go", "from := max(since, m.quiet(p))", "from := since"},
		},
	},
	{
		mistake: "an owner is not silent after a crash",
		edits:   []edit{{"tiers/machine.go", "m.silent = now.Add(lenderLease(", "m.silent = now.Add(0*lenderLease("}},
	},
	{
		mistake: "a bucket is full after a crash",
		edits:   []edit{{"tiers/asleep.go", "return 0, max(m.began, m.silent)", "return l.Burst, m.began"}},
	},
	{
		mistake: "a disk that was lost or set back is believed",
		edits:   []edit{{"tiers/machine.go", "last, last && m.promises()", "true, m.promises()"}},
	},
	{
		mistake: "a crash after a clean stop passes for a clean stop",
		edits:   []edit{{"tiers/machine.go", "m.meta.Clean = false\n\tm.followLease", "m.followLease"}},
	},
	{
		mistake: "a stop is clean though shares are lent",
		edits:   []edit{{"tiers/machine.go", "m.lent = m.lent || out.Capacity > 0 || out.Rate > 0", "_ = out"}},
		test:    "tiers TestStopWithSharesLentIsNotClean",
	},
	{
		mistake: "a clean stop does not write what buckets hold",
		edits:   []edit{{"tiers/machine.go", "m.write(p.savedKey(), &SavedBucket{Tokens: p.bucket.Tokens(), Burst: p.limit.Burst, Fills: true})", ""}},
		test:    "tiers/sim TestGoodStopReturnsShares",
	},
	{
		mistake: "a key that left memory is told of beside itself",
		test:    "tiers TestKeyThatSleptIsToldOnce",
		edits:   []edit{{"tiers/machine.go", "\t\t\tp.leave()\n", ""}},
	},
	{
		mistake: "capacity that a limit is raised by comes full",
		edits:   []edit{{"tiers/rules.go", "	more.Tokens = 0\n	if l.Kind == limiter.Concurrency {", "	more.Tokens = more.Capacity\n	if l.Kind == limiter.Concurrency {"}},
	},
	{
		mistake: "a key that sleeps while its limit is raised wakes full",
		edits:   []edit{{"tiers/asleep.go", "	more.Tokens, less.Tokens = 0, 0", "	more.Tokens, less.Tokens = more.Capacity, 0"}},
	},
	{
		mistake: "a clean stop forgets what keys that slept through other rules lack",
		test:    "tiers TestRaisedCapacityComesEmpty",
		edits:   []edit{{"tiers/machine.go", "m.meta.Asleep = m.asleepRecords(now, true)", "m.meta.Asleep = nil"}},
	},
	{
		mistake: "a crash forgets that a limit left the rules",
		test:    "tiers TestOneBucketLivesThroughAllRules",
		edits:   []edit{{"tiers/asleep.go", "m.meta.Asleep = left\n", "m.meta.Asleep = nil\n"}},
	},
	{
		mistake: "a promise is not what is left of a bucket that was full",
		test:    "tiers TestBucketThatWasFullIsFullWhenItIsAskedFirst",
		edits:   []edit{{"tiers/pool.go", "p.bucket = *p.promised", "_ = p.promised"}},
	},
	{
		mistake: "a quota's windows go back with the wall clock",
		test:    "tiers TestScripts",
		edits:   []edit{{"tiers/kinds.go", "if t < c.end {", "if t < c.end && t >= c.begin {"}},
	},
	{
		mistake: "a budget is lent and not written down",
		edits:   []edit{{"tiers/lower.go", "p.bucket.Tokens() != tokens {", "p.bucket.Tokens() != tokens && false {"}},
	},
	{
		mistake: "a window is opened twice",
		edits:   []edit{{"tiers/kinds.go", "m.write(windowKey(s.name, l), &WindowRecord{Begin: c.begin})", ""}},
		test:    "tiers TestWindowIsOpenedOnce",
	},
	{
		mistake: "a permit is released twice",
		edits: []edit{{"tiers/kinds.go", "if hits := p.permits.take(serial); hits > 0 {", `if hits := p.permits.held[serial].hits; hits > 0 {
			p.permits.out -= hits`}},
		test: "tiers TestPermitIsReleasedOnce",
	},
	{
		mistake: "permits of a line that ended come back at once",
		edits:   []edit{{"tiers/pool.go", "p.freeze(out.Capacity, now.Add(lenderLease(p.limit.Hold)))", "p.free(now, out.Capacity)"}},
	},
	{
		mistake: "permits that were given by a longer hold come back by the shorter",
		edits:   []edit{{"tiers/kinds.go", "max(until, p.runOn)", "until"}},
		test:    "tiers TestShortenedHoldOfALine",
	},
	{
		mistake: "a request's id is forgotten",
		edits:   []edit{{"tiers/requests.go", "m.write(k, r)", ""}},
	},
	{
		mistake: "a limit that comes back is lent at once",
		edits:   []edit{{"tiers/rules.go", "return max(m.silent, a.quiet)", "return max(m.silent, 0*a.quiet)"}},
	},
	{
		mistake: "the sums of what is lent miss what comes back",
		edits:   []edit{{"tiers/pool.go", "	p.touch()\n	l.returned = returned\n", "	l.returned = returned\n"}},
	},
	{
		mistake: "a key that fell asleep is brought up to date",
		edits:   []edit{{"tiers/sweep.go", "o.swept == s.given || o.asleep", "o.swept == s.given"}},
		test:    "tiers TestKeyThatSleepsStaysInNoList",
	},
	{
		mistake: "the sums keep what a key had that fell asleep",
		edits:   []edit{{"tiers/machine.go", "m.sums.leave(p)", "_ = p"}},
	},
	{
		mistake: "a bucket leaves memory that is not full",
		edits:   []edit{{"tiers/machine.go", "|| p.owner && p.bucket.Tokens() < p.bucket.Capacity() {", "{"}},
	},
}

// mutantSeeds is how many worlds have to be enough.
const mutantSeeds = 200

// mutantMain runs worlds from a seed on, up to the first that breaks a law.
const mutantMain = `package main

import (
	"encoding/json"
	"os"
	"strconv"

	"github.com/tributary-io/tributary/tiers/sim"
)

func main() {
	first, _ := strconv.ParseUint(os.Args[1], 10, 64)
	last, _ := strconv.ParseUint(os.Args[2], 10, 64)
	for seed := first; seed <= last; seed++ {
		if err := sim.Run(sim.Options{Seed: seed, Faults: sim.AllFaults}).Err; err != nil {
			v := err.(*sim.ViolationError)
			_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"Seed": seed, "Law": v.Law, "Text": v.Text})
			return
		}
	}
}
`

// invariants are panics by which the core itself, or the limiter, catches a mistake.
var invariants = []string{"does not balance", "cannot cut", "cannot spend", "is no bucket"}

// caught is how a mutant was found out.
type caught struct {
	Seed      uint64
	Law, Text string
}

// TestMutantsAreCaught shows that the laws tell a core with a mistake in it
// from one without, in worlds of the first seeds.
func TestMutantsAreCaught(t *testing.T) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("mutants are built with the go command: %v", err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]string, len(mutants))
	t.Run("mutants", func(t *testing.T) {
		for i, m := range mutants {
			if testing.Short() && !m.quick {
				continue
			}
			t.Run(m.mistake, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				program := m.build(t, goCommand, root)
				built := time.Since(began)
				var c caught
				if m.test != "" {
					c = m.directed(t, program, root)
				} else {
					c = hunt(t, program)
				}
				switch {
				case c.Law != "":
				case m.test != "":
					t.Errorf("%s does not catch it", m.test)
				default:
					t.Errorf("no law caught it in %d seeds: a checker is missing, or it is no mistake", mutantSeeds)
				}
				rows[i] = fmt.Sprintf("%-60s %4d  %-48s %5.1f s, %.1f of them to build\n", m.mistake, c.Seed, c.Law, time.Since(began).Seconds(), built.Seconds())
			})
		}
	})
	t.Logf("%-60s %4s  %-48s time\n%s", "mutant", "seed", "caught by", strings.Join(rows, ""))
}

// build makes the mutant's program: one that runs worlds, or the tests of the
// package whose test is to catch it.
func (m *mutant) build(t *testing.T, goCommand, root string) string {
	t.Helper()
	dir := t.TempDir()
	texts := map[string]string{"tiers/sim/mutant/main.go": mutantMain}
	for _, e := range m.edits {
		text, read := texts[e.file]
		if !read {
			source, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(source)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s holds %q %d times, not once: the code changed, keep the mutant in step with it", e.file, e.old, n)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		edited := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(edited, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = edited
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.exe")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-overlay", list, "-o", program, "./tiers/sim/mutant"}
	if pkg, _, directed := strings.Cut(m.test, " "); directed {
		command = append([]string{"test", "-c", "-vet=off"}, command[1:]...)
		command[len(command)-1] = "./" + pkg
	}
	build := exec.CommandContext(t.Context(), goCommand, command...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build, keep it in step with the code: %v\n%s", err, out)
	}
	return program
}

// directed runs the test that is to catch a mutant.
func (m *mutant) directed(t *testing.T, program, root string) caught {
	t.Helper()
	pkg, name, _ := strings.Cut(m.test, " ")
	run := exec.CommandContext(t.Context(), program, "-test.run=^"+name+"$", "-test.timeout=1m")
	run.Dir = filepath.Join(root, pkg)
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Fatal(err)
	case strings.Contains(string(out), "no tests to run"):
		t.Fatalf("there is no %s", m.test)
	case !strings.Contains(string(out), "--- FAIL: "+name):
		return caught{}
	}
	return caught{Law: m.test}
}

// hunt runs a mutant's worlds until a law catches it that the unchanged core
// keeps in the same world.
func hunt(t *testing.T, program string) (c caught) {
	t.Helper()
	for first := uint64(1); first <= mutantSeeds; first = c.Seed + 1 {
		out, err := exec.CommandContext(t.Context(), program, strconv.FormatUint(first, 10), strconv.Itoa(mutantSeeds)).Output()
		if err != nil {
			t.Fatalf("from seed %d: %v", first, err)
		}
		if len(out) == 0 {
			break
		}
		c = caught{}
		if err := json.Unmarshal(out, &c); err != nil {
			t.Fatal(err)
		}
		if c.counts() {
			return c
		}
	}
	return caught{Seed: mutantSeeds}
}

// counts says that it was the mistake that was caught. Of a panic it names the
// invariant.
func (c *caught) counts() bool {
	switch {
	case c.Law == "demand is met": // a law of use; and not every world keeps it yet
		return false
	case c.Law == "panic":
		i := slices.IndexFunc(invariants, func(text string) bool { return strings.Contains(c.Text, text) })
		if i < 0 {
			return false
		}
		c.Law = "panic: " + invariants[i]
	}
	var unchanged *ViolationError
	err := Run(Options{Seed: c.Seed, Faults: AllFaults}).Err
	return !errors.As(err, &unchanged) || unchanged.Law == "demand is met"
}
