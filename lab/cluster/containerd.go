package cluster

import (
	"fmt"
	"net"

	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/topology"
)

// containerdConfig is that of every node. OOM scores are capped because a lab may lack
// CAP_SYS_RESOURCE. Nothing is synced to disk: what a power cut would cost, the lab makes anew.
// Plugins that no kubelet asks for are off, for their start-up time and memory.
const containerdConfig = `version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
  "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs", "io.containerd.image-verifier.v1.bindir",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.monitor.container.v1.restart",
  "io.containerd.monitor.task.v1.cgroups", "io.containerd.http.v1.pprof",
  "io.containerd.metrics.v1.grpc-prometheus", "io.containerd.metrics.v1.grpc-otel",
]
[plugins."io.containerd.server.v1.grpc"]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "/run/containerd/containerd.sock.ttrpc"
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "` + images.Pause + `"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "/lab/bin/runc"
      SystemdCgroup = false
`

// registryHosts sends every pull to the lab's own registry and nowhere else: it asks the real ones,
// since nodes have no way out of the region.
func registryHosts(t topology.Topology) string {
	return fmt.Sprintf("server = \"http://%s\"\ncapabilities = [\"pull\", \"resolve\"]\n", net.JoinHostPort(t.Resolver.String(), fmt.Sprint(registryPort)))
}

func kubeProxyConfig(t topology.Topology, n topology.Node) string {
	vpc := t.VPC.String()
	if t.IPv6 != nil {
		vpc += "," + t.IPv6.VPC.String()
	}
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: /etc/kubernetes/kube-proxy.conf}
hostnameOverride: %s
detectLocalMode: ClusterCIDR
clusterCIDR: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, n.Name, vpc)
}
