package meter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Order is what lines are sorted by; names decide where that is equal.
type Order string

// The orders.
const (
	ByBytes   Order = "bytes"    // most first
	ByCross   Order = "cross"    // most bytes between zones first
	ByCost    Order = "cost"     // dearest first
	ByInZone  Order = "in-zone"  // least in-zone share first; lines without one last
	ByPackets Order = "packets"  // most first
	ByOpened  Order = "connects" // most connections first
	ByName    Order = "name"
)

// Orders lists the orders.
func Orders() []Order {
	return []Order{ByBytes, ByCross, ByCost, ByInZone, ByPackets, ByOpened, ByName}
}

// Top returns the first n lines in an order, all of them if n is 0. An order that is none is ByName.
func Top(lines []Line, by Order, n int) []Line {
	out := slices.SortedFunc(slices.Values(lines), func(a, b Line) int {
		return cmp.Or(by.compare(a, b), strings.Compare(a.Name, b.Name))
	})
	if n > 0 && n < len(out) {
		out = out[:n]
	}
	return out
}

func (o Order) compare(a, b Line) int {
	switch o {
	case ByBytes:
		return cmp.Compare(b.Bytes(), a.Bytes())
	case ByCross:
		return cmp.Compare(b.CrossZone, a.CrossZone)
	case ByCost:
		return cmp.Compare(b.USD(), a.USD())
	case ByInZone:
		x, known := a.InZoneShare()
		y, too := b.InZoneShare()
		if known != too {
			return compareBool(too, known)
		}
		return cmp.Compare(x, y)
	case ByPackets:
		return cmp.Compare(b.RequestPackets+b.ResponsePackets, a.RequestPackets+a.ResponsePackets)
	case ByOpened:
		return cmp.Compare(b.Connections, a.Connections)
	}
	return 0
}

// Table prints lines of an interval of length d: rate, in-zone share, USD in a month at this rate, and
// the reason that most of the crossing bytes have.
func Table(lines []Line, d time.Duration) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRATE\tIN ZONE\tUSD/MONTH\tCROSSES FOR")
	for _, l := range lines {
		share, why := "-", "-"
		if s, ok := l.InZoneShare(); ok {
			share = fmt.Sprintf("%.1f%%", 100*s)
		}
		if len(l.Reasons) > 0 {
			why = l.Reasons[0].Reason.String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%s\n", l.Name, Rate(l.Bytes(), d), share, PerMonth(l.USD(), d), why)
	}
	w.Flush()
	return b.String()
}

// ZoneTable prints what went between zones in an interval of length d.
func ZoneTable(zones []ZoneTraffic, d time.Duration) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tBYTES\tHEADERS MORE\tPACKETS\tRATE\tUSD/MONTH")
	for _, z := range zones {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%.2f\n", z.From, z.To, z.Bytes, z.Extra, z.Packets, Rate(z.Bytes, d), PerMonth(z.USD, d))
	}
	w.Flush()
	return b.String()
}

// Rate prints bytes a second, in units of 1000: "12.3 MB/s"; "-" where there is no time.
func Rate(bytes uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	v := float64(bytes) / d.Seconds()
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if v < 999.5 {
			return fmt.Sprintf("%.3g %s/s", v, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.3g TB/s", v)
}
