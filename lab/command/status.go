package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
)

func newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show zones, nodes, ports, and what crossed zones", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %s: use table or json", output)}
			}
			s, err := status(cmd.Context(), labName(cmd))
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printStatus(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	encode := json.NewEncoder(w)
	encode.SetIndent("", "  ")
	return encode.Encode(v)
}

// dnsText is how long it took until cluster DNS answered, where it was waited for.
func dnsText(b cluster.BootStatus, format string) string {
	if b.DNS == 0 {
		return ""
	}
	return fmt.Sprintf(format, b.DNS)
}

func printStatus(out io.Writer, s cluster.Status) error {
	fmt.Fprintf(out, "Lab %s (%s), proxy %s\n", s.Name, s.Version, s.Proxy)
	fmt.Fprintf(out, "API         %s  (export KUBECONFIG=%s)\n", s.API, s.Kubeconfig)
	fmt.Fprintf(out, "Started     API %.1f s, nodes %.1f s%s; %d MB of memory\n", s.Boot.API, s.Boot.Nodes, dnsText(s.Boot, ", DNS %.1f s"), s.MemoryBytes/1e6)
	if len(s.IPFamilies) > 1 {
		fmt.Fprintf(out, "Addresses   %s\n", strings.Join(s.IPFamilies, " and "))
	}
	if s.Cloud != nil {
		fmt.Fprintf(out, "Cloud API   %s  (zonewise lab aws …)\n", s.Cloud.Endpoint)
	}
	fmt.Fprintf(out, "Latency between zones: %s\n\n", s.Latency)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ZONE\tSUBNET\tNODE\tALIAS\tTYPE\tMAX-PODS")
	for _, z := range s.Zones {
		subnet := z.Subnet
		if z.IPv6 != "" {
			subnet += "," + z.IPv6
		}
		for _, n := range z.Nodes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d", z.Name, subnet, n.Name, n.Alias, n.InstanceType, n.MaxPods)
			if n.PID == 0 {
				fmt.Fprint(w, "\t"+cmp.Or(n.Power, "down"))
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintln(w, "\nFROM\tTO\tBYTES\tPACKETS")
	for _, c := range s.CrossZone {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", c.From, c.To, c.Bytes, c.Packets)
	}
	if len(s.Dropped) > 0 { // by the check that a source is of its interface
		fmt.Fprintln(w, "\nWRONG-SOURCE\tNODE\tINTERFACE\tPACKETS")
	}
	for _, d := range s.Dropped {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", d.Source, d.Node, d.Interface, d.Packets)
	}
	if len(s.NodePorts) > 0 {
		fmt.Fprintln(w, "\nSERVICE\tNODE-PORT\tNODE\tON THIS HOST")
	}
	for _, p := range s.NodePorts {
		fmt.Fprintf(w, "%s/%s\t%d/%s\t%s\t%s\n", p.Namespace, p.Service, p.Port, p.Protocol, p.Node, p.Listen)
	}
	return w.Flush()
}
