package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
)

const labProgram = "zonewise-lab"

func labCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lab COMMAND",
		Short: "Run a real multi-zone cluster on this machine (hands over to " + labProgram + ")",
		// The lab reads its arguments itself, --help included.
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := findLab()
			if err != nil {
				return err
			}
			return replace(path, append([]string{labProgram}, args...))
		},
	}
}

// findLab looks beside this executable first, so that both are of one build.
func findLab() (string, error) {
	var beside string
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		beside = filepath.Join(filepath.Dir(self), labProgram)
		if s, err := os.Stat(beside); err == nil && s.Mode().IsRegular() && s.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	if path, err := exec.LookPath(labProgram); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s: neither %s nor in PATH; build it with: make build", labProgram, beside)
}
