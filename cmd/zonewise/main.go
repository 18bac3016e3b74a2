// Command zonewise is the product: agent, controller and command line. The container runtime
// calls the same executable as the CNI plugin zonewise-cni.
package main

import (
	"os"

	"github.com/zonewise/zonewise/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	if answer := plugin(); answer != nil {
		return answer()
	}
	return cli.Main(os.Args)
}
