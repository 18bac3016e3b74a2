//go:build kernel

package conformance

import "testing"

var paths = []path{byNFT, bySocket}

// onEachPath runs rows on a stage of each path. The stage is cleared before each.
func onEachPath(t *testing.T, rows []row) {
	for _, p := range paths {
		t.Run(string(p), func(t *testing.T) {
			s := newStage(t, p)
			for _, r := range rows {
				t.Run(r.name, func(t *testing.T) {
					s.plane.t = t
					s.clear()
					r.check(t, s)
				})
			}
		})
	}
}

// row is a behaviour: its number and name in docs/conformance.md, and what shows it.
type row struct {
	name  string
	check func(*testing.T, *stage)
}
