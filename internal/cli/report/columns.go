package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// column is one of a table that fits the place there is for it.
type column struct {
	title string
	right bool // its cells end at the same place: numbers
	least int  // how narrow it may become; 0: it is never cut
	width int
}

const (
	gap        = 2  // columns between two
	leastName  = 12 // what is left of a name at least, and of a reason
	leastZones = 16 // likewise of two zones
)

// measure makes every column as wide as its widest cell, and cuts the widest ones until the table has
// no more than room columns; 0 is as many as there are. It tells whether it has.
func measure(cols []column, rows [][]string, room int) bool {
	total := -gap
	for i := range cols {
		c := &cols[i]
		c.width = max(c.width, utf8.RuneCountInString(c.title))
		for _, r := range rows {
			c.width = max(c.width, utf8.RuneCountInString(r[i]))
		}
		total += c.width + gap
	}
	for room > 0 && total > room {
		widest := -1
		for i, c := range cols {
			if c.least > 0 && c.width > c.least && (widest < 0 || c.width > cols[widest].width) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		cols[widest].width--
		total--
	}
	return true
}

// rowText puts cells into their columns. The last one is cut at its end, names are in the middle:
// who they are often stands at both ends.
func rowText(cols []column, cells []string) string {
	var b strings.Builder
	for i, c := range cols {
		cell := cells[i]
		if c.least > 0 {
			if i == len(cols)-1 {
				cell = cut(cell, c.width)
			} else {
				cell = cutMiddle(cell, c.width)
			}
		}
		pad := strings.Repeat(" ", max(0, c.width-utf8.RuneCountInString(cell)))
		if c.right {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
		if i < len(cols)-1 {
			b.WriteString(strings.Repeat(" ", gap))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

func titles(cols []column) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = c.title
	}
	return out
}

// columns writes a table that fits into room columns.
func columns(w io.Writer, cols []column, rows [][]string, room int) error {
	for _, r := range rows {
		for i := range r {
			r[i] = plain(r[i])
		}
	}
	measure(cols, rows, room)
	for _, r := range append([][]string{titles(cols)}, rows...) {
		if _, err := fmt.Fprintln(w, rowText(cols, r)); err != nil {
			return err
		}
	}
	return nil
}

// plain takes out what a terminal would obey.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// cutMiddle shortens a text to n columns, and leaves its beginning and its end.
func cutMiddle(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	head := (n - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(n-1-head):])
}
