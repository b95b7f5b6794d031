package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxProblems is how many problems of one file are shown.
const maxProblems = 50

// problem is what is wrong in a file, where, and what to do.
type problem struct {
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Field string `json:"field,omitempty"`
	Text  string `json:"problem"`
}

func (p problem) String() string {
	s := p.File + ":"
	if p.Line > 0 {
		s += strconv.Itoa(p.Line) + ":"
	}
	if p.Field != "" {
		s += " " + p.Field + ":"
	}
	return s + " " + p.Text
}

// problems is the error of a file: everything that is wrong, in the order of its lines.
type problems []problem

func (ps problems) Error() string {
	if len(ps) == 1 {
		return ps[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %d problems:", ps[0].File, len(ps))
	for _, p := range ps[:min(len(ps), maxProblems)] {
		b.WriteString("\n  " + p.String())
	}
	if more := len(ps) - maxProblems; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	return b.String()
}

// A yamlReader reads one YAML document strictly, and remembers what is wrong and where what stands. Aliases and merge
// keys are refused, so that a file is what it looks like, and no larger.
type yamlReader struct {
	file   string
	found  problems
	lines  map[string]int  // of each field that was met, by its path
	unread map[string]bool // the fields that are there, or should be, and have no value that can be used
}

func newYAMLReader(file string) *yamlReader {
	return &yamlReader{file: file, lines: map[string]int{}, unread: map[string]bool{}}
}

// at remembers where a field stands.
func (r *yamlReader) at(path []string, line int) { r.lines[strings.Join(path, "\x00")] = line }

// line is where a field stands, or the nearest around it that is in the file.
func (r *yamlReader) line(path []string) int {
	for n := len(path); n > 0; n-- {
		if line, ok := r.lines[strings.Join(path[:n], "\x00")]; ok {
			return line
		}
	}
	return 1
}

func (r *yamlReader) wrong(line int, path []string, format string, args ...any) {
	r.found = append(r.found, problem{r.file, line, fieldName(path), fmt.Sprintf(format, args...)})
}

// unreadable is wrong for a field whose value is lost by it.
func (r *yamlReader) unreadable(line int, path []string, format string, args ...any) {
	r.unread[fieldName(path)] = true
	r.wrong(line, path, format, args...)
}

// isUnread reports whether a field, or one that it is in, was unreadable.
func (r *yamlReader) isUnread(path []string) bool {
	for n := range path {
		if r.unread[fieldName(path[:n+1])] {
			return true
		}
	}
	return false
}

// fieldName is a path as people read it: namespaces.api.limits[0].scope.
func fieldName(path []string) string {
	var b strings.Builder
	for i, part := range path {
		switch {
		case i == 3 && path[2] == "limits": // the one list that there is
			b.WriteString("[" + part + "]")
			continue
		case i > 0:
			b.WriteByte('.')
		}
		b.WriteString(printable(part))
	}
	return b.String()
}

// printable is a name for a message: short, and quoted unless it is plain.
func printable(name string) string {
	const most = 80
	if len(name) > most {
		return strconv.Quote(name[:most]) + "…"
	}
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		return strconv.Quote(name)
	}
	return name
}

// sorted returns the problems by line, each once.
func (r *yamlReader) sorted() problems {
	slices.SortStableFunc(r.found, func(a, b problem) int { return a.Line - b.Line })
	return slices.Compact(r.found)
}

// document parses the one document of a file, and returns its content: nil where it is empty or was not understood.
func (r *yamlReader) document(data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, next yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		r.syntax(err, data)
		return nil
	}
	switch err := decoder.Decode(&next); {
	case err == nil:
		r.wrong(max(next.Line, 1), nil, "a second document begins here; keep one, and remove the --- between them")
		return nil
	case !errors.Is(err, io.EOF):
		r.syntax(err, data)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

var syntaxLine = regexp.MustCompile(`^(?:line (\d+): )?(.*)$`)

// syntax records what the parser says.
func (r *yamlReader) syntax(err error, data []byte) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		text = m[2]
		if m[1] != "" {
			line, _ = strconv.Atoi(m[1])
		}
	}
	// The parser counts some lines from 0, and its word for a tab is "character that cannot start any token".
	lines := strings.Split(string(data), "\n")
	line = min(max(line, 1), len(lines))
	for _, n := range []int{line, line + 1, line - 1} {
		if n >= 1 && n <= len(lines) && leadingTab(lines[n-1]) {
			r.wrong(n, nil, "the line is indented with a tab; YAML takes only spaces")
			return
		}
	}
	r.wrong(line, nil, "this is no YAML: %s", text)
}

func leadingTab(line string) bool {
	return strings.HasPrefix(strings.TrimLeft(line, " "), "\t")
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kind is a node's type in words.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias (*" + printable(n.Value) + ")"
	case isNull(n):
		return "empty"
	}
	return strconv.Quote(shortText(n.Value))
}

func shortText(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// is checks that a field is of a kind, and says what to write if not.
func (r *yamlReader) is(n *yaml.Node, want yaml.Kind, path []string, write string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.unreadable(n.Line, path, "is %s, which is not read here; write out what it stands for", kind(n))
	case n.Kind != want || isNull(n):
		r.unreadable(n.Line, path, "is %s; %s", kind(n), write)
	default:
		return true
	}
	return false
}

// mapping calls each for every field of a mapping, once for each name. Known names are the only ones allowed, unless
// there are none.
func (r *yamlReader) mapping(n *yaml.Node, path, known []string, each func(key, value *yaml.Node, path []string)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := append(slices.Clone(path), key.Value)
		switch line, repeated := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.wrong(key.Line, path, "has %s for a name; write a plain one", kind(key))
		case key.ShortTag() == "!!merge":
			r.wrong(key.Line, path, "has a merge key (<<), which is not read here; write out what it stands for")
		case repeated:
			r.wrong(key.Line, at, "stands here twice, first on line %d; remove one", line)
		case len(known) > 0 && !slices.Contains(known, key.Value):
			first[key.Value] = key.Line
			r.wrong(key.Line, at, "is unknown here%s", instead(key.Value, known))
		default:
			first[key.Value] = key.Line
			r.at(at, key.Line)
			each(key, value, at)
		}
	}
}

// text is a scalar as it is written.
func (r *yamlReader) text(n *yaml.Node, path []string, write string) string {
	if !r.is(n, yaml.ScalarNode, path, write) {
		return ""
	}
	r.at(path, n.Line)
	return n.Value
}

// boolean is true or false; false where there is neither.
func (r *yamlReader) boolean(n *yaml.Node, path []string) bool {
	if !r.is(n, yaml.ScalarNode, path, "write true or false") {
		return false
	}
	r.at(path, n.Line)
	if n.ShortTag() != "!!bool" {
		r.unreadable(n.Line, path, "is %s; write true or false", kind(n))
		return false
	}
	return strings.EqualFold(n.Value, "true")
}

// integer is a whole number, or nil where there is none. One that is out of range for 64 bits is for most as well.
func (r *yamlReader) integer(n *yaml.Node, path []string, example string, most int64) *int64 {
	if !r.is(n, yaml.ScalarNode, path, "write a whole number, such as "+example) {
		return nil
	}
	r.at(path, n.Line)
	i, err := strconv.ParseInt(n.Value, 10, 64)
	switch tag := n.ShortTag(); {
	case tag == "!!str" && err == nil:
		r.unreadable(n.Line, path, "%s is text; write the number without quotes", kind(n))
	case errors.Is(err, strconv.ErrRange):
		r.unreadable(n.Line, path, "%s is out of range (1 to %d)", shortText(n.Value), most)
	case tag != "!!int" || err != nil:
		r.unreadable(n.Line, path, "%s is no whole number; write one such as %s", kind(n), example)
	default:
		return &i
	}
	return nil
}
