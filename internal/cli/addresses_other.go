//go:build !linux

package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func addressesCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "addresses",
		Short:  "Get a node's pods their addresses from the cloud (needs Linux)",
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return errors.New("addresses: needs Linux") },
	}
}
