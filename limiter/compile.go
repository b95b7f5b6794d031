package limiter

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // quotas have time zones on machines that know none
)

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
	s.Namespaces = maps.Clone(s.Namespaces) // the caller may go on with its own
	return build(s, nil, nil)
}

// build compiles a Spec; it takes what is in no part that changed from the
// rules before, if there are some.
func build(s Spec, before *Rules, changed map[int]map[string]NamespaceSpec) (*Rules, error) {
	rules := &Rules{
		byName: make(map[string]*Rule, len(s.Namespaces)), names: slices.Sorted(maps.Keys(s.Namespaces)),
		spec: s, Lease: DefaultLease, FoldAfter: DefaultFoldAfter,
	}
	c := compiler{zones: map[string]*time.Location{"": time.UTC}}
	if s.Lease != "" {
		rules.Lease = c.duration([]string{"lease"}, s.Lease, "5s", time.Second, MaxLease)
	}
	if s.FoldAfter != "" {
		rules.FoldAfter = c.duration([]string{"fold_after"}, s.FoldAfter, "24h", time.Minute, MaxFoldAfter)
	}
	if len(s.Namespaces) > MaxNamespaces {
		c.wrong([]string{"namespaces"}, "%d namespaces are too many (at most %d)", len(s.Namespaces), MaxNamespaces)
	}
	for _, name := range rules.names {
		if _, is := changed[PartOf(name)]; before != nil && !is {
			rules.byName[name] = before.byName[name]
		} else {
			rules.byName[name] = c.rule(name, s.Namespaces[name])
		}
	}
	rules.divide(before, changed)
	if size := rules.size - ordinalSize*s.ordinals(); size > MaxSize {
		c.wrong([]string{"namespaces"}, "they have %d bytes as JSON; at most %d are allowed: write fewer namespaces, limits or weights", size, MaxSize)
	}
	if err := errors.Join(c.problems...); err != nil {
		return nil, err
	}
	rules.Hash = rules.hash()
	return rules, nil
}

// hash is made of everything that the rules say, written in one way.
func (r *Rules) hash() uint64 {
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "lease %d fold %d\n", r.Lease, r.FoldAfter) // a hash.Hash never fails
	for _, name := range r.names {
		_, _ = hash.Write(r.byName[name].says)
	}
	return hash.Sum64()
}

// write notes all that the rule says, in one way.
func (r *Rule) write() {
	var b []byte
	say := func(format string, args ...any) { b = fmt.Appendf(b, format, args...) }
	say("%s shadow %t count %t dedupe %d wait %d\n", r.Namespace, r.Shadow, r.Count, r.Dedupe, r.Wait)
	if r.Async {
		say("\tasync\n")
	}
	for _, l := range slices.SortedFunc(slices.Values(r.Limits), func(a, b Limit) int { return cmp.Compare(a.ID, b.ID) }) {
		say("\tlimit %d %s\n", l.ID, &l)
	}
	for _, place := range slices.Sorted(maps.Keys(r.weights)) {
		say("\tweight %s %d\n", place, r.weights[place])
	}
	r.says = slices.Clip(b)
}

// A compiler collects what is wrong.
type compiler struct {
	problems []error
	zones    map[string]*time.Location // that were read
}

func (c *compiler) wrong(at []string, format string, args ...any) {
	c.problems = append(c.problems, &FieldError{slices.Clone(at), fmt.Sprintf(format, args...)})
}

func (c *compiler) rule(name string, spec NamespaceSpec) *Rule {
	at := func(field ...string) []string { return append([]string{"namespaces", name}, field...) }
	if err := CheckNamespace(name); err != nil {
		c.wrong(at(), "%v", err)
	}
	rule := &Rule{Namespace: name, Shadow: spec.Shadow, Count: spec.Count, Wait: -1, weights: maps.Clone(spec.Weights)}
	if len(spec.Limits) > MaxLimits {
		c.wrong(at("limits"), "%d limits are too many (at most %d)", len(spec.Limits), MaxLimits)
	}
	var ordinals []int // that the spec says, by index of the limit; 0: it does not
	for i, l := range spec.Limits {
		path, before := at("limits", strconv.Itoa(i)), len(c.problems)
		limit := c.limit(path, l)
		if len(c.problems) > before {
			continue
		}
		if slices.ContainsFunc(rule.Limits, func(o Limit) bool { return o.Equal(&limit) }) {
			c.wrong(path, "the same limit stands here twice; remove one")
			continue
		}
		rule.Limits, ordinals = append(rule.Limits, limit), append(ordinals, l.Ordinal)
	}
	if err := rule.identify(ordinals); err != nil {
		c.wrong(at("limits"), "%v", err)
	}
	if zero, err := time.ParseDuration(spec.Dedupe); spec.Dedupe != "" && (err != nil || zero != 0) {
		rule.Dedupe = c.duration(at("dedupe"), spec.Dedupe, "1h", time.Second, MaxDedupe)
	}
	if spec.Wait != "" {
		rule.Wait = c.duration(at("wait"), spec.Wait, "250ms", 0, MaxWait)
	}
	switch spec.Durability {
	case "", "sync":
	case "async":
		rule.Async = true
	default:
		c.wrong(at("durability"), "%q is no durability; write sync (an add is answered when it is durable) or async (at once, and a crash may lose the last moment's)", spec.Durability)
	}
	if len(spec.Weights) > MaxWeights {
		c.wrong(at("weights"), "%d places are too many (at most %d)", len(spec.Weights), MaxWeights)
	}
	for _, place := range slices.Sorted(maps.Keys(spec.Weights)) {
		if err := checkPlace(place); err != nil {
			c.wrong(at("weights", place), "%v", err)
		}
		if w := spec.Weights[place]; w < 1 || w > MaxWeight {
			c.wrong(at("weights", place), "%d is out of range (1 to %d)", w, MaxWeight)
		}
	}
	rule.write()
	return rule
}

func (c *compiler) limit(at []string, spec LimitSpec) (limit Limit) {
	field := func(name string) []string { return append(slices.Clip(at), name) }
	if scope := slices.Index(scopeNames, spec.Scope); scope >= 0 {
		limit.Scope = Scope(scope)
	} else {
		c.wrong(field("scope"), "%q is no tier (city, country, region, global)", spec.Scope)
	}
	switch spec.Mode {
	case "", "hard":
	case "soft":
		limit.Soft = true
	default:
		c.wrong(field("mode"), "%q is not known (hard, soft)", spec.Mode)
	}

	var kinds []string
	for i, given := range []bool{spec.Rate != "", spec.Quota != "", spec.Budget != nil, spec.Concurrency != nil} {
		if given {
			limit.Kind = Kind(i)
			kinds = append(kinds, kindNames[i])
		}
	}
	switch len(kinds) {
	case 0:
		c.wrong(field("rate"), "is missing; write one like 1000/s (s, m, h or d), or instead of it a quota, a budget or a concurrency")
		return limit
	case 1:
	default:
		c.wrong(at, "has %s; keep one of them, and write each other as a limit of its own", strings.Join(kinds, " and "))
		return limit
	}

	if spec.Burst != nil && limit.Kind != Rate {
		c.wrong(field("burst"), "goes with a rate; remove it: the %s is all that can be spent at once", limit.Kind)
	}
	if spec.Zone != "" && limit.Kind != Quota {
		c.wrong(field("zone"), "goes with a quota; remove it: a %s has no calendar", limit.Kind)
	}
	if spec.Hold != "" && limit.Kind != Concurrency {
		c.wrong(field("hold"), "goes with a concurrency; remove it: what is spent of a %s is not given back", limit.Kind)
	}
	limit.Period = time.Second
	switch limit.Kind {
	case Rate:
		c.rate(field, spec, &limit)
	case Quota:
		c.quota(field, spec, &limit)
	case Budget:
		limit.Burst = c.tokens(field("budget"), *spec.Budget)
		if limit.Soft {
			c.wrong(field("mode"), "soft is not for a budget: what is spent beyond it never comes back; leave it out, or write a quota instead")
		}
	case Concurrency:
		limit.Burst = c.tokens(field("concurrency"), *spec.Concurrency)
		limit.Hold = DefaultHold
		if spec.Hold != "" {
			limit.Hold = c.duration(field("hold"), spec.Hold, "30s", time.Second, MaxHold)
		}
	}
	return limit
}

func (c *compiler) rate(field func(string) []string, spec LimitSpec, limit *Limit) {
	count, period, err := parseRate(spec.Rate)
	if err != nil {
		c.wrong(field("rate"), "%v", err)
	} else {
		limit.Rate, limit.Period, limit.Written = count*int64(RatePeriod/period), RatePeriod, period
		limit.Burst = max(1, ceilDiv(count, int64(period/time.Second)))
	}
	if spec.Burst != nil {
		limit.Burst = c.tokens(field("burst"), *spec.Burst)
	}
}

func (c *compiler) quota(field func(string) []string, spec LimitSpec, limit *Limit) {
	count, unit, err := parseQuota(spec.Quota)
	if err != nil {
		c.wrong(field("quota"), "%v", err)
	}
	zone, known := c.zones[spec.Zone]
	if !known {
		if zone, err = loadZone(spec.Zone); err != nil {
			c.wrong(field("zone"), "%v", err)
		} else {
			c.zones[spec.Zone] = zone
		}
	}
	limit.Burst, limit.Window = count, Window{unit, zone}
}

func (c *compiler) tokens(at []string, n int64) int64 {
	if n < 1 || n > MaxTokens {
		c.wrong(at, "%d is out of range (1 to %d)", n, int64(MaxTokens))
	}
	return n
}

func (c *compiler) duration(at []string, s, example string, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		c.wrong(at, "%q is no duration; write one like %s (h, m, s, ms)", s, example)
	case d < least || d > most:
		c.wrong(at, "%q is out of range (%s to %s)", s, FormatDuration(least), FormatDuration(most))
	}
	return d
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
	number, unit, ok := strings.Cut(s, "/")
	period, known := periods[strings.TrimSpace(unit)]
	if !ok || !known {
		return 0, 0, fmt.Errorf("%q is no rate; write one like 1000/s (s, m, h or d)", s)
	}
	count, err = strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is no rate: %q is not a whole number%s", s, number, wholeRate(strings.TrimSpace(number), period))
	}
	if most := MaxRate * int64(period/time.Second); count < 1 || count > most {
		return 0, 0, fmt.Errorf("%q is out of range (1 to %d in this unit)", s, most)
	}
	return count, period, nil
}

// wholeRate says how to write a rate that is no whole number, such as "0.5" a
// second, if a longer period makes it one.
func wholeRate(number string, period time.Duration) string {
	const most = 20 // characters; nobody means more
	if len(number) > most || strings.Trim(number, "0123456789.") != "" {
		return ""
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return ""
	}
	for _, longer := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		if longer <= period {
			continue
		}
		count := new(big.Rat).Mul(value, big.NewRat(int64(longer/period), 1))
		if count.IsInt() && count.Sign() > 0 {
			return fmt.Sprintf("; write %s/%s", count.Num(), periodNames[longer])
		}
	}
	return "; write how many in a longer time, such as 30/m for one each 2 seconds; the least is 1/d"
}

// parseQuota reads "10000/day". Its units have no short names: m could be a
// minute or a month.
func parseQuota(s string) (count int64, unit Unit, err error) {
	number, name, ok := strings.Cut(s, "/")
	unit = Unit(slices.Index(unitNames, strings.TrimSpace(name)))
	if !ok || unit <= NoUnit {
		return 0, 0, fmt.Errorf("%q is no quota; write one like 10000/day (minute, hour, day, week or month)", s)
	}
	count, err = strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is no quota: %q is not a whole number", s, number)
	}
	if count < 1 || count > MaxTokens {
		return 0, 0, fmt.Errorf("%q is out of range (1 to %d)", s, int64(MaxTokens))
	}
	return count, unit, nil
}

// loadZone finds a time zone by its IANA name. What only some machines know,
// or know otherwise, is refused: a rule says the same everywhere.
func loadZone(name string) (*time.Location, error) {
	known := name == path.Clean(name) && !slices.Contains([]string{"Local", "localtime", "posixrules"}, name) &&
		!strings.HasPrefix(name, "posix/") && !strings.HasPrefix(name, "right/")
	if known {
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	return nil, fmt.Errorf("%q is no time zone; write its IANA name, such as Europe/Berlin", name)
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

// checkPlace says what is wrong with a place's name, if anything. Package
// tiers owns places, and says it in more words.
func checkPlace(name string) error {
	const deepest, longest = 16, 32
	parts := strings.Split(name, ".")
	wrong := len(parts) > deepest
	for _, part := range parts {
		wrong = wrong || part == "" || len(part) > longest || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" ||
			part == Global.String() && len(parts) > 1
	}
	if wrong {
		return fmt.Errorf("%.80q is no place; write one like eu.de.berlin, eu or global", name)
	}
	return nil
}
