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
	"path/filepath"
	"slices"
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

// check has the type checker fill info with what it knows of a package.
func check(imports func(string) (io.ReadCloser, error), folder string, files []source, info *types.Info) (*types.Package, error) {
	if len(files) == 0 {
		return nil, errors.New("there are no Go files: has it moved?")
	}
	set := files[0].set
	var parsed []*ast.File
	for _, f := range files {
		parsed = append(parsed, f.File)
	}
	config := types.Config{Importer: importer.ForCompiler(set, "gc", imports)}
	return config.Check(module+"/"+folder, set, parsed, info)
}

// TestEveryFieldOfAMessageIsUsed: what travels between places, or lies on a
// disk, is set or read by a machine; what is only carried is dead.
func TestEveryFieldOfAMessageIsUsed(t *testing.T) {
	imports := compiled(t)
	var files []source
	for _, f := range sources(t, "../..") {
		if f.folder == "tiers" && !strings.HasSuffix(f.name, "_test.go") {
			files = append(files, f)
		}
	}
	unused, all, err := unusedFields(imports, "tiers", files, "message.go", "record.go")
	if err != nil {
		t.Fatal(err)
	}
	if all < 100 {
		t.Errorf("only %d fields are found: have the messages moved?", all)
	}
	for _, field := range unused {
		t.Errorf("%s is neither set nor read", field)
	}
	f, err := parse(token.NewFileSet(), "tiers", "x.go", "package x\ntype t struct{ a, b int }\nfunc f(v t) int { return v.a }")
	if err != nil {
		t.Fatal(err)
	}
	if unused, all, err = unusedFields(imports, "tiers", []source{f}, "x.go"); err != nil || all != 2 || len(unused) != 1 || !strings.HasSuffix(unused[0], ": b") {
		t.Errorf("%v of %d, %v", unused, all, err)
	}
}

// unusedFields lists the fields of structs that are declared in some files of a
// package and used nowhere in it.
func unusedFields(imports func(string) (io.ReadCloser, error), folder string, files []source, declaredIn ...string) (unused []string, all int, err error) {
	info := types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
	if _, err := check(imports, folder, files, &info); err != nil {
		return nil, 0, err
	}
	used := map[types.Object]bool{}
	for _, o := range info.Uses {
		used[o] = true
	}
	for expr, is := range info.Types {
		if literal, ok := expr.(*ast.CompositeLit); ok && len(literal.Elts) > 0 {
			_, keyed := literal.Elts[0].(*ast.KeyValueExpr)
			if of, ok := is.Type.Underlying().(*types.Struct); ok && !keyed { // it sets them all
				for field := range of.Fields() {
					used[field] = true
				}
			}
		}
	}
	for id, o := range info.Defs {
		at := files[0].set.Position(id.Pos())
		if v, ok := o.(*types.Var); ok && v.IsField() && slices.Contains(declaredIn, filepath.Base(at.Filename)) {
			if all++; !used[o] {
				unused = append(unused, fmt.Sprintf("%s: %s", at, id.Name))
			}
		}
	}
	slices.Sort(unused)
	return unused, all, nil
}

// floatsIn says where in a package something is a float.
func floatsIn(imports func(string) (io.ReadCloser, error), folder string, files []source) ([]string, error) {
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	if _, err := check(imports, folder, files, &info); err != nil {
		return nil, err
	}
	set := files[0].set
	var found []string
	for expr, is := range info.Types {
		if basic, ok := is.Type.Underlying().(*types.Basic); ok && basic.Info()&(types.IsFloat|types.IsComplex) != 0 && basic.Info()&types.IsUntyped == 0 {
			found = append(found, fmt.Sprintf("%s: %s is a %s: quantities are integers", set.Position(expr.Pos()), types.ExprString(expr), is.Type))
		}
	}
	return found, nil
}
