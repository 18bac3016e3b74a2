package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/cli/report"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain SERVICE",
		Short: "Explain why a Service's traffic leaves its zone, and the nearest fix",
		Long: `Explain what Kubernetes does with a Service today and why, what Zonewise does, which bound keeps
connections from staying in their zone, what is the nearest fix, and what happens if a zone is lost.
With -f it reads what kubectl printed, as plan does.`,
		Example: "  zonewise explain web -n shop",
		Args:    exactly("SERVICE"),
	}
	what := addWhatIfFlags(c)
	out := outputFlag(c, "table", "json", "yaml")
	in := addInputFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		q, err := what.question(c)
		if err != nil {
			return err
		}
		facts, err := in.read(c)
		if err != nil {
			return err
		}
		svc, err := facts.find(args[0])
		if err != nil {
			return err
		}
		facts.notes(c.ErrOrStderr())
		if err := q.Check(facts.Nodes); err != nil {
			return usageError{err}
		}
		p := newPlanner(facts, q)
		s := p.plan(svc)
		result := report.MakeExplain(s, svc.InternalLocal, p.advise(svc, s, 1))
		return out.print(c.OutOrStdout(), result, func(w io.Writer) error { return report.ExplainText(w, result) })
	}
	return c
}
