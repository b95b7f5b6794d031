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
	"deploy":          {},
}

// pure are the folders that import the standard library and ours, and of the former nothing that reads a clock, does
// I/O or runs at the same time as another: they are functions of what they are given. Their tests may do as they like.
var pure = []string{"limiter", "tiers"}

var impure = []string{"bufio", "context", "crypto/rand", "io", "log", "log/slog", "math/rand", "net", "os", "os/exec", "reflect", "runtime", "sync", "syscall", "unsafe"}

// clocks are what the pure may not call of package time: durations they may have.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// exact are the folders without a float: a quantity that a law speaks about is an integer.
var exact = []string{"limiter"}

func TestImportsPointDown(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range sources(t, "../..") {
		seen[f.folder] = true
		for _, complaint := range f.complaints() {
			t.Error(complaint)
		}
	}
	for _, folder := range []string{"limiter", "tiers", "tiers/place", "tiers/sim", "tiers/sim/study", "objects", "transport", "cmd/tributary"} {
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
		{"limiter", `import "sync"`, "sync"},
		{"limiter", `import "sync/atomic"`, "sync/atomic"},
		{"limiter", `import "math/rand/v2"`, "math/rand/v2"},
		{"limiter", `import "github.com/rs/zerolog"`, "zerolog"},
		{"limiter", `import "github.com/tributary-io/tributary/tiers"`, "tiers"},
		{"limiter", `func f() { go f() }`, "go statement"},
		{"limiter", `var c chan int`, "channel"},
		{"limiter", `func f() { select {} }`, "select"},
		{"limiter", `var x float64`, "float64"},
		{"limiter", `var x = float32(1)`, "float32"},
		{"limiter", `var x = 1.5`, "1.5"},
		{"tiers", `var x = 1.5`, ""},
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
		{"elsewhere", `import "fmt"`, "no arrows"},
	} {
		f, err := parse(c.folder, "x.go", "package x\n"+c.code)
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

func parse(folder, name string, text any) (source, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path.Join(folder, name), text, parser.SkipObjectResolution)
	return source{folder, name, f, set}, err
}

// sources reads all Go files below the module's root.
func sources(t *testing.T, root string) (all []source) {
	t.Helper()
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
		f, err := parse(filepath.ToSlash(folder), d.Name(), text)
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
	timeName := ""
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
		if imported == "time" {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
			if timeName == "." {
				complain(spec.Pos(), "a dot import of time hides who reads the clock")
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
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && slices.Contains(clocks, n.Sel.Name) {
				complain(n.Pos(), "%s calls time.%s: the time is an argument", f.folder, n.Sel.Name)
			}
		case *ast.Ident:
			if slices.Contains(exact, f.folder) && (n.Name == "float32" || n.Name == "float64") {
				complain(n.Pos(), "%s has a %s: quantities are integers", f.folder, n.Name)
			}
		case *ast.BasicLit:
			if slices.Contains(exact, f.folder) && n.Kind == token.FLOAT {
				complain(n.Pos(), "%s has the float %s: quantities are integers", f.folder, n.Value)
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
