package cli

import (
	"errors"
	"regexp"
	"strconv"
	"time"
)

// age is how long ago something was: a flag's value. Beyond what Go knows it has days and weeks.
type age struct {
	time.Duration
	text string
}

func newAge(text string) age {
	var a age
	if err := a.Set(text); err != nil {
		panic(err) // a default of ours
	}
	return a
}

// String, Set and Type are pflag.Value.
func (a *age) String() string { return a.text }

// Type is what the help shows.
func (a *age) Type() string { return "duration" }

var (
	ageParts = regexp.MustCompile(`(\d+(?:\.\d+)?)(ms|[smhdw])`)
	ageWhole = regexp.MustCompile(`^(?:` + ageParts.String() + `)+$`)
	ageUnits = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

// Set takes what is written as 30s, 10m, 1h30m, 7d or 2w.
func (a *age) Set(s string) error {
	wrong := errors.New("must be a duration such as 30s, 10m, 24h, 7d or 2w")
	if !ageWhole.MatchString(s) {
		return wrong
	}
	const most = 100 * 366 * 24 * time.Hour
	sum := 0.0
	for _, part := range ageParts.FindAllStringSubmatch(s, -1) {
		n, err := strconv.ParseFloat(part[1], 64)
		if err != nil {
			return wrong
		}
		sum += n * float64(ageUnits[part[2]])
	}
	if sum < 1 || sum > float64(most) {
		return wrong
	}
	a.Duration, a.text = time.Duration(sum), s
	return nil
}
