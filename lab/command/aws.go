package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
)

func newAWS() *cobra.Command {
	cmd := &cobra.Command{
		Use: "aws COMMAND…", Short: "Run this machine's aws client against a lab's cloud",
		Long: "Run this machine's aws client against a lab's cloud, with its endpoint, region and credentials set up.\n" +
			"Nothing of your own configuration of that client is used, and no other cloud is asked.",
		Example: "  zonewise lab aws ec2 describe-instances --query 'Reservations[*].Instances[*].PrivateIpAddress' --output text",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := labName(cmd)
			environment, endpoint, err := cluster.AWS(name)
			if err != nil {
				return explain(name, err)
			}
			// Its older versions know no variable for the endpoint.
			run := exec.CommandContext(cmd.Context(), "aws", slices.Concat([]string{"--endpoint-url", endpoint}, words)...)
			run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			run.Env = append(withoutAWS(os.Environ()), environment...)
			err = run.Run()
			var exit *exec.ExitError
			switch {
			case errors.As(err, &exit):
				return exitError{exit.ExitCode()}
			case errors.Is(err, exec.ErrNotFound):
				return fmt.Errorf("%w: install awscli, as with `sudo apt-get install awscli`", err)
			}
			return err
		},
	}
	cmd.Flags().SetInterspersed(false) // flags after the first word are the client's
	return cmd
}

// withoutAWS is an environment without what would lead the client to another cloud, or to an account of
// the user's: only how it shows its answers, and how often it tries, is left.
func withoutAWS(environment []string) []string {
	harmless := []string{"AWS_PAGER", "AWS_DEFAULT_OUTPUT", "AWS_MAX_ATTEMPTS"}
	out := slices.DeleteFunc(slices.Clone(environment), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(key, "AWS_") && !slices.Contains(harmless, key)
	})
	return append(out, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
}
