package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages reads every Markdown page that readers are sent to: those at the root, and all of docs.
func pages(t *testing.T) map[string]string {
	t.Helper()
	top := root(t)
	found := map[string]string{}
	read := func(name string) {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.ToSlash(name)] = string(text)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		read(name)
	}
	err := filepath.WalkDir(filepath.Join(top, "docs"), func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".md") {
			rel, _ := filepath.Rel(top, name)
			read(rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every folder with Go code has its sentence on the architecture page, and every folder there exists.
func TestArchitectureNamesEveryFolder(t *testing.T) {
	page := pages(t)["docs/architecture.md"]
	for _, f := range sources(t) {
		parts := strings.Split(f.path, "/")
		if len(parts) > 2 && parts[0] != "test" && !strings.Contains(page, "`"+parts[0]+"/"+parts[1]+"`") {
			t.Errorf("%s: docs/architecture.md does not name %s/%s", f.path, parts[0], parts[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(root(t), m[1])); err != nil {
			t.Errorf("docs/architecture.md names %s: %v", m[1], err)
		}
	}
}

// What a page tells the reader to make, the Makefile knows.
func TestPagesNameMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	inText, inCode := regexp.MustCompile("`make ([a-z-]+)`"), regexp.MustCompile("(?m)^make ([a-z-]+)")
	for name, text := range pages(t) {
		for i, part := range strings.Split(text, "```") {
			command := inText
			if i%2 == 1 {
				command = inCode
			}
			for _, m := range command.FindAllStringSubmatch(part, -1) {
				if !strings.Contains(string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s: no target %q in the Makefile", name, m[1])
				}
			}
		}
	}
}

// Links between pages, and to pictures, lead somewhere.
func TestPagesLinkToWhatThereIs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := filepath.Join(root(t), filepath.Dir(name), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
}
