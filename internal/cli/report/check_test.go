package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/golden"
)

func status(node, zone, version string, change func(*view.Status)) view.Status {
	s := view.Status{Schema: view.StatusSchema, Node: node, Zone: zone, Version: version, Ready: true, Services: 12,
		Paths: []view.Path{{Name: "nft", On: true}, {Name: "socket", On: true}}, NodePorts: []string{"192.168.1.10"},
		Meter: &view.Meter{On: true}}
	change(&s)
	return s
}

func answers() Answers {
	none := func(*view.Status) {}
	noFS := func(s *view.Status) {
		s.Paths[1] = view.Path{Name: "socket", Why: "/sys/fs/bpf/zonewise is not on a bpffs"}
	}
	object := view.Fault{Kind: "EndpointSlice", Namespace: "shop", Name: "web-x7", Problem: "endpoint fd00::1 is no IPv4 address, left out"}
	full := view.Fault{Kind: "Service", Namespace: "shop", Name: "web", Problem: "a map is full", Here: true}
	return Answers{
		Nodes:  []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7"},
		Silent: map[string]string{"n6": "agent kube-system/a: connection refused"},
		Status: []view.Status{
			status("n5", "b", "v0.3.0", func(s *view.Status) {
				noFS(s)
				s.Reason = "nft: busy"
				s.Meter = nil // older
			}),
			status("n1", "a", "v0.4.0", none),
			status("n2", "a", "v0.4.0", func(s *view.Status) {
				s.Paths[1] = view.Path{Name: "socket", Unwanted: true}
				s.Faults = 2
				s.Meter = &view.Meter{Unwanted: true}
			}),
			status("n3", "", "v0.4.0", func(s *view.Status) {
				s.Ready, s.Reason, s.Services = false, "waiting for node n3 to register", 0
				s.Meter = &view.Meter{On: true, Why: "waiting for the node's first sync", Reports: "no controller takes reports", Waiting: 17}
			}),
			status("n4", "b", "v0.4.0", func(s *view.Status) {
				noFS(s)
				s.Meter = &view.Meter{Why: "the kernel refuses the eBPF programs (they need Linux 6.4 or newer)"}
				s.Others = []view.Other{{Who: "kube-proxy, mode nftables", What: "table ip kube-proxy", Mend: "nft delete table ip kube-proxy"}}
			}),
		},
		Faults: []view.Faults{
			{Node: "n1", Faults: []view.Fault{object}}, {Node: "n2", Faults: []view.Fault{object, full}},
		},
	}
}

func TestCheck(t *testing.T) {
	var b bytes.Buffer
	c := MakeCheck(answers())
	if err := CheckText(&b, c); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "check.txt", b.String())
	j, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "check.json", string(j)+"\n")
}

func TestCheckThatFindsNothing(t *testing.T) {
	var b bytes.Buffer
	c := MakeCheck(Answers{Nodes: []string{"n1"}, Status: answers().Status[1:2]})
	if err := CheckText(&b, c); err != nil || len(c.Findings) != 0 {
		t.Fatal(err, c.Findings)
	}
	golden.Check(t, "check_fine.txt", b.String())
}

func TestCheckNamesAFewNodesOnly(t *testing.T) {
	for n, want := range map[int]string{1: "n1", 4: "n1, n2, n3, n4", 6: "n1, n2, n3, n4 and 2 more"} {
		if got := where(Finding{Nodes: []string{"n1", "n2", "n3", "n4", "n5", "n6"}[:n]}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAPathThatIsOffNamesWhatMendsIt(t *testing.T) {
	for why, want := range map[string]string{
		"/sys/fs/bpf/zonewise is not on a bpffs":                                                 "Mount a BPF file system",
		"/sys/fs/cgroup is no cgroup v2":                                                         "Boot the node with cgroup v2",
		"with --masquerade-all packets are needed: what is led at the socket is not masqueraded": "Without agent.masqueradeAll",
		"the kernel refuses the eBPF programs: invalid argument":                                 "It needs Linux 5.14",
	} {
		if got := mendPath(why); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "that this is intended.") {
			t.Errorf("%s: %s", why, got)
		}
	}
}

func TestAMeterThatIsOffNamesWhatMendsIt(t *testing.T) {
	for why, want := range map[string]string{
		"/sys/fs/bpf/zonewise-meter is not on a bpffs": "Mount a BPF file system",
		"the kernel has no BTF":                        "Take a kernel with BTF",
		"not permitted: CAP_BPF, CAP_PERFMON":          "Give the agent CAP_BPF",
		"lock: another process has it":                 "Another agent counts",
		"the kernel refuses the eBPF programs: EINVAL": "It needs Linux 6.4",
	} {
		if got := mendMeter(why); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "that this is intended.") {
			t.Errorf("%s: %s", why, got)
		}
	}
	ofMeter(&view.Meter{}, func(f Finding) { t.Errorf("a meter that starts: %+v", f) })
}
