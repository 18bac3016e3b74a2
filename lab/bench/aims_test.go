package bench

import (
	"strings"
	"testing"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// TestAims: a figure that misses what it shall be is told apart.
func TestAims(t *testing.T) {
	r := newRecord()
	for services, beyond := range map[int]float64{10: .5, 1_000: 1.5} {
		r.add(key{"connect", services, podToService + beyondDirect, peer.Zonewise}, "µs", beyond)
		r.add(key{"cold-start", services, "until all answer", peer.Zonewise}, "s", 3)
	}
	r.add(key{"cold-start", 100_000, "until all answer", peer.Zonewise}, "s", 3)
	text := Result{Rows: r.rows()}.aims()
	for _, want := range []string{"| ≤ 1 | 0.50 | **1.50** |  |", "| < 2 at 100,000 | 3.00 | 3.00 | **3.00** |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
