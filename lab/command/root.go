// Package command is the command line of the lab: "zonewise lab …" hands over to it.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/topology"
)

// Exit codes, as of every zonewise command.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is wrong use: exit code 2.
type usageError struct{ error }

// interruptedError ends a command that was stopped by Ctrl-C, and says what became of the lab.
type interruptedError struct{ state string }

func (e interruptedError) Error() string { return "interrupted; " + e.state }

var errInterrupted = interruptedError{"nothing is left behind"}

// exitError passes on the exit code of a command that ran in a node.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Run runs the command line and returns the exit code.
func Run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitError
	var usage usageError
	var interrupted interruptedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return code.code
	}
	fmt.Fprintf(os.Stderr, "zonewise lab: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	switch {
	case errors.As(err, &interrupted):
		return exitInterrupted
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "zonewise",
		// Its name is its first word, and this is what it is called by.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "zonewise lab"},
		Short:       "A real multi-zone Kubernetes cluster on this machine",
		Long: "A real multi-zone Kubernetes cluster on this machine: etcd, API server, scheduler, controllers,\n" +
			"kubelets, containerd and runc, each node in namespaces of its own, with no container engine.\n" +
			"The host's own network is never changed.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().String("name", topology.DefaultName, "`name` of the lab")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := topology.ValidateName(labName(cmd)); err != nil {
			return usageError{fmt.Errorf("--name: %w", err)}
		}
		return nil
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newUp(), newDown(), newStatus(), newList(), newKubeconfig(), newLoad(), newExec(), newLogs(), newAWS(), newCloud(), newDemo(), newInternal())
	if err := root.RegisterFlagCompletionFunc("name", completeLabs); err != nil {
		panic(err) // the flag was made three lines above
	}
	return root
}

func completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, _ := cluster.Names()
	return names, cobra.ShellCompDirectiveNoFileComp
}

func labName(cmd *cobra.Command) string {
	name, _ := cmd.Flags().GetString("name")
	return name
}

// args checks the number of arguments as cobra does, but as wrong use.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// needRoot tells whoever is not root what to do.
func needRoot(cmd *cobra.Command) error {
	if os.Geteuid() == 0 {
		return nil
	}
	return fmt.Errorf("%s needs root, for namespaces and cgroups: run it with sudo", cmd.Name())
}

// status asks the named lab; errors say what to do.
func status(ctx context.Context, name string) (cluster.Status, error) {
	s, err := cluster.GetStatus(ctx, name)
	return s, explain(name, err)
}

// explain turns the state of a lab into advice.
func explain(name string, err error) error {
	switch {
	case errors.Is(err, cluster.ErrNotFound):
		return fmt.Errorf("no lab named %s: %s", name, existing())
	case errors.Is(err, cluster.ErrNotRunning):
		return fmt.Errorf("lab %s is not running: start it again with `sudo zonewise lab up%s`, or remove it with `sudo zonewise lab down%s`", name, nameFlag(name), nameFlag(name))
	case errors.Is(err, cluster.ErrBusy):
		return fmt.Errorf("lab %s is being started or removed by another process (%d): wait until that has ended", name, cluster.RunnerPID(cluster.PathsOf(name)))
	case errors.Is(err, cluster.ErrDifferent):
		return fmt.Errorf("lab %s exists and is different: remove it with `sudo zonewise lab down%s`, or choose another --name", name, nameFlag(name))
	case errors.Is(err, cluster.ErrNoCloud):
		return fmt.Errorf("lab %s %w: one with a cloud is made by `sudo zonewise lab up --cni zonewise`, or `--cni none` for a plugin of your own", name, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("lab %s belongs to root: run this with sudo", name)
	}
	return err
}

func existing() string {
	names, err := cluster.Names()
	if err != nil || len(names) == 0 {
		return "there is none yet; `sudo zonewise lab up` makes one"
	}
	return "there is " + strings.Join(names, ", ")
}

func nameFlag(name string) string {
	if name == topology.DefaultName {
		return ""
	}
	return " --name " + name
}
