package main

import (
	_ "embed"
	"errors"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/tributary-io/tributary/limiter"
)

// defaultRulesName stands for a file's name where the built-in rules are meant.
const defaultRulesName = "default-rules.yaml"

//go:embed default-rules.yaml
var defaultRulesFile []byte

// defaultRules are the rules of a world that was given none.
func defaultRules() *limiter.Rules {
	rules, err := parseRules(defaultRulesName, defaultRulesFile)
	if err != nil {
		panic(err) // a test reads them
	}
	return rules
}

// loadRules reads a rules file. The error names everything that is wrong in it, by file and line.
func loadRules(path string) (*limiter.Rules, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseRules(path, data)
}

// loadRules reads a rules file, or rules on the standard input where the path is -. It returns what to call them, too.
func (a *App) loadRules(path string) (name string, rules *limiter.Rules, err error) {
	name, data, err := a.readInput(path)
	if err == nil {
		rules, err = parseRules(name, data)
	}
	return name, rules, err
}

const rulesExample = `write for example:

    namespaces:
      votes: {}                          # counted, not limited
      api:
        limits:                          # each key has these
          - {scope: global, rate: 1000/s, burst: 2000}
          - {scope: city, rate: 300/s}`

// parseRules reads rules. The limiter says what a rule may ask for; what a file may say is said here: nothing that is
// unknown, nothing twice, and nothing empty, since a limit that was lost while editing must not become no limit.
func parseRules(name string, data []byte) (*limiter.Rules, error) {
	r := &rulesReader{newYAMLReader(name)}
	root := r.document(data)
	if len(r.found) > 0 {
		return nil, r.sorted()
	}
	if root == nil {
		return nil, problems{{File: name, Line: 1, Text: "there are no rules in it; " + rulesExample}}
	}
	rules, err := limiter.Compile(r.spec(root))
	r.adopt(err)
	if len(r.found) > 0 {
		return nil, r.sorted()
	}
	return rules, nil
}

type rulesReader struct{ *yamlReader }

// What a file may say, in the order in which messages name it.
var (
	topFields       = []string{"namespaces", "lease", "fold_after"}
	namespaceFields = []string{"limits", "shadow", "count", "dedupe", "wait", "weights", "durability"}
	limitFields     = []string{"scope", "rate", "quota", "budget", "concurrency", "burst", "hold", "zone", "mode"}
	limitKinds      = []string{"rate", "quota", "budget", "concurrency"}
)

const (
	rateExample  = "write one like 1000/s (s, m, h or d)"
	quotaExample = "write one like 10000/day (minute, hour, day, week or month)"
)

func (r *rulesReader) spec(root *yaml.Node) limiter.Spec {
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	if !r.is(root, yaml.MappingNode, nil, rulesExample) {
		return spec
	}
	named := false
	r.mapping(root, nil, topFields, func(key, value *yaml.Node, path []string) {
		switch key.Value {
		case "lease":
			spec.Lease = r.word(value, path, "write a duration, such as 5s")
		case "fold_after":
			spec.FoldAfter = r.word(value, path, "write a duration, such as 24h")
		case "namespaces":
			named = true
			r.namespaces(value, path, spec.Namespaces)
		}
	})
	if !named && len(r.found) == 0 {
		r.wrong(root.Line, nil, "there are no namespaces in it; %s", rulesExample)
	}
	return spec
}

func (r *rulesReader) namespaces(n *yaml.Node, path []string, specs map[string]limiter.NamespaceSpec) {
	if !r.is(n, yaml.MappingNode, path, rulesExample) {
		return
	}
	if len(n.Content) == 0 {
		r.wrong(n.Line, path, "has no namespace in it; %s", rulesExample)
	}
	r.mapping(n, path, nil, func(key, value *yaml.Node, path []string) {
		specs[key.Value] = r.namespace(value, path)
	})
}

func (r *rulesReader) namespace(n *yaml.Node, path []string) (spec limiter.NamespaceSpec) {
	if !r.is(n, yaml.MappingNode, path, "write {} where it is counted and not limited, or limits: and a list of them") {
		return spec
	}
	r.mapping(n, path, namespaceFields, func(key, value *yaml.Node, path []string) {
		switch key.Value {
		case "limits":
			spec.Limits = r.limits(value, path)
		case "shadow":
			spec.Shadow = r.boolean(value, path)
		case "count":
			spec.Count = r.boolean(value, path)
		case "dedupe":
			spec.Dedupe = r.word(value, path, "write a duration, such as 1h, or 0")
		case "wait":
			spec.Wait = r.word(value, path, "write a duration, such as 250ms, or 0")
		case "durability":
			spec.Durability = r.word(value, path, "write sync or async")
		case "weights":
			spec.Weights = r.weights(value, path)
		}
	})
	return spec
}

func (r *rulesReader) limits(n *yaml.Node, path []string) (specs []limiter.LimitSpec) {
	if !r.is(n, yaml.SequenceNode, path, "write a list, such as - {scope: city, rate: 300/s}") {
		return nil
	}
	for i, limit := range n.Content {
		at := append(slices.Clip(path), strconv.Itoa(i))
		r.at(at, limit.Line)
		specs = append(specs, r.limit(limit, at))
	}
	return specs
}

func (r *rulesReader) weights(n *yaml.Node, path []string) map[string]int64 {
	if !r.is(n, yaml.MappingNode, path, "write places and their weights, such as {eu.de: 3, us: 2}") {
		return nil
	}
	weights := map[string]int64{}
	r.mapping(n, path, nil, func(key, value *yaml.Node, path []string) {
		if weight := r.integer(value, path, "3", limiter.MaxWeight); weight != nil {
			weights[key.Value] = *weight
		}
	})
	return weights
}

func (r *rulesReader) limit(n *yaml.Node, path []string) (spec limiter.LimitSpec) {
	if !r.is(n, yaml.MappingNode, path, "write a limit, such as {scope: city, rate: 300/s}") {
		return spec
	}
	scoped := false
	r.mapping(n, path, limitFields, func(key, value *yaml.Node, path []string) {
		switch key.Value {
		case "scope":
			scoped = true
			spec.Scope = r.word(value, path, "name a tier: city, country, region or global")
		case "rate":
			spec.Rate = r.word(value, path, rateExample)
		case "quota":
			spec.Quota = r.word(value, path, quotaExample)
		case "budget":
			spec.Budget = r.integer(value, path, "1000000", limiter.MaxTokens)
		case "concurrency":
			spec.Concurrency = r.integer(value, path, "100", limiter.MaxTokens)
		case "burst":
			spec.Burst = r.integer(value, path, "2000", limiter.MaxTokens)
		case "hold":
			spec.Hold = r.word(value, path, "write a duration, such as 30s, or leave it out")
		case "zone":
			spec.Zone = r.word(value, path, "write an IANA name, such as Europe/Berlin, or leave it out")
		case "mode":
			spec.Mode = r.word(value, path, "write hard or soft, or leave it out")
		}
		if slices.Contains(limitKinds, key.Value) && r.isUnread(path) {
			r.unread[fieldName(append(slices.Clone(path[:len(path)-1]), "rate"))] = true // a kind is there, although nobody can read it
		}
	})
	if !scoped {
		r.unreadable(n.Line, append(slices.Clip(path), "scope"), "is missing; name a tier: city, country, region or global")
	}
	return spec
}

// word is a text that says something: the limiter takes an empty one for none.
func (r *rulesReader) word(n *yaml.Node, path []string, write string) string {
	s := r.text(n, path, write)
	if s == "" && !r.isUnread(path) {
		r.unreadable(n.Line, path, "is %s; %s", kind(n), write)
	}
	return s
}

// adopt gives the compiler's problems their lines. A field that could not be read looks to the compiler as if it were
// missing; that is not said again.
func (r *rulesReader) adopt(err error) {
	for _, field := range fieldErrors(err) {
		if !r.isUnread(field.Path) {
			r.wrong(r.line(field.Path), field.Path, "%s", field.Problem)
		}
	}
}

// fieldErrors takes apart what Compile joined.
func fieldErrors(err error) []*limiter.FieldError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*limiter.FieldError
		for _, e := range joined.Unwrap() {
			all = append(all, fieldErrors(e)...)
		}
		return all
	}
	if field, ok := errors.AsType[*limiter.FieldError](err); ok {
		return []*limiter.FieldError{field}
	}
	return nil
}
