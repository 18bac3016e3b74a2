// Command zonewise is the product: agent, controller and command line.
package main

import (
	"os"

	"github.com/zonewise/zonewise/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
