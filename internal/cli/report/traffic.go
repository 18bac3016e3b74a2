package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
)

// Place is where a table goes: as wide and as high as it may be. 0 is without end.
type Place struct{ Width, Height int }

// scarce tells whether names of zones should be short.
func (p Place) scarce() bool { return p.Width > 0 && p.Width < 180 }

// Traffic writes the form for people: a line for each name, or a matrix of zones, and the total. Order
// is what it is sorted by; a column shows that where there would be none.
func Traffic(w io.Writer, t view.Traffic, order meter.Order, at Place) error {
	switch t.By {
	case "zones":
		return zones(w, t, at)
	case "flows":
		return topFlows(w, t, order, at)
	}
	cols := []column{{title: singular(t.By), least: leastName}, {title: "RATE", right: true}, {title: "IN ZONE", right: true}, {title: "USD/MONTH", right: true}}
	extra, figure := extraColumn(order, t.Interval)
	if figure != nil {
		cols = append(cols, extra)
	}
	cols = append(cols, column{title: "CROSSES FOR", least: leastName})
	var rows [][]string
	for _, l := range append(first(t.Lines, at.Height-2), totalOf(t)) {
		row := []string{l.Name, rate(l.Bytes, t.Interval), share(l.InZoneShare), usd(l.USDPerMonth)}
		if figure != nil {
			row = append(row, figure(l))
		}
		rows = append(rows, append(row, reasons(l)))
	}
	return columns(w, cols, rows, at.Width)
}

// totalOf is the last line of a table.
func totalOf(t view.Traffic) view.Line {
	l := t.Total
	l.Name = "TOTAL"
	return l
}

// first is as many lines as there is place for; at least one.
func first(lines []view.Line, place int) []view.Line {
	if place > 0 && len(lines) > place {
		lines = lines[:place]
	}
	return slices.Clone(lines)
}

// singular is the title of the column of names.
func singular(by string) string {
	if key, ok := strings.CutPrefix(by, "label:"); ok {
		return "LABEL " + key
	}
	return strings.ToUpper(strings.TrimSuffix(by, "s"))
}

// extraColumn is the figure that lines are sorted by, where no other column has it.
func extraColumn(order meter.Order, of view.Interval) (column, func(view.Line) string) {
	switch order {
	case meter.ByCross:
		return column{title: "CROSSING", right: true}, func(l view.Line) string { return rate(l.CrossZoneBytes, of) }
	case meter.ByPackets:
		return column{title: "PACKETS", right: true}, func(l view.Line) string { return frequency(l.Packets, of) }
	case meter.ByOpened:
		return column{title: "CONNECTS", right: true}, func(l view.Line) string { return frequency(l.Connections, of) }
	}
	return column{}, nil
}

// reasons are why bytes crossed zones: all of it where there is one reason, else the causes and their
// parts, the greatest first.
func reasons(l view.Line) string {
	switch len(l.Reasons) {
	case 0:
		return "-"
	case 1:
		return reason(&l.Reasons[0])
	}
	var sum uint64
	var causes []view.Reason
	for _, r := range l.Reasons {
		sum += r.Bytes
		i := slices.IndexFunc(causes, func(o view.Reason) bool { return o.Cause == r.Cause })
		if i < 0 {
			causes = append(causes, view.Reason{Cause: r.Cause, Bytes: r.Bytes})
		} else {
			causes[i].Bytes += r.Bytes
		}
	}
	slices.SortStableFunc(causes, func(a, b view.Reason) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var out []string
	for _, c := range causes {
		out = append(out, fmt.Sprintf("%s %.0f%%", c.Cause, 100*float64(c.Bytes)/float64(max(sum, 1))))
	}
	return strings.Join(out, ", ")
}

func reason(r *view.Reason) string {
	if r == nil {
		return "-"
	}
	return meter.Reason{Cause: meter.Cause(r.Cause), Detail: r.Detail}.String()
}

// zones is a matrix: a line for each zone that bytes came from, a column for each that they went to.
// In a cell is the rate and, where that costs something, what it makes in a month. Where there is no
// place for that it is a list.
func zones(w io.Writer, t view.Traffic, at Place) error {
	cols, rows := matrix(t)
	if !measure(cols, rows, at.Width) {
		cols, rows = zoneList(t)
	}
	if err := columns(w, cols, rows, at.Width); err != nil {
		return err
	}
	if t.Total.InZoneShare == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nIn zone: %s. USD are for a month at this rate.\n", percent(*t.Total.InZoneShare))
	return err
}

func matrix(t view.Traffic) ([]column, [][]string) {
	const all = "ALL"
	var from, to []string
	cells := map[[2]string]view.Zones{}
	add := func(from, to string, z view.Zones) {
		c := cells[[2]string{from, to}]
		c.From = from // marks it as one that there is
		c.Bytes += z.Bytes
		c.USDPerMonth += z.USDPerMonth
		cells[[2]string{from, to}] = c
	}
	for _, z := range t.Zones {
		from, to = append(from, z.From), append(to, z.To)
		add(z.From, z.To, z)
		add(z.From, all, z)
		add(all, z.To, z)
		add(all, all, z)
	}
	slices.SortFunc(from, byZone)
	slices.SortFunc(to, byZone)
	from, to = append(slices.Compact(from), all), append(slices.Compact(to), all)
	cols := []column{{title: "FROM \\ TO"}}
	for _, z := range to {
		cols = append(cols, column{title: z, right: true})
	}
	var rows [][]string
	for _, f := range from {
		row := []string{f}
		for _, z := range to {
			row = append(row, zoneCell(cells[[2]string{f, z}], t.Interval))
		}
		rows = append(rows, row)
	}
	return cols, rows
}

func zoneCell(z view.Zones, of view.Interval) string {
	switch {
	case z.From == "":
		return "-"
	case z.USDPerMonth == 0:
		return rate(z.Bytes, of)
	}
	return rate(z.Bytes, of) + " " + usd(z.USDPerMonth)
}

func zoneList(t view.Traffic) ([]column, [][]string) {
	cols := []column{{title: "FROM"}, {title: "TO"}, {title: "RATE", right: true}, {title: "USD/MONTH", right: true}}
	var rows [][]string
	for _, z := range t.Zones {
		rows = append(rows, []string{z.From, z.To, rate(z.Bytes, t.Interval), usd(z.USDPerMonth)})
	}
	return cols, rows
}

// byZone puts what stands for no zone last.
func byZone(a, b string) int {
	if none, too := strings.HasPrefix(a, "("), strings.HasPrefix(b, "("); none != too {
		return one(none) - one(too)
	}
	return strings.Compare(a, b)
}

// topFlows has a line for each flow.
func topFlows(w io.Writer, t view.Traffic, order meter.Order, at Place) error {
	cols := append(partyColumns(), column{title: "RATE", right: true}, column{title: "USD/MONTH", right: true})
	extra, figure := extraColumn(order, t.Interval)
	if figure != nil {
		cols = append(cols, extra)
	}
	cols = append(cols, column{title: "CROSSES FOR", least: leastName})
	var rows [][]string
	for _, l := range append(first(t.Lines, at.Height-2), totalOf(t)) {
		row := []string{l.Name, "", "", ""}
		if l.Flow != nil {
			row = parties(*l.Flow, at)
		}
		row = append(row, rate(l.Bytes, t.Interval), usd(l.USDPerMonth))
		if figure != nil {
			row = append(row, figure(l))
		}
		rows = append(rows, append(row, reasons(l)))
	}
	return columns(w, cols, rows, at.Width)
}

func share(f *float64) string {
	if f == nil {
		return "-"
	}
	return percent(*f)
}

// usd is money of which little may be something, and which may have been lost.
func usd(f float64) string {
	switch {
	case f < 0:
		return "-" + usd(-f)
	case f > 0 && f < 0.005:
		return "<$0.01"
	}
	return money(f)
}

func rate(bytes uint64, of view.Interval) string { return meter.Rate(bytes, of.To.Sub(of.From)) }

// frequency is how often something happened in a second.
func frequency(n uint64, of view.Interval) string {
	d := of.To.Sub(of.From)
	if d <= 0 {
		return "-"
	}
	f := float64(n) / d.Seconds()
	if f > 0 && f < 100 {
		return strconv.FormatFloat(f, 'g', 2, 64) + "/s"
	}
	return strconv.FormatFloat(f, 'f', 0, 64) + "/s"
}

// instant is a time for people.
func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }
