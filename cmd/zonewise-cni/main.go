//go:build linux

// Command zonewise-cni is the CNI plugin. The container runtime starts it anew for each pod that comes or goes, so it is
// a program of its own: it takes a fraction of the time that zonewise does to start.
package main

import (
	"os"

	"github.com/zonewise/zonewise/internal/vpc/cni"
)

func main() { os.Exit(cni.Main()) }
