// Command zonewise-lab is the lab: one file, many processes. As "kubectl" it is kubectl.
package main

import (
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/lab/command"
	"github.com/zonewise/zonewise/lab/component"
)

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Exit(component.Kubectl())
	}
	os.Exit(command.Run(os.Args[1:]))
}
