package tiers

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// Limits: everything has one.
const (
	maxChildren = 1000    // of one place; fewer than 2⁶³ / MaxTokens, so sums of demands fit
	maxWaiters  = 1 << 16 // checks that wait for a share
	maxSessions = 16      // of one child, whose progress a parent remembers
	maxNumber   = 1 << 62 // of a session; each start takes one
	markBlock   = 1 << 10 // marks reserved on disk at a time: a start knows what came before to as many changes
	maxEntries  = 500     // counts, and lines, in one report
	maxFirsts   = 100     // of the counts, those that ask for pairs back
	maxBusy     = 64      // objects that a step finds busy when it looks for idle ones
)

// Config is what a Machine is started with.
type Config struct {
	Place      Place
	Partition  uint32
	Partitions uint32
	Leaf       bool           // clients check and add here
	Rules      *limiter.Rules // that hold where the store has none: a new world's, or until the root's come
	Session    uint64         // a random number, not 0: this start's identity
	NewWorld   uint64         // a random number, not 0: the world's, if this is the root of a new one
	Wall       int64          // what the wall clock shows, Unix nanoseconds
	Restored   bool           // the store was set back to a backup, and no start since was told so

	Lease          time.Duration // how long an owner lends; 0: as the rules say
	Heartbeat      time.Duration // an idle place reports as often
	ReportInterval time.Duration // the least pause that a busy parent asks for
	FoldAfter      time.Duration // counts of a child's session are folded so long after its end; 0: as the rules say
	MaxAwake       int           // objects kept in memory, about
	MaxMessage     int           // bytes that a message may have; 0: [DefaultMaxMessage]
	MaxWalk        int           // records that one report walks through, where the disk alone knows what the parent lacks; 0: [DefaultMaxWalk]
	PruneEach      time.Duration // from one walk through the records that may mean nothing any more to the next; 0: [DefaultPruneEach]
	MaxStep        int           // objects or records that a step looks at beside those that it is about; 0: [DefaultMaxStep]
}

// Defaults of a Config.
const (
	DefaultLease          = 5 * time.Second
	DefaultHeartbeat      = time.Second
	DefaultReportInterval = 5 * time.Millisecond
	DefaultMaxAwake       = 1 << 18
	DefaultMaxWalk        = 20_000 // some tens of milliseconds
)

// Errors that a client's operation is answered with.
var (
	ErrUnknownNamespace = errors.New("unknown namespace")
	ErrLimited          = errors.New("a namespace with limits is not counted")
	ErrNotLeaf          = errors.New("no leaf runs at this place")
	ErrTotalRange       = errors.New("the total would pass 2^53-1")
	ErrNotRoot          = errors.New("rules are applied at the root")
	ErrVersion          = errors.New("the rules are of another version")
	ErrManyHolds        = fmt.Errorf("rules shorten or remove concurrency limits, of which at most %d are remembered until the last of their permits has ended", maxHolds)
	ErrNotOwner         = errors.New("this place owns no limit of the namespace")
	ErrRulesCome        = errors.New("keys still wait for the rules that were applied last: apply these in a few seconds")
)

// A Machine is one place. Its methods take the time, which never runs
// backwards, and are not safe for concurrent use. After each step Output
// must be called, and acted on.
type Machine struct {
	cfg      Config
	reader   Reader
	meta     Meta
	prior    Meta         // as the last session left it
	isNew    bool         // the store held nothing
	judged   bool         // it is known whether the store is the place's last
	intact   bool         // it is, and nothing happened since it was written: a new place, or a clean stop
	began    limiter.Time // of this session
	silent   limiter.Time // an owner lends nothing before
	longEnds limiter.Time // when nothing is out any more by a longer lease than that of the rules

	rules   *limiter.Rules
	version uint64               // of the rules; 0: not the root's
	newest  uint64               // the newest version that a child follows
	asleep  map[limitOf]*asleep  // limits of keys that are not in memory, where they are not simply full
	holds   map[limitOf]longHold // that were longer

	spaces  map[string]*space
	checked *space // of the last check
	idle    lru
	sweep   sweep
	prune   prune
	leaving leaving
	work    int // objects and records that the step under way looked at beside those that it is about
	timers  timers
	mark    uint64
	keys    int // that are counted here, at most
	noted   int // of the backlog, on the disk

	upper upper // not used at the root
	lower lower // not used at a leaf

	stirred bool // since the last Output

	closing  bool
	closedAt limiter.Time // when that began
	lent     bool         // something is, of what was closed
	waiting  int
	awake    int
	sums     poolSums // over the keys that are awake

	wall     int64                         // what the wall clock showed at wallAt, Unix nanoseconds
	wallAt   limiter.Time                  //
	drawing  []*pool                       // whose vaults are being drawn from
	commits  uint64                        // the last draw's number
	serial   uint64                        // the last permit's
	underWay map[requestID]*waitingRequest // checks with an id that wait
	answered map[Key]*RequestRecord        // by the step under way, which reads what was before it
	requests map[uint64]requestID          // by the id of the check
	used     []*object                     // with admitted checks that are not counted yet
	usedAt   limiter.Time                  // when they are to be

	out Output
	err error
}

// A space is a namespace here.
type space struct {
	name    string
	rule    *limiter.Rule // nil: only other places' rules know it
	weight  int64         // of this place in divisions, if it is a leaf
	leaf    bool          // the machine is
	windows map[uint64]*calendar
	slots   *slots // of requests with ids
	objects map[string]*object
	sums    map[uint64]*limitSum // of its limits that keys are awake of
}

// An object is one key of one namespace, awake.
type object struct {
	name    Name
	space   *space
	count   *count
	pools   []*pool
	waiters []waiter
	asking  int64 // tokens that they need

	wish      int64 // tokens that a check lacked that did not wait
	wishUntil limiter.Time
	used      int64 // admitted, and not counted yet

	view     view
	watchers []*watcher // children that watch it, each once
	links    [numLists]links
	swept    uint64 // the last task that it was brought up to
	timer    timer

	asleep bool // it left memory, though something may still refer to it
}

// Output is what a step wants done: the writes first, then, when they are
// durable, the report, the Recalls, and the Ack that Reported returned. What
// is decided depends on no disk, unless it says so.
type Output struct {
	Writes  []Write
	Report  *Report
	Recalls []ChildRecall
	Decided []Decided
	Commit  uint64 // not 0: tell Committed when the writes are durable
	Events  []Event
	Wake    limiter.Time // call Tick then, at the latest
	Exit    error        // the place must stop: it was fenced, and has reported all it had
	Err     error        // the store could not be read: the machine is of no more use
}

// ChildRecall is a Recall for one child.
type ChildRecall struct {
	Child  Place
	Recall *Recall
}

// An Event is something an operator wants to know.
type Event struct {
	Kind   EventKind
	Place  Place // whom it is about
	Detail string
}

// EventKind says what happened.
type EventKind string

// The events.
const (
	EventJoined      EventKind = "joined"       // this place's session has its number
	EventFenced      EventKind = "fenced"       // a newer session of this place runs elsewhere
	EventRefused     EventKind = "refused"      // the parent refuses our reports
	EventAccepted    EventKind = "accepted"     // the parent takes our reports again
	EventChild       EventKind = "child"        // a session of a child reports for the first time
	EventChildRefuse EventKind = "child_refuse" // we refuse a child's reports
	EventRulesDiffer EventKind = "rules_differ" // a neighbour's rules are not ours
	EventRules       EventKind = "rules"        // newer rules came from the root
	EventRefill      EventKind = "refill"       // the parent lacks what it had acknowledged: its disk is lost or old
	EventLost        EventKind = "lost"         // this place ran on another disk since, or this one was set back
	EventWindow      EventKind = "window"       // a quota's window closed while it was lent
	EventSilent      EventKind = "silent"       // an owner that starts lends nothing until old leases have ended
	EventOverflow    EventKind = "overflow"     // a sum would not fit; the entry is not taken
	EventFold        EventKind = "fold"         // what an ended session of a child counted is a part of one total now
	EventForgotten   EventKind = "forgotten"    // a child left for good: its counts are kept here
	EventWorld       EventKind = "world"        // an operator joined the store to another world
	EventForfeit     EventKind = "forfeit"      // what a child was lent of budgets and quotas counts as spent
)

// EventKinds are all of them.
var EventKinds = []EventKind{
	EventJoined, EventFenced, EventRefused, EventAccepted, EventChild, EventChildRefuse, EventRulesDiffer, EventRules, EventRefill,
	EventLost, EventWindow, EventSilent, EventOverflow, EventFold, EventForgotten, EventWorld, EventForfeit,
}

// Start reads a store and returns its place's machine, a new session. It
// fails if the store belongs to another place.
func Start(now limiter.Time, cfg Config, r Reader) (*Machine, error) {
	if cfg.Session == 0 || cfg.Place == Root && cfg.NewWorld == 0 {
		panic("tiers: a session and a new world need numbers other than 0")
	}
	m := &Machine{cfg: cfg, reader: r, began: now, wallAt: now, wall: cfg.Wall, usedAt: limiter.Never, sweep: newSweep(), spaces: map[string]*space{}, asleep: map[limitOf]*asleep{}, holds: map[limitOf]longHold{}}
	m.SetMaxMessage(cfg.MaxMessage)
	before, err := m.startRules()
	if err != nil {
		return nil, err
	}
	for _, name := range m.rules.Namespaces() {
		m.spaces[name] = m.newSpace(name, m.rules.Rule(name))
	}
	rec, err := r.Get(metaKey)
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	if rec == nil {
		m.isNew = true
		m.meta = Meta{Place: cfg.Place, Partition: cfg.Partition, Partitions: cfg.Partitions, Leaf: cfg.Leaf}
	} else {
		m.meta = *rec.(*Meta)
	}
	if m.meta.Place != cfg.Place || m.meta.Partition != cfg.Partition || m.meta.Partitions != cfg.Partitions {
		return nil, fmt.Errorf("the store belongs to %s, partition %d of %d, not to %s, partition %d of %d: give each place a folder of its own",
			m.meta.Place, m.meta.Partition, m.meta.Partitions, cfg.Place, cfg.Partition, cfg.Partitions)
	}
	if m.meta.Leaf != cfg.Leaf {
		role := map[bool]string{true: "a leaf's, that counted by itself", false: "a place's with others below it"}
		return nil, fmt.Errorf("the store of %s is %s, and this is to be %s: counts of the two must not be mixed, so give it a folder of its own",
			cfg.Place, role[m.meta.Leaf], role[cfg.Leaf])
	}
	if cfg.Restored { // whatever it says: it is not where the place stopped
		m.isNew, m.meta.Clean = false, false
		m.lose(now)
		m.event(EventLost, m.cfg.Place, "the store was restored from a backup: what this place lent since is not known")
	}
	m.prior = m.meta
	if m.meta.World == 0 && cfg.Place == Root {
		m.meta.World = cfg.NewWorld
	}
	if cfg.Place == Root {
		m.meta.Number++
		m.judged, m.intact = m.isNew || cfg.Restored, m.isNew
	}
	if !m.intact && !cfg.Leaf {
		m.silent = now.Add(lenderLease(max(time.Duration(m.prior.Lease), m.lease())))
		if !m.promises() {
			m.tellSilent(now)
		}
	}
	m.prune.ruled, m.prune.at = now, now.Add(m.pruneEach())
	m.mark = m.meta.Marks
	m.upper = newUpper(m)
	m.startBacklog()
	m.meta.Session = cfg.Session
	m.meta.Clean = false
	m.followLease(now)
	m.readAsleep()
	if before != nil {
		m.changeAllFigures(now, now, before)
	}
	for of, h := range m.holds {
		m.rememberHold(now, of, h.hold)
	}
	m.meta.Marks += markBlock
	m.write(metaKey, m.saved())
	if err := m.startLower(); err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	m.hearWitnesses(now)
	return m, nil
}

// promises says that nothing happened since the store was written, if it is
// the place's last.
func (m *Machine) promises() bool { return m.isNew || m.prior.Clean }

// tellSilent says that an owner lends nothing: leases that an earlier session
// gave run on, and each ends by then, by the lender's clock.
func (m *Machine) tellSilent(now limiter.Time) {
	if m.silent <= now {
		return
	}
	for _, name := range m.rules.Namespaces() {
		for _, l := range m.rules.Rule(name).Limits {
			if int(l.Scope) == m.cfg.Place.Depth() {
				m.event(EventSilent, m.cfg.Place, "lends nothing of its own limits for "+m.silent.Sub(now).String())
				return
			}
		}
	}
}

// judge takes the number that the parent gave to this session: it is the next
// after the one on the disk, unless other sessions ran in between, on another
// disk or on this one before it was set back.
func (m *Machine) judge(now limiter.Time, number uint64) {
	if m.judged {
		return
	}
	last := number == m.prior.Number+1
	if !last {
		was := "an old copy"
		if m.isNew {
			was = "a new one"
		}
		m.event(EventLost, m.cfg.Place, fmt.Sprintf("this place ran %d times since its disk was written, which is %s: what it lent since is not known", number-1-m.prior.Number, was))
	}
	m.believe(now, last, last && m.promises())
}

// believe settles whether the store is the place's last, and intact.
func (m *Machine) believe(now limiter.Time, last, intact bool) {
	m.judged, m.intact = true, intact
	switch {
	case intact:
		m.silent = min(m.silent, now)
	case m.promises():
		m.tellSilent(now)
	}
	if !intact {
		m.emptyAsleep()
	}
	m.forAll(now, taskBelieve, func(at limiter.Time, o *object) {
		for _, p := range o.pools {
			p.settleCredit(at, intact)
			if !last && p.owner && p.limit.Durable() && !m.cfg.Restored {
				p.forget(at)
			}
		}
	})
}

// hearLease has an owner that is silent be so for as long as a neighbour may
// still be lent something: an owner whose disk was lost, or is an old one, may
// have lent by rules that it does not know.
func (m *Machine) hearLease(now limiter.Time, longest time.Duration) {
	until := m.began.Add(lenderLease(min(longest, limiter.MaxLease)))
	if m.intact || m.cfg.Leaf || m.judged && m.filling(now) || until <= m.silent {
		return
	}
	m.silent = until
	if m.judged || !m.promises() {
		m.emptyAsleep()
	}
	m.forAll(now, taskHush, func(_ limiter.Time, o *object) {
		for _, p := range o.pools {
			if p.owner {
				m.hush(p)
			}
		}
	})
	if m.judged || !m.promises() {
		m.tellSilent(now)
	}
}

// hush has an owner's bucket be empty, and gain nothing while it is silent.
func (m *Machine) hush(p *pool) {
	switch p.limit.Kind {
	case limiter.Rate:
		have := p.bucket.Share()
		have.Tokens = 0
		p.bucket = limiter.NewBucket(p.limit.Period, have, m.quiet(p))
	case limiter.Concurrency:
		p.stayFrozen(m.quiet(p).Add(lenderLease(p.limit.Hold)))
	}
}

// young says that nothing shows yet that this place is a new one, or that its
// disk is the place's last: no session on it was given a number before.
func (m *Machine) young() bool { return !m.judged && m.prior.Number == 0 }

// saved is a copy of meta that no one changes.
func (m *Machine) saved() *Meta {
	meta := m.meta
	meta.Backlog = m.backlog()
	return &meta
}

// Output returns what the steps since the last call want done.
func (m *Machine) Output(now limiter.Time) Output {
	m.stirred = false
	if now >= m.usedAt {
		m.countUsed(now)
	}
	if now >= m.sweepAt() {
		m.goOn(now)
	}
	if now >= m.leaveAt() {
		m.takeOver(now)
	}
	m.flush(now)
	m.overflow()
	m.sendCalls()
	m.sleep(now)
	m.sums.settle()
	out := m.out
	out.Err = m.err
	out.Wake = min(m.timers.next(), m.upper.wake(m), m.usedAt, m.longEnds, m.holdsEnd(), m.sweepAt(), m.prune.at, m.leaveAt())
	if m.cfg.Place == Root && !m.judged {
		out.Wake = min(out.Wake, m.silent)
	}
	if len(m.drawing) > 0 {
		out.Commit = m.commits
	}
	m.out = Output{Writes: make([]Write, 0, min(len(out.Writes), maxEntries))} // the next step writes about as much
	clear(m.answered)
	m.work = 0
	return out
}

// Writes returns what the start wants written, before anything is sent.
func (m *Machine) Writes() []Write {
	writes := m.out.Writes
	m.out.Writes = nil
	return writes
}

// Read sets what the machine reads its store with from now on.
func (m *Machine) Read(r Reader) { m.reader = r }

// Stirred says that a check changed more than its bucket: Output has
// something to do.
func (m *Machine) Stirred() bool { return m.stirred }

// Tick does what is due at now.
func (m *Machine) Tick(now limiter.Time) {
	for range m.maxStep() { // the others are due in the next step
		o := m.timers.due(now)
		if o == nil {
			break
		}
		m.work++
		m.tickObject(now, m.current(now, o))
		m.arm(now, o)
	}
	if now >= m.prune.at {
		m.goPrune(now)
	}
	m.upper.tick(m, now)
	m.forgetHolds(now)
	if now >= m.longEnds {
		m.meta.Lease, m.longEnds = int64(m.lease()), limiter.Never
		m.write(metaKey, m.saved())
	}
	if m.cfg.Place == Root && !m.judged && m.filling(now) {
		m.believe(now, true, false) // who has not said what it knows has no lease any more
	}
}

// Stop ends the session in good order: what is held goes back to the parent,
// and the next report says goodbye. Stopped says when it is done; a machine
// that is stopped takes no more operations.
func (m *Machine) Stop(now limiter.Time) {
	m.usedAt = min(m.usedAt, now)
	m.upper.stopping = true
	m.forAll(now, taskStop, func(at limiter.Time, o *object) {
		for _, p := range o.pools {
			if !p.owner && p.held.number != 0 && !p.held.ended {
				p.held.keep = Keep{}
				m.giveBack(at, p)
			}
		}
	})
	m.upper.hurry = true
}

// Stopped says that a stopping machine has reported all it had, or that its
// parent refuses to hear it. Close then writes what the next start needs.
func (m *Machine) Stopped() bool {
	// What children report after the goodbye is durable: the next start tells it.
	u := &m.upper
	return m.idleNow() && (m.cfg.Place == Root || u.inFlight == nil && (u.said || u.refused != ""))
}

// idleNow says that nothing is left to do with what is awake.
func (m *Machine) idleNow() bool { return m.swept() && len(m.used) == 0 }

// Close writes the buckets that are not full and marks the store as stopped
// in good order, unless something is still lent. It does so in steps: the
// caller calls it, and nothing else, until it is done.
func (m *Machine) Close(now limiter.Time) (done bool) {
	if !m.closing {
		m.closing, m.closedAt = true, now
		m.forAll(now, taskClose, m.close)
	}
	m.goOn(now)
	if !m.swept() {
		return false
	}
	now = m.closedAt // what was written is as of then
	lent := m.lent
	// After a crash, keys that nobody asked for are empty too, and nothing is
	// written of them: only when every bucket is full again is that the truth.
	known := m.intact || now.Sub(max(m.began, m.silent)) >= m.longestFill()
	m.meta.Clean = !lent && !m.leftUntil(now) && m.filling(now) && known
	if m.meta.Clean {
		m.meta.Asleep = m.asleepRecords(now, true)
	}
	meta := m.saved()
	meta.Backlog.Mark = m.meta.Marks // no change comes after this
	m.write(metaKey, meta)
	return true
}

// close writes what the next session needs of an object, and notes if
// something of it is still lent.
func (m *Machine) close(now limiter.Time, o *object) {
	for _, p := range o.pools {
		for _, l := range p.lines {
			out := l.out()
			m.lent = m.lent || out.Capacity > 0 || out.Rate > 0
		}
		// More permits are out than a lowered limit has: the next session could not tell, if it is raised again.
		m.lent = m.lent || p.owner && p.limit.Kind == limiter.Concurrency && p.own.Capacity > p.limit.Burst
		if p.owner && (m.filling(now) || p.limit.Durable()) {
			m.rest(now, p)
		}
	}
}

// rest writes down what an owner's bucket holds, if that is not what a bucket
// that nothing is written of holds.
func (m *Machine) rest(now limiter.Time, p *pool) {
	switch p.bucket.Settle(now); {
	case p.limit.Durable():
		if !p.waits && p.credit == 0 {
			p.vault = vault{rest: p.whole()}
			if p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{Capacity: p.bucket.Capacity()}, now); !m.cfg.Leaf {
				p.bucket.Add(now, limiter.Share{Tokens: p.vault.rest})
				p.vault.rest = 0
			}
			m.save(p)
		}
	case p.bucket.Tokens() < p.limit.Burst:
		m.write(p.savedKey(), &SavedBucket{Tokens: p.bucket.Tokens(), Burst: p.limit.Burst, Fills: true})
	}
}

// longestFill is how long the slowest bucket of the rules takes to fill.
func (m *Machine) longestFill() time.Duration {
	var longest time.Duration
	for _, name := range m.rules.Namespaces() {
		for _, l := range m.rules.Rule(name).Limits {
			empty := l.Whole()
			empty.Tokens = 0
			b := limiter.NewBucket(l.Period, empty, 0)
			wait, _ := b.Wait(l.Burst)
			longest = max(longest, wait, lenderLease(l.Hold))
		}
	}
	return longest
}

// filling says that an owner's buckets gain tokens: it is not silent.
func (m *Machine) filling(now limiter.Time) bool { return now >= m.silent }

// Fenced says that a newer session of this place runs elsewhere.
func (m *Machine) Fenced() bool { return m.upper.fenced }

// Refused is why the parent takes no reports; "": it does, as far as is known.
func (m *Machine) Refused() string { return m.upper.refused }

func (m *Machine) write(k Key, r Record) { m.out.Writes = append(m.out.Writes, Write{k, r}) }

func (m *Machine) event(kind EventKind, place Place, detail string) {
	m.out.Events = append(m.out.Events, Event{kind, place, detail})
}

// read returns a record, or nil; a failing store ends the machine.
func (m *Machine) read(k Key) Record {
	r, err := m.reader.Get(k)
	m.fail(err)
	return r
}

func (m *Machine) scan(prefix, after Key, yield func(Key, Record) bool) {
	m.fail(m.reader.Scan(prefix, after, yield))
}

func (m *Machine) fail(err error) {
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("read the store: %w", err)
	}
}

// nextMark numbers a change.
func (m *Machine) nextMark() uint64 {
	m.mark++
	if m.mark >= m.meta.Marks {
		m.meta.Marks = m.mark + markBlock
		m.write(metaKey, m.saved())
	}
	return m.mark
}

func (m *Machine) newSpace(name string, rule *limiter.Rule) *space {
	s := &space{name: name, rule: rule, leaf: m.cfg.Leaf, objects: map[string]*object{}}
	if rule != nil && m.cfg.Leaf {
		s.weight = rule.Weight(string(m.cfg.Place))
	}
	return s
}

// space returns a namespace, known to our rules or not.
func (m *Machine) space(name string) *space {
	s := m.spaces[name]
	if s == nil {
		s = m.newSpace(name, nil)
		m.spaces[name] = s
	}
	return s
}

// object returns a key's object, waking it.
func (m *Machine) object(now limiter.Time, s *space, key string) *object {
	if o := s.objects[key]; o != nil {
		m.idle.touch(o)
		return m.current(now, o)
	}
	o := &object{name: Name{s.name, key}, space: s, timer: timer{index: -1, at: limiter.Never}}
	if s.rule != nil {
		for i := range s.rule.Limits {
			if p := m.newPool(now, o, &s.rule.Limits[i]); p != nil {
				o.pools = append(o.pools, p)
				m.sums.enter(p)
			}
		}
	}
	s.objects[key] = o
	m.idle.push(o)
	m.sweep.awaken(o)
	m.awake++
	if slices.ContainsFunc(o.pools, func(p *pool) bool { return len(p.frozen) > 0 }) { // it comes back, whoever asks
		m.arm(now, o)
		m.stirred = true
	}
	return o
}

// newPool returns the pool of a limit, or nil where the limit is owned below
// this place.
func (m *Machine) newPool(now limiter.Time, o *object, l *limiter.Limit) *pool {
	if m.cfg.Place.Depth() < int(l.Scope) && !m.cfg.Leaf {
		return nil
	}
	p := &pool{object: o, limit: l, owner: m.owns(l), runOn: m.holds[limitOf{o.name.Namespace, l.ID}].until}
	if p.owner {
		p.own = limiter.Share{Capacity: l.Burst, Rate: l.Rate}
	}
	p.meter.since = now
	if !p.owner {
		p.bucket = limiter.NewBucket(l.Period, limiter.Share{}, now)
		return p
	}
	// A bucket is taken as it was at this session's start, and refills since:
	// full on a new store, as written after a clean stop, else empty. Until
	// the parent has said whether to believe the store, that is a promise.
	saved := m.savedOf(p)
	if l.Durable() {
		m.recall(now, p, saved)
		return p
	}
	whole := l.Whole()
	var since limiter.Time
	whole.Tokens, since = m.asleepAt(limitOf{o.name.Namespace, l.ID}, l)
	if saved != nil {
		// However old it is, the bucket has gained since, so it is never too much.
		left := saved.Tokens
		if l.Kind == limiter.Concurrency { // what was out may still be, whatever the figure is now
			left = saved.left(l)
		}
		whole.Tokens = max(0, min(left, whole.Tokens))
		m.write(p.savedKey(), nil)
	}
	from := max(since, m.quiet(p))
	if !m.judged && m.promises() {
		if l.Kind == limiter.Concurrency {
			p.credit = whole.Tokens
		} else {
			promised := limiter.NewBucket(l.Period, whole, since)
			promised.Settle(now)
			p.promised = &promised
		}
		whole.Tokens = 0
	}
	if l.Kind == limiter.Concurrency { // what was out when the last session ended may still be
		p.freeze(whole.Capacity-whole.Tokens, from.Add(lenderLease(l.Hold)))
		whole.Capacity = whole.Tokens
	}
	p.bucket = limiter.NewBucket(l.Period, whole, from)
	p.bucket.Settle(now)
	return p
}

// recall makes the pool of a budget or quota that is owned here what the disk
// says of it: what a crash left is there, and nothing refills.
func (m *Machine) recall(now limiter.Time, p *pool, saved *SavedBucket) {
	p.bucket = limiter.NewBucket(p.limit.Period, limiter.Share{Capacity: p.limit.Burst}, now)
	lost := m.meta.Lost > 0
	if p.limit.Kind == limiter.Quota {
		c := m.calendarOf(now, p.object.space, p.limit)
		p.window, lost = c.begin, c.lost
		p.endsAt = now.Add(m.untilEnd(now, c))
		if saved != nil && saved.Window != p.window {
			m.write(p.savedKey(), nil)
			saved = nil
		}
	}
	switch {
	case saved != nil && (saved.Known == m.meta.Lost || !lost):
		left := saved.left(p.limit)
		p.stock(now, max(0, left))
		p.debt = max(0, -left)
	case lost:
		p.waits = true
	case m.young():
		p.credit = p.limit.Burst
	default:
		p.stock(now, p.limit.Burst)
	}
}

func (p *pool) savedKey() Key { return savedKey(p.object.name, p.limit.ID) }

func savedKey(n Name, limit uint64) Key { return bucketKey(n, fmt.Sprintf("%016x", limit)) }

// savedOf reads what is written of a pool; nil: nothing is. What a version
// before wrote under another ID is the limit's from now on.
func (m *Machine) savedOf(p *pool) *SavedBucket {
	saved, _ := m.read(p.savedKey()).(*SavedBucket)
	if saved != nil || p.limit.FormerID == 0 {
		return saved
	}
	former := savedKey(p.object.name, p.limit.FormerID)
	if saved, _ = m.read(former).(*SavedBucket); saved != nil {
		m.write(former, nil)
		m.write(p.savedKey(), saved)
	}
	return saved
}

// sleep lets the longest unused objects go, if there are too many. Busy ones
// go to the end of the list; a step looks at a few of them only, since all may
// be busy.
func (m *Machine) sleep(now limiter.Time) {
	for busy := 0; m.awake > m.cfg.MaxAwake && busy < maxBusy; {
		o := m.idle.first
		if o == m.idle.last {
			break // in use
		}
		if !m.canSleep(m.current(now, o), now) {
			m.idle.touch(o)
			busy++
			continue
		}
		m.idle.remove(o)
		m.sweep.fresh.remove(o)
		if o.count != nil {
			o.count.prev, o.count.next = nil, nil // those of a list that was cleared
		}
		m.timers.remove(o)
		for _, p := range o.pools {
			p.leave()
			m.sums.leave(p)
		}
		o.asleep = true
		delete(o.space.objects, o.name.Key)
		m.awake--
	}
}

// canSleep says that nothing of o is lost with its memory.
func (m *Machine) canSleep(o *object, now limiter.Time) bool {
	if len(o.waiters) > 0 || o.view.state != unwatched || len(o.watchers) > 0 || o.count != nil && (m.upper.dirty.has(o.count) || m.upper.partly(o.count).upto != 0) {
		return false
	}
	if o.used > 0 {
		return false
	}
	for _, p := range o.pools {
		if len(p.lines) == 0 {
			m.turn(now, p) // nothing is left to write of a window that ended
		}
		p.bucket.Settle(now)
		if p.spare != nil && now < p.spareAt.Add(keepSpare) || p.permits.out > 0 || len(p.frozen) > 0 || p.unconfirmed() || p.vault.commit != 0 {
			return false
		}
		if p.owner && p.limit.Durable() && len(p.lines) == 0 {
			if p.whole() < p.limit.Burst {
				m.rest(now, p) // written: the next who asks reads it
			}
			continue
		}
		if p.due || !p.told.none() || p.held.number != 0 || len(p.lines) > 0 || p.owner && p.bucket.Tokens() < p.bucket.Capacity() {
			return false
		}
	}
	return true
}

// Stats counts what a Machine holds, for metrics.
type Stats struct {
	Awake    int // keys
	Waiting  int // checks
	Backlog  int // keys with changes that the parent is not known to have
	Dirty    int // those of them that are in a list in memory
	Children int
	Behind   int // places below that stop the watermark
	InFlight bool
	Version  uint64        // of the rules
	Through  time.Duration // age of the own watermark; negative: not known
	Answered time.Duration // since the parent last took a report; negative: it has not yet
	Lease    time.Duration // until all that the parent lent has ended; negative: nothing is lent
	Above    []Watermark   // of the places above, as known here
	Pools    []PoolStats
}

// Stats returns the machine's figures. Its work does not grow with the number
// of keys.
func (m *Machine) Stats(now limiter.Time) Stats {
	u := &m.upper
	age, behind := m.watermark(now)
	s := Stats{
		Awake: m.awake, Waiting: m.waiting, Backlog: u.lacks, Dirty: u.dirty.length, Children: len(m.lower.order),
		Behind: behind, InFlight: u.inFlight != nil, Version: m.version, Through: age, Answered: -1, Lease: -1, Pools: m.sums.stats(),
	}
	if u.joined {
		s.Answered = now.Sub(u.stampAt)
	}
	if u.leased > 0 {
		s.Lease = max(0, u.leased.Sub(now))
	}
	for _, a := range u.above {
		s.Above = append(s.Above, a.mark(now))
	}
	return s
}
