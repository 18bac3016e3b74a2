package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/agent"
)

// A container's processes are in the folder named after it, whatever else is in the name, and in those below.
func TestContainerCgroups(t *testing.T) {
	tree := t.TempDir()
	var want []uint64
	for dir, ours := range map[string]bool{
		"kubepods.slice/kubepods-pod1.slice/cri-containerd-abc123.scope": true, "kubepods.slice/kubepods-pod1.slice/cri-containerd-abc123.scope/init": true,
		"kubepods.slice/kubepods-pod1.slice/cri-containerd-def456.scope": false, "system.slice": false, "kubepods.slice": false,
	} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(tree, dir))
		if err != nil {
			t.Fatal(err)
		}
		if ours {
			want = append(want, info.Sys().(*syscall.Stat_t).Ino)
		}
	}
	got := containerCgroups(tree, "abc123")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(containerCgroups(tree, "none")) > 0 || len(containerCgroups(filepath.Join(tree, "gone"), "abc123")) > 0 {
		t.Errorf("cgroups %v, want %v", got, want)
	}
}

func TestMeterFlags(t *testing.T) {
	o := agentFlags{meter: wantAuto, clusterCIDRs: []string{"10.0.0.0/8", " fd00::/8"}, blocks: map[string]string{"data": "172.16.0.0/16;172.17.0.0/16"},
		bpffs: t.TempDir(), cgroup: t.TempDir(), stateDir: "/run/x", namespace: "ns"}
	var c agent.Config
	if err := o.metering(&c); err != nil {
		t.Fatal(err)
	}
	p := netip.MustParsePrefix
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff([]netip.Prefix{p("10.0.0.0/8"), p("fd00::/8")}, c.Meter.Cluster, same) +
		cmp.Diff(map[string][]netip.Prefix{"data": {p("172.16.0.0/16"), p("172.17.0.0/16")}}, c.Meter.Blocks, same); diff != "" || c.Meter.Namespace != "ns" || c.Meter.StateDir != "/run/x" {
		t.Errorf("%+v: %s", c.Meter, diff)
	}
	if _, err := c.Meter.Open(); err == nil || !strings.Contains(err.Error(), filepath.Join(o.bpffs, "zonewise-meter")+" is not on a bpffs") {
		t.Errorf("where nothing can be pinned: %v", err)
	}
	o.meter = wantRequire
	if err := o.metering(&agent.Config{}); err == nil {
		t.Error("a meter that must be, and cannot, is no error")
	}
	o.meter = wantOff
	c = agent.Config{}
	if err := o.metering(&c); err != nil || c.Meter != nil || c.NoMeter != "" {
		t.Errorf("off: %v, %+v", err, c.Meter)
	}
}
