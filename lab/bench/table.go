package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
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

// ratio is a row's median as a multiple of another peer's.
func (r Result) ratio(row Row, of peer.Kind) string {
	other, ok := r.row(row.Benchmark, row.Services, row.Metric, of)
	if !ok || other.Note != "" || other.Median == 0 {
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

// The lines between which a page's table is.
const (
	tableBegins = "<!-- figures: written by `make bench` -->"
	tableEnds   = "<!-- end of figures -->"
)

// page writes the table of a Markdown file anew: medians, one column for each peer.
func (r Result) page(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), tableBegins)
	_, after, whole := strings.Cut(rest, tableEnds)
	if !ok || !whole {
		return fmt.Errorf("%s: no lines %q and %q", file, tableBegins, tableEnds)
	}
	return os.WriteFile(file, []byte(before+tableBegins+"\n"+r.markdown()+tableEnds+after), 0o644)
}

func (r Result) markdown() string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s; %s. Medians; of latencies, median / p99.\n", r.Machine, r.kind())
	about := map[string]string{}
	for _, b := range benchmarks() {
		about[b.name] = b.what
	}
	section, line := "", ""
	for _, row := range r.Rows {
		if row.Peer == string(harness) {
			if row.Benchmark != section {
				section = row.Benchmark
				fmt.Fprintf(&out, "\n### %s\n\nWhat the measuring itself takes.\n\n| | |\n|---|---|\n", section)
			}
			fmt.Fprintf(&out, "| %s (%s) | %s |\n", row.Metric, row.Unit, cell(row))
			continue
		}
		if row.Benchmark != section {
			section, line = row.Benchmark, ""
			fmt.Fprintf(&out, "\n### %s\n\n%s.\n\n| Services | |", section, capital(about[section]))
			for _, k := range peer.Kinds() {
				fmt.Fprintf(&out, " %s |", k)
			}
			fmt.Fprintf(&out, "\n|---:|---|%s\n", strings.Repeat("---:|", len(peer.Kinds())))
		}
		if this := strconv.Itoa(row.Services) + row.Metric; this != line {
			line = this
			fmt.Fprintf(&out, "| %s | %s |", thousands(row.Services), strings.TrimSuffix(row.Metric+" ("+row.Unit+")", " ()"))
			for _, k := range peer.Kinds() {
				other, ok := r.row(row.Benchmark, row.Services, row.Metric, k)
				switch {
				case !ok:
					out.WriteString(" |")
				case other.Note != "":
					fmt.Fprintf(&out, " %s |", other.Note)
				default:
					fmt.Fprintf(&out, " %s |", cell(other))
				}
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

// cell is a median, with the 99th percentile where there are enough values for one.
func cell(row Row) string {
	if row.Values < 100 {
		return figure(row.Median)
	}
	return figure(row.Median) + " / " + figure(row.P99)
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
