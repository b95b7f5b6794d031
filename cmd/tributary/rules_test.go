package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-io/tributary/limiter"
)

func TestDefaultRules(t *testing.T) {
	rules := defaultRules()
	if got := fmt.Sprint(rules.Namespaces()); got != "[api votes]" {
		t.Errorf("namespaces %s", got)
	}
	if got := fmt.Sprint(describeLimits(rules, "api")); got != "[global rate 1000/s burst 2000 city rate 300/s burst 300]" {
		t.Errorf("api has %s", got)
	}
	if n := len(rules.Rule("votes").Limits); n != 0 {
		t.Errorf("votes has %d limits", n)
	}
}

func describeLimits(rules *limiter.Rules, namespace string) (all []string) {
	for _, l := range rules.Rule(namespace).Limits {
		all = append(all, l.String())
	}
	return all
}

func TestRulesThatAreRead(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"flow style", "namespaces: {a: {limits: [{scope: city, rate: 5/m}]}}", "a: [city rate 5/m burst 1]"},
		{"block style", "namespaces:\n  a:\n    limits:\n    - scope: region\n      rate: 5/h\n      burst: 7\n", "a: [region rate 5/h burst 7]"},
		{"quoted text", "namespaces: {'a': {limits: [{'scope': \"city\", rate: '5/s'}]}}", "a: [city rate 5/s burst 5]"},
		{"words for periods", "namespaces: {a: {limits: [{scope: city, rate: 86400/day}]}}", "a: [city rate 86400/d burst 1]"},
		{"a name that looks like a number", "namespaces: {1: {}, 0x10: {}, true: {}, 2026-01-02: {}}", "0x10: [] 1: [] 2026-01-02: [] true: []"},
		{"no limits", "namespaces: {a: {limits: []}}", "a: []"},
		{"a leading zero is decimal", "namespaces: {a: {limits: [{scope: city, rate: 5/s, burst: 010}]}}", "a: [city rate 5/s burst 10]"},
		{"comments, a marker, a byte order mark", "\ufeff# rules\n---\nnamespaces: {a: {}} # all\n...\n", "a: []"},
		{"an anchor that nobody uses", "namespaces: {a: &x {}}", "a: []"},
		{"a quota", "namespaces: {a: {limits: [{scope: city, quota: 100/day}, {scope: city, quota: 100/day, zone: Europe/Berlin, mode: soft}]}}", "a: [city quota 100/day UTC city quota 100/day Europe/Berlin soft]"},
		{"a budget", "namespaces: {a: {limits: [{scope: global, budget: 1000000}]}}", "a: [global budget 1000000]"},
		{"a concurrency", "namespaces: {a: {limits: [{scope: country, concurrency: 100}, {scope: city, concurrency: 10, hold: 90s}]}}", "a: [country concurrency 100 hold 30s city concurrency 10 hold 1m30s]"},
		{"windows line ends", "namespaces:\r\n  a: {}\r\n", "a: []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := parseRules("rules.yaml", []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range rules.Namespaces() {
				got = append(got, fmt.Sprintf("%s: %v", name, describeLimits(rules, name)))
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRulesSayMoreThanLimits(t *testing.T) {
	rules, err := parseRules("rules.yaml", []byte(`
lease: 10s
fold_after: 48h
namespaces:
  a: {shadow: true, count: true, dedupe: 1h, wait: 0, weights: {eu: 2, eu.de: 3}, limits: [{scope: city, rate: 1/s}]}
  b: {shadow: false, dedupe: 0}
`))
	if err != nil {
		t.Fatal(err)
	}
	if rules.Lease != 10*time.Second || rules.FoldAfter != 48*time.Hour {
		t.Errorf("lease %s, fold_after %s", rules.Lease, rules.FoldAfter)
	}
	if a := rules.Rule("a"); !a.Shadow || !a.Count || a.Dedupe != time.Hour || a.Wait != 0 || a.Weight("eu.de.berlin") != 3 || a.Weight("eu.fr") != 2 || a.Weight("us") != 1 {
		t.Errorf("a is %+v", a)
	}
	if b := rules.Rule("b"); b.Shadow || b.Count || b.Dedupe != 0 || b.Wait >= 0 {
		t.Errorf("b is %+v", b)
	}
}

// The examples that stand in the built-in rules as comments are right, too.
func TestExamplesOfTheDefaultRules(t *testing.T) {
	_, examples, ok := strings.Cut(string(defaultRulesFile), "\n  # mail:")
	if !ok {
		t.Fatal("there are no examples")
	}
	rules, err := parseRules(defaultRulesName, []byte("namespaces:\n  mail:"+strings.ReplaceAll(examples, "\n  # ", "\n  ")))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[limiter.Kind]bool{}
	for _, name := range rules.Namespaces() {
		for _, l := range rules.Rule(name).Limits {
			kinds[l.Kind] = true
		}
	}
	if len(kinds) != 4 {
		t.Errorf("examples of %v alone", kinds)
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	limit := func(fields string) string { return "namespaces:\n  a:\n    limits:\n      - {" + fields + "}\n" }
	at := "rules.yaml:4: namespaces.a.limits[0]"
	seventeen := ""
	for i := range 17 {
		seventeen += fmt.Sprintf("      - {scope: city, rate: %d/s}\n", i+1)
	}
	for _, c := range []struct {
		name, file string
		want       []string
	}{
		{"nothing", "", []string{"rules.yaml:1: there are no rules in it; write for example:"}},
		{"a marker", "---\n", []string{"rules.yaml:1: there are no rules in it"}},
		{"null", "~", []string{"rules.yaml:1: there are no rules in it"}},
		{"an empty mapping", "{}", []string{"rules.yaml:1: there are no namespaces in it; write"}},
		{"a list", "- a\n", []string{"rules.yaml:1: is a list; write"}},
		{"text", "votes", []string{`rules.yaml:1: is "votes"; write`}},
		{"namespaces empty", "\nnamespaces:\n", []string{"rules.yaml:2: namespaces: is empty; write"}},
		{"namespaces without any", "namespaces: {}", []string{"rules.yaml:1: namespaces: has no namespace in it; write"}},
		{"namespaces a list", "namespaces: [a]", []string{"rules.yaml:1: namespaces: is a list; write"}},
		{"a top that is unknown", "namespace: {a: {}}", []string{"rules.yaml:1: namespace: is unknown here; did you mean namespaces?"}},
		{"a namespace that is null", "namespaces:\n  a:\n", []string{"rules.yaml:2: namespaces.a: is empty; write {}"}},
		{"a namespace that is text", "namespaces:\n  a: 1000/s\n", []string{`rules.yaml:2: namespaces.a: is "1000/s"; write {}`}},
		{"a namespace of other letters", "namespaces:\n  Votes: {}\n", []string{"rules.yaml:2: namespaces.Votes:", "'V'"}},
		{"a namespace too long", "namespaces:\n  " + strings.Repeat("a", 65) + ": {}\n", []string{"rules.yaml:2: namespaces.aaa", "65 characters; 1 to 64 are allowed"}},
		{"a namespace without a name", "namespaces:\n  '': {}\n", []string{`rules.yaml:2: namespaces."":`, "0 characters"}},
		{"a namespace whose name is a list", "namespaces:\n  ? [a]\n  : {}\n", []string{"rules.yaml:2: namespaces: has a list for a name; write a plain one"}},
		{"a namespace twice", "namespaces:\n  a: {}\n  b: {}\n  'a': {}\n", []string{"rules.yaml:4: namespaces.a: stands here twice, first on line 2; remove one"}},
		{"limits empty", "namespaces:\n  a:\n    limits:\n", []string{"rules.yaml:3: namespaces.a.limits: is empty; write a list"}},
		{"limits a mapping", "namespaces:\n  a:\n    limits: {scope: city, rate: 1/s}\n", []string{"rules.yaml:3: namespaces.a.limits: is a mapping; write a list"}},
		{"limits twice", "namespaces:\n  a:\n    limits: []\n    limits: []\n", []string{"rules.yaml:4: namespaces.a.limits: stands here twice, first on line 3"}},
		{"too many limits", "namespaces:\n  a:\n    limits:\n" + seventeen, []string{"rules.yaml:3: namespaces.a.limits: 17 limits are too many"}},
		{"a limit that is a list", "namespaces:\n  a:\n    limits:\n      - [city, 1/s]\n", []string{at + ": is a list; write a limit"}},
		{"a field that is unknown", limit("scope: city, rate: 1/s, per: key"), []string{at + ".per: is unknown here; known are scope, rate, quota, budget, concurrency, burst, hold, zone, mode"}},
		{"a field in other letters", limit("Scope: city, scope: city, rate: 1/s"), []string{at + ".Scope: is unknown here; did you mean scope?"}},
		{"a field twice", limit("scope: city, rate: 1/s, rate: 2/s"), []string{at + ".rate: stands here twice, first on line 4"}},
		{"no scope", limit("rate: 1/s"), []string{at + ".scope: is missing; name a tier"}},
		{"no rate", limit("scope: city"), []string{at + ".rate: is missing; write one like 1000/s"}},
		{"no such scope", limit("scope: galaxy, rate: 1/s"), []string{at + `.scope: "galaxy" is no tier (city, country, region, global)`}},
		{"a rate without a unit", limit("scope: city, rate: 1000"), []string{at + `.rate: "1000" is no rate; write one like 1000/s`}},
		{"a rate out of range", limit("scope: city, rate: 1000000001/s"), []string{at + `.rate: "1000000001/s" is out of range`}},
		{"a burst with a fraction", limit("scope: city, rate: 1/s, burst: 1.5"), []string{at + `.burst: "1.5" is no whole number; write one such as 2000`}},
		{"a burst that is text", limit(`scope: city, rate: 1/s, burst: "10"`), []string{at + `.burst: "10" is text; write the number without quotes`}},
		{"a burst that is negative", limit("scope: city, rate: 1/s, burst: -1"), []string{at + ".burst: -1 is out of range"}},
		{"a burst of nothing", limit("scope: city, rate: 1/s, burst: 0"), []string{at + ".burst: 0 is out of range"}},
		{"a burst past 64 bits", limit("scope: city, rate: 1/s, burst: 99999999999999999999"), []string{at + ".burst: 99999999999999999999 is out of range"}},
		{"a burst that is empty", limit("scope: city, rate: 1/s, burst: "), []string{at + ".burst: is empty; write a whole number"}},
		{"a burst in hex", limit("scope: city, rate: 1/s, burst: 0x10"), []string{at + `.burst: "0x10" is no whole number`}},
		{"a burst in words", limit("scope: city, rate: 1/s, burst: many"), []string{at + `.burst: "many" is no whole number`}},
		{"another mode", limit("scope: city, rate: 1/s, mode: open"), []string{at + `.mode: "open" is not known (hard, soft)`}},
		{"an empty mode", limit("scope: city, rate: 1/s, mode: ''"), []string{at + `.mode: is ""; write hard or soft, or leave it out`}},
		{"a soft budget", limit("scope: city, budget: 10, mode: soft"), []string{at + ".mode: soft is not for a budget"}},
		{"two kinds", limit("scope: city, rate: 1/s, budget: 10"), []string{at + ": has rate and budget; keep one of them"}},
		{"a quota that is empty", limit("scope: city, quota: "), []string{at + ".quota: is empty; write one like 10000/day"}},
		{"a quota of empty text", limit("scope: city, quota: ''"), []string{at + `.quota: is ""; write one like 10000/day`}},
		{"a quota with a short unit", limit("scope: city, quota: 10/d"), []string{at + `.quota: "10/d" is no quota; write one like 10000/day (minute, hour, day, week or month)`}},
		{"a zone that nobody knows", limit("scope: city, quota: 10/day, zone: Europe/Berln"), []string{at + `.zone: "Europe/Berln" is no time zone`}},
		{"a zone of a rate", limit("scope: city, rate: 10/s, zone: UTC"), []string{at + ".zone: goes with a quota; remove it"}},
		{"a budget that is text", limit("scope: city, budget: lots"), []string{at + `.budget: "lots" is no whole number; write one such as 1000000`}},
		{"a budget of nothing", limit("scope: city, budget: 0"), []string{at + ".budget: 0 is out of range (1 to 9007199254740991)"}},
		{"a concurrency past 64 bits", limit("scope: city, concurrency: 99999999999999999999"), []string{at + ".concurrency: 99999999999999999999 is out of range (1 to 9007199254740991)"}},
		{"a hold that is short", limit("scope: city, concurrency: 1, hold: 500ms"), []string{at + `.hold: "500ms" is out of range (1s to 24h)`}},
		{"a lease without a unit", "lease: 5\nnamespaces: {a: {}}\n", []string{`rules.yaml:1: lease: "5" is no duration; write one like 5s (h, m, s, ms)`}},
		{"a lease that is empty", "lease:\nnamespaces: {a: {}}\n", []string{"rules.yaml:1: lease: is empty; write a duration, such as 5s"}},
		{"fold_after of other letters", "fold-after: 24h\nnamespaces: {a: {}}\n", []string{"rules.yaml:1: fold-after: is unknown here; did you mean fold_after?"}},
		{"fold_after out of range", "namespaces: {a: {}}\nfold_after: 1s\n", []string{`rules.yaml:2: fold_after: "1s" is out of range (1m to 87600h)`}},
		{"shadow in words", "namespaces:\n  a:\n    shadow: yes\n", []string{`rules.yaml:3: namespaces.a.shadow: is "yes"; write true or false`}},
		{"count as text", "namespaces:\n  a:\n    count: 'true'\n", []string{`rules.yaml:3: namespaces.a.count: is "true"; write true or false`}},
		{"a dedupe that is a list", "namespaces:\n  a:\n    dedupe: [1h]\n", []string{"rules.yaml:3: namespaces.a.dedupe: is a list; write a duration"}},
		{"a wait that is long", "namespaces:\n  a:\n    wait: 1h\n", []string{`rules.yaml:3: namespaces.a.wait: "1h" is out of range (0s to 1m)`}},
		{"weights as a list", "namespaces:\n  a:\n    weights: [eu]\n", []string{"rules.yaml:3: namespaces.a.weights: is a list; write places and their weights"}},
		{"a weight of no place", "namespaces:\n  a:\n    weights:\n      EU: 2\n", []string{`rules.yaml:4: namespaces.a.weights.EU: "EU" is no place; write one like eu.de.berlin`}},
		{"a weight out of range", "namespaces:\n  a:\n    weights:\n      eu.de: 0\n", []string{`rules.yaml:4: namespaces.a.weights."eu.de": 0 is out of range (1 to 1000)`}},
		{"a weight past 64 bits", "namespaces:\n  a:\n    weights: {eu: 99999999999999999999}\n", []string{"rules.yaml:3: namespaces.a.weights.eu: 99999999999999999999 is out of range (1 to 1000)"}},
		{"two at once, by line", "namespaces:\n  b: {limits: [{scope: x, rate: 1/s}]}\n  a: {limits: [{scope: y, rate: 1/s}]}\n", []string{
			"rules.yaml has 2 problems:\n  rules.yaml:2: namespaces.b.limits[0].scope", "\n  rules.yaml:3: namespaces.a.limits[0].scope",
		}},
		{"the line of the field", "namespaces:\n  a:\n    limits:\n      - scope: city\n        rate:\n          1/week\n", []string{`rules.yaml:6: namespaces.a.limits[0].rate: "1/week"`}},

		{"two documents", "namespaces: {a: {}}\n---\nnamespaces: {b: {}}\n", []string{"rules.yaml:2: a second document begins here; keep one"}},
		{"a second document that is broken", "namespaces: {a: {}}\n---\n[\n", []string{"this is no YAML"}},
		{"an alias", "namespaces:\n  a: &x {}\n  b: *x\n", []string{"rules.yaml:3: namespaces.b: is an alias (*x), which is not read here"}},
		{"an alias of itself", "namespaces: &x\n  a: *x\n", []string{"rules.yaml:2: namespaces.a: is an alias"}},
		{"an alias that is not there", "namespaces: *x\n", []string{"rules.yaml:1: this is no YAML: unknown anchor 'x' referenced"}},
		{"a merge", "namespaces:\n  a: &x {}\n  b: {<<: *x}\n", []string{"rules.yaml:3: namespaces.b: has a merge key (<<), which is not read here"}},
		{"a tab", "namespaces:\n\ta: {}\n", []string{"rules.yaml:2: the line is indented with a tab; YAML takes only spaces"}},
		{"no end", "namespaces: {a: {}\n", []string{"rules.yaml:", "this is no YAML"}},
		{"other bytes", "namespaces: {a\x00: {}}", []string{"rules.yaml:1: this is no YAML: control characters are not allowed"}},
		{"no UTF-8", "namespaces: {a\xff: {}}", []string{"rules.yaml:1: this is no YAML: invalid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules, err := parseRules("rules.yaml", []byte(c.file))
			if err == nil {
				t.Fatalf("read as %v", rules.Namespaces())
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got  %s\nwant %s", err, want)
				}
			}
			if lines := strings.Count(err.Error(), "rules.yaml:"); !strings.Contains(c.name, "two at once") && lines != 1 {
				t.Errorf("one thing is wrong, and %d are said:\n%s", lines, err)
			}
		})
	}
}

// An alias costs nothing until somebody follows it.
func TestRulesSurviveABomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 40 {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i, i, i, i)
	}
	b.WriteString("namespaces: *a40\n")
	started := time.Now()
	_, err := parseRules("rules.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "namespaces: is an alias") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := parseRules("rules.yaml", []byte(strings.Repeat("[", 100_000))); err == nil {
		t.Error("a hundred thousand brackets are no rules")
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	var b strings.Builder
	b.WriteString("namespaces:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  n%d:\n", i)
	}
	_, err := parseRules("rules.yaml", []byte(b.String()))
	if err == nil || !strings.HasPrefix(err.Error(), "rules.yaml has 1000 problems:") || !strings.HasSuffix(err.Error(), "\n  and 950 more") {
		t.Errorf("got %v", err)
	}
}

func TestRulesFileOfSize(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte("namespaces: {a: {}}\n"+strings.Repeat("#", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadRules(file); err == nil || !strings.Contains(err.Error(), "larger than 8 MiB") {
		t.Errorf("got %v", err)
	}
}

// FuzzRules feeds the loader files: it never panics, what it refuses it explains by line, and what it accepts is whole.
func FuzzRules(f *testing.F) {
	f.Add(defaultRulesFile)
	for _, s := range []string{
		"", "---\n", "namespaces: {a: {}}", "namespaces:\n\ta: {}", "namespaces: &x {a: *x}", "a: &a [*a]", "? [a]\n: {}",
		"namespaces:\n  a:\n    limits:\n      - {scope: city, rate: 5/m, burst: 1.5}\n", "namespaces: {<<: {a: {}}}",
		"lease: 10s\nfold_after: 48h\nnamespaces:\n  a: {shadow: true, count: true, dedupe: 1h, wait: 250ms, weights: {eu.de: 3}}\n",
		"namespaces: {a: {limits: [{scope: city, quota: 5/week, zone: Asia/Kolkata}, {scope: global, budget: 7}, {scope: eu, concurrency: 3, hold: 1m}]}}",
		"namespaces: {a: {}}\n---\n{}", "%YAML 1.2\n---\nnamespaces: !!map {a: !x {}}", "namespaces: {a: {limits: [{scope: galaxy}]}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := parseRules("rules.yaml", data)
		if err != nil {
			found, ok := errors.AsType[problems](err)
			if !ok || len(found) == 0 || rules != nil {
				t.Fatalf("%T %v, and %v", err, err, rules)
			}
			lines := 1 // YAML knows more ends of a line than most editors
			for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
				lines += strings.Count(string(data), end)
			}
			if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
				lines = len(data)
			}
			for i, p := range found {
				if p.Line < 1 || p.Line > lines+1 || p.Text == "" || i > 0 && p.Line < found[i-1].Line {
					t.Errorf("of %d lines: %+v", lines, p)
				}
			}
			return
		}
		if len(rules.Namespaces()) == 0 {
			t.Error("no namespaces")
		}
		for _, name := range rules.Namespaces() {
			if err := limiter.CheckNamespace(name); err != nil {
				t.Error(err)
			}
			for _, l := range rules.Rule(name).Limits {
				if l.Rate < 1 == (l.Kind == limiter.Rate) || l.Figure() < 1 || l.Burst < 1 || l.Burst > limiter.MaxTokens || l.ID == 0 {
					t.Errorf("%s: %v", name, &l)
				}
			}
		}
	})
}
