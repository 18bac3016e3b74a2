package cli

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/route/prices"
)

func planCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plan [SERVICE]",
		Short: "Plan how much traffic can stay in its zone, and what that saves",
		Long: `Plan, for each Service, how many connections can stay in their zone while no endpoint gets more
than its bound, and what that costs. It reads and changes nothing in the cluster; Zonewise need not be
installed. With -f it reads what kubectl printed, and needs no cluster at all:

  kubectl get nodes,services,endpointslices,pods,namespaces -A -o yaml | zonewise plan -f -

--scale, --lose-zone, --max-overload and --prices ask what would be if, and combine. The exit code
is 3 if a Service is above its bound today or cannot be planned, or if the input is not whole.`,
		Example: "  zonewise plan -A\n  zonewise plan web -n shop --scale ap-northeast-2c=4 --wish 0.99",
		Args:    atMost("SERVICE"),
	}
	var all bool
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "plan the Services of all namespaces")
	what := addWhatIfFlags(c)
	wish := c.Flags().Float64("wish", 0, "also say which pods to add or move for this in-zone share, 0 to 1")
	out := outputFlag(c, "table", "json", "yaml")
	in := addInputFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		q, err := what.question(c)
		if err != nil {
			return err
		}
		if wished := c.Flags().Changed("wish"); wished && !(*wish > 0 && *wish <= 1) {
			return usagef("--wish: %v is not in 0 to 1", *wish)
		}
		if all && len(args) == 1 {
			return usagef("--all-namespaces: not with a SERVICE")
		}
		facts, err := in.read(c)
		if err != nil {
			return err
		}
		if all {
			facts.namespace = ""
		}
		return runPlan(c, facts, q, args, *wish, out)
	}
	return c
}

func runPlan(c *cobra.Command, facts input, q question, args []string, wish float64, out *output) error {
	services := facts.chosen()
	if len(args) == 1 {
		svc, err := facts.find(args[0])
		if err != nil {
			return err
		}
		services = []model.Service{svc}
	}
	facts.notes(c.ErrOrStderr())
	if err := q.Check(facts.Nodes); err != nil {
		return usageError{err}
	}
	p := newPlanner(facts, q)
	planned, err := p.planAll(c.Context(), services)
	if err != nil {
		return err
	}
	quiet := map[model.Name]bool{}
	for _, s := range services {
		quiet[s.Name] = s.InternalLocal
	}
	result := report.MakePlan(planned, func(n model.Name) bool { return quiet[n] })
	result.WhatIf = q.text()
	if wish > 0 {
		result.Advise(p.adviceFor(services, planned, wish))
	}
	err = out.print(c.OutOrStdout(), result, func(w io.Writer) error {
		if err := report.PlanTable(w, result); err != nil {
			return err
		}
		if len(args) == 1 {
			if err := report.PlanZones(w, result); err != nil {
				return err
			}
		}
		return report.PlanAdvice(w, result)
	})
	if n := result.Totals.Findings + facts.torn(); err == nil && n > 0 {
		return findings(n)
	}
	return err
}

// adviceFor returns the advice for a Service's family.
func (p *planner) adviceFor(services []model.Service, planned []outlook.Service, wish float64) func(model.Name, bool) (route.Advice, bool) {
	at := make(map[model.Name]int, len(services))
	for i, s := range services {
		at[s.Name] = i
	}
	return func(n model.Name, v6 bool) (route.Advice, bool) {
		i := at[n]
		for f, a := range p.advise(services[i], planned[i], wish) {
			if planned[i].Families[f].V6 == v6 {
				return a, true
			}
		}
		return route.Advice{}, false
	}
}

// whatIfFlags say what is to be otherwise.
type whatIfFlags struct {
	overload float64
	scale    map[string]int
	lose     []string
	prices   string
	rate     string
}

func addWhatIfFlags(c *cobra.Command) *whatIfFlags {
	w := &whatIfFlags{}
	f := c.Flags()
	f.Float64Var(&w.overload, "max-overload", route.DefaultMaxOverload, "bound: an endpoint may get this much more than its fair share (0.2 is 20%)")
	f.StringToIntVar(&w.scale, "scale", nil, "as if zones had so many ready pods: zone=n,…")
	f.StringSliceVar(&w.lose, "lose-zone", nil, "as if zones were lost, with their clients and pods")
	f.StringVar(&w.prices, "prices", "aws", "price of traffic between zones: "+strings.Join(route.Books(), ", ")+", or a file")
	f.StringVar(&w.rate, "rate", "", "traffic of a Service where it is unknown, for the cost a month: 10MB (each second)")
	return w
}

func (w *whatIfFlags) question(c *cobra.Command) (question, error) {
	var q question
	if c.Flags().Changed("max-overload") {
		if !(w.overload >= 0.01 && w.overload <= 4) {
			return q, usagef("--max-overload: %v is not in 0.01 to 4", w.overload)
		}
		q.MaxOverload = &w.overload
	}
	q.Scale, q.Lose = w.scale, w.lose
	var err error
	if q.rate, err = parseRate(w.rate); err != nil {
		return q, usagef("--rate: %w", err)
	}
	q.prices, err = readPrices(w.prices)
	return q, err
}

// readPrices takes the name of a book, or a file.
func readPrices(name string) (model.Prices, error) {
	books, err := readSeries(name)
	return books.At(time.Now()), err
}

// readSeries returns books one after another, as they are in a file.
func readSeries(name string) (meter.Series, error) {
	if p, ok := route.Book(name); ok {
		return meter.NewSeries(meter.Era{Prices: p})
	}
	text, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil, usagef("--prices: %q is neither %s nor a file", name, strings.Join(route.Books(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("prices: %w", err)
	}
	return prices.ReadSeries(text, name)
}

// parseRate reads bytes a second: "10MB", "10MB/s", "1.5Gi", "500".
func parseRate(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimRight(strings.TrimSuffix(s, "/s"), "BkKMGTi")
	unit := strings.TrimSuffix(strings.TrimSuffix(s, "/s")[len(number):], "B")
	factor, ok := map[string]float64{"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(n >= 0) || math.IsInf(n*factor, 0) {
		return 0, fmt.Errorf("%q is not a rate such as 10MB", s)
	}
	return n * factor, nil
}

// atMost takes one argument or none.
func atMost(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s: unexpected argument %q after %s", c.CommandPath(), args[1], name)
		}
		return nil
	}
}
