package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"
	"go.yaml.in/yaml/v3"
)

// Flags, environment and file agree in their names: --report-interval, TRIBUTARY_REPORT_INTERVAL, report-interval:.
// A flag wins over the environment, that over the file, and the file over the default. The file's names are flat and
// shared by all commands: each takes what it knows. A name that no command knows is an error in the file; in the
// environment, which others write too (Kubernetes: TRIBUTARY_PORT), it is left alone. What is empty is not set.

const envPrefix = "TRIBUTARY_"

// environment is NAME=value, as os.Environ has it.
type environment []string

func (e environment) get(name string) string {
	value := ""
	for _, entry := range e {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

// envName is what a flag is called in the environment.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settingsError is what is wrong with a setting that the command line did not give.
type settingsError struct{ err error }

func (e *settingsError) Error() string { return e.err.Error() }
func (e *settingsError) Unwrap() error { return e.err }

// settings are the values of the environment and the file, for kong to take where the command line has none.
type settings struct {
	values  *koanf.Koanf
	sources map[string]string // where each was read: TRIBUTARY_NATS, settings.yaml:3
}

// BeforeResolve reads the settings. Kong calls it when it knows the command line, and so the file's name.
func (*cli) BeforeResolve(ctx *kong.Context, environ environment) error {
	file, source := environ.get(envName("config")), " (from "+envName("config")+")"
	for _, path := range ctx.Path {
		if path.Flag != nil && path.Flag.Name == "config" {
			file, source = fmt.Sprint(ctx.FlagValue(path.Flag)), ""
		}
	}
	names, operands := settingNames(ctx.Model.Node)
	s := &settings{values: koanf.New("."), sources: map[string]string{}}
	if file != "" {
		// A file does not name the next one.
		inFile := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "config" })
		parser := &settingsParser{file: file, names: inFile, operands: append(operands, "config"), sources: s.sources}
		if err := s.values.Load(settingsFile(file), parser); err != nil {
			return &settingsError{fmt.Errorf("%w%s", err, source)}
		}
	}
	if err := s.values.Load(env.Provider("", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			i := slices.IndexFunc(names, func(flag string) bool { return envName(flag) == name })
			if i < 0 || value == "" {
				return "", nil
			}
			s.sources[names[i]] = name
			return names[i], value
		},
	}), nil); err != nil {
		return &settingsError{err}
	}
	ctx.AddResolver(s)
	return nil
}

// settingNames returns the flags of all commands that can be set elsewhere, sorted, and those that cannot: what one
// request asks for, and how its answer is printed.
func settingNames(node *kong.Node) (names, operands []string) {
	all := map[string]bool{}
	var visit func(*kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			all[f.Name] = all[f.Name] || !f.Tag.Has("operand")
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(node)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name] {
			names = append(names, name)
		} else {
			operands = append(operands, name)
		}
	}
	return names, operands
}

// Validate is part of kong's Resolver.
func (*settings) Validate(*kong.Application) error { return nil }

// Resolve gives kong a flag's value, or nil.
func (s *settings) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Tag.Has("operand") {
		return nil, nil
	}
	value := s.values.Get(flag.Name)
	if value == nil {
		return nil, nil
	}
	if err := acceptable(flag, value); err != nil {
		source := s.sources[flag.Name]
		if !strings.HasPrefix(source, envPrefix) {
			source += ": " + flag.Name
		}
		return nil, &settingsError{fmt.Errorf("%s: %w", source, err)}
	}
	return value, nil
}

// acceptable tries a value, so that the error can say where it stands: kong would blame the flag.
func acceptable(flag *kong.Flag, value any) error {
	list, isList := value.([]any)
	switch {
	case isList && !flag.IsSlice():
		return fmt.Errorf("is a list of %d; write one value", len(list))
	case flag.Enum != "" && !isList && !slices.Contains(flag.EnumSlice(), fmt.Sprint(value)):
		return fmt.Errorf("%q is not known (%s)", value, strings.Join(flag.EnumSlice(), ", "))
	}
	scan := kong.ScanFromTokens(kong.Token{Value: value, Type: kong.FlagValueToken})
	return flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, reflect.New(flag.Target.Type()).Elem())
}

// settingsFile is the file for koanf: of bounded size, and with our words for what is wrong.
type settingsFile string

// ReadBytes returns what is in the file.
func (f settingsFile) ReadBytes() ([]byte, error) { return readFile(string(f)) }

// Read is the half of koanf's Provider that does not parse.
func (f settingsFile) Read() (map[string]any, error) {
	return nil, fmt.Errorf("%s: read it with a parser", string(f))
}

// settingsParser reads a settings file strictly. Values stay as they are written, whatever YAML would make of them, so
// that they mean what they mean in a flag.
type settingsParser struct {
	file            string
	names, operands []string
	sources         map[string]string
}

// Unmarshal returns the values by name: strings, and lists of strings.
func (p *settingsParser) Unmarshal(data []byte) (map[string]any, error) {
	r := newYAMLReader(p.file)
	values := map[string]any{}
	root := r.document(data)
	if root != nil && r.is(root, yaml.MappingNode, nil, "write settings, such as nats: nats://127.0.0.1:4222") {
		r.mapping(root, nil, nil, func(key, value *yaml.Node, path []string) {
			switch name := key.Value; {
			case slices.Contains(p.operands, name):
				r.wrong(key.Line, path, "belongs to one command line; give it there as --%s", name)
			case !slices.Contains(p.names, name):
				r.wrong(key.Line, path, "is no setting%s", instead(name, p.names))
			case !isNull(value):
				p.sources[name] = fmt.Sprintf("%s:%d", p.file, key.Line)
				values[name] = p.value(r, value, path)
			}
		})
	}
	if len(r.found) > 0 {
		return nil, r.sorted()
	}
	return values, nil
}

func (p *settingsParser) value(r *yamlReader, n *yaml.Node, path []string) any {
	if n.Kind != yaml.SequenceNode {
		return r.text(n, path, "write one value")
	}
	list := []any{}
	for _, item := range n.Content {
		list = append(list, r.text(item, path, "write a list of plain values"))
	}
	return list
}

// Marshal is the half of koanf's Parser that writes.
func (p *settingsParser) Marshal(map[string]any) ([]byte, error) {
	return nil, fmt.Errorf("%s: settings are only read", p.file)
}
