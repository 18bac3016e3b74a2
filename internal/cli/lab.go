package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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
		ValidArgsFunction: completeLab,
	}
}

// completeLab asks the lab's program what can come next: it alone knows its commands and labs.
func completeLab(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	path, err := findLab()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	question := append(append([]string{cobra.ShellCompRequestCmd}, args...), word)
	answer, err := exec.Command(path, question...).Output()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return parseCompletion(string(answer))
}

// parseCompletion reads cobra's answer: a word a line, and a last line with a colon and flags.
func parseCompletion(answer string) ([]string, cobra.ShellCompDirective) {
	lines := strings.Split(strings.TrimRight(answer, "\n"), "\n")
	last, flags := lines[len(lines)-1], 0
	if _, err := fmt.Sscanf(last, ":%d", &flags); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return lines[:len(lines)-1], cobra.ShellCompDirective(flags)
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
