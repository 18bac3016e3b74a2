package demo

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestParseSpread(t *testing.T) {
	zones := map[string]string{"echo-1": "a", "echo-2": "b"}
	s, err := parseSpread("     59 Hostname: echo-1\n     41 Hostname: echo-2\n", zones)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Spread{{"echo-1", "a", 59}, {"echo-2", "b", 41}}); !slices.Equal(s, want) {
		t.Errorf("got %v, want %v", s, want)
	}
	if s.Answered() != 100 || s.In("b") != 41 || s.In("c") != 0 || s.Zones() != 2 {
		t.Errorf("answered %d, in b %d, in c %d, zones %d", s.Answered(), s.In("b"), s.In("c"), s.Zones())
	}
	for text, want := range map[string]string{
		"1 Hostname: echo-3": "no pod of the Service",
		"x Hostname: echo-1": "count first",
		"curl: (7) refused":  "count and a host name",
	} {
		if _, err := parseSpread(text, zones); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
	if s, err := parseSpread("", zones); err != nil || s.Answered() != 0 {
		t.Errorf("nothing: %v, %v", s, err)
	}
}

func TestCost(t *testing.T) {
	// 1,000 bytes 1,000 times a second for 730 hours are 2,628 GB, each of which is paid twice.
	step := Step{ClientZone: "a", Spread: Spread{{"echo-1", "a", 25}, {"echo-2", "b", 75}}, Crossed: 100_000}
	if got := step.PerMonth(1000); math.Abs(got-52.56) > 1e-9 {
		t.Errorf("cost %g, want 52.56", got)
	}
	if step.CrossedPerRequest() != 1000 || step.InZone() != 0.25 {
		t.Errorf("per request %g, in zone %g", step.CrossedPerRequest(), step.InZone())
	}
	if none := (Step{ClientZone: "a"}); none.PerMonth(1000) != 0 || none.InZone() != 0 {
		t.Errorf("no requests: %g USD, %g in zone", none.PerMonth(1000), none.InZone())
	}
}

func TestThousands(t *testing.T) {
	for want, x := range map[string]float64{"0": 0, "999": 999, "1,000": 1000, "12,345,678": 12345678} {
		if got := thousands(x, 0); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := thousands(1234.5, 2); got != "1,234.50" {
		t.Errorf("got %s", got)
	}
}

func TestQuote(t *testing.T) {
	got := quote([]string{"kubectl", "-n", "demo", "exec", "c", "--", "sh", "-c", "echo 'x'", ""})
	if want := `kubectl -n demo exec c -- sh -c 'echo '\''x'\''' ''`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestParseHints(t *testing.T) {
	all, err := parseHints("10.0.0.1 in a for a\n10.0.0.2 in b for \n")
	if err != nil || len(all) != 2 || !slices.Equal(all[0].forZones, []string{"a"}) || len(all[1].forZones) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
	if err := wantHints(all, 2, true); err == nil || !strings.Contains(err.Error(), "10.0.0.2 has no zone hint") {
		t.Errorf("one without: %v", err)
	}
	if err := wantHints(all, 2, false); err == nil || !strings.Contains(err.Error(), "10.0.0.1 has a zone hint") {
		t.Errorf("one with: %v", err)
	}
	if err := wantHints(all, 3, true); err == nil {
		t.Error("one missing: no error")
	}
	if _, err := parseHints("10.0.0.1"); err == nil {
		t.Error("half a line: no error")
	}
}
