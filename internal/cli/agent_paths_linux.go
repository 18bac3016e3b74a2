package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/zonewise/zonewise/internal/agent"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/link"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/kernel/proxies"
	"github.com/zonewise/zonewise/internal/service/bpf"
	"github.com/zonewise/zonewise/internal/service/nft"
)

func (o agentFlags) nft(flows *cutter) *nft.Applier {
	return nft.New(kernelnft.Dial(0), flows, nft.Options{PodInterface: o.podInterface, MasqueradeAll: o.masqueradeAll, CountBytes: o.countBytes})
}

// cutter is the flow table, and a count of what was cut.
type cutter struct {
	conntrack.Conn
	cut atomic.Uint64
}

// CutUDP is as conntrack.Conn's.
func (c *cutter) CutUDP(v6 bool, cut func(conntrack.Flow) bool) (int, error) {
	n, err := c.Conn.CutUDP(v6, cut)
	c.cut.Add(uint64(n))
	return n, err
}

// pins is the folder of what outlives the agent, on the BPF file system.
const pins = "zonewise"

func (o agentFlags) bpf() bpf.Options {
	return bpf.Options{Cgroup: findCgroup(o.cgroup), Pins: filepath.Join(o.bpffs, pins), Namespaces: o.namespaces}
}

// findCgroup returns the folder of cgroup v2 at a mount: itself, or the one beside those of v1.
func findCgroup(mount string) string {
	if unified := filepath.Join(mount, "unified"); isCgroup(unified) && !isCgroup(mount) {
		return unified
	}
	return mount
}

func isCgroup(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

// paths makes the paths that are asked for. What cannot be is no error: nft does all that the socket
// path does. It is looked at once: what a kernel or a host lacks does not come while it runs.
func (o agentFlags) paths(c *agent.Config) error {
	flows := &cutter{}
	complete := o.nft(flows)
	c.Applier, c.Ranges, c.Cut = complete, complete, flows.cut.Load
	if o.masqueradeAll && o.socket == wantAuto {
		c.NoSocket = "with --masquerade-all packets are needed: what is led at the socket is not masqueraded"
		c.Log.Warn("no socket path: nft does all", "why", c.NoSocket)
	}
	if o.socket == wantOff || c.NoSocket != "" {
		if err := o.removeSocket(); err != nil {
			c.Log.Error("what an earlier agent left of the socket path is still there", "err", err)
		}
		return nil
	}
	socket, err := bpf.New(o.bpf())
	if err == nil {
		c.Socket, c.Notes = socket, complete
		return nil
	}
	if o.socket == wantRequire {
		return fmt.Errorf("socket path: %w", err)
	}
	c.NoSocket = err.Error()
	var lacks *bpf.Unsupported
	if errors.As(err, &lacks) {
		c.Log.Warn("no socket path: nft does all", "missing", lacks.Missing)
	} else {
		c.Log.Error("no socket path: nft does all", "err", err)
	}
	return nil
}

// removeSocket takes away what an earlier agent left. One that may not use BPF can still take away the
// pins, which are what holds the rest; UDP sockets that were led then stay led.
func (o agentFlags) removeSocket() error {
	options := o.bpf()
	err := bpf.Remove(options)
	if errors.Is(err, fs.ErrPermission) {
		return os.RemoveAll(options.Pins)
	}
	return err
}

// addresses are those of the node: the agent is in its network.
func addresses() ([]netip.Addr, error) {
	net, err := link.Here()
	if err != nil {
		return nil, err
	}
	defer net.Close()
	return net.Addresses()
}

func otherProxies() ([]view.Other, error) {
	found, err := proxies.Look()
	var out []view.Other
	for _, f := range found {
		out = append(out, view.Other{Who: f.Who, What: f.What, Mend: f.Mend})
	}
	return out, err
}
