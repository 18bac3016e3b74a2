package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// What a cloud asks for traffic between zones. Sender and receiver each pay their direction, so a
// byte that crosses once is paid twice.
const (
	usdPerGB     = 0.01 // a GB is 10^9 bytes
	directions   = 2
	monthSeconds = 730 * 3600 // as clouds count a month: a year's 8760 hours by 12
)

// Step is what one step of the demo measured.
type Step struct {
	Name       string
	ClientZone string
	Spread     Spread
	Crossed    uint64 // bytes of IP packets that went from pods of one zone to those of another, both ways
}

// InZone is the share of answered requests that stayed in the client's zone, 0..1.
func (s Step) InZone() float64 {
	return float64(s.Spread.In(s.ClientZone)) / float64(max(s.Spread.Answered(), 1))
}

// CrossedPerRequest is the mean number of bytes that crossed zones for a request and its answer.
func (s Step) CrossedPerRequest() float64 {
	return float64(s.Crossed) / float64(max(s.Spread.Answered(), 1))
}

// PerMonth is what a month of such requests costs, in USD, at a rate in requests per second.
func (s Step) PerMonth(rate float64) float64 {
	gigabytes := s.CrossedPerRequest() * rate * monthSeconds / 1e9
	return gigabytes * usdPerGB * directions
}

// writeBill compares the steps.
func writeBill(out io.Writer, steps []Step, rate float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s\tIN-ZONE\tCROSSED PER REQUEST\tUSD/MONTH\t\n", pad("STEP", steps))
	for _, s := range steps {
		fmt.Fprintf(w, "%s\t%.0f%%\t%s bytes\t%s\t\n",
			pad(s.Name, steps), 100*s.InZone(), thousands(s.CrossedPerRequest(), 0), thousands(s.PerMonth(rate), 2))
	}
	return w.Flush()
}

// pad fills the first column, which alone is aligned to the left.
func pad(name string, steps []Step) string {
	width := 0
	for _, s := range steps {
		width = max(width, len(s.Name))
	}
	return fmt.Sprintf("%-*s", width, name)
}

// thousands writes a number with a comma between groups of three digits.
func thousands(x float64, decimals int) string {
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(x, 'f', decimals, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction == "" {
		return whole
	}
	return whole + "." + fraction
}
