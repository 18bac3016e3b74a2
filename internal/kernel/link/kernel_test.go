//go:build kernel

package link

import (
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

func TestKernelConforms(t *testing.T) {
	var nets [2]*Net
	var spaces [2]*netns.NS
	for i := range nets {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		n, err := At(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		nets[i], spaces[i] = n, ns
	}
	conforms(t, nets[0], nets[1], spaces[1])
}
