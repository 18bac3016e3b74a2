// Package cli is the command line of Zonewise. Results go to stdout, progress and logs to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, a contract with scripts.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitFindings = 3
)

// Main runs the command that args (with the program's name first) ask for and returns the exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := root(filepath.Base(args[0]))
	root.SetArgs(args[1:])
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "zonewise: "+oneLine(err))
	}
	return exitCode(err)
}

// exitCode is the one place that maps errors to exit codes.
func exitCode(err error) int {
	var wrong usageError
	var found findings
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &found):
		return exitFindings
	}
	return exitFailed
}

// usageError is a wrong use of a command.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// findings is how many there are of what deserves a look: the command did its work, and found some.
type findings int

func (f findings) Error() string {
	if f == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", int(f))
}

func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func root(name string) *cobra.Command {
	root := &cobra.Command{
		Use:   "zonewise",
		Short: "Keep Kubernetes traffic in its zone, and say why it left",
		Long: `Zonewise keeps Kubernetes traffic in its zone as far as that is safe, shows what
leaves the zone, and says why it left.

Exit codes: 0 ok, 1 failed, 2 wrong use, 3 findings.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; see zonewise --help", args[0])
			}
			return c.Help()
		},
	}
	if name == "kubectl-zonewise" || name == "kubectl-zonewise.exe" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl zonewise"}
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(planCommand(), explainCommand(), simulateCommand(), serviceCommand(), topCommand(), flowsCommand(), costCommand(), checkCommand(), nodeCommand(), labCommand(), agentCommand(), addressesCommand(), controllerCommand(), versionCommand())
	return root
}

// exactly asks for positional arguments by their names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s: %s is missing", c.CommandPath(), names[len(args)])
		case len(args) > len(names):
			return usagef("%s: unexpected argument %q", c.CommandPath(), args[len(names)])
		}
		return nil
	}
}
