//go:build !unix

package store

import (
	"os"
	"path/filepath"
)

// lock marks the directory: here only controllers on a desk run, one at a time.
func lock(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
}

// syncDir does nothing: names are durable as soon as this system pleases.
func syncDir(string) error { return nil }
