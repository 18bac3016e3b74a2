package command

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
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
		Use: "faults", Short: "Make the cloud behave badly, or without flags well again", Args: args(cobra.NoArgs),
		Long: "Make the cloud behave badly, or without flags well again. Each call replaces what an earlier one said.\n" +
			"What is denied or revoked is the role of the nodes; `zonewise lab aws` has keys of its own.",
		Example: "  zonewise lab cloud faults --unavailable\n  zonewise lab cloud faults --deny AssignPrivateIpAddresses,CreateNetworkInterface\n  zonewise lab cloud faults",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case cmd.Flags().Changed("calls-per-second") && f.CallsPerSecond <= 0:
				return usageError{fmt.Errorf("--calls-per-second %g: use a number above 0", f.CallsPerSecond)}
			case f.Throttle && f.CallsPerSecond > 0:
				return usageError{errors.New("--throttle, --calls-per-second: one of the two")}
			}
			for _, action := range f.Denied {
				if !wire.Knows(action) {
					return usageError{fmt.Errorf("--deny %s: the lab's cloud has no such action: use the names of EC2, such as AssignPrivateIpAddresses", action)}
				}
			}
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
	flags.Float64Var(&f.CallsPerSecond, "calls-per-second", 0, "so many calls are answered, and the others throttled")
	flags.StringSliceVar(&f.Denied, "deny", nil, "actions of EC2 that the nodes' role may not do")
	flags.BoolVar(&f.Revoked, "revoked", false, "the credentials of the nodes' role are not accepted")
	flags.BoolVar(&f.NoMetadata, "no-metadata", false, "the nodes' metadata service ends connections without an answer")
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
	}{
		{"away", f.Away}, {"unavailable", f.Unavailable}, {"truncated", f.Truncated}, {"throttled", f.Throttle},
		{"credentials revoked", f.Revoked}, {"no metadata", f.NoMetadata},
	} {
		if named.is {
			all = append(all, named.name)
		}
	}
	if f.CallsPerSecond > 0 {
		all = append(all, fmt.Sprintf("throttled to %g calls a second", f.CallsPerSecond))
	}
	for _, action := range f.Denied {
		all = append(all, action+" denied")
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
