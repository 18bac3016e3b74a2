package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// width is how many columns a line for people may have.
const width = 100

// longName is the longest name that gets its cells on the same line.
const longName = 30

// PlanTable writes the form for people: a line for each plan, then totals.
func PlanTable(w io.Writer, p Plan) error {
	oneNamespace := !slices.ContainsFunc(p.Services, func(s PlanService) bool { return s.Namespace != p.Services[0].Namespace })
	perMonth := p.Totals.CostKnown > 0
	rows := [][]string{{"SERVICE", "MODE", "IN-ZONE", "MAX-LOAD", costTitle(perMonth), "REASON"}}
	for _, s := range p.Services {
		name := s.Name
		if !oneNamespace {
			name = s.Namespace + "/" + name
		}
		if s.Family == familyName(true) {
			name += " (IPv6)"
		}
		rows = append(rows, append([]string{name}, planCells(s, perMonth)...))
	}
	if err := paragraph(w, "What if: ", strings.Join(p.WhatIf, ", ")); err != nil {
		return err
	}
	if len(p.Services) == 0 {
		_, err := fmt.Fprintln(w, "No Services.")
		return err
	}
	if err := fit(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\n", totalsText(p))
	return err
}

func costTitle(perMonth bool) string {
	if perMonth {
		return "COST/MONTH"
	}
	return "COST/TB"
}

func planCells(s PlanService, perMonth bool) []string {
	if s.Problem != "" {
		return []string{s.Mode, "-", "-", "-", "problem: " + s.Problem}
	}
	if !s.planned() {
		return []string{s.Mode, "-", "-", "-", s.Reason}
	}
	cost := "-"
	switch {
	case !perMonth:
		cost = change(money(s.CostPerTB.Before), money(s.CostPerTB.Planned))
	case s.CostPerMonth != nil:
		cost = change(money(s.CostPerMonth.Before), money(s.CostPerMonth.Planned))
	}
	return []string{s.Mode, change(percent(s.InZone.Before), percent(s.InZone.Planned)),
		change(load(s.BeforeLoad), load(s.MaxLoad)), cost, short(s)}
}

// change is what a figure is and what it becomes.
func change(before, planned string) string { return before + " → " + planned }

// short is the reason in few words: a full zone is at its bound, an empty one has no ready endpoint.
// The sentence is the business of explain.
func short(s PlanService) string {
	var full, missing, drained []string
	unplaced := false
	for _, z := range s.Zones {
		switch {
		case z.Name == "":
			unplaced = unplaced || z.Demand > 0
		case z.Drained:
			drained = append(drained, z.Name)
		case z.Demand > 0 && z.Endpoints == 0:
			missing = append(missing, z.Name)
		case z.Weights[z.Name] < 1-1e-6 && z.Demand > 0 && z.Load > 1+s.MaxOverload-1e-6:
			full = append(full, z.Name)
		}
	}
	var parts []string
	add := func(zones []string, after string) {
		if len(zones) > 0 {
			parts = append(parts, strings.Join(zones, ", ")+" "+after)
		}
	}
	add(full, "full")
	add(missing, "empty")
	add(drained, "drained")
	if unplaced {
		parts = append(parts, "nodes without a zone")
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case s.InZone.Planned > 1-1e-6:
		return "all in zone"
	case s.InZone.Planned < s.InZone.Ideal-1e-6:
		return "moving step by step"
	}
	return s.Reason
}

// fit writes a table whose last column is cut, and whose long names get a line of their own, so
// that it fits the width.
func fit(w io.Writer, rows [][]string) error {
	widths := make([]int, len(rows[0])-1)
	for _, r := range rows {
		for i := range widths {
			if n := utf8.RuneCountInString(r[i]); i > 0 || n <= longName {
				widths[i] = max(widths[i], n)
			}
		}
	}
	left := 0
	for _, n := range widths {
		left += n + 2
	}
	for _, r := range rows {
		var b strings.Builder
		for i, n := range widths {
			cell := r[i]
			if i == 0 && utf8.RuneCountInString(cell) > longName {
				fmt.Fprintln(&b, cell)
				cell = ""
			}
			b.WriteString(cell + strings.Repeat(" ", n+2-utf8.RuneCountInString(cell)))
		}
		b.WriteString(cut(r[len(r)-1], max(width-left, 12)))
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// cut shortens a text to n columns.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:n-1]), " ") + "…"
}

func totalsText(p Plan) string {
	var b strings.Builder
	t := p.Totals
	by := "each plan counted the same"
	if t.ByBytes {
		by = "by bytes"
	}
	line := fmt.Sprintf("%s, %d planned", count(t.Services, "Service"), t.Planned)
	if t.Planned > 0 {
		line += fmt.Sprintf("; in zone %s, at best %s (%s)", change(percent(t.InZone.Before), percent(t.InZone.Planned)), percent(t.InZone.Ideal), by)
	}
	fmt.Fprintln(&b, line+".")
	if c := t.CostPerMonth; c != nil {
		fmt.Fprintf(&b, "Cost a month: %s for %s whose traffic is known.\n", change(money(c.Before), money(c.Planned)), count(t.CostKnown, "plan"))
	}
	if t.Findings > 0 {
		fmt.Fprintf(&b, "%s: %s\n", count(t.Findings, "finding"), cut(findings(p.Services), width-14))
	}
	return b.String()
}

// findings names the worst ones first: problems, then loads.
func findings(services []PlanService) string {
	var found []PlanService
	for _, s := range services {
		if s.Finding != "" {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b PlanService) int {
		if a.Problem != "" || b.Problem != "" {
			return one(a.Problem == "") - one(b.Problem == "")
		}
		return cmp.Compare(b.BeforeLoad, a.BeforeLoad)
	})
	var out []string
	for _, s := range found {
		what := "problem"
		if s.Problem == "" {
			what = "load " + load(s.BeforeLoad) + " today"
		}
		out = append(out, fmt.Sprintf("%s/%s %s", s.Namespace, s.Name, what))
	}
	return strings.Join(out, ", ")
}

// count is "1 Service", "2 Services".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// PlanZones writes one Service's plans zone by zone, below PlanTable.
func PlanZones(w io.Writer, p Plan) error {
	for _, s := range p.Services {
		if len(s.Zones) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		if err := zoneTable(w, s); err != nil {
			return err
		}
		if err := paragraph(w, "", strings.TrimSpace(sentence(s.Reason)+" "+sentence(fixText(s.Fix)))); err != nil {
			return err
		}
	}
	return nil
}

func fixText(fix string) string {
	if fix == "" {
		return ""
	}
	return "for more: " + fix
}

// sentence gives a text a capital and a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + strings.TrimSuffix(text[1:], ".") + "."
}

// zoneTable has a line for each zone of a plan. Weights that do not fit go on below.
func zoneTable(w io.Writer, s PlanService) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	line(t, "ZONE", "DEMAND", "ENDPOINTS", "CAPACITY", "LOAD", "CONNECTIONS OF ITS CLIENTS GO TO")
	for _, z := range s.Zones {
		name := orNone(z.Name)
		if z.Drained {
			name += " (drained)"
		}
		lines := weights(z)
		line(t, name, percent(z.Demand), strconv.Itoa(z.Endpoints), percent(z.Capacity), load(z.Load), lines[0])
		for _, l := range lines[1:] {
			line(t, "", "", "", "", "", l)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for l := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(l, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// weights are where connections go, the most first, in lines of about 40 columns.
func weights(z PlanZone) []string {
	zones := slices.SortedFunc(maps.Keys(z.Weights), func(a, b string) int {
		return cmp.Or(cmp.Compare(z.Weights[b], z.Weights[a]), strings.Compare(a, b))
	})
	var cells []string
	for i, to := range zones {
		cell := orNone(to) + " " + percent(z.Weights[to])
		if i < len(zones)-1 {
			cell += ","
		}
		cells = append(cells, cell)
	}
	if len(cells) == 0 {
		return []string{"-"}
	}
	return fill(cells, 44)
}

// paragraph writes a text wrapped to the width, its first line led by a word.
func paragraph(w io.Writer, lead, text string) error {
	if text == "" {
		return nil
	}
	indent := strings.Repeat(" ", utf8.RuneCountInString(lead))
	for i, l := range wrap(text, width-len(indent)) {
		if i > 0 {
			lead = indent
		}
		if _, err := fmt.Fprintln(w, lead+l); err != nil {
			return err
		}
	}
	return nil
}

// wrap breaks a text at spaces; a word longer than a line has a line of its own.
func wrap(text string, n int) []string { return fill(strings.Fields(text), n) }

// fill puts words into lines of n columns at most.
func fill(words []string, n int) []string {
	var out []string
	for _, word := range words {
		last := len(out) - 1
		if last >= 0 && utf8.RuneCountInString(out[last])+1+utf8.RuneCountInString(word) <= n {
			out[last] += " " + word
			continue
		}
		out = append(out, word)
	}
	return out
}

// load writes a load; 1 is the fair share.
func load(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// money writes USD with three digits or four.
func money(f float64) string {
	unit := ""
	switch {
	case f >= 999_500:
		f, unit = f/1e6, "M"
	case f >= 9_999.5:
		f, unit = f/1e3, "k"
	}
	decimals := 0
	if f != 0 && f < 99.995 {
		decimals = 2
	}
	return "$" + strconv.FormatFloat(f, 'f', decimals, 64) + unit
}
