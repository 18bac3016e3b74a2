package house

import (
	"go/ast"
	"slices"
	"strings"
)

// A rule says of one file what is wrong with it, and everybody why that is wrong.
type rule struct {
	name, reason string
	broken       func(file) []breach
}

var rules = []rule{
	{"product without lab", "the lab is a module of its own so that the product never depends on k8s.io/kubernetes, nor on what exists only on one machine",
		imports(inProduct, func(_ file, path string) bool {
			return below(path, product+"/lab") || below(path, "k8s.io/kubernetes")
		})},
	{"plain nouns", "model is what every room speaks in: whatever it imported, all would import",
		imports(code("internal/model"), func(_ file, path string) bool { return !standard(path) || touchesWorld(path) })},
	{"shared floors", "what the rooms share must not know them, or two rooms could not change apart: state and kernel know the nouns, loop and version nothing of ours",
		imports(shared, knowsMoreThanNouns)},
	{"rooms think", "a room's own folder is pure, so that a plan depends on its inputs alone and can be tested without a machine: the world is touched in sub-folders",
		imports(pure, func(_ file, path string) bool { return touchesWorld(path) || !standard(path) && !thought(path) })},
	{"time comes in", "a pure folder gets the time as `now`: one that asks the clock cannot be tested, nor asked what it would do tomorrow",
		selects(func(f file) bool { return pure(f) || code("internal/model")(f) }, "time", clocks)},
	{"nobody sleeps", "who sleeps is either too early or too late: wait for what you wait for, by a channel, a deadline or testing/synctest",
		selects(func(file) bool { return true }, "time", []string{"Sleep"})},
	{"rooms have doors", "a room's sub-folders are its own hands: another room that uses them goes around what the room thinks",
		imports(inProduct, foreignHands)},
	{"Kubernetes stops at the door", "Kubernetes types stop at reflect and at kube folders, so that planning works on any input; see `kubernetes` in plan_test.go",
		imports(func(f file) bool { return inProduct(f) && !knowsKubernetes(f) }, func(_ file, path string) bool {
			return (strings.HasPrefix(path, "k8s.io/") || strings.HasPrefix(path, "sigs.k8s.io/")) && path != "sigs.k8s.io/yaml"
		})},
	{"one door to Linux", "drivers are used in internal/kernel, which has a fake for each, so that everything above is tested without root; see `doors` in plan_test.go",
		imports(func(f file) bool { return inProduct(f) && !f.test && !below(f.dir, "internal/kernel") }, func(f file, path string) bool {
			return underAny(path, drivers) && doors[f.dir][path] == ""
		})},
	{"wiring on top", "agent and controller only put rooms together; who imported them would have logic there",
		imports(func(f file) bool {
			return !underAny(f.dir, []string{"cmd", "internal/cli", "internal/agent", "internal/controller"}) && inProduct(f)
		}, func(_ file, path string) bool {
			return underAny(path, []string{product + "/internal/agent", product + "/internal/controller", product + "/internal/cli"})
		})},
	{"size", "a file or function that does not fit into one's head has more than one thing to say",
		size},
}

const product = "github.com/zonewise/zonewise"

// inProduct is the product's folders. Its root has no code, at most files that name requirements.
func inProduct(f file) bool { return f.module == product && f.dir != "." }

// code is the folder's own files of the product, tests left out.
func code(dir string) func(file) bool {
	return func(f file) bool { return inProduct(f) && f.dir == dir && !f.test }
}

// pure is the rooms' own folders, and those of their sub-folders that only think; their tests may read
// golden files.
func pure(f file) bool {
	room, ok := roomOf(f.dir)
	return inProduct(f) && !f.test && ok && (f.dir == "internal/"+room || thinking[f.dir] != "")
}

func shared(f file) bool {
	return inProduct(f) && !f.test && underAny(f.dir, []string{"internal/kernel", "internal/loop", "internal/state", "internal/version"})
}

func knowsMoreThanNouns(f file, path string) bool {
	own := product + "/" + f.dir
	return below(path, product) && path != product+"/internal/model" && !below(path, own) &&
		!(below(f.dir, "internal/kernel") && below(path, product+"/internal/kernel"))
}

// thought tells whether a path is what a room's own folder may know of ours: nouns, and what other
// rooms think.
func thought(path string) bool {
	room, ok := strings.CutPrefix(path, product+"/internal/")
	return ok && (room == "model" || slices.Contains(rooms, room))
}

// foreignHands is the import of a sub-folder of a room from another room's folders. The wiring and
// the commands may: they hand the rooms their hands.
func foreignHands(f file, path string) bool {
	theirs, ok := roomOf(strings.TrimPrefix(path, product+"/"))
	if !ok || thought(path) {
		return false
	}
	ours, inRoom := roomOf(f.dir)
	return inRoom && ours != theirs || f.dir == "internal/reflect"
}

func roomOf(dir string) (string, bool) {
	rest, ok := strings.CutPrefix(dir, "internal/")
	room, _, _ := strings.Cut(rest, "/")
	return room, ok && slices.Contains(rooms, room)
}

func knowsKubernetes(f file) bool {
	for dir := range kubernetes {
		if below(f.dir, dir) {
			return true
		}
	}
	return slices.Contains(strings.Split(f.dir, "/"), "kube")
}

// standard tells packages of the standard library: their first element has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func touchesWorld(path string) bool {
	return underAny(path, worldly) && !slices.Contains(harmless, path)
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func underAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return below(path, dir) })
}

// imports forbids imports in some files.
func imports(where func(file) bool, forbidden func(f file, path string) bool) func(file) []breach {
	return func(f file) (found []breach) {
		if !where(f) {
			return nil
		}
		for _, i := range f.tree.Imports {
			if path := strings.Trim(i.Path.Value, `"`); forbidden(f, path) {
				found = append(found, f.at(i, "imports "+path))
			}
		}
		return found
	}
}

// selects forbids the use of some names of a package in some files, under whatever name the package
// was imported.
func selects(where func(file) bool, pkg string, names []string) func(file) []breach {
	return func(f file) (found []breach) {
		if !where(f) {
			return nil
		}
		local := f.localName(pkg)
		ast.Inspect(f.tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
				found = append(found, f.at(n, "uses "+pkg+"."+s.Sel.Name))
			}
			return true
		})
		return found
	}
}
