package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/bench/pods"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// What is measured of starts of pods, in ms but for the last two.
const (
	podStart   = "start"
	podReady   = "node takes pods"
	podVersion = "plugin says its version"
	podRefused = "calls that failed"
	podCalls   = "calls of the cloud"
)

// podsRun is a run of that benchmark.
type podsRun struct {
	pods.Effort
	scenarios []pods.Scenario
	kinds     []pods.Kind
	bin       string
	rounds    int
	random    *rand.Rand
	record    *record
	log       io.Writer
}

// measurePods is `bench pods`: how long pods wait for their addresses, ours beside Amazon's VPC CNI.
func measurePods(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench pods", flag.ContinueOnError)
	flags.SetOutput(stderr)
	full := pods.Full()
	var names []string
	for _, s := range pods.Scenarios() {
		names = append(names, s.Name)
	}
	var (
		short   = flags.Bool("short", false, "a few pods at a quick cloud; fails if any row has no figure")
		rounds  = flags.Int("rounds", 1, "how often each is done")
		only    = flags.String("only", "", fmt.Sprint("scenarios to run, with commas; none: all of ", names))
		kinds   = flags.String("peers", "", fmt.Sprint("who gives addresses, with commas; none: all of ", pods.Kinds()))
		attach  = flags.Duration("attach", full.Cloud.AttachTime, "from an interface's attachment until it is there; not with --short")
		latency = flags.Duration("latency", full.Cloud.Latency, "before every answer of the cloud; not with --short")
		bin     = flags.String("bin", "bin", "directory of the programs")
		out     = flags.String("out", filepath.Join("lab", "bench", "out"), "directory for figures")
		page    = flags.String("page", "", "Markdown file whose table of figures is written anew")
		resume  = flags.Bool("resume", false, "keep what is in --out of what is not measured now")
		seed    = flags.Uint64("seed", 1, "of what is picked at random")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errors.Join(errUsage, err)
	}
	r := podsRun{Effort: full, rounds: *rounds, random: rand.New(rand.NewPCG(*seed, 1)), record: newRecord(), log: stderr}
	r.Cloud.AttachTime, r.Cloud.Latency = *attach, *latency
	file := filepath.Join(*out, "pods.json")
	if *short {
		r.Effort, file = pods.Short(), filepath.Join(*out, "pods-short.json")
	}
	if err := r.choose(*only, *kinds, names); err != nil {
		return err
	}
	var err error
	if r.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	for _, k := range r.kinds {
		if err := pods.Absent(k, r.bin); err != nil {
			return err
		}
	}
	if *resume {
		before, err := Read(file)
		if err != nil {
			return err
		}
		r.record.before(before.Rows)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := r.all(ctx); err != nil {
		return err
	}
	result := Result{Schema: Schema, Machine: machine(), Short: *short, Rounds: *rounds, Rows: r.record.rows()}
	if err := result.podsTable(stdout); err != nil {
		return err
	}
	if err := result.writeTo(file); err != nil {
		return err
	}
	fmt.Fprintln(stderr, file)
	if *page == "" {
		return nil
	}
	return replaceParts(*page, map[string]string{"starts of pods": result.podsMarkdown(r.Effort)})
}

func (r *podsRun) choose(only, kinds string, names []string) error {
	chosen, err := pick(only, names)
	if err != nil {
		return err
	}
	r.scenarios = filter(pods.Scenarios(), func(s pods.Scenario) bool { return slices.Contains(chosen, s.Name) })
	r.kinds, err = pick(kinds, pods.Kinds())
	return err
}

func (r *podsRun) all(ctx context.Context) error {
	for round := range r.rounds {
		for _, s := range r.scenarios {
			for _, i := range r.random.Perm(len(r.kinds)) {
				k := r.kinds[i]
				if !r.Takes(s, k) {
					continue
				}
				begin := time.Now()
				out, err := s.Run(ctx, k, r.Effort, r.bin, r.random)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s.Name, k, err)
				}
				fmt.Fprintf(r.log, "[%d of %d] %s: %s: %s\n", round+1, r.rounds, s.Name, k, time.Since(begin).Round(100*time.Millisecond))
				r.note(s, k, out)
			}
		}
	}
	return nil
}

func (r *podsRun) note(s pods.Scenario, k pods.Kind, out pods.Outcome) {
	add := func(metric, unit string, values ...float64) {
		r.record.add(key{"pods, " + s.Name, r.Pods, metric, peer.Kind(k)}, unit, values...)
	}
	millis := func(all []time.Duration) (out []float64) {
		for _, d := range all {
			out = append(out, milli(d))
		}
		return out
	}
	add(podStart, "ms", millis(out.Starts)...)
	add(podReady, "ms", milli(out.Ready))
	add(podVersion, "ms", millis(out.Versions)...)
	add(podRefused, "", float64(out.Refused))
	add(podCalls, "", float64(out.Calls))
}

// podsTable prints every row, each beside the other's.
func (r Result) podsTable(w io.Writer) error {
	fmt.Fprintf(w, "%s; %s\n", r.Machine, r.kind())
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "SCENARIO\tWHAT\tWHO\tMIN\tMEDIAN\tP99\tMAX\tMEDIAN × %s\n", pods.VPCCNI)
	for _, row := range r.podsRows() {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Benchmark, row.Metric, row.Peer, figure(row.Min), figure(row.Median), figure(row.P99), figure(row.Max),
			r.ratio(row, peer.Kind(pods.VPCCNI)))
	}
	return out.Flush()
}

// podsRows are those of the scenarios, in their order.
func (r Result) podsRows() (out []Row) {
	for _, s := range pods.Scenarios() {
		for _, metric := range []string{podStart, podReady, podVersion, podRefused, podCalls} {
			for _, k := range pods.Kinds() {
				for _, row := range r.Rows {
					if row.Benchmark == "pods, "+s.Name && row.Metric == metric && row.Peer == string(k) {
						out = append(out, row)
					}
				}
			}
		}
	}
	return out
}

// podsMarkdown is a line for each scenario.
func (r Result) podsMarkdown(e pods.Effort) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s. %d pods on a %s; an attachment takes %s, and an answer of the cloud %s. ms: median / 99th percentile / most.\n\n",
		r.Machine, e.Pods, e.InstanceType, e.Cloud.AttachTime, e.Cloud.Latency)
	out.WriteString("| | what | zonewise | vpc-cni | zonewise ÷ vpc-cni, medians, most | plugin calls that failed | calls of the cloud |\n|---|---|---:|---:|---:|---:|---:|\n")
	for _, s := range pods.Scenarios() {
		cells := map[pods.Kind]map[string]Row{}
		for _, row := range r.podsRows() {
			if row.Benchmark != "pods, "+s.Name {
				continue
			}
			k := pods.Kind(row.Peer)
			if cells[k] == nil {
				cells[k] = map[string]Row{}
			}
			cells[k][row.Metric] = row
		}
		ours, theirs := cells[pods.Zonewise], cells[pods.VPCCNI]
		if ours == nil || theirs == nil {
			continue
		}
		a, b := ours[podStart], theirs[podStart]
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s, %s | %s, %s | %s, %s |\n", s.Name, s.What, podsCell(a), podsCell(b), figure(a.Median/b.Median), figure(a.Max/b.Max),
			figure(ours[podRefused].Median), figure(theirs[podRefused].Median), figure(ours[podCalls].Median), figure(theirs[podCalls].Median))
		if v, ok := ours[podVersion]; ok {
			w := theirs[podVersion]
			fmt.Fprintf(&out, "| | the plugin says its version, and ends | %s | %s | %s, %s | | |\n", podsCell(v), podsCell(w), figure(v.Median/w.Median), figure(v.Max/w.Max))
		}
	}
	return out.String()
}

func podsCell(row Row) string {
	return figure(row.Median) + " / " + figure(row.P99) + " / " + figure(row.Max)
}
