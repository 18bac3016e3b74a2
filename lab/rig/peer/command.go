package peer

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/zonewise/zonewise/lab/rig"
)

// Absent is why a kind cannot run on this machine, or nil.
func Absent(k Kind, bin string) error {
	var need []string
	switch k {
	case DirectConntrack:
		need = []string{"nft"}
	case Zonewise, ZonewiseNFT:
		need = []string{filepath.Join(bin, "zonewise")}
	case KubeProxyNFT:
		need = []string{filepath.Join(bin, "zonewise-lab"), "nft"}
	case KubeProxyIPTables:
		need = []string{filepath.Join(bin, "zonewise-lab"), "iptables", "iptables-restore", "iptables-save"}
	}
	for _, program := range append(need, "nsenter", "taskset") {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// Where programs tell of themselves, on the node's loopback.
const (
	agentAddress     = "127.0.0.1:9470"
	kubeProxyAddress = "127.0.0.1:10249"
)

// Command is the program of a kind, with its arguments; the files that it reads are written. It is for
// those who end programs in other ways than Stop does, or run several on one node.
func Command(w *rig.World, k Kind, api string, o Options) ([]string, error) {
	kubeconfig := filepath.Join(o.Dir, string(k)+".kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(kubeconfigFor(api)), 0o600); err != nil {
		return nil, err
	}
	agent := []string{filepath.Join(o.Bin, "zonewise"), "agent", "--node=" + o.Node, "--kubeconfig=" + kubeconfig, "--listen=" + agentAddress,
		"--meter=" + cmp.Or(o.Meter, "off"), "--state-dir=" + o.Dir, "--bpffs=" + w.BPF}
	switch k {
	case Zonewise:
		return append(agent, "--socket=require", "--cgroup="+w.Cgroup, "--netns-dir="+w.Namespaces), nil
	case ZonewiseNFT:
		return append(agent, "--socket=off"), nil
	}
	mode := map[Kind]string{KubeProxyNFT: "nftables", KubeProxyIPTables: "iptables"}[k]
	if mode == "" {
		return nil, fmt.Errorf("no such kind")
	}
	config := filepath.Join(o.Dir, string(k)+".yaml")
	if err := os.WriteFile(config, []byte(kubeProxyConfig(mode, kubeconfig, o.Node)), 0o600); err != nil {
		return nil, err
	}
	return []string{filepath.Join(o.Bin, "zonewise-lab"), "internal", "kube-proxy", "--config=" + config}, nil
}

func kubeconfigFor(api string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: rig, cluster: {server: %q}}]
contexts: [{name: rig, context: {cluster: rig}}]
current-context: rig
`, api)
}

// kubeProxyConfig is upstream's defaults, save for what belongs to the node: pods are behind
// interfaces, as with us, and settings of the whole machine are left alone.
func kubeProxyConfig(mode, kubeconfig, node string) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
clientConnection: {kubeconfig: %q, contentType: application/vnd.kubernetes.protobuf}
hostnameOverride: %s
detectLocalMode: InterfaceNamePrefix
detectLocal: {interfaceNamePrefix: eni}
nodePortAddresses: [primary]
metricsBindAddress: %s
healthzBindAddress: 127.0.0.1:10256
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, mode, kubeconfig, node, kubeProxyAddress)
}
