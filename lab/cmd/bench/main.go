// Bench measures Zonewise beside its peers; see package bench.
package main

import (
	"os"

	"github.com/zonewise/zonewise/lab/bench"
)

func main() { os.Exit(bench.Main(os.Args, os.Stdout, os.Stderr)) }
