package cluster

import (
	"fmt"

	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/topology"
)

const (
	etcdURL = "http://127.0.0.1:2379" // of the region's namespace, which no pod can reach
	apiPort = 6443
)

func apiURL(t topology.Topology) string { return fmt.Sprintf("https://%s:%d", t.API, apiPort) }

func etcdArgs(p Paths) []string { return []string{p.Etcd(), etcdURL} }

func apiServerArgs(t topology.Topology, c *credentials) []string {
	return []string{
		"--etcd-servers=" + etcdURL,
		"--advertise-address=" + t.API.String(),
		"--bind-address=0.0.0.0",
		fmt.Sprintf("--secure-port=%d", apiPort),
		"--service-cluster-ip-range=" + t.ServiceCIDR.String(),
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
		"--profiling=false",
	}
}

func controllerManagerArgs(p Paths, c *credentials) []string {
	kubeconfig := p.userKubeconfig(component.ControllerManager)
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.tokenKey,
		"--root-ca-file=" + c.ca.CertFile(),
		"--cluster-signing-cert-file=" + c.ca.CertFile(),
		"--cluster-signing-key-file=" + p.PKI() + "/ca.key",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
		"--profiling=false",
		"--v=2", // at which it says why a Service gets no topology hints
	}
}

func schedulerArgs(p Paths) []string {
	kubeconfig := p.userKubeconfig(component.Scheduler)
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
func (p Paths) userKubeconfig(name string) string { return p.PKI() + "/" + name + ".kubeconfig" }
