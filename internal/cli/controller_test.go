package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
)

func TestControllerSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prices.yaml")
	if err := os.WriteFile(file, []byte("perGB: 0.5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := controllerFlags{mode: "Optimal", prices: file}.settings()
	if err != nil || s.Default != model.Optimal || s.Prices.PerGB != 0.5 || s.Stability.Dwell <= 0 {
		t.Errorf("%+v, %v", s, err)
	}
	for want, o := range map[string]controllerFlags{
		`--default-mode "optimal": must be Optimal, Observe or Off`: {mode: "optimal", prices: "aws"},
		`--prices: "none.yaml"`: {mode: "Off", prices: "none.yaml"},
	} {
		if _, err := o.settings(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
