package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
)

func newAWS() *cobra.Command {
	var env bool
	cmd := &cobra.Command{
		Use: "aws COMMAND…", Short: "Run this machine's aws client against a lab's cloud",
		Long: "Run this machine's aws client against a lab's cloud, with its endpoint, region and credentials set up.\n" +
			"Nothing of your own configuration of that client is used, and no other cloud is asked.\n" +
			"With --env, print what makes a shell's own `aws`, and other clients of AWS, do the same.",
		Example: "  zonewise lab aws ec2 describe-instances --query 'Reservations[*].Instances[*].PrivateIpAddress' --output text\n" +
			"  eval \"$(zonewise lab aws --env)\"; aws ec2 describe-security-groups",
		Args: args(func(_ *cobra.Command, words []string) error {
			switch {
			case env && len(words) > 0:
				return fmt.Errorf("--env: takes no command: use eval \"$(zonewise lab aws --env)\", and then aws %s", strings.Join(words, " "))
			case !env && len(words) == 0:
				return errors.New("name a command of the aws client, such as ec2 describe-instances")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := labName(cmd)
			environment, endpoint, err := cluster.AWS(name)
			if err != nil {
				return explain(name, err)
			}
			if env {
				_, err := io.WriteString(cmd.OutOrStdout(), shellAWS(environment))
				return err
			}
			return runAWS(cmd, environment, endpoint, words)
		},
	}
	cmd.Flags().BoolVar(&env, "env", false, "print variables, and a function aws, for the shell to evaluate")
	cmd.Flags().SetInterspersed(false) // flags after the first word are the client's
	return cmd
}

func runAWS(cmd *cobra.Command, environment []string, endpoint string, words []string) error {
	// Its older versions know no variable for the endpoint.
	run := exec.CommandContext(cmd.Context(), "aws", slices.Concat([]string{"--endpoint-url", endpoint}, words)...)
	run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	run.Env = append(withoutAWS(os.Environ()), environment...)
	err := run.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exitError{exit.ExitCode()}
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w: install awscli, as with `sudo apt-get install awscli`", err)
	}
	return err
}

// alone is what keeps a client from what its user has elsewhere.
var alone = []string{"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"}

// elsewhere are variables that would lead a client to another cloud or account, whatever else is set.
const elsewhere = "AWS_PROFILE AWS_DEFAULT_PROFILE AWS_REGION AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE " +
	"AWS_ENDPOINT_URL_EC2 AWS_ENDPOINT_URL_STS AWS_IGNORE_CONFIGURED_ENDPOINT_URLS AWS_CA_BUNDLE AWS_USE_FIPS_ENDPOINT AWS_USE_DUALSTACK_ENDPOINT"

// shellAWS is a piece of shell after which clients speak with the lab's cloud. The function is for those
// versions of aws that know no variable for the endpoint.
func shellAWS(environment []string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "unset %s\n", elsewhere)
	for _, v := range slices.Concat(environment, alone) {
		key, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&out, "export %s='%s'\n", key, strings.ReplaceAll(value, "'", `'\''`))
	}
	out.WriteString("aws() { command aws --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"; }\n")
	return out.String()
}

// withoutAWS is an environment without what would lead the client to another cloud, or to an account of
// the user's: only how it shows its answers, and how often it tries, is left.
func withoutAWS(environment []string) []string {
	harmless := []string{"AWS_PAGER", "AWS_DEFAULT_OUTPUT", "AWS_MAX_ATTEMPTS"}
	out := slices.DeleteFunc(slices.Clone(environment), func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(key, "AWS_") && !slices.Contains(harmless, key)
	})
	return append(out, alone...)
}
