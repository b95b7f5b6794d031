package tiers

import (
	"slices"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// This file does what concerns every key that is awake: new rules, another
// session of the parent, a disk that turned out to be the last one. There may
// be hundreds of thousands of keys, and checks wait while a step runs. So the
// machine writes down what is to be done, as a task, and a step does it with a
// few objects only. The steps after it go on with the others.
//
// No object is used while it lacks a task: whoever takes one from the machine
// has it brought up to date first (current). A task is carried out as of the
// instant at which it was given. Nobody used the object since, so it becomes
// what it would have become then; only what follows from it, such as grants
// and the decisions on checks that wait, happens later.
//
// Every object is in one of two lists, and remembers the last task that it was
// brought up to. A new task makes all of them stale, which moves no object:
// the one list is appended to the other.

// A task is something to do with each object that was awake when it was given.
type task struct {
	number uint64
	kind   taskKind
	at     limiter.Time // when it was given
	do     func(at limiter.Time, o *object)
}

// taskKind says what a task does.
type taskKind int

const (
	taskRules   taskKind = iota // follow a version of the rules
	taskHolds                   // hold on to permits for longer
	taskBelieve                 // act on whether the store is the place's last
	taskHush                    // be empty while the owner is silent
	taskRetell                  // ask the parent, as it runs now, for what is demanded
	taskForget                  // drop the demand of children that were forgotten
	taskLook                    // see what is due, and which checks can be decided
	taskStop                    // give back what is held
	taskClose                   // write down what the next session needs
)

// latest says that a task of a kind does all that an earlier one of the kind
// would do.
func (k taskKind) latest() bool { return k != taskRules && k != taskHolds && k != taskBelieve }

const (
	// DefaultMaxStep is how many objects or records a step looks at, beside
	// those that it is about: a few milliseconds' work.
	DefaultMaxStep = 256
	// maxTasks is how many tasks may wait: more rules are not followed until
	// the objects have caught up.
	maxTasks = 16
	// sweepPause is the time between two steps that go on with tasks, so that
	// others are served.
	sweepPause = time.Millisecond
)

// sweep is what is to be done with all that are awake.
type sweep struct {
	tasks []task // those that a stale object lacks, in the order in which they were given
	given uint64 // the number of the last one
	stale lru    // objects that lack some; the longest so come first
	fresh lru    // objects that lack none
	at    limiter.Time
}

func newSweep() sweep { return sweep{stale: lru{of: bySweep}, fresh: lru{of: bySweep}} }

// maxStep is how many objects or records a step looks at.
func (m *Machine) maxStep() int {
	if m.cfg.MaxStep > 0 {
		return m.cfg.MaxStep
	}
	return DefaultMaxStep
}

// forAll has a task done with every object that is awake.
func (m *Machine) forAll(now limiter.Time, kind taskKind, do func(at limiter.Time, o *object)) {
	s := &m.sweep
	if m.awake == 0 {
		return
	}
	if kind.latest() {
		s.tasks = slices.DeleteFunc(s.tasks, func(t task) bool { return t.kind == kind })
	}
	s.given++
	s.tasks = append(s.tasks, task{s.given, kind, now, do})
	s.stale.take(&s.fresh)
	s.at = now
	m.stirred = true
}

// swept says that no object lacks a task.
func (m *Machine) swept() bool { return m.sweep.stale.first == nil }

// crowded says that so many tasks wait that none should be added which can come
// later.
func (m *Machine) crowded() bool { return len(m.sweep.tasks) >= maxTasks }

// goOn brings some of the objects up to date that nobody asked for.
func (m *Machine) goOn(now limiter.Time) {
	if m.swept() {
		return
	}
	for n := m.maxStep(); n > 0 && !m.swept(); n-- {
		m.current(now, m.sweep.stale.first)
	}
	m.sweep.at = now.Add(sweepPause)
}

// sweepAt is when the next objects are brought up to date.
func (m *Machine) sweepAt() limiter.Time {
	if m.swept() {
		return limiter.Never
	}
	return m.sweep.at
}

// current does with an object what is to be done with all. It must be called
// before anything of the object is read or changed. One that has fallen asleep
// is in no list any more, and stays as it was: a pool of it may still be waited
// for, in a report that is under way.
func (m *Machine) current(now limiter.Time, o *object) *object {
	if m.catchUp(o) && !m.closing { // else nothing more happens
		m.decideAll(o, now)
		for _, p := range o.pools {
			m.balance(now, p, nil)
			p.check()
		}
		m.arm(now, o)
	}
	return o
}

// catchUp does the same, but for what follows from it: the caller decides the
// checks that wait. It says whether there was something to do.
func (m *Machine) catchUp(o *object) bool {
	s := &m.sweep
	if o.swept == s.given || o.asleep {
		return false
	}
	after := o.swept
	o.swept = s.given
	s.stale.remove(o)
	s.fresh.push(o)
	m.work++
	for _, t := range s.tasks {
		if t.number > after && t.do != nil {
			t.do(t.at, o)
		}
	}
	if m.swept() {
		s.tasks = nil
		m.upper.hurry = m.upper.hurry || m.upper.stopping // goodbye
	}
	return true
}

// look has every object see what is due, and which checks can be decided.
func (m *Machine) look(now limiter.Time) { m.forAll(now, taskLook, nil) }

// awaken puts an object into the list of those that lack nothing.
func (s *sweep) awaken(o *object) {
	o.swept = s.given
	s.fresh.push(o)
}

// awakeObject returns the object of a key that is awake, or nil.
func (m *Machine) awakeObject(now limiter.Time, name Name) *object {
	s := m.spaces[name.Namespace]
	if s == nil || s.objects[name.Key] == nil {
		return nil
	}
	return m.current(now, s.objects[name.Key])
}
