package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

func TestControllerSettings(t *testing.T) {
	s, err := controllerFlags{mode: "Optimal"}.settings()
	if err != nil || s.Default != model.Optimal || s.Stability.Dwell <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := (controllerFlags{mode: "optimal"}).settings(); err == nil || err.Error() != `--default-mode "optimal": must be Optimal, Observe or Off` {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "prices.yaml")
	for text, want := range map[string]string{"perGB: 0.5": "", "perGB: -1": "price book " + file + ": perGB: -1 is negative"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		books, err := readSeries(file)
		if want == "" && (err != nil || books.At(time.Now()).PerGB != 0.5) || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %+v, %v", text, books, err)
		}
	}
	if _, err := readSeries("none.yaml"); err == nil || !strings.HasPrefix(err.Error(), `--prices: "none.yaml"`) {
		t.Error(err)
	}
}
