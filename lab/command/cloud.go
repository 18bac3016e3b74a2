package command

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
)

func newCloud() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "cloud", Short: "Show the API of a lab's cloud: where it is, how it behaves, and what it was asked", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %s: use table or json", output)}
			}
			name := labName(cmd)
			s, err := status(cmd.Context(), name)
			if err != nil {
				return err
			}
			if s.Cloud == nil {
				return explain(name, cluster.ErrNoCloud)
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), s.Cloud)
			}
			return printCloud(cmd.OutOrStdout(), *s.Cloud)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.AddCommand(newFaults())
	return cmd
}

func newFaults() *cobra.Command {
	var f cluster.Faults
	var latency time.Duration
	cmd := &cobra.Command{
		Use: "faults", Short: "Make the cloud's API behave badly, or without flags well again", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if latency < 0 {
				return usageError{fmt.Errorf("--latency %s: use a duration such as 200ms", latency)}
			}
			if latency > 0 {
				f.Latency = latency.String()
			}
			name := labName(cmd)
			return explain(name, cluster.SetFaults(cmd.Context(), name, f))
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&latency, "latency", 0, "before every answer")
	flags.BoolVar(&f.Away, "away", false, "connections end without an answer")
	flags.BoolVar(&f.Unavailable, "unavailable", false, "every answer is that the service is unavailable")
	flags.BoolVar(&f.Truncated, "truncated", false, "answers break off in the middle")
	flags.BoolVar(&f.Throttle, "throttle", false, "calls are limited, as AWS does by default")
	return cmd
}

func printCloud(out io.Writer, s cluster.CloudStatus) error {
	fmt.Fprintf(out, "Cloud API   %s, in the VPC %s  (zonewise lab aws …)\n", s.Endpoint, s.VPCEndpoint)
	fmt.Fprintf(out, "Faults      %s\n\n", faultsText(s.Faults))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tINSTANCE")
	for _, alias := range slices.Sorted(maps.Keys(s.Instances)) {
		fmt.Fprintf(w, "%s\t%s\n", alias, s.Instances[alias])
	}
	if len(s.Calls) > 0 {
		fmt.Fprintln(w, "\nACTION\tCALLS\tREFUSED")
	}
	for _, c := range s.Calls {
		var refused []string
		for _, code := range slices.Sorted(maps.Keys(c.Refused)) {
			refused = append(refused, fmt.Sprintf("%d %s", c.Refused[code], code))
		}
		fmt.Fprintf(w, "%s\t%d", c.Action, c.Calls)
		if len(refused) > 0 {
			fmt.Fprintf(w, "\t%s", strings.Join(refused, ", "))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func faultsText(f cluster.Faults) string {
	var all []string
	if f.Latency != "" {
		all = append(all, "latency "+f.Latency)
	}
	for _, named := range []struct {
		name string
		is   bool
	}{{"away", f.Away}, {"unavailable", f.Unavailable}, {"truncated", f.Truncated}, {"throttled", f.Throttle}} {
		if named.is {
			all = append(all, named.name)
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
