package main

import (
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/internal/vpc/cni"
)

// plugin returns the CNI plugin if that is what this process was called as.
func plugin() func() int {
	if filepath.Base(os.Args[0]) == cni.TypeName || os.Getenv("CNI_COMMAND") != "" {
		return cni.Main
	}
	return nil
}
