package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/zonewise/zonewise/internal/controller/view"
)

// Cost writes the form for people: when and by which prices, then a line for each name, and the total.
func Cost(w io.Writer, c view.Cost, at Place) error {
	prices := "no price book"
	if len(c.Prices) > 0 {
		prices = "prices: " + strings.Join(c.Prices, ", then ")
	}
	if _, err := fmt.Fprintf(w, "%s to %s UTC, %s\n\n", instant(c.From), instant(c.To), plain(prices)); err != nil {
		return err
	}
	cols := []column{{title: singular(c.By), least: leastName}, {title: "BYTES", right: true}, {title: "CROSSED", right: true}, {title: "IN ZONE", right: true},
		{title: "USD", right: true}, {title: "USD/MONTH", right: true}, {title: "SAVED", right: true}, {title: "APPLIED", right: false}, {title: "WOULD SAVE", right: true}}
	total := c.Total
	total.Name = "TOTAL"
	var rows [][]string
	for _, l := range append(c.Lines[:len(c.Lines):len(c.Lines)], total) {
		since := "-"
		if l.Since != nil {
			since = instant(*l.Since)
		}
		rows = append(rows, []string{l.Name, size(l.Bytes), size(l.CrossZoneBytes), share(l.InZoneShare), usd(l.USD), usd(l.USDPerMonth),
			optional(l.SavedUSD), since, optional(l.ForecastUSD)})
	}
	return columns(w, cols, rows, at.Width)
}

func optional(f *float64) string {
	if f == nil {
		return "-"
	}
	return usd(*f)
}
