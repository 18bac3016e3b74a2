package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// registryPort is where the lab's own registry listens, at the resolver's address.
const registryPort = 5000

// machineSpec works out all files of a node. Pure but for the certificates it is given.
func machineSpec(p Paths, t topology.Topology, n topology.Node, binDir, template, instance string, c *credentials, now time.Time) (machine.Spec, error) {
	spec := machine.Spec{
		Alias: n.Alias, Cgroup: p.NodeCgroup(n.Alias), Hostname: n.Name, Address: n.Address.String(), Resolver: t.Nameserver().String(),
		Dir: p.Node(n.Alias), Root: filepath.Join(p.Node(n.Alias), "root"), BinDir: binDir, Images: template,
	}
	if t.IPv6 != nil {
		spec.IPv6 = n.AddressIPv6.String()
	}
	pair, err := c.kubelet(n, now)
	if err != nil {
		return spec, err
	}
	kubeconfig, err := c.kubeconfig(apiURL(t), t.Name, "system:node:"+n.Name, pair)
	if err != nil {
		return spec, err
	}
	zoneOf := map[string]string{
		corev1.LabelTopologyZone:       n.Zone,
		corev1.LabelTopologyRegion:     t.Region,
		corev1.LabelInstanceTypeStable: n.Instance.Type,
	}
	kubelet, err := json.Marshal(component.KubeletSpec{
		Node: n.Name, Addresses: texts(t.NodeIPs(n)), Labels: zoneOf, ProviderID: "aws:///" + n.Zone + "/" + instance,
		ClusterDNS: t.ClusterDNS.String(), MaxPods: n.MaxPods, CPUs: n.Instance.CPUs, MemoryMiB: n.Instance.MemoryMiB,
		Kubeconfig: "/etc/kubernetes/kubelet.conf", ClientCA: "/etc/kubernetes/pki/ca.crt",
		ServingCert: "/etc/kubernetes/pki/kubelet.crt", ServingKey: "/etc/kubernetes/pki/kubelet.key",
	})
	if err != nil {
		return spec, err
	}
	spec.Files = map[string]string{
		"etc/kubernetes/kubelet.conf":                kubeconfig,
		"etc/kubernetes/pki/ca.crt":                  string(c.ca.CertPEM()),
		"etc/kubernetes/pki/kubelet.crt":             string(pair.Cert),
		"etc/kubernetes/pki/kubelet.key":             string(pair.Key),
		"etc/zonewise/kubelet.json":                  string(kubelet),
		"etc/containerd/config.toml":                 containerdConfig,
		"etc/containerd/certs.d/_default/hosts.toml": registryHosts(t),
	}
	if t.CNI == topology.CNIStatic {
		if spec.Files["etc/cni/net.d/10-zonewise.conflist"], err = cniConfig(n); err != nil {
			return spec, err
		}
	}
	if t.Proxy == topology.ProxyKubeProxy {
		proxy, err := c.kubeconfig(apiURL(t), t.Name, "system:kube-proxy", c.users["kube-proxy"])
		if err != nil {
			return spec, err
		}
		spec.Files["etc/kubernetes/kube-proxy.conf"] = proxy
		spec.Files[strings.TrimPrefix(machine.KubeProxyConfig, "/")] = kubeProxyConfig(t, n)
	}
	return spec, nil
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

// instanceID is a stable made-up id, of the form that the cloud's have, where there are no records of it.
func instanceID(t topology.Topology, n topology.Node) string {
	sum := sha256.Sum256([]byte(t.Name + "/" + n.Name))
	return "i-0" + hex.EncodeToString(sum[:])[:16]
}

func cniConfig(n topology.Node) (string, error) {
	pool := map[string]any{"ranges": []string{n.Pool[0].String() + "-" + n.Pool[len(n.Pool)-1].String()}}
	if n.PodsIPv6.IsValid() {
		pool["ipv6"] = n.PodsIPv6.String()
	}
	data, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.1.0",
		"name":       "zonewise",
		"plugins": []any{map[string]any{
			"type": "zonewise-cni", "pool": pool, "mtu": region.MTU, "stateDir": "/run/zonewise/cni",
		}},
	}, "", "  ")
	return string(data), err
}
