package cli

import (
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/controller/view"
)

func costCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cost",
		Short: "Show what traffic between zones costs, who causes it, and what plans save",
		Long: `Show what traffic between zones cost in a time that has passed, by Service, by namespace or by a label of
the namespace; what it costs in a month at that rate; what was saved since a ZoneRoute was applied; and what
a ZoneRoute that only observes would have saved.

It asks the controller that leads, through the API server (pods/portforward).`,
		Example: "  zonewise cost --since 7d\n  zonewise cost --since 24h --by label:team\n  zonewise cost -n shop -o json",
		Args:    exactly(),
	}
	since, by := newAge("7d"), groups("service")
	c.Flags().Var(&since, "since", "how far back to look: 24h, 7d, 4w")
	c.Flags().Var(&by, "by", "what lines are of: service, namespace, or label:KEY, a label of namespaces")
	complete(c, "by", cobra.FixedCompletions([]string{"service", "namespace", "label:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	var all bool
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces; so it is without -n, too")
	limit := c.Flags().Int("limit", 0, "so many lines at most, the dearest; 0: all")
	out := outputFlag(c, "table", "json", "yaml")
	access := accessFlags(c)
	complete(c, "namespace", access.completeNamespaces)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *limit < 0 {
			return usagef("--limit: %d is less than 0", *limit)
		}
		leader, err := access.leader()
		if err != nil {
			return err
		}
		f := trafficFlags{access: access, all: all, since: since}
		q, err := f.query()
		if err != nil {
			return err
		}
		q.Set("by", by.query())
		if *limit > 0 {
			q.Set("limit", strconv.Itoa(*limit))
		}
		result, err := get[view.Cost](c.Context(), leader, "/v1/cost", q)
		if err != nil {
			return err
		}
		notes(c, result.Notes)
		return f.show(c, out, result, q, len(result.Lines) == 0, func(w io.Writer, at report.Place) error { return report.Cost(w, result, at) })
	}
	return c
}

// show prints an answer. One without lines is told by a line that says so, in people's form alone.
func (f *trafficFlags) show(c *cobra.Command, out *output, v any, q url.Values, empty bool, text func(io.Writer, report.Place) error) error {
	err := out.print(c.OutOrStdout(), v, func(w io.Writer) error {
		if empty {
			return nil
		}
		return text(w, place(w))
	})
	if err == nil && empty {
		return f.nothing(q)
	}
	return err
}

// groups is the value of --by.
type groups string

// String, Set and Type are pflag.Value.
func (g *groups) String() string { return string(*g) }

// Type is what the help shows.
func (g *groups) Type() string { return "group" }

// Set takes a group that there is; the plural is fine.
func (g *groups) Set(s string) error {
	key, label := strings.CutPrefix(s, "label:")
	switch one := strings.TrimSuffix(s, "s"); {
	case one == "service" || one == "namespace":
		*g = groups(one)
	case label && key != "":
		*g = groups(s)
	default:
		return usagef("must be service, namespace or label:KEY, such as label:team")
	}
	return nil
}

// query is what the controller calls it.
func (g groups) query() string {
	if strings.HasPrefix(string(g), "label:") {
		return string(g)
	}
	return string(g) + "s"
}
