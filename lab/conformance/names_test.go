package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const page = "../../docs/conformance.md"

var (
	// proof is a test that the page names: `folder TestName`, or `folder TestName/NN` for a row.
	proof = regexp.MustCompile("`([a-z0-9/]+) (Test[A-Za-z0-9]+)(?:/([0-9]+))?`")
	// line is a row of the page's table of behaviours.
	line = regexp.MustCompile(`(?m)^\| ([0-9]+) \|.*$`)
)

// TestEveryBehaviourHasItsTest reads the page: each of the 38 behaviours is there once, in order,
// and names tests; each of these exists.
func TestEveryBehaviourHasItsTest(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []string
	for _, l := range line.FindAllStringSubmatch(string(text), -1) {
		numbers = append(numbers, l[1])
		if !proof.MatchString(l[0]) {
			t.Errorf("behaviour %s names no test", l[1])
		}
	}
	var want []string
	for n := range 38 {
		want = append(want, fmt.Sprint(n+1))
	}
	if !slices.Equal(numbers, want) {
		t.Errorf("behaviours %v, want 1 to 38", numbers)
	}
	for _, p := range proof.FindAllStringSubmatch(string(text), -1) {
		if !exists(t, p[1], p[2], p[3]) {
			t.Errorf("%s: there is no such test", p[0])
		}
	}
}

// TestEveryRowIsOnThePage looks the other way: no row of ours is missing there.
func TestEveryRowIsOnThePage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, source := range tests(t, "lab/conformance") {
		for _, function := range strings.Split(source, "\nfunc ")[1:] {
			name, _, _ := strings.Cut(function, "(")
			for _, r := range regexp.MustCompile(`(?m)^\t\t\{"([0-9]+) `).FindAllStringSubmatch(function, -1) {
				found++
				if want := fmt.Sprintf("`lab/conformance %s/%s`", name, r[1]); !strings.Contains(string(text), want) {
					t.Errorf("the page does not name %s", want)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no rows found")
	}
}

// exists tells whether a folder has a test of the name, and the row if one is named.
func exists(t *testing.T, folder, name, row string) bool {
	t.Helper()
	for _, source := range tests(t, folder) {
		_, after, ok := strings.Cut(source, "\nfunc "+name+"(")
		body, _, _ := strings.Cut(after, "\nfunc ")
		if ok && (row == "" || strings.Contains(body, "\n\t\t{\""+row+" ")) {
			return true
		}
	}
	return false
}

// tests reads the tests in a folder of the repository.
func tests(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}
