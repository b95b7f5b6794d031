package limiter

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Scope is the tier that owns a limit, as a depth: 0 is the root.
type Scope int

// The tiers by name. Only the names know that there are four.
const (
	Global Scope = iota
	Region
	Country
	City
)

var scopeNames = []string{"global", "region", "country", "city"}

func (s Scope) String() string { return scopeNames[s] }

// Limits on what a rule may ask for: everything has one.
const (
	MaxLimits     = 16            // limits of one namespace
	MaxNamespaces = 10_000        // namespaces of one file
	MaxRate       = 1_000_000_000 // tokens per second
)

// A Limit is one token bucket for each key of its namespace.
type Limit struct {
	Scope  Scope
	Rate   int64         // tokens per Period
	Period time.Duration // one second, minute, hour or day
	Burst  int64         // the bucket's capacity
	// ID names this limit between places. It is made of everything that the
	// limit says, so places whose rules differ do not mistake one for another.
	ID uint64
}

// Whole returns the full bucket of the limit as a share.
func (l *Limit) Whole() Share { return Share{l.Burst, l.Burst, l.Rate} }

func (l *Limit) String() string {
	return fmt.Sprintf("%s %d/%s burst %d", l.Scope, l.Rate, periodNames[l.Period], l.Burst)
}

// A Rule is what a namespace asks for. A check passes all of its limits or
// spends from none. Without limits it is counted, and every check is allowed.
type Rule struct {
	Namespace string
	Limits    []Limit
}

// Rules are the rules of all namespaces. They do not change once compiled.
type Rules struct {
	byName map[string]*Rule
	// Hash is the same for two places exactly when their rules say the same.
	Hash uint64
}

// Rule returns the rule of a namespace, or nil if there is none.
func (r *Rules) Rule(namespace string) *Rule { return r.byName[namespace] }

// Namespaces returns the names of all namespaces, sorted.
func (r *Rules) Namespaces() []string { return slices.Sorted(maps.Keys(r.byName)) }

// Spec is what a rules file says, before it is checked.
type Spec struct {
	Namespaces map[string]NamespaceSpec
}

// NamespaceSpec is one namespace of a Spec.
type NamespaceSpec struct {
	Limits []LimitSpec
}

// LimitSpec is one limit of a Spec. Empty fields have their defaults: burst
// is one second of rate and at least 1, mode is hard.
type LimitSpec struct {
	Scope string
	Rate  string // "1000/s": a whole number, and s, m, h or d
	Burst *int64
	Mode  string
}

// A FieldError says what is wrong with one field of a Spec. Path names it as
// the file nests it: namespaces, api, limits, 0, scope.
type FieldError struct {
	Path    []string
	Problem string
}

func (e *FieldError) Error() string { return strings.Join(e.Path, ".") + ": " + e.Problem }

// Compile checks a Spec and returns its rules. The error joins a *FieldError
// for every field that is wrong.
func Compile(s Spec) (*Rules, error) {
	rules := &Rules{byName: make(map[string]*Rule, len(s.Namespaces))}
	var problems []error
	if len(s.Namespaces) > MaxNamespaces {
		problems = append(problems, &FieldError{[]string{"namespaces"}, fmt.Sprintf("%d namespaces are too many (at most %d)", len(s.Namespaces), MaxNamespaces)})
	}
	hash := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		rule, errs := compileRule(name, s.Namespaces[name])
		problems = append(problems, errs...)
		rules.byName[name] = rule
		_, _ = fmt.Fprintf(hash, "%s\n", name) // a hash.Hash never fails
		for _, l := range rule.Limits {
			_, _ = fmt.Fprintf(hash, "\t%d\n", l.ID)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	rules.Hash = hash.Sum64()
	return rules, nil
}

func compileRule(name string, spec NamespaceSpec) (*Rule, []error) {
	var problems []error
	path := []string{"namespaces", name}
	if err := CheckNamespace(name); err != nil {
		problems = append(problems, &FieldError{path, err.Error()})
	}
	if len(spec.Limits) > MaxLimits {
		problems = append(problems, &FieldError{append(path, "limits"), fmt.Sprintf("%d limits are too many (at most %d)", len(spec.Limits), MaxLimits)})
	}
	rule := &Rule{Namespace: name}
	for i, l := range spec.Limits {
		at := append(slices.Clone(path), "limits", strconv.Itoa(i))
		limit, errs := compileLimit(at, l)
		if len(errs) == 0 && slices.ContainsFunc(rule.Limits, func(o Limit) bool { return o.ID == limit.ID }) {
			errs = append(errs, &FieldError{at, "the same limit stands here twice; remove one"})
		}
		problems = append(problems, errs...)
		rule.Limits = append(rule.Limits, limit)
	}
	return rule, problems
}

func compileLimit(path []string, spec LimitSpec) (limit Limit, problems []error) {
	wrong := func(field, format string, args ...any) {
		problems = append(problems, &FieldError{append(slices.Clone(path), field), fmt.Sprintf(format, args...)})
	}
	if scope := slices.Index(scopeNames, spec.Scope); scope >= 0 {
		limit.Scope = Scope(scope)
	} else {
		wrong("scope", "%q is no tier (city, country, region, global)", spec.Scope)
	}
	var err error
	if limit.Rate, limit.Period, err = parseRate(spec.Rate); err != nil {
		wrong("rate", "%v", err)
	} else {
		limit.Burst = max(1, ceilDiv(limit.Rate, int64(limit.Period/time.Second)))
	}
	if spec.Burst != nil {
		limit.Burst = *spec.Burst
		if limit.Burst < 1 || limit.Burst > MaxTokens {
			wrong("burst", "%d is out of range (1 to %d)", limit.Burst, int64(MaxTokens))
		}
	}
	if spec.Mode != "" && spec.Mode != "hard" {
		wrong("mode", "%q is not known (hard)", spec.Mode)
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(strconv.Itoa(int(limit.Scope)) + " rate " + strconv.FormatInt(limit.Rate, 10) +
		" each " + limit.Period.String() + " burst " + strconv.FormatInt(limit.Burst, 10) + " hard"))
	limit.ID = hash.Sum64()
	return limit, problems
}

var periods = map[string]time.Duration{
	"s": time.Second, "second": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hour": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour,
}

var periodNames = map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h", 24 * time.Hour: "d"}

// parseRate reads "1000/s".
func parseRate(s string) (count int64, period time.Duration, err error) {
	if s == "" {
		return 0, 0, errors.New("is missing; write one like 1000/s (s, m, h or d)")
	}
	number, unit, ok := strings.Cut(s, "/")
	period, known := periods[strings.TrimSpace(unit)]
	if !ok || !known {
		return 0, 0, fmt.Errorf("%q is no rate; write one like 1000/s (s, m, h or d)", s)
	}
	count, err = strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is no rate: %q is not a whole number", s, number)
	}
	if most := MaxRate * int64(period/time.Second); count < 1 || count > most {
		return 0, 0, fmt.Errorf("%q is out of range (1 to %d in this unit)", s, most)
	}
	return count, period, nil
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// MaxNamespace is the longest namespace, in bytes.
const MaxNamespace = 64

// CheckNamespace says what is wrong with a namespace's name, if anything.
func CheckNamespace(name string) error {
	if name == "" || len(name) > MaxNamespace {
		return fmt.Errorf("namespace %q has %d characters; 1 to %d are allowed", name, len(name), MaxNamespace)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return fmt.Errorf("namespace %q has the character %q; a-z, 0-9, _ and - are allowed", name, c)
		}
	}
	return nil
}
