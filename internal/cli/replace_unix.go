//go:build unix

package cli

import (
	"fmt"
	"os"
	"syscall"
)

// replace makes this process another program: signals, terminal and exit code are that program's.
func replace(path string, args []string) error {
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, args, os.Environ()))
}
