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

func (r *rulesReader) spec(root *yaml.Node) limiter.Spec {
	spec := limiter.Spec{Namespaces: map[string]limiter.NamespaceSpec{}}
	if !r.is(root, yaml.MappingNode, nil, rulesExample) {
		return spec
	}
	named := false
	r.mapping(root, nil, []string{"namespaces"}, func(_, value *yaml.Node, path []string) {
		named = true
		if !r.is(value, yaml.MappingNode, path, rulesExample) {
			return
		}
		if len(value.Content) == 0 {
			r.wrong(value.Line, path, "has no namespace in it; %s", rulesExample)
		}
		r.mapping(value, path, nil, func(key, value *yaml.Node, path []string) {
			spec.Namespaces[key.Value] = r.namespace(value, path)
		})
	})
	if !named && len(r.found) == 0 {
		r.wrong(root.Line, nil, "there are no namespaces in it; %s", rulesExample)
	}
	return spec
}

func (r *rulesReader) namespace(n *yaml.Node, path []string) (spec limiter.NamespaceSpec) {
	if !r.is(n, yaml.MappingNode, path, "write {} where it is counted and not limited, or limits: and a list of them") {
		return spec
	}
	r.mapping(n, path, []string{"limits"}, func(_, value *yaml.Node, path []string) {
		if !r.is(value, yaml.SequenceNode, path, "write a list, such as - {scope: city, rate: 300/s}") {
			return
		}
		for i, limit := range value.Content {
			at := append(slices.Clip(path), strconv.Itoa(i))
			r.at(at, limit.Line)
			spec.Limits = append(spec.Limits, r.limit(limit, at))
		}
	})
	return spec
}

func (r *rulesReader) limit(n *yaml.Node, path []string) (spec limiter.LimitSpec) {
	if !r.is(n, yaml.MappingNode, path, "write a limit, such as {scope: city, rate: 300/s}") {
		return spec
	}
	scoped := false
	r.mapping(n, path, []string{"scope", "rate", "burst", "mode"}, func(key, value *yaml.Node, path []string) {
		switch key.Value {
		case "scope":
			scoped = true
			spec.Scope = r.text(value, path, "name a tier: city, country, region or global")
		case "rate":
			spec.Rate = r.text(value, path, "write one like 1000/s (s, m, h or d)")
		case "burst":
			spec.Burst = r.integer(value, path, "2000")
		case "mode":
			spec.Mode = r.text(value, path, "write hard, or leave it out")
		}
	})
	if !scoped {
		r.unreadable(n.Line, append(slices.Clip(path), "scope"), "is missing; name a tier: city, country, region or global")
	}
	return spec
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
