package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/simulate"
)

func result() simulate.Result {
	return simulate.Result{
		Scenarios: []simulate.Scenario{{Pods: simulate.Range{From: 3, To: 12}, Placement: simulate.Even, Cases: 1, Rows: []simulate.Row{
			{Algorithm: "no hints", InZone: .333, LoadP99: 1}, {Algorithm: "Zonewise, hints", NodesPerZone: 6, InZone: .93, LoadP99: 1.2}}}},
		Walk: []simulate.WalkRow{{Algorithm: "no hints", InZone: .333, Moved: .1}},
	}
}

func TestPicturesAreWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	names, err := Write(dir, result(), .2)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "3-12-pods-even.svg"), filepath.Join(dir, "walk.svg")}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("files are %v, want %v", names, want)
	}
	for i, says := range []string{"Zonewise, hints, 6 nodes", "no hints"} {
		text, err := os.ReadFile(want[i])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), says) {
			t.Errorf("%s does not say %q", want[i], says)
		}
		for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", want[i], err)
			}
		}
	}
	first, err := os.ReadFile(want[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(dir, result(), .2); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(want[0]); err != nil || string(again) != string(first) {
		t.Errorf("drawn again the picture is another (%v)", err)
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(file, result(), .2); err == nil || !strings.HasPrefix(err.Error(), "plot: ") {
		t.Errorf("error is %v", err)
	}
}
