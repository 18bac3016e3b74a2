package command

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/version"
	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/vpccni"
)

// newInternal holds the roles under which the program starts itself again. They are no part of the
// contract with users.
func newInternal() *cobra.Command {
	internal := &cobra.Command{Use: "internal", Hidden: true, Short: "Roles of the lab's own processes"}
	run := &cobra.Command{
		Use: "run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLab(cmd.Context(), version.Version) },
	}
	var binDir, out string
	build := &cobra.Command{
		Use: "images", Short: "Build the lab's image archives", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := images.Build(cmd.Context(), images.Options{BinDir: binDir, OutDir: out, Version: version.Version, Log: cmd.ErrOrStderr()})
			return err
		},
	}
	build.Flags().StringVar(&binDir, "bin", "bin", "")
	build.Flags().StringVar(&out, "out", "bin/images", "")
	var dir string
	upstream := &cobra.Command{
		Use: "vpccni", Short: "Make images and a manifest of AWS's own CNI", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return vpccni.Make(dir, cmd.ErrOrStderr()) },
	}
	upstream.Flags().StringVar(&dir, "dir", "bin/vpccni", "")
	internal.AddCommand(run, build, upstream,
		&cobra.Command{Use: machine.RoleEnter, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return machine.Enter(args[0]) }},
		&cobra.Command{Use: machine.RoleInit, Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return machine.Init(args[0]) }},
	)
	for _, role := range []string{component.Etcd, component.APIServer, component.ControllerManager, component.Scheduler, component.Kubelet, component.KubeProxy} {
		internal.AddCommand(&cobra.Command{
			Use: role, DisableFlagParsing: true,
			Run: func(_ *cobra.Command, args []string) { os.Exit(component.Run(role, args)) },
		})
	}
	return internal
}
