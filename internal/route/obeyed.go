package route

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// Counted is how many connections went from one zone to another.
type Counted struct {
	From, To    string
	Connections uint64
}

const (
	// enough is the least number of connections from a zone to judge by.
	enough = 100
	// sigmas and points are what chance, and what else is not ours, may do to a share.
	sigmas = 3
	points = 0.02
)

// Obeyed compares what was counted with a plan's weights. It returns a condition's status, reason
// and message. A zone's share is off if it differs from its weight by more than three standard
// deviations of a fair draw, and two points besides.
func Obeyed(p model.RoutePlan, counted []Counted) (status, reason, message string) {
	matrix := p.Matrix()
	if len(matrix) == 0 {
		return "Unknown", "NothingPlanned", "there is no plan to compare with"
	}
	seen := map[string]map[string]uint64{}
	for _, c := range counted {
		if seen[c.From] == nil {
			seen[c.From] = map[string]uint64{}
		}
		seen[c.From][c.To] += c.Connections
	}
	var all uint64
	var judged []string
	worst, off := 0.0, ""
	for _, row := range matrix {
		var n uint64
		for _, c := range seen[row.Zone] {
			n += c
		}
		if n < enough {
			continue
		}
		all += n
		judged = append(judged, row.Zone)
		for _, to := range goals(row, seen[row.Zone]) {
			want, got := row.To.Of(to), float64(seen[row.Zone][to])/float64(n)
			tolerance := sigmas*math.Sqrt(want*(1-want)/float64(n)) + points
			if excess := math.Abs(got-want) - tolerance; excess > worst+same {
				worst = excess
				off = fmt.Sprintf("of %d connections from %s %s went to %s, planned are %s",
					n, zoneName(row.Zone), percent(got), zoneName(to), percent(want))
			}
		}
	}
	switch {
	case len(judged) == 0:
		return "Unknown", "TooFewConnections", fmt.Sprintf("no zone has made %d connections yet", enough)
	case off != "":
		return "False", "OffPlan", off
	case len(judged) == 1:
		return "True", "AsPlanned", fmt.Sprintf("%d connections from %s went as planned", all, zoneName(judged[0]))
	}
	return "True", "AsPlanned", fmt.Sprintf("%d connections from zones %s went as planned", all, strings.Join(judged, ", "))
}

// goals lists the zones to which connections of a row should go, or did.
func goals(row model.Row, seen map[string]uint64) []string {
	var out []string
	for _, t := range row.To {
		out = append(out, t.Zone)
	}
	for to := range seen {
		out = append(out, to)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
