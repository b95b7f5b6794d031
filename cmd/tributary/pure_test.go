package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestQuantitiesAreExact: nothing in the pure folders is a float, written or inferred: a quantity that a law speaks about
// is an integer. (What else keeps them pure is in imports_test.go.)
func TestQuantitiesAreExact(t *testing.T) {
	imports := compiled(t)
	byFolder := map[string][]source{}
	for _, f := range sources(t, "../..") {
		if !strings.HasSuffix(f.name, "_test.go") {
			byFolder[f.folder] = append(byFolder[f.folder], f)
		}
	}
	for _, folder := range pure {
		floats, err := floatsIn(imports, folder, byFolder[folder])
		if err != nil {
			t.Errorf("%s: %v", folder, err)
		}
		for _, float := range floats {
			t.Error(float)
		}
	}
}

func TestFloatsAreFound(t *testing.T) {
	imports := compiled(t)
	for _, c := range []struct{ code, want string }{
		{"var x int64 = 3 / 2", ""},
		{"type d = time.Duration; var x = time.Second.Milliseconds()", ""},
		{"const big int64 = 1e9", ""}, // an exact one that becomes an integer
		{"var x float64", "float64"},
		{"var x = int64(float32(1))", "float32"},
		{"var x = 1.5", "float64"},
		{"var x = time.Second.Seconds()", "float64"},
		{"var x = int64(time.Second.Hours())", "float64"},
		{"type s struct{ rates []map[string]float64 }", "float64"},
		{"func f[T ~float64 | ~int64](x T) T { return x }", "float64"},
		{"var x = real(complex(1, 2))", "float64"},
	} {
		f, err := parse(token.NewFileSet(), "limiter", "x.go", "package x\nimport \"time\"\nvar _ = time.Second\n"+c.code)
		if err != nil {
			t.Fatal(err)
		}
		floats, err := floatsIn(imports, "limiter", []source{f})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(floats, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.code, got, c.want)
		}
	}
}

// compiled finds the packages that the pure folders import, as the go command compiles them.
func compiled(t *testing.T) func(path string) (io.ReadCloser, error) {
	t.Helper()
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("the go command says what packages hold: %v", err)
	}
	list := exec.CommandContext(t.Context(), goCommand, "list", "-buildvcs=false", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}")
	for _, folder := range pure {
		list.Args = append(list.Args, "./"+folder)
	}
	list.Dir = "../.."
	var problems bytes.Buffer
	list.Stderr = &problems
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &problems)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, export, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[name] = export
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
}

// floatsIn says where in a package something is a float.
func floatsIn(imports func(string) (io.ReadCloser, error), folder string, files []source) ([]string, error) {
	if len(files) == 0 {
		return nil, errors.New("there are no Go files: has it moved?")
	}
	set := files[0].set
	var parsed []*ast.File
	for _, f := range files {
		parsed = append(parsed, f.File)
	}
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: importer.ForCompiler(set, "gc", imports)}
	if _, err := config.Check(module+"/"+folder, set, parsed, &info); err != nil {
		return nil, err
	}
	var found []string
	for expr, is := range info.Types {
		if basic, ok := is.Type.Underlying().(*types.Basic); ok && basic.Info()&(types.IsFloat|types.IsComplex) != 0 && basic.Info()&types.IsUntyped == 0 {
			found = append(found, fmt.Sprintf("%s: %s is a %s: quantities are integers", set.Position(expr.Pos()), types.ExprString(expr), is.Type))
		}
	}
	return found, nil
}
