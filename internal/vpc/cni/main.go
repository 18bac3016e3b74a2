// Package cni is the CNI plugin: it gives a pod its address and its wire, and takes both back.
package cni

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

// TypeName is the "type" of the plugin in a network configuration, and the base name of its
// executable.
const TypeName = "zonewise-cni"

// Main answers one CNI call: the verb and its arguments come from the environment, the
// configuration from stdin, and the result or the error goes to stdout as JSON. It returns the
// exit code of the process.
func Main() int {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{}, version.PluginSupports("1.0.0", "1.1.0"), TypeName)
	if err == nil {
		return 0
	}
	_ = err.Print()
	return 1
}
