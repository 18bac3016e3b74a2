package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/topology"
)

const (
	etcdURL = "http://127.0.0.1:2379" // of the region's namespace, which no pod can reach
	apiPort = 6443
)

func apiURL(t topology.Topology) string {
	return "https://" + netip.AddrPortFrom(t.APIServer(), apiPort).String()
}

// startControlPlane starts its components, the VPC's resolver and the registry, and hands
// connections to the host's listener api on to the API server.
func (l *Lab) startControlPlane(ctx, running context.Context, api net.Listener) error {
	for _, name := range []string{component.ControllerManager, component.Scheduler} {
		text, err := l.credentials.kubeconfig(apiURL(l.topo), l.topo.Name, name, l.credentials.users[name])
		if err != nil {
			return err
		}
		if err := writeFile(l.paths.userKubeconfig(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	l.client = l.restConfig()
	l.launchSelf(running, component.Etcd, etcdArgs(l.paths))
	l.launchSelf(running, component.APIServer, apiServerArgs(l.topo, l.credentials))
	if err := l.waitAPI(ctx); err != nil {
		return err
	}
	l.launchSelf(running, component.ControllerManager, controllerManagerArgs(l.paths, l.credentials))
	l.launchSelf(running, component.Scheduler, schedulerArgs(l.paths))
	if err := l.startResolver(running); err != nil {
		return err
	}
	if err := l.serveRegistry(running); err != nil {
		return err
	}
	return l.exposeAPI(running, api)
}

// launchSelf runs this executable under a role.
func (l *Lab) launchSelf(running context.Context, role string, args []string) {
	l.launch(running, role, append([]string{l.program, "internal", role}, args...))
}

func (l *Lab) launch(running context.Context, name string, args []string) {
	p := &process{
		name: name, args: args, logPath: l.paths.Log(name), thread: l.fabric.Thread,
		ended: l.fail, stopped: make(chan struct{}),
	}
	l.processes = append(l.processes, p)
	go p.run(running)
}

// listenAPI takes the port on 127.0.0.1 at which the host reaches the API server. A lab that is
// resumed keeps its port where that is free: kubeconfig files that were copied stay right.
func (l *Lab) listenAPI() (net.Listener, error) {
	if port := l.topo.APIPort; port != 0 {
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return nil, fmt.Errorf("apiPort %d of 127.0.0.1 is taken: choose another in lab.yaml, or 0 for a free one: %w", port, err)
		}
		return listener, nil
	}
	if last, ok := lastServer(l.paths.Kubeconfig()); ok {
		if listener, err := net.Listen("tcp4", last); err == nil {
			return listener, nil
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("no free port on 127.0.0.1 for the API server: %w", err)
	}
	return listener, nil
}

// lastServer is the address of the API server in a kubeconfig file, if there is one.
func lastServer(kubeconfig string) (address string, ok bool) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", false
	}
	for _, c := range config.Clusters {
		if u, err := url.Parse(c.Server); err == nil && u.Host != "" {
			return u.Host, true
		}
	}
	return "", false
}

// exposeAPI makes the API server reachable at listener, which it closes when running ends, and
// writes the kubeconfig for it.
func (l *Lab) exposeAPI(running context.Context, listener net.Listener) error {
	l.apiAddress = listener.Addr().String()
	text, err := l.credentials.kubeconfig("https://"+l.apiAddress, "zonewise-"+l.topo.Name, "admin", l.credentials.users["admin"])
	if err != nil {
		return err
	}
	if err := writePrivate(l.paths.Kubeconfig(), text); err != nil {
		return err
	}
	target := net.JoinHostPort(l.topo.API.String(), fmt.Sprint(apiPort))
	go forwardTCP(running, listener, l.fabric.Thread.NS(), target)
	return nil
}

func etcdArgs(p Paths) []string { return []string{p.Etcd(), etcdURL} }

func apiServerArgs(t topology.Topology, c *credentials) []string {
	return []string{
		"--etcd-servers=" + etcdURL,
		"--advertise-address=" + t.APIServer().String(),
		"--bind-address=" + unspecified(t.APIServer()),
		fmt.Sprintf("--secure-port=%d", apiPort),
		"--service-cluster-ip-range=" + serviceRanges(t),
		"--client-ca-file=" + c.ca.CertFile(),
		"--tls-cert-file=" + c.apiServer.CertFile,
		"--tls-private-key-file=" + c.apiServer.KeyFile,
		"--kubelet-client-certificate=" + c.apiServerToKubelet.CertFile,
		"--kubelet-client-key=" + c.apiServerToKubelet.KeyFile,
		"--kubelet-certificate-authority=" + c.ca.CertFile(),
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.frontProxyCA.CertFile(),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.frontProxy.CertFile,
		"--proxy-client-key-file=" + c.frontProxy.KeyFile,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.tokenCheck,
		"--service-account-signing-key-file=" + c.tokenKey,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--enable-aggregator-routing=true", // to webhooks by their endpoints: no proxy serves ClusterIPs here
		"--profiling=false",
	}
}

// unspecified listens at every address; that of IPv6 is for both families.
func unspecified(a netip.Addr) string {
	if a.Is6() {
		return "::"
	}
	return "0.0.0.0"
}

// serviceRanges are one of each family, the first of which is that of Services that do not say.
func serviceRanges(t topology.Topology) string {
	switch {
	case t.IPv6Alone():
		return t.IPv6.ServiceCIDR.String()
	case t.IPv6 != nil:
		return t.ServiceCIDR.String() + "," + t.IPv6.ServiceCIDR.String()
	}
	return t.ServiceCIDR.String()
}

func controllerManagerArgs(p Paths, c *credentials) []string {
	return append(clientArgs(p, component.ControllerManager),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.tokenKey,
		"--root-ca-file="+c.ca.CertFile(),
		"--cluster-signing-cert-file="+c.ca.CertFile(),
		"--cluster-signing-key-file="+filepath.Join(p.PKI(), "ca.key"),
		"--v=2", // at which it says why a Service gets no topology hints
	)
}

func schedulerArgs(p Paths) []string { return clientArgs(p, component.Scheduler) }

// clientArgs are those of a component that is alone in its kind and a client of the API server.
func clientArgs(p Paths, name string) []string {
	kubeconfig := p.userKubeconfig(name)
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--profiling=false",
	}
}

// userKubeconfig is the kubeconfig file of a control-plane component.
func (p Paths) userKubeconfig(name string) string {
	return filepath.Join(p.PKI(), name+".kubeconfig")
}
