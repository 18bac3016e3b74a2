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
		os.Exit(serve(plugin{out: os.Stdout, now: time.Now, machine: hanging{at: os.Getenv("TEST_HANG")}}))
	}
	os.Exit(Main())
}

// hanging is the kernel, but for one thing that is done on the host: the plugin says on stderr that it is
// about to do it, and then never does.
type hanging struct {
	kernel
	at string
}

func (h hanging) Here() (network, error) {
	n, err := link.Here()
	return hangingNet{n, h.at}, err
}

type hangingNet struct {
	*link.Net
	at string
}

func (n hangingNet) hang(at string) {
	if n.at == at {
		_, _ = os.Stderr.WriteString(said)
		select {}
	}
}

// said is what is heard of a plugin that hangs.
const said = "hangs\n"

func (n hangingNet) Pair(here, there link.Device, other *netns.NS) error {
	n.hang("pair")
	return n.Net.Pair(here, there, other)
}

func (n hangingNet) AddRule(r link.Rule) error {
	n.hang("add rule")
	return n.Net.AddRule(r)
}

func (n hangingNet) Ensure(d link.Device) error {
	n.hang("ensure")
	return n.Net.Ensure(d)
}

func (n hangingNet) Delete(device string) error {
	err := n.Net.Delete(device)
	n.hang("deleted")
	return err
}
