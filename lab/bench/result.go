package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// Schema is that of the JSON; fields are only ever added.
const Schema = "zonewise.bench/v1"

// Result is what a run found.
type Result struct {
	Schema  string `json:"schema"`
	Machine string `json:"machine"`
	Short   bool   `json:"short"`
	Rounds  int    `json:"rounds"`
	Rows    []Row  `json:"rows"`
	Done    []Part `json:"done,omitempty"`
}

// Row is one figure of one peer at one size.
type Row struct {
	Benchmark string  `json:"benchmark"`
	Peer      string  `json:"peer"`
	Services  int     `json:"services"`
	Metric    string  `json:"metric"`
	Unit      string  `json:"unit"`
	Min       float64 `json:"min"`
	Median    float64 `json:"median"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
	Values    int     `json:"values"` // so many measurements, of all rounds together
	Rounds    int     `json:"rounds"`
	// RoundMin and RoundMax are the least and the greatest median of a round.
	RoundMin float64 `json:"roundMin"`
	RoundMax float64 `json:"roundMax"`
	Note     string  `json:"note,omitempty"` // why there is no figure
}

// harness is the peer of figures about the measuring itself.
const harness peer.Kind = "harness"

// key is what a row is about.
type key struct {
	benchmark string
	services  int
	metric    string
	peer      peer.Kind
}

func (k key) String() string {
	return fmt.Sprintf("%s, %d Services, %s, %s", k.benchmark, k.services, k.metric, k.peer)
}

// metric is a figure that a benchmark reports.
type metric struct{ name, unit string }

// record is what was measured so far: of each row, the values of each round.
type record struct {
	order  []key
	units  map[key]string
	rounds map[key][][]float64
	notes  map[key]string
	old    []Row // of an earlier run; those that were measured again are not among the rows
}

func newRecord() *record {
	return &record{units: map[key]string{}, rounds: map[key][][]float64{}, notes: map[key]string{}}
}

func (r Row) key() key { return key{r.Benchmark, r.Services, r.Metric, peer.Kind(r.Peer)} }

// before takes over what an earlier run found.
func (r *record) before(rows []Row) { r.old = rows }

// median is that of what was measured so far.
func (r *record) median(k key) (float64, bool) {
	if rounds := r.rounds[k]; len(rounds) > 0 {
		return median(slices.Concat(rounds...)), true
	}
	for _, row := range r.old {
		if row.key() == k && row.Note == "" {
			return row.Median, true
		}
	}
	return 0, false
}

func (r *record) add(k key, unit string, values ...float64) {
	if len(values) == 0 {
		return
	}
	if _, known := r.units[k]; !known {
		r.order = append(r.order, k)
	}
	r.units[k] = unit
	r.rounds[k] = append(r.rounds[k], values)
}

// note says why a row has no figure, in a line.
func (r *record) note(k key, unit, why string) {
	why, _, _ = strings.Cut(why, "\n")
	if _, known := r.units[k]; !known {
		r.order = append(r.order, k)
		r.units[k] = unit
	}
	r.notes[k] = why
}

func (r *record) rows() (out []Row) {
	for _, row := range r.old {
		if _, again := r.units[row.key()]; !again {
			out = append(out, row)
		}
	}
	for _, k := range r.order {
		row := Row{Benchmark: k.benchmark, Peer: string(k.peer), Services: k.services, Metric: k.metric, Unit: r.units[k]}
		var all, medians []float64
		for _, values := range r.rounds[k] {
			sorted := slices.Sorted(slices.Values(values))
			medians = append(medians, quantile(sorted, .5))
			all = append(all, values...)
		}
		if len(all) == 0 {
			row.Note = r.notes[k]
			out = append(out, row)
			continue
		}
		slices.Sort(all)
		row.Min, row.Median, row.P99, row.Max, row.Values = all[0], quantile(all, .5), quantile(all, .99), all[len(all)-1], len(all)
		row.Rounds = len(medians)
		row.RoundMin, row.RoundMax = slices.Min(medians), slices.Max(medians)
		out = append(out, row)
	}
	return out
}

// quantile is the smallest value that is not below the given part of all, which are in order.
func quantile(sorted []float64, part float64) float64 {
	n := len(sorted)
	i := int(part * float64(n))
	if float64(i) == part*float64(n) {
		i--
	}
	return sorted[min(max(i, 0), n-1)]
}

// missing are rows that should have come and have not. A strict look takes a note for no row, too.
func missing(want []key, rows []Row, strict bool) (out []string) {
	have := map[key]Row{}
	for _, r := range rows {
		have[r.key()] = r
	}
	for _, k := range want {
		switch r, ok := have[k]; {
		case !ok:
			out = append(out, k.String()+": no row")
		case r.Note != "" && strict:
			out = append(out, k.String()+": "+r.Note)
		}
	}
	return out
}

// write puts the result into a file of the folder, which it makes.
func (r Result) write(dir string) (string, error) {
	name := filepath.Join(dir, fileName(r.Short))
	return name, r.writeTo(name)
}

func (r Result) writeTo(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	// Whoever ends this program in between leaves the file as it was.
	if err := os.WriteFile(name+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func fileName(short bool) string {
	return map[bool]string{false: "bench.json", true: "bench-short.json"}[short]
}

// Read reads what write wrote.
func Read(file string) (r Result, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// machine is what the figures were found on: "AMD EPYC, 2 CPUs, Linux 6.18.44, go1.26.8".
func machine() string {
	var name unix.Utsname
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release := "Linux"
	if unix.Uname(&name) == nil {
		version, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
		release += " " + version
	}
	return fmt.Sprintf("%s, %d CPUs, %s, %s", model, runtime.NumCPU(), release, runtime.Version())
}

// sortRows puts what belongs together side by side, in the order of the benchmarks.
func sortRows(rows []Row, order []string, peers []peer.Kind) {
	metrics := map[string]int{}
	for _, r := range rows {
		if _, known := metrics[r.Metric]; !known {
			metrics[r.Metric] = len(metrics)
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Benchmark), slices.Index(order, b.Benchmark)), cmp.Compare(a.Services, b.Services),
			cmp.Compare(metrics[a.Metric], metrics[b.Metric]), cmp.Compare(slices.Index(peers, peer.Kind(a.Peer)), slices.Index(peers, peer.Kind(b.Peer))))
	})
}
