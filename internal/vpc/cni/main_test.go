package cni

import (
	"os"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// TestMain lets the test binary be the plugin: a runtime would start it with CNI_COMMAND set.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("CNI_COMMAND") == "":
		os.Exit(m.Run())
	case os.Getenv("TEST_HANG") != "":
		os.Exit(serve(plugin{out: os.Stdout, now: time.Now, machine: hanging{}}))
	}
	os.Exit(Main())
}

// hanging is the kernel, but for the making of wires: it says on stderr that it is about to, and
// then never does.
type hanging struct{ kernel }

func (hanging) Here() (network, error) {
	n, err := link.Here()
	return hangingNet{n}, err
}

type hangingNet struct{ *link.Net }

func (hangingNet) Pair(_, _ link.Device, _ *netns.NS) error {
	_, _ = os.Stderr.WriteString("leased\n")
	select {}
}
