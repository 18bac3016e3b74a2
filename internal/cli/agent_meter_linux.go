package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/zonewise/zonewise/internal/agent"
	"github.com/zonewise/zonewise/internal/agent/metering"
	"github.com/zonewise/zonewise/internal/meter/bpf"
)

func (o agentFlags) checkMeter() error {
	if o.meter != wantAuto && o.meter != wantOff && o.meter != wantRequire {
		return usagef("agent: --meter=%s: must be %s, %s or %s", o.meter, wantAuto, wantOff, wantRequire)
	}
	if _, err := prefixes(o.clusterCIDRs); err != nil {
		return usagef("agent: --cluster-cidrs: %w", err)
	}
	if _, err := o.namedBlocks(); err != nil {
		return usagef("agent: --blocks: %w", err)
	}
	return nil
}

func prefixes(texts []string) (out []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q is no range of addresses, such as 10.0.0.0/8", text)
		}
		out = append(out, p)
	}
	return out, nil
}

func (o agentFlags) namedBlocks() (map[string][]netip.Prefix, error) {
	out := map[string][]netip.Prefix{}
	for name, ranges := range o.blocks {
		all, err := prefixes(strings.Split(ranges, ";"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = all
	}
	return out, nil
}

// meterPins is the folder of what the meter keeps in the kernel, on the BPF file system.
const meterPins = "zonewise-meter"

func (o agentFlags) meterBPF(withSocket bool) bpf.Options {
	out := bpf.Options{Pins: filepath.Join(o.bpffs, meterPins), PodInterface: o.podInterface}
	if withSocket {
		out.Namespaces, out.Sockets = o.namespaces, filepath.Join(o.bpffs, pins, bpf.SocketLayout)
	}
	return out
}

// metering makes the node count, if that is asked for. The socket path has pinned its maps by now.
func (o agentFlags) metering(c *agent.Config) error {
	if o.meter == wantOff {
		if err := o.removeMeter(); err != nil {
			c.Log.Error("what an earlier agent left of the meter is still there", "err", err)
		}
		return nil
	}
	options := o.meterBPF(c.Socket != nil)
	open := func() (metering.Counter, error) {
		counter, err := bpf.New(options)
		if err != nil {
			return nil, err // not a nil *bpf.Counter
		}
		return counter, nil
	}
	if o.meter == wantRequire {
		// Another agent that has it still will let go of it.
		switch counter, err := open(); {
		case err == nil:
			open = func() (metering.Counter, error) { return counter, nil }
		case errors.As(err, new(*bpf.Unsupported)):
			return err
		}
	}
	cluster, err := prefixes(o.clusterCIDRs)
	if err != nil {
		return err
	}
	blocks, err := o.namedBlocks()
	if err != nil {
		return err
	}
	tree := findCgroup(o.cgroup)
	c.Meter = &metering.Options{Open: open, StateDir: o.stateDir, Namespace: o.namespace, Cluster: cluster, Blocks: blocks,
		Addresses: addresses, Cgroups: func(container string) []uint64 { return containerCgroups(tree, container) }}
	return nil
}

func (o agentFlags) removeMeter() error {
	return errors.Join(bpf.Remove(o.meterBPF(false)), metering.Clean(o.stateDir))
}

// containerCgroups returns the ids of a container's cgroups: of the folders below a cgroup v2 with the container's
// id in their name, and of those in them. Runtimes and drivers differ in what else is in it.
func containerCgroups(tree, container string) (ids []uint64) {
	_ = filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // it has just gone
		}
		if !d.IsDir() {
			return nil
		}
		if !strings.Contains(path, container) {
			return nil
		}
		if info, err := os.Stat(path); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				ids = append(ids, stat.Ino)
			}
		}
		return nil
	})
	return ids
}
