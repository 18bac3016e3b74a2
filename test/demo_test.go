//go:build story

package test

import (
	"regexp"
	"testing"
)

// TestDemo runs what `make demo` runs, and reads its last table: hints bring all requests into the
// zone at no cost, and without them some cross and cost.
func TestDemo(t *testing.T) {
	l := newLab(t, "tour")
	out := l.must("demo")
	for _, line := range []string{
		`100 of 100 answered, 100 from (\S+) itself; 0 bytes crossed zones`,
		`100 of 100 answered, 0 from (\S+) itself; [1-9][0-9,]+ bytes crossed zones`,
		`Service as it comes +[1-9][0-9]?% +[1-9][0-9,]* bytes +[0-9]+\.[0-9]{2}`,
		`topology-mode: auto +100% +0 bytes +0\.00`,
		`auto, one pod more +[1-9][0-9]?% +[1-9][0-9,]* bytes +[0-9]+\.[0-9]{2}`,
		`Zonewise's own plan +([6-9][0-9]|100)% +[0-9,]+ bytes +[0-9]+\.[0-9]{2}`,
		`one pod, other zone +0% +[1-9][0-9,]* bytes +[0-9]+\.[0-9]{2}`,
		`demo/echo +[1-9]\S* \S+/s`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("no line like %q in:\n%s", line, out)
		}
	}
	if err := none(l.traces()); err != nil {
		t.Errorf("after the demo: %v", err)
	}
}
