//go:build kernel

package unbroken

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// TestMigration does what docs/migrate-from-kube-proxy.md says, there and back.
func TestMigration(t *testing.T) {
	for _, from := range []peer.Kind{peer.KubeProxyNFT, peer.KubeProxyIPTables} {
		for _, to := range []peer.Kind{peer.Zonewise, peer.ZonewiseNFT} {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) { migrate(t, from, to) })
		}
	}
}

func migrate(t *testing.T, from, to peer.Kind) {
	size, s := sizeOf(), newStage(t)
	proxy := s.start(from, "")
	until(t, "kube-proxy's rules", soon, func() error { return s.ruled(proxy) })
	before := s.begin(size.flows/2, size.flows/2, size.rate/2) // from the time of kube-proxy
	settle := func() { pause(time.Second) }
	settle()

	s.note("both")
	agent := s.start(to, "")
	agent.ready()
	settle()
	s.note("kube-proxy ends")
	proxy.stop()
	settle()
	s.note("its rules are removed")
	s.removeRules(proxy)
	if left := s.rulesOf(from); left != "" {
		t.Errorf("left of kube-proxy:\n%s", left)
	}
	until(t, "port 10256 is the agent's", soon, func() error {
		_, err := s.get("http://127.0.0.1:10256/healthz")
		return err
	})
	during := s.begin(size.flows/2, size.flows/2, size.rate/2) // from our time
	settle()

	s.note("both, on the way back")
	proxy = s.start(from, "")
	until(t, "kube-proxy's rules", soon, func() error { return s.ruled(proxy) })
	settle()
	s.note("the agent ends")
	agent.stop()
	settle()
	s.note("what it programmed is removed")
	s.cleanUp()
	if err := s.nothingOfOurs(); err != nil {
		t.Error(err)
	}
	until(t, "port 10256 is kube-proxy's", soon, func() error {
		_, err := s.get("http://127.0.0.1:10256/healthz")
		return err
	})
	settle()
	// When the socket path goes, UDP that it led may move or is ended: the guide says so.
	s.judge(during.finish(), to == peer.Zonewise)
	s.judge(before.finish(), false)
}

// addressesRuled are those by which kube-proxy's rules are known to be there.
func addressesRuled() (v4, v6 []string) {
	for _, n := range []int{steadily, changes} {
		v4, v6 = append(v4, virtual(n, false).Addr().String()), append(v6, virtual(n, true).Addr().String())
	}
	return v4, v6
}

// ruled tells whether a kube-proxy has programmed the Services, in both families.
func (s *stage) ruled(p *program) error {
	rules := s.rulesOf(p.kind)
	v4, v6 := addressesRuled()
	for _, a := range append(v4, v6...) {
		if !strings.Contains(rules, a) {
			return fmt.Errorf("no %s\n%s", a, p.said())
		}
	}
	return nil
}

// rulesOf are what a kube-proxy has in the node's kernel.
func (s *stage) rulesOf(k peer.Kind) string {
	s.Helper()
	var out strings.Builder
	if k == peer.KubeProxyNFT {
		for _, family := range []string{"ip", "ip6"} {
			if strings.Contains(s.onNode("nft", "list", "tables"), "table "+family+" kube-proxy\n") {
				out.WriteString(s.onNode("nft", "list", "table", family, "kube-proxy"))
			}
		}
		return out.String()
	}
	for _, command := range []string{"iptables-save", "ip6tables-save"} {
		for line := range strings.Lines(s.onNode(command)) {
			// The firewall is the kubelet's, too: kube-proxy leaves it, empty.
			if strings.Contains(line, "KUBE-") && !strings.Contains(line, "KUBE-FIREWALL") {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// removeRules is what the guide says.
func (s *stage) removeRules(p *program) {
	s.Helper()
	if p.kind == peer.KubeProxyNFT {
		s.nft("delete", "table", "ip", "kube-proxy")
		s.nft("delete", "table", "ip6", "kube-proxy")
		return
	}
	said := s.onNode(filepath.Join(s.bin, "zonewise-lab"), "internal", "kube-proxy", "--cleanup")
	s.Logf("kube-proxy --cleanup: %s", said)
}

// cleanUp takes an agent out of the world, and of nothing else: a machine may have an agent of its own.
func (s *stage) cleanUp() {
	s.Helper()
	s.onNode(filepath.Join(s.bin, "zonewise"), "agent", "--cleanup", "--state-dir="+s.dir,
		"--bpffs="+s.world.BPF, "--cgroup="+s.world.Cgroup, "--netns-dir="+s.world.Namespaces)
}

// nothingOfOurs tells what is left of an agent.
func (s *stage) nothingOfOurs() error {
	s.Helper()
	var errs []error
	if tables := s.onNode("nft", "list", "tables"); strings.Contains(tables, "zonewise") {
		errs = append(errs, errors.New(tables))
	}
	if left, _ := filepath.Glob(filepath.Join(s.pins(), "*")); len(left) > 0 {
		errs = append(errs, fmt.Errorf("pinned: %v", left))
	}
	cgroup, err := os.Open(s.world.Cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	for _, at := range []ebpf.AttachType{
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect, ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
		ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg, ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername,
	} {
		found, err := link.QueryPrograms(link.QueryOptions{Target: int(cgroup.Fd()), Attach: at})
		if err != nil {
			errs = append(errs, err)
		} else if len(found.Programs) > 0 {
			errs = append(errs, fmt.Errorf("%d programs at %v", len(found.Programs), at))
		}
	}
	return errors.Join(errs...)
}
