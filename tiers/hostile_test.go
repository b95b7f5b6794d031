package tiers

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// These give a machine what no honest neighbour says. The fuzz targets of
// transport/internal/wire look for more of the kind.

// joinedCity is a city that has counted three votes for alice, has its
// number, and a report in flight that says nothing of them yet.
func joinedCity(t *testing.T) (*Machine, *Report) {
	t.Helper()
	m := start(t, memory{}, "eu.de.berlin", true, 1)
	hello := m.Output(0).Report
	m.Acknowledged(1, &Ack{World: 7, Hash: m.cfg.Rules.Hash, Session: 1, Sequence: hello.Sequence, Parent: 9, Number: 1})
	r := m.Output(1).Report
	if r == nil || r.Number != 1 {
		t.Fatalf("reports %+v", r)
	}
	if _, err := m.Add(2, Name{"votes", "alice"}, 3); err != nil {
		t.Fatal(err)
	}
	return m, r
}

func answer(m *Machine, r *Report) *Ack {
	return &Ack{World: 7, Hash: m.cfg.Rules.Hash, Session: 1, Sequence: r.Sequence, Parent: 9, Number: 1, Acked: r.To, Stamp: 5}
}

// TestAckOfTheFutureIsNotBelieved: a parent that says it has changes that were
// never made does not get the next ones dropped.
func TestAckOfTheFutureIsNotBelieved(t *testing.T) {
	m, r := joinedCity(t)
	m.Acknowledged(2, answer(m, r)) // it has joined
	r = m.Output(2).Report
	a := answer(m, r)
	a.Acked = math.MaxUint64
	m.Acknowledged(3, a)
	if _, err := m.Add(4, Name{"votes", "bob"}, 1); err != nil {
		t.Fatal(err)
	}
	r = m.Output(limiter.Time(time.Second)).Report
	if r == nil || r.From > r.To || len(r.Counts) != 1 || r.Counts[0].Name.Key != "bob" {
		t.Fatalf("reports %+v", r)
	}
}

// TestRefusalDoesNotSilence: however long a parent wants to hear nothing, the
// next try is not far.
func TestRefusalDoesNotSilence(t *testing.T) {
	for _, pause := range []time.Duration{math.MaxInt64, time.Hour, math.MinInt64} {
		m, r := joinedCity(t)
		a := answer(m, r)
		a.Refused, a.Pause = "no", pause
		m.Acknowledged(10, a)
		if wake := m.Output(10).Wake; wake > limiter.Time(2*time.Second) {
			t.Errorf("after a pause of %s it wakes at %s", pause, time.Duration(wake))
		}
	}
}

// TestGrantsBeyondTheLimitAreNotTaken: nor those whose sums overflow.
func TestGrantsBeyondTheLimitAreNotTaken(t *testing.T) {
	user := Name{"api", "user"}
	for _, second := range []limiter.Share{
		{Tokens: 50, Capacity: math.MaxInt64, Rate: 5},
		{Tokens: 50, Capacity: 50, Rate: math.MaxInt64},
		{Tokens: math.MaxInt64, Capacity: math.MaxInt64, Rate: math.MaxInt64},
		{Tokens: 50, Capacity: 101, Rate: 5},
		{Tokens: 51, Capacity: 50, Rate: 5}, // tokens come with their capacity
		{Tokens: 50, Capacity: 49, Rate: 5}, // what was lent only grows
	} {
		m, r := joinedCity(t)
		m.Acknowledged(2, answer(m, r))
		if _, _, err := m.Check(2, user, 1, 1000, 1); err != nil {
			t.Fatal(err)
		}
		limit := m.cfg.Rules.Rule("api").Limits[0].ID
		now := limiter.Time(2)
		grant := func(lent limiter.Share) {
			r := m.Output(now).Report
			for r == nil {
				now = now.Add(time.Second)
				m.Tick(now)
				r = m.Output(now).Report
			}
			a := answer(m, r)
			a.Lines = []Grant{{Name: user, Limit: limit, Line: 1, Lent: lent, Lease: time.Minute, Keep: Keep{All: true}}}
			m.Acknowledged(now, a)
		}
		first := limiter.Share{Tokens: 50, Capacity: 50, Rate: 5}
		grant(first)
		grant(second)
		m.Output(now)
		p := m.object(now, m.space("api"), "user").pools[0]
		if got := p.holding(); got != first || p.bucket.Capacity() != 50 || p.bucket.Tokens() > 50 {
			t.Errorf("after %+v it holds %+v, the bucket %+v", second, got, p.bucket.Share())
		}
		p.check()
	}
}

// TestHolderOfALoweredLimitGivesBack: what it holds beyond the new figures is
// no reason not to believe an answer.
func TestHolderOfALoweredLimitGivesBack(t *testing.T) {
	user := Name{"api", "user"}
	m, r := joinedCity(t)
	m.Acknowledged(2, answer(m, r))
	if _, _, err := m.Check(2, user, 1, 1000, 1); err != nil {
		t.Fatal(err)
	}
	limit := &m.cfg.Rules.Rule("api").Limits[0]
	now := limiter.Time(2)
	for _, g := range []Grant{
		{Lent: limiter.Share{Tokens: 50, Capacity: 50, Rate: 5}, Keep: Keep{All: true}},
		{Lent: limiter.Share{Tokens: 50, Capacity: 50, Rate: 5}, Keep: Keep{Capacity: 4, Rate: 1}},
	} {
		r := m.Output(now).Report
		for r == nil {
			now = now.Add(time.Second)
			m.Tick(now)
			r = m.Output(now).Report
		}
		a := answer(m, r)
		g.Name, g.Limit, g.Line, g.Lease = user, limit.ID, 1, time.Minute
		a.Lines = []Grant{g}
		m.Acknowledged(now, a)
		lowered := *limit
		lowered.Burst, lowered.Rate = 10, 1
		m.object(now, m.space("api"), "user").pools[0].limit = &lowered
	}
	if got := m.object(now, m.space("api"), "user").pools[0].holding(); got.Capacity != 4 || got.Rate != 1 {
		t.Errorf("it holds %+v", got)
	}
}

// TestAbsurdAgesStayOld: an age that no clock can express is not taken for
// the present.
func TestAbsurdAgesStayOld(t *testing.T) {
	m, r := joinedCity(t)
	a := answer(m, r)
	a.Above = []Watermark{{"eu.de", math.MaxInt64, 0}, {"eu", time.Minute, 0}}
	m.Acknowledged(10, a)
	above := m.Stats(limiter.Time(time.Hour)).Above
	if len(above) != 2 || above[0].Age < time.Hour || above[1].Age < time.Hour {
		t.Errorf("above: %+v", above)
	}

	for _, echo := range []limiter.Time{math.MinInt64, math.MaxInt64, 0, 100} {
		parent := start(t, memory{}, Root, false, 9)
		parent.Output(0)
		parent.Reported(100, &Report{Child: "eu", Session: 1, Number: 1, Sequence: 1, EchoOf: 9, Echo: echo, Age: math.MaxInt64, Behind: math.MaxInt})
		age, behind := parent.watermark(limiter.Time(time.Hour))
		if age >= 0 && age < time.Hour || behind < 1 {
			t.Errorf("an echo of %d: the root's watermark is %s old, %d behind", echo, age, behind)
		}
	}
}

// TestSessionNumbersDoNotWrap: a child that says it had the highest of all
// numbers would be given 0, which is none.
func TestSessionNumbersDoNotWrap(t *testing.T) {
	m := start(t, memory{}, Root, false, 9)
	m.Output(0)
	for _, r := range []*Report{
		{Child: "eu", Session: 1, Sequence: 1, Highest: math.MaxUint64},
		{Child: "eu", Session: 1, Sequence: 2, Number: math.MaxUint64},
	} {
		if a := m.Reported(1, r); a == nil || a.Refused == "" {
			t.Errorf("%+v is answered with %+v", r, a)
		}
	}
	if a := m.Reported(1, &Report{Child: "eu", Session: 2, Sequence: 1}); a == nil || a.Number != 1 || a.Refused != "" {
		t.Errorf("the next one is answered with %+v", a)
	}
}

// TestStrangersAreNotAnswered: a report that is not for this place.
func TestStrangersAreNotAnswered(t *testing.T) {
	m := start(t, memory{}, "eu.de", false, 9)
	for _, child := range []Place{"eu", "eu.fr.paris", "eu.de", "eu.de.berlin.app", Root} {
		if a := m.Reported(1, &Report{Child: child, Session: 1, Sequence: 1}); a != nil {
			t.Errorf("%s is answered with %+v", child, a)
		}
	}
}

// TestARefusalIsToldOnce: a child that is refused goes on asking, and the log
// does not go on saying so, whether the child was known or not.
func TestARefusalIsToldOnce(t *testing.T) {
	m := start(t, memory{}, Root, false, 9)
	m.Output(0)
	m.Reported(1, &Report{Child: "known", Session: 1, Sequence: 1})
	told := map[Place]int{}
	report := func(child Place, world uint64) {
		m.Reported(2, &Report{Child: child, Session: 2, Sequence: 2, World: world})
		for _, e := range m.Output(2).Events {
			if e.Kind == EventChildRefuse {
				told[e.Place]++
			}
		}
	}
	for range 5 {
		report("known", 1)
		report("stranger", 1)
	}
	if told["known"] != 1 || told["stranger"] != 1 {
		t.Errorf("refusals were told %v times", told)
	}
	report("stranger", 2) // for another reason
	if told["stranger"] != 2 {
		t.Errorf("refusals were told %v times", told)
	}
	for i := range maxStrangers * 3 {
		report(Place("c"+strconv.Itoa(i)), 1)
	}
	if n := len(m.lower.strangers); n > maxStrangers {
		t.Errorf("%d strangers are remembered", n)
	}
}

// TestEverythingHasALimit: children of a place, keys that one watches.
func TestEverythingHasALimit(t *testing.T) {
	m := start(t, memory{}, Root, false, 9)
	for i := range maxChildren + 1 {
		child := Place("c" + time.Duration(i).String()[:len(time.Duration(i).String())-2])
		a := m.Reported(1, &Report{Child: child, Session: 1, Sequence: 1})
		if full := i == maxChildren; full != (a.Refused != "") {
			t.Fatalf("child %d is answered with %+v", i+1, a)
		}
	}
	city, r := joinedCity(t)
	city.Acknowledged(2, answer(city, r))
	for i := range maxWatched + 10 {
		if _, _, _, err := city.Get(2, Name{"votes", time.Duration(i).String()}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(city.Output(2).Report.Watch); n != maxEntries || city.upper.wishes.len() != maxWatched {
		t.Errorf("%d keys are named in a report, and %d watched", n, city.upper.wishes.len())
	}
}
