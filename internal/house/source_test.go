package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// file is a Go file, parsed and not type-checked: all build tags at once, and in no time.
type file struct {
	path   string // below the root of the repository, with slashes
	module string
	dir    string // below its module
	test   bool
	tree   *ast.File
	set    *token.FileSet
}

// breach is a place where a rule is broken.
type breach struct {
	where string // path:line
	what  string
}

func (f file) at(n ast.Node, what string) breach {
	return breach{fmt.Sprintf("%s:%d", f.path, f.set.Position(n.Pos()).Line), what}
}

// localName is the name under which the file knows the package; empty when it does not.
func (f file) localName(pkg string) string {
	for _, i := range f.tree.Imports {
		if strings.Trim(i.Path.Value, `"`) == pkg {
			if i.Name != nil {
				return i.Name.Name
			}
			return path.Base(pkg)
		}
	}
	return ""
}

func parse(name string, source any) (file, error) {
	f := file{path: name, module: product, dir: path.Dir(name), set: token.NewFileSet()}
	if rest, ok := strings.CutPrefix(f.dir+"/", "lab/"); ok {
		f.module, f.dir = product+"/lab", path.Clean(rest)
	}
	f.test = strings.HasSuffix(name, "_test.go")
	var err error
	f.tree, err = parser.ParseFile(f.set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	return f, err
}

// size measures a file and its functions; what a program wrote may be as long as it likes.
func size(f file) (found []breach) {
	if ast.IsGenerated(f.tree) {
		return nil
	}
	line := func(p token.Pos) int { return f.set.Position(p).Line }
	if n := line(f.tree.FileEnd); n > maxFile {
		found = append(found, f.at(f.tree, fmt.Sprintf("file of %d lines, more than %d", n, maxFile)))
	}
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		if n := line(fn.Body.Rbrace) - line(fn.Body.Lbrace); n > maxFunction {
			found = append(found, f.at(fn, fmt.Sprintf("function %s of %d lines, more than %d", fn.Name.Name, n, maxFunction)))
		}
	}
	return found
}

// root is the folder of go.work, above this one.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.work above this folder")
		}
		dir = up
	}
}

// sources reads every Go file of both modules.
func sources(t *testing.T) []file {
	t.Helper()
	top := root(t)
	var files []file
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != top && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), source)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
