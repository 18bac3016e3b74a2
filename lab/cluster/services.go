package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	charts "github.com/zonewise/zonewise/deploy/helm"
	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/install"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// serveRegistry answers the nodes' pulls at the resolver's address. It asks other registries from
// the host's network, since nodes have no way out of the region.
func (l *Lab) serveRegistry(running context.Context) error {
	listener, err := l.listen("tcp4", net.JoinHostPort(l.topo.Resolver.String(), fmt.Sprint(registryPort)))
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	server := &http.Server{Handler: l.registry, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(running, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}

// listen opens a listening socket in the region's namespace.
func (l *Lab) listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := l.fabric.Thread.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// startResolver runs the VPC's own DNS: it knows the nodes' names, as the cloud's does, those of the one
// server outside, and that nothing else exists here.
func (l *Lab) startResolver(running context.Context) error {
	dir := filepath.Join(l.paths.Dir, "resolver")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	corefile, hosts := resolverFiles(l.topo, dir)
	for name, text := range map[string]string{"Corefile": corefile, "hosts": hosts, "nothing": nothing} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	l.launch(running, "resolver", []string{filepath.Join(l.binDir, "coredns"), "-conf", filepath.Join(dir, "Corefile")})
	return nil
}

// nothing is a zone of all names, none of which exists.
const nothing = ". 3600 IN SOA resolver.lab. nobody.lab. 1 3600 3600 3600 5\n"

func resolverFiles(t topology.Topology, dir string) (corefile, hosts string) {
	var b strings.Builder
	for _, n := range t.Nodes() {
		for _, a := range n.Addresses() {
			fmt.Fprintf(&b, "%s %s\n", a, n.Name)
		}
	}
	outside := []netip.Addr{topology.OutsideServer}
	if t.IPv6 != nil {
		outside = append(outside, topology.OutsideServerIPv6)
	}
	for _, a := range outside {
		fmt.Fprintf(&b, "%s outside.lab ipinfo.io\n", a)
	}
	corefile = fmt.Sprintf(`.:53 {
    bind %s
    errors
    hosts %s {
        reload 0
        fallthrough
    }
    file %s . {
        reload 0
    }
}
`, t.Nameserver(), filepath.Join(dir, "hosts"), filepath.Join(dir, "nothing"))
	return corefile, b.String()
}

// install applies the product and cluster DNS.
func (l *Lab) install(ctx context.Context) error {
	client, err := dynamic.NewForConfig(l.client)
	if err != nil {
		return err
	}
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		return err
	}
	objects, err := install.Chart(chart, chartValues(l.topo, l.version))
	if err != nil {
		return err
	}
	if l.topo.PodCIDR.IsValid() && l.topo.CNI == topology.CNIZonewise { // another plugin brings the definition
		objects = append(objects, eniConfigs(l.topo, l.cloud.records.Records())...)
		install.Sort(objects)
	}
	if err := applyRetrying(ctx, client, objects); err != nil {
		return fmt.Errorf("install zonewise: %w", err)
	}
	dns, err := install.DNS(l.topo.ClusterDNS.String(), images.DNS, min(2, len(l.topo.Nodes())), len(l.topo.Zones))
	if err != nil {
		return err
	}
	if err := applyRetrying(ctx, client, dns); err != nil {
		return fmt.Errorf("install cluster DNS: %w", err)
	}
	return nil
}

// chartValues are the lab's own, with what the user gave over them. Where kube-proxy programs Services
// there is no agent: Zonewise plans, and kube-proxy obeys its hints.
func chartValues(t topology.Topology, version string) map[string]any {
	var zones []any // an address of theirs that nobody has is not outside
	for _, z := range t.Zones {
		zones = append(zones, z.Subnet.String())
		if t.IPv6 != nil {
			zones = append(zones, z.SubnetIPv6.String())
		}
		for _, p := range []netip.Prefix{z.PodSubnet, z.PodSubnetIPv6} {
			if p.IsValid() {
				zones = append(zones, p.String())
			}
		}
	}
	own := map[string]any{
		"image":     map[string]any{"tag": version},
		"apiServer": apiURL(t),
		"agent": map[string]any{
			"enabled": t.Proxy == topology.ProxyZonewise, "clusterCIDRs": zones,
			"blocks": map[string]any{"control-plane": []any{t.ControlPlane.String()}},
		},
		"controller": map[string]any{"replicas": 1}, // one machine has nothing to fail over to
	}
	if t.CNI == topology.CNIZonewise {
		environment := map[string]any{"AWS_ENDPOINT_URL_EC2": ec2URL(t), "AWS_REGION": t.Region} // the rest is in the nodes' metadata
		if t.IPv6 != nil {
			environment["ENABLE_IPv4"], environment["ENABLE_IPv6"] = fmt.Sprint(!t.IPv6.Alone), "true"
		}
		if t.PodCIDR.IsValid() { // an ENIConfig has the name of its zone
			environment["ENI_CONFIG_LABEL_DEF"] = corev1.LabelTopologyZone
		}
		// Where pods have IPv6 alone no interfaces are made.
		own["cni"] = map[string]any{"enabled": true, "clusterName": t.Name, "collectLeaked": !t.IPv6Alone(), "env": environment, "eniConfigs": t.PodCIDR.IsValid()}
	}
	return install.Merge(own, t.Values)
}

// waitDNS waits until cluster DNS answers on every node: by then the product's dataplane works there.
func (l *Lab) waitDNS(ctx context.Context) error {
	pids := l.pids()
	for _, n := range l.topo.Nodes() {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pids[n.Alias]))
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Alias, err)
		}
		err = poll(ctx, l.ended, "cluster DNS answers on node "+n.Alias, func(ctx context.Context) (bool, error) {
			return askDNS(ctx, ns, net.JoinHostPort(l.topo.ClusterDNS.String(), "53"))
		})
		_ = ns.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func askDNS(ctx context.Context, ns *os.File, server string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		err = region.In(ns, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, "udp", server)
			return err
		})
		return conn, err
	}}
	found, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	if err == nil && len(found) == 0 {
		err = errors.New("no address for kubernetes.default")
	}
	return err == nil, err
}

// applyRetrying applies objects although the API server has only just begun: namespaces and
// default roles appear a moment after it is ready.
func applyRetrying(ctx context.Context, client dynamic.Interface, objects []unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return poll(ctx, nil, "objects can be made", func(ctx context.Context) (bool, error) {
		err := install.Apply(ctx, client, objects)
		return err == nil, err
	})
}
