// Package cni is the CNI plugin: it gives a pod its address and its wire, and takes both back.
//
// A lease is written down before the wire is made, and struck out after the wire is gone. So
// whenever the plugin is killed, the file knows at least what the kernel has, and a later DEL or GC
// finds it.
package cni

import (
	"errors"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	klink "github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// TypeName is the "type" of the plugin in a network configuration, and the base name of its
// executable.
const TypeName = "zonewise-cni"

// Main answers one CNI call: the verb and its arguments come from the environment, the
// configuration from stdin, and the result or the error goes to stdout as JSON. It returns the
// exit code of the process.
func Main() int {
	return serve(plugin{out: os.Stdout, now: time.Now, machine: kernel{}})
}

func serve(p plugin) int {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    p.verb(p.add),
		Del:    p.verb(p.del),
		Check:  p.verb(p.check),
		GC:     p.verb(p.gc),
		Status: p.verb(p.status),
	}, version.PluginSupports("1.0.0", "1.1.0"), TypeName)
	if err == nil {
		return 0
	}
	if err.Print() != nil {
		return 2 // nobody reads stdout: the exit code is all that is left to say it with
	}
	return 1
}

// coded gives an error the code of the CNI specification, where it has one.
func coded(err error) error {
	switch {
	case errors.Is(err, errConfig):
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	case errors.Is(err, netns.ErrGone):
		return types.NewError(types.ErrInvalidNetNS, err.Error(), "")
	case errors.Is(err, vpc.ErrWait):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	case errors.Is(err, errUnready):
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return err
}

// kernel is the machine that we are on.
type kernel struct{}

func (kernel) Open(path string) (*netns.NS, error) { return netns.Open(path) }
func (kernel) Here() (network, error)              { return klink.Here() }
func (kernel) At(ns *netns.NS) (network, error)    { return klink.At(ns) }

// machine is what the plugin needs of the machine that it is on.
type machine interface {
	Open(path string) (*netns.NS, error)
	Here() (network, error)
	At(ns *netns.NS) (network, error)
}

type network interface {
	link.Net
	Close()
}
