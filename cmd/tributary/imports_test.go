package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tributary-io/tributary"

// arrows are who may import whom of ours: DESIGN.md 7, by folder. What lies below a folder goes by the nearest that is
// named, and is the folder's own. Tests are held to it as well.
var arrows = map[string][]string{
	"limiter":         {},
	"tiers":           {"limiter"},
	"tiers/place":     {"limiter", "tiers"},
	"tiers/sim":       {"limiter", "tiers", "tiers/place"},
	"tiers/sim/study": {"limiter", "tiers", "tiers/place", "tiers/sim"},
	"objects":         {},
	"transport":       {"limiter", "tiers", "tiers/place", "objects"},
	"cmd/tributary":   {"limiter", "tiers", "tiers/place", "tiers/sim", "tiers/sim/study", "objects", "transport"},
	"examples":        {"tiers", "objects", "transport"},
	"deploy":          {},
}

// pure are the folders that import the standard library and ours, and of the former nothing that reads a clock, does
// I/O or runs at the same time as another: they are functions of what they are given. Their tests may do as they like.
var pure = []string{"limiter", "tiers"}

var impure = []string{
	"bufio", "context", "crypto/rand", "database", "expvar", "hash/maphash", "io", "log", "math/rand", "net", "os",
	"plugin", "reflect", "runtime", "sync", "syscall", "testing", "unsafe",
}

// effects are what the pure may not call of packages that they may import: durations and texts they may have, but not
// the time of day, nor the terminal.
var effects = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local"},
	"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

func TestImportsPointDown(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range sources(t, "../..") {
		seen[f.folder] = true
		for _, complaint := range f.complaints() {
			t.Error(complaint)
		}
	}
	for _, folder := range []string{"limiter", "tiers", "tiers/place", "tiers/sim", "tiers/sim/study", "objects", "transport", "cmd/tributary", "examples/chat"} {
		if !seen[folder] {
			t.Errorf("%s has no Go files: has it moved? Then its arrows must, too", folder)
		}
	}
}

// The rules are only as good as what they refuse.
func TestImportsThatPointUpAreFound(t *testing.T) {
	for _, c := range []struct{ folder, code, want string }{
		{"limiter", `import "fmt"`, ""},
		{"limiter", `import "time"; var d = time.Second`, ""},
		{"limiter", `import "time"; var d = time.Now()`, "time.Now"},
		{"limiter", `import clock "time"; var d = clock.Since`, "time.Since"},
		{"limiter", `import . "time"`, "dot"},
		{"limiter", `import "fmt"; var s = fmt.Sprint(1)`, ""},
		{"tiers", `import "fmt"; func f() { fmt.Println() }`, "fmt.Println"},
		{"tiers", `func f() { println() }`, "println"},
		{"limiter", `import "sync"`, "sync"},
		{"limiter", `import "sync/atomic"`, "sync/atomic"},
		{"limiter", `import "math/rand/v2"`, "math/rand/v2"},
		{"limiter", `import "github.com/rs/zerolog"`, "zerolog"},
		{"limiter", `import "github.com/tributary-io/tributary/tiers"`, "tiers"},
		{"limiter", `func f() { go f() }`, "go statement"},
		{"limiter", `var c chan int`, "channel"},
		{"limiter", `func f() { select {} }`, "select"},
		{"tiers", `func f(c <-chan int) { <-c }`, "channel"},
		{"tiers", `import "github.com/tributary-io/tributary/limiter"`, ""},
		{"tiers", `import "github.com/tributary-io/tributary/tiers/place"`, "tiers/place"},
		{"tiers", `import "github.com/tributary-io/tributary/transport"`, "transport"},
		{"tiers", `import "github.com/rs/zerolog"`, "zerolog"},
		{"tiers", `func f() { go f() }`, "go statement"},
		{"tiers/place", `import "sync"`, ""},
		{"tiers/place", `import "github.com/tributary-io/tributary/objects"`, "objects"},
		{"tiers/place", `import "github.com/tributary-io/tributary/tiers/sim"`, "tiers/sim"},
		{"tiers/sim", `import "github.com/tributary-io/tributary/transport"`, "transport"},
		{"tiers/sim", `import "github.com/tributary-io/tributary/tiers/sim/study"`, "tiers/sim/study"},
		{"tiers/sim/study", `import "github.com/tributary-io/tributary/tiers/sim"`, ""},
		{"objects", `import "github.com/tributary-io/tributary/limiter"`, "limiter"},
		{"objects", `import "github.com/cockroachdb/pebble/v2"`, ""},
		{"transport", `import "github.com/tributary-io/tributary/transport/internal/wire"`, ""},
		{"transport/internal/wire", `import "github.com/tributary-io/tributary/tiers"`, ""},
		{"transport", `import "github.com/tributary-io/tributary/cmd/tributary/internal/page"`, "internal/page"},
		{"cmd/tributary/internal/page", `import "github.com/tributary-io/tributary/transport"`, ""},
		{"deploy", `import "github.com/tributary-io/tributary/limiter"`, "limiter"},
		{"examples/chat", `import "github.com/tributary-io/tributary/objects"`, ""},
		{"examples/chat", `import "github.com/tributary-io/tributary/limiter"`, "limiter"},
		{"transport", `import "github.com/tributary-io/tributary/examples/chat"`, "examples/chat"},
		{"elsewhere", `import "fmt"`, "no arrows"},
	} {
		f, err := parse(token.NewFileSet(), c.folder, "x.go", "package x\n"+c.code)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(f.complaints(), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("in %s, %s: got %q, want %q", c.folder, c.code, got, c.want)
		}
	}
}

// source is a Go file of ours.
type source struct {
	folder, name string
	*ast.File
	set *token.FileSet
}

func parse(set *token.FileSet, folder, name string, text any) (source, error) {
	f, err := parser.ParseFile(set, path.Join(folder, name), text, parser.SkipObjectResolution)
	return source{folder, name, f, set}, err
}

// sources reads all Go files below the module's root.
func sources(t *testing.T, root string) (all []source) {
	t.Helper()
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parse(set, filepath.ToSlash(folder), d.Name(), text)
		all = append(all, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// complaints are what a file does that its folder may not.
func (f source) complaints() []string {
	arrow, ok := nearest(f.folder)
	if !ok {
		return []string{fmt.Sprintf("%s: the folder has no arrows: say in DESIGN.md 7 and here what it may import", f.folder)}
	}
	var found []string
	complain := func(at token.Pos, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s: %s", f.set.Position(at), fmt.Sprintf(format, args...)))
	}
	isPure := slices.Contains(pure, f.folder) && !strings.HasSuffix(f.name, "_test.go")
	names := map[string]string{} // what the file calls the packages of effects
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			complain(spec.Pos(), "%v", err)
			continue
		}
		if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
			if to, _ := nearest(ours); to != arrow && !slices.Contains(arrows[arrow], to) {
				complain(spec.Pos(), "%s may not import %s: it may import %q", f.folder, ours, arrows[arrow])
			}
			continue
		}
		if !isPure {
			continue
		}
		if strings.Contains(strings.Split(imported, "/")[0], ".") {
			complain(spec.Pos(), "%s imports %s, and may only import the standard library", f.folder, imported)
		}
		if slices.ContainsFunc(impure, func(b string) bool { return within(imported, b) }) {
			complain(spec.Pos(), "%s imports %s, and is pure: time, randomness and effects are its caller's", f.folder, imported)
		}
		if _, has := effects[imported]; has {
			name := imported
			if spec.Name != nil {
				name = spec.Name.Name
			}
			if names[name] = imported; name == "." {
				complain(spec.Pos(), "a dot import of %s hides who calls what", imported)
			}
		}
	}
	if !isPure {
		return found
	}
	ast.Inspect(f.File, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			complain(n.Pos(), "%s has a go statement", f.folder)
		case *ast.ChanType:
			complain(n.Pos(), "%s has a channel", f.folder)
		case *ast.SelectStmt:
			complain(n.Pos(), "%s has a select", f.folder)
		case *ast.CallExpr:
			if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "print" || x.Name == "println") {
				complain(n.Pos(), "%s calls %s: effects are its caller's", f.folder, x.Name)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && slices.Contains(effects[names[x.Name]], n.Sel.Name) {
				complain(n.Pos(), "%s calls %s.%s: time is an argument, effects are its caller's", f.folder, names[x.Name], n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// within reports whether a folder is another or lies below it.
func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

// nearest returns the folder with arrows that a folder is or lies in.
func nearest(folder string) (string, bool) {
	for ; folder != "." && folder != ""; folder = path.Dir(folder) {
		if _, ok := arrows[folder]; ok {
			return folder, true
		}
	}
	return "", false
}
