package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// Table prints every row, each beside the floor and beside kube-proxy's nftables mode.
func (r Result) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s; %s\n", r.Machine, r.kind())
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var last [3]string
	for _, row := range r.Rows {
		if group := [3]string{row.Benchmark, strconv.Itoa(row.Services), row.Metric}; group != last {
			unit := row.Unit
			if unit != "" {
				unit = " (" + unit + ")"
			}
			fmt.Fprintf(out, "\n%s, %s Services: %s%s\nPEER\tMEDIAN\tMIN\tP99\tMAX\tMEDIANS OF ROUNDS\t× %s\t× %s\n",
				row.Benchmark, thousands(row.Services), row.Metric, unit, peer.Direct, peer.KubeProxyNFT)
			last = group
		}
		if row.Note != "" {
			fmt.Fprintf(out, "%s\t-\t-\t-\t-\t-\t-\t-  %s\n", row.Peer, row.Note)
			continue
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s to %s\t%s\t%s\n", row.Peer, figure(row.Median), figure(row.Min), figure(row.P99), figure(row.Max),
			figure(row.RoundMin), figure(row.RoundMax), r.ratio(row, peer.Direct), r.ratio(row, peer.KubeProxyNFT))
	}
	return out.Flush()
}

func (r Result) kind() string {
	kind := "full"
	if r.Short {
		kind = "short: the figures are no measurement"
	}
	return fmt.Sprintf("%d rounds, %s", r.Rounds, kind)
}

// ratio is a row's median as a multiple of another peer's. Differences have none.
func (r Result) ratio(row Row, of peer.Kind) string {
	other, ok := r.figure(row.Benchmark, row.Services, row.Metric, of)
	if !ok || other.Median == 0 || strings.Contains(row.Metric, beyondDirect) {
		return "-"
	}
	return figure(row.Median / other.Median)
}

func (r Result) row(benchmark string, services int, metric string, of peer.Kind) (Row, bool) {
	for _, row := range r.Rows {
		if row.Benchmark == benchmark && row.Services == services && row.Metric == metric && row.Peer == string(of) {
			return row, true
		}
	}
	return Row{}, false
}

// figure has three digits that count, and no more.
func figure(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f >= 100 || f <= -100:
		return thousands(int(math.Round(f)))
	}
	return strconv.FormatFloat(f, 'f', digits(f), 64)
}

func digits(f float64) int {
	n := 2
	for limit := 10.0; n > 0 && max(f, -f) >= limit; limit *= 10 {
		n--
	}
	if max(f, -f) < .1 {
		return 4
	}
	return n
}

// thousands separates them: 100,000.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// generated are the parts of a page that are written anew, by what their first and last lines name.
func (r Result) generated() map[string]string {
	return map[string]string{"figures": r.markdown(), "aims": r.aims()}
}

func begins(part string) string { return "<!-- " + part + ": written by `make bench` -->\n" }
func ends(part string) string   { return "<!-- end of " + part + " -->" }

// page writes the generated parts of a Markdown file anew.
func (r Result) page(file string) error { return replaceParts(file, r.generated()) }

func replaceParts(file string, parts map[string]string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page := string(text)
	for part, now := range parts {
		before, rest, ok := strings.Cut(page, begins(part))
		_, after, whole := strings.Cut(rest, ends(part))
		if !ok || !whole {
			return fmt.Errorf("%s: no lines %q and %q", file, begins(part), ends(part))
		}
		page = before + begins(part) + now + ends(part) + after
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

// markdown is a table for each benchmark, with a column for each peer.
func (r Result) markdown() string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s; %s. Medians of all rounds; where there are a hundred values or more: least / median / 99th percentile.\n", r.Machine, r.kind())
	for _, b := range benchmarks() {
		rows := filter(r.Rows, func(row Row) bool { return row.Benchmark == b.name })
		switch {
		case len(rows) == 0:
		case b.name == string(harness):
			fmt.Fprintf(&out, "\n### %s\n\n%s.\n\n| | |\n|---|---|\n", b.name, capital(b.what))
			for _, row := range rows {
				fmt.Fprintf(&out, "| %s (%s) | %s |\n", row.Metric, row.Unit, cell(row))
			}
		default:
			fmt.Fprintf(&out, "\n### %s\n\n%s.%s\n\n", b.name, capital(b.what), fewer(rows))
			r.columns(&out, rows)
		}
	}
	return out.String()
}

// fewer says of how many rounds figures are, where that is the same of all.
func fewer(rows []Row) string {
	rounds := 0
	for _, row := range rows {
		rounds = max(rounds, row.Rounds)
	}
	if rounds == 1 {
		return " 1 round."
	}
	return fmt.Sprintf(" %d rounds at most.", rounds)
}

// columns writes one benchmark's rows, a column for each peer that has any. What notes say is below.
func (r Result) columns(out *bytes.Buffer, rows []Row) {
	kinds := filter(peer.Kinds(), func(k peer.Kind) bool {
		return slices.ContainsFunc(rows, func(row Row) bool { return row.Peer == string(k) })
	})
	out.WriteString("| Services | |")
	for _, k := range kinds {
		fmt.Fprintf(out, " %s |", k)
	}
	fmt.Fprintf(out, "\n|---:|---|%s\n", strings.Repeat("---:|", len(kinds)))
	var notes []string
	line := ""
	for _, row := range rows {
		this := strconv.Itoa(row.Services) + row.Metric
		if this == line {
			continue
		}
		line = this
		fmt.Fprintf(out, "| %s | %s |", thousands(row.Services), strings.TrimSuffix(row.Metric+" ("+row.Unit+")", " ()"))
		for _, k := range kinds {
			other, ok := r.row(row.Benchmark, row.Services, row.Metric, k)
			switch {
			case !ok:
				out.WriteString(" |")
			case other.Note != "":
				if !slices.Contains(notes, other.Note) {
					notes = append(notes, other.Note)
				}
				fmt.Fprintf(out, " [%d] |", slices.Index(notes, other.Note)+1)
			default:
				fmt.Fprintf(out, " %s |", cell(other))
			}
		}
		out.WriteString("\n")
	}
	for i, note := range notes {
		fmt.Fprintf(out, "\n[%d] %s\n", i+1, note)
	}
}

// cell is a median, with the least and the 99th percentile where there are enough values for one.
func cell(row Row) string {
	if row.Values < 100 {
		return figure(row.Median)
	}
	return figure(row.Min) + " / " + figure(row.Median) + " / " + figure(row.P99)
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
