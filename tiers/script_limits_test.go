package tiers

import (
	"strings"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// compile reads rules, of a namespace a line:
//
//	votes
//	api global 10/s burst 100
//	calls country quota 100/day zone Europe/Berlin
//	tickets global budget 1000
//	jobs city concurrency 10 hold 2s
//	api global 10/s soft
//	api dedupe 1m               also: count, shadow, weight eu.de.berlin 3
//
// A namespace with more than one limit, or with more to say, has more lines.
func (s *script) compile(input string) *limiter.Rules {
	s.t.Helper()
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		namespace, says := spec.Namespaces[words[0]], words[1:]
		next := func() string {
			word := says[0]
			says = says[1:]
			return word
		}
		number := func() *int64 {
			n := s.number(next())
			return &n
		}
		for len(says) > 0 {
			switch word := next(); word {
			case "count":
				namespace.Count = true
			case "shadow":
				namespace.Shadow = true
			case "dedupe":
				namespace.Dedupe = next()
			case "weight":
				if namespace.Weights == nil {
					namespace.Weights = map[string]int64{}
				}
				namespace.Weights[next()] = *number()
			case "global", "region", "country", "city":
				namespace.Limits = append(namespace.Limits, limiter.LimitSpec{Scope: word})
			default:
				l := &namespace.Limits[len(namespace.Limits)-1]
				switch word {
				case "quota":
					l.Quota = next()
				case "zone":
					l.Zone = next()
				case "budget":
					l.Budget = number()
				case "concurrency":
					l.Concurrency = number()
				case "hold":
					l.Hold = next()
				case "burst":
					l.Burst = number()
				case "soft":
					l.Mode = word
				default:
					l.Rate = word
				}
			}
		}
		spec.Namespaces[words[0]] = namespace
	}
	rules, err := limiter.Compile(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return rules
}

// unix is what the wall clocks show, in nanoseconds.
func (s *script) unix() int64 { return s.wall + int64(s.now) }

// limits runs the commands about rules and limits; false: it is none.
func (s *script) limits(command string, args []string, input string) bool {
	switch command {
	case "wall":
		at, err := time.Parse(time.RFC3339, args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.wall = at.UnixNano() - int64(s.now)
		return true
	case "apply", "release", "renew", "refund", "reset", "left":
	default:
		return false
	}
	n := s.running(args[0])
	s.step(n, func(m *Machine) func() {
		switch command {
		case "apply":
			version, err := m.Apply(s.now, s.compile(input))
			s.printf("%s follows version %d%s", n.label, version, failure(err))
		case "release":
			released, err := m.Release(s.now, name(args[1]), uint64(s.number(args[2])))
			s.printf("released: %v%s", released, failure(err))
		case "renew":
			renewed, err := m.Renew(s.now, name(args[1]), uint64(s.number(args[2])))
			s.printf("renewed: %v%s", renewed, failure(err))
		case "refund":
			refunded, err := m.Refund(s.now, name(args[1]), s.number(args[2]))
			s.printf("refunded: %d%s", refunded, failure(err))
		case "left":
			s.printf("%s takes it%s", n.label, failure(m.Figure(s.now, name(args[1]), s.number(args[2]))))
		case "reset":
			if err := m.Reset(s.now, name(args[1])); err != nil {
				s.printf("reset%s", failure(err))
			}
		}
		return nil
	})
	return true
}

func (s *script) add(m *Machine, n Name, delta int64, id string) (Total, error) {
	if id != "" {
		return m.AddID(s.now, n, delta, id)
	}
	return m.Add(s.now, n, delta)
}

func (s *script) decide(m *Machine, n Name, hits int64, wait time.Duration, id string) (Decision, bool, error) {
	if id != "" {
		return m.CheckID(s.now, n, hits, s.now.Add(wait), s.check, id)
	}
	return m.Check(s.now, n, hits, s.now.Add(wait), s.check)
}
