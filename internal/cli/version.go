package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/version"
)

func versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Args:  exactly(),
	}
	out := outputFlag(c, "text", "json", "yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		info := version.Get()
		return out.print(c.OutOrStdout(), info, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "zonewise %s (%s, %s)\n", info.Version, info.Go, info.Platform)
			return err
		})
	}
	return c
}
