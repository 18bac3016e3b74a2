package cli

import (
	"testing"
	"time"
)

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "2w": 336 * time.Hour,
		"1w1d": 192 * time.Hour, "0.5d": 12 * time.Hour, "1500ms": 1500 * time.Millisecond,
	} {
		var a age
		if err := a.Set(text); err != nil || a.Duration != want || a.String() != text {
			t.Errorf("%s: %v, %v; want %v", text, a.Duration, err, want)
		}
	}
	for _, text := range []string{"", "7", "d", "7 d", "-1h", "0s", "1y", "13mo", "1e9w", "99999w", "7d!", "9999999999999999999999d"} {
		a := newAge("1m")
		if err := a.Set(text); err == nil || a.Duration != time.Minute {
			t.Errorf("%q: %v, %v", text, a.Duration, err)
		}
	}
}
