package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
	upstream "github.com/zonewise/zonewise/internal/route/kube"
	"github.com/zonewise/zonewise/internal/simulate"
	"github.com/zonewise/zonewise/internal/simulate/plot"
)

func simulateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Compare ways of choosing among zones over many random cases",
		Long: `Compare what becomes of connections without hints, with Kubernetes' topology-mode Auto (by its own
library), with PreferSameZone, with Envoy's formula, and with Zonewise's weights and hints, over many
placements of pods and demands; then over walks of an autoscaler that loses a node and a zone. The
same seed gives the same figures. Demand is gamma distributed (shape 8) in each zone; nodes are all
the same.`,
		Example: "  zonewise simulate --cases 20000\n  zonewise simulate --zones 4 --pods 4-40 --plot pictures",
		Args:    exactly(),
	}
	config := simulate.Config{}
	var nodes []int
	var pods, placements []string
	var book, pictures string
	f := c.Flags()
	f.Uint64Var(&config.Seed, "seed", 1, "start of chance")
	f.IntVar(&config.Cases, "cases", 2000, "cases of each table; more take longer, and change percentages by less than a point")
	f.IntVar(&config.Zones, "zones", 3, "zones")
	f.IntSliceVar(&nodes, "nodes-per-zone", []int{2, 3, 6, 12}, "nodes of a zone, each played by itself where it makes a difference")
	f.StringSliceVar(&pods, "pods", []string{"3-12", "3-30"}, "ranges of pods, a table each")
	f.StringSliceVar(&placements, "placement", []string{"even", "random"}, "how pods spread over zones, a table each")
	f.Float64Var(&config.MaxOverload, "max-overload", route.DefaultMaxOverload, "bound: an endpoint may get this much more than its fair share")
	f.IntVar(&config.Walks, "walks", 10, "walks of an autoscaler; 0 for none")
	f.IntVar(&config.WalkPods, "walk-pods", 40, "pods that a walk goes up to")
	f.StringVar(&book, "prices", "aws", "price of traffic between zones: "+strings.Join(route.Books(), ", ")+", or a file")
	f.StringVar(&pictures, "plot", "", "also draw each table as SVG into this folder")
	out := outputFlag(c, "table", "json", "yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		config.NodesPerZone, config.Algorithms = nodes, algorithms()
		var err error
		if config.Pods, err = parseRanges(pods); err != nil {
			return usagef("--pods: %w", err)
		}
		for _, p := range placements {
			config.Placements = append(config.Placements, simulate.Placement(p))
		}
		if config.Prices, err = readPrices(book); err != nil {
			return err
		}
		if err := config.Validate(); err != nil {
			return usageError{err}
		}
		config.Each = jobs(c.Context(), c.ErrOrStderr())
		result, err := simulate.Run(config)
		if err != nil {
			return err
		}
		if pictures != "" {
			names, err := plot.Write(pictures, result, config.MaxOverload)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "drawn: "+strings.Join(names, ", "))
		}
		r := report.MakeSimulation(config, result)
		return out.print(c.OutOrStdout(), r, func(w io.Writer) error { return report.SimulationTable(w, r) })
	}
	return c
}

// algorithms are all that are compared. Kubernetes' own is handed in here, since the simulator
// knows nothing of Kubernetes.
func algorithms() []simulate.Algorithm {
	plain := simulate.Plain()
	auto := []simulate.Algorithm{
		{Name: "topology-mode Auto", New: func() simulate.Router { return simulate.Stateless(auto) }},
		{Name: "Auto, true demand", New: func() simulate.Router { return simulate.Stateless(autoOfTrueDemand) }},
	}
	return append(append(append(plain[:1:1], auto...), plain[1:]...), simulate.Ours()...)
}

// auto is what Kubernetes' library makes of a Service that asks for topology-mode Auto.
func auto(c simulate.Case) simulate.Answer {
	svc := model.Service{Name: model.Name{Namespace: "default", Name: "web"}, TopologyMode: "Auto"}
	verdict, hinted := upstream.New(c.Nodes).Of(svc, false, []model.Slice{c.Slice()})
	return simulate.Answer{Endpoints: route.Endpoints(hinted, false), Refused: !verdict.Hints}
}

// autoOfTrueDemand lets it know the demand, which otherwise it guesses from the nodes' CPU.
func autoOfTrueDemand(c simulate.Case) simulate.Answer {
	of := map[string]float64{}
	for _, d := range c.Demand {
		of[d.Zone] = d.Share
	}
	in := map[string]int{}
	for _, n := range c.Nodes {
		in[n.Zone]++
	}
	nodes := make([]model.Node, len(c.Nodes))
	for i, n := range c.Nodes {
		const cluster = 1e9 // milli-CPU, so many that rounding loses nothing
		n.MilliCPU = int64(cluster * of[n.Zone] / float64(in[n.Zone]))
		nodes[i] = n
	}
	c.Nodes = nodes
	return auto(c)
}

// parseRanges reads "3-12" and "4".
func parseRanges(texts []string) ([]simulate.Range, error) {
	var out []simulate.Range
	for _, t := range texts {
		from, to, ranged := strings.Cut(t, "-")
		if !ranged {
			to = from
		}
		a, err := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("%q is not a range such as 3-12", t)
		}
		out = append(out, simulate.Range{From: a, To: b})
	}
	return out, nil
}

// jobs does the simulator's jobs on all processors until ctx ends. What takes longer than a second
// tells how far it is, a line for each tenth at most.
func jobs(ctx context.Context, progress io.Writer) func(int, func(int)) error {
	return func(n int, do func(int)) error {
		next := make(chan int)
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				for i := range next {
					do(i)
				}
			})
		}
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		defer workers.Wait()
		defer close(next)
		told := 0
		for i := 0; i < n; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticks.C:
				if now := 100 * i / n; now == 0 || now >= told+10 {
					fmt.Fprintf(progress, "%d%% of %d cases and walks\n", now, n)
					told = now
				}
			case next <- i:
				i++
			}
		}
		return nil
	}
}
