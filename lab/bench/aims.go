package bench

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// aim is what a figure of Zonewise's shall be.
type aim struct {
	what  string
	want  string
	only  int // Services at which it counts; 0: at any
	holds func(float64) bool
	of    func(r Result, services int) []float64 // empty: not measured
}

func atMost(limit float64) func(float64) bool  { return func(f float64) bool { return f <= limit } }
func atLeast(limit float64) func(float64) bool { return func(f float64) bool { return f >= limit } }

// aims are those of the service path, in the order in which they are shown.
func aims() []aim {
	out := []aim{
		{"connect, pod: ClusterIP − direct, same node (µs; medians, minima)", "≤ 1", 0, atMost(1), func(r Result, n int) []float64 {
			return both(r.medians("connect", n, peer.Zonewise, podToService+beyondDirect), r.medians("connect", n, peer.Zonewise, podToService+beyondDirect+minima))
		}},
		{"… of kube-proxy-nft", "", 0, nil, func(r Result, n int) []float64 {
			return both(r.medians("connect", n, peer.KubeProxyNFT, podToService+beyondDirect), r.medians("connect", n, peer.KubeProxyNFT, podToService+beyondDirect+minima))
		}},
		{"connect, pod: ClusterIP − direct on a node without rules (µs; medians, minima)", "≤ 1", 0, atMost(1), func(r Result, n int) []float64 { return r.beyond(n, peer.Direct) }},
		{"… − direct on a node whose kernel follows connections", "", 0, nil, func(r Result, n int) []float64 { return r.beyond(n, peer.DirectConntrack) }},
	}
	for _, w := range ways() {
		out = append(out, aim{"connect, " + w.name + ": × kube-proxy-nft", "≤ 1", 0, atMost(1), func(r Result, n int) []float64 { return r.times("connect", n, w.name) }})
	}
	for _, t := range []driver.Task{driver.Rate, driver.Request} {
		name := map[driver.Task]string{driver.Rate: "connections", driver.Request: "requests"}[t] + " a second, " + joined(Full().workers) + " at a time: "
		out = append(out, aim{name + "% of those to endpoints, same node", "", 0, nil, func(r Result, n int) []float64 { return r.medians("rate", n, peer.Zonewise, rateNames(t, 2)...) }},
			aim{name + "× kube-proxy-nft", "≥ 1", 0, atLeast(1), func(r Result, n int) []float64 { return r.times("rate", n, rateNames(t, 0)...) }})
	}
	return append(out,
		aim{"bytes a second, " + joined(Full().streams) + " TCP streams: % of those to the endpoint, same node", "≥ 98", 0, atLeast(98), func(r Result, n int) (out []float64) {
			for _, streams := range Full().streams {
				out = append(out, r.medians("throughput", n, peer.Zonewise, streamMetrics(streams)[2].name)...)
			}
			return out
		}},
		aim{"cold start until all answer (s)", "< 2 at 100,000", 100_000, atMost(2), func(r Result, n int) []float64 { return r.medians("cold-start", n, peer.Zonewise, "until all answer") }},
		aim{"memory for each Service (B; RSS, Go's heap)", "< 3,000 beside caches", 0, nil, func(r Result, n int) []float64 {
			return both(r.medians("memory", n, peer.Zonewise, rssEach), r.medians("memory", n, peer.Zonewise, heapEach))
		}},
		aim{"change to connect, idle (ms; p99)", "< 10", 0, atMost(10), func(r Result, n int) []float64 { return r.p99("programming", n, changeToConnect) }},
		aim{"change to connect, 10, 100, 1,000 other changes a second (ms; p99)", "< 50", 0, atMost(50), func(r Result, n int) (out []float64) {
			for _, rate := range Full().churn {
				out = append(out, r.p99("churn", n, churnMetrics(rate)[0].name)...)
			}
			return out
		}},
		aim{"connects to a removed endpoint, once it is said to be gone (most of any removal)", "0", 0, atMost(0), func(r Result, n int) []float64 {
			if row, ok := r.figure("removal", n, stillThere, peer.Zonewise); ok {
				return []float64{row.Max}
			}
			return nil
		}},
	)
}

func joined(numbers []int) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(numbers)), ", "), "[]")
}

func rateNames(t driver.Task, metric int) (out []string) {
	for _, workers := range Full().workers {
		out = append(out, rateMetrics(t, workers)[metric].name)
	}
	return out
}

func both(a, b []float64) []float64 { return append(a, b...) }

// figure is a row that has one.
func (r Result) figure(benchmark string, services int, metric string, k peer.Kind) (Row, bool) {
	row, ok := r.row(benchmark, services, metric, k)
	return row, ok && row.Note == ""
}

func (r Result) medians(benchmark string, services int, k peer.Kind, metrics ...string) (out []float64) {
	for _, m := range metrics {
		if row, ok := r.figure(benchmark, services, m, k); ok {
			out = append(out, row.Median)
		}
	}
	return out
}

func (r Result) p99(benchmark string, services int, metric string) []float64 {
	if row, ok := r.figure(benchmark, services, metric, peer.Zonewise); ok {
		return []float64{row.P99}
	}
	return nil
}

// beyond is what a pod's connect takes longer than another peer's: by medians, and by minima.
func (r Result) beyond(services int, floor peer.Kind) []float64 {
	ours, ok := r.figure("connect", services, podToService, peer.Zonewise)
	other, known := r.figure("connect", services, podToService, floor)
	if !ok || !known {
		return nil
	}
	return []float64{ours.Median - other.Median, ours.Min - other.Min}
}

// times are medians as multiples of kube-proxy's.
func (r Result) times(benchmark string, services int, metrics ...string) (out []float64) {
	for _, m := range metrics {
		ours, ok := r.figure(benchmark, services, m, peer.Zonewise)
		other, known := r.figure(benchmark, services, m, peer.KubeProxyNFT)
		if ok && known && other.Median != 0 {
			out = append(out, ours.Median/other.Median)
		}
	}
	return out
}

// aims is a table of what shall be and what is, by the number of Services.
func (r Result) aims() string {
	var sizes []int
	for _, row := range r.Rows {
		if row.Benchmark == "connect" || row.Benchmark == "cold-start" && row.Metric == "until all answer" {
			sizes = append(sizes, row.Services)
		}
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	var out bytes.Buffer
	out.WriteString("| `zonewise` | aim |")
	for _, n := range sizes {
		fmt.Fprintf(&out, " %s Services |", thousands(n))
	}
	fmt.Fprintf(&out, "\n|---|---|%s\n", strings.Repeat("---:|", len(sizes)))
	for _, a := range aims() {
		fmt.Fprintf(&out, "| %s | %s |", a.what, a.want)
		for _, n := range sizes {
			fmt.Fprintf(&out, " %s |", strings.Join(a.cells(r, n), ", "))
		}
		out.WriteString("\n")
	}
	return out.String()
}

// cells are an aim's figures; one that misses it is bold.
func (a aim) cells(r Result, services int) (out []string) {
	for _, f := range a.of(r, services) {
		cell := figure(f)
		if a.holds != nil && (a.only == 0 || a.only == services) && !a.holds(f) {
			cell = "**" + cell + "**"
		}
		out = append(out, cell)
	}
	return out
}
