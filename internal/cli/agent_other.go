//go:build !linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func agentCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "agent",
		Short:  "Run a node's service dataplane (needs Linux)",
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return errors.New("agent: needs Linux") },
	}
}
