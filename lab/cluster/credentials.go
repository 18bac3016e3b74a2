package cluster

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/zonewise/zonewise/lab/pki"
	"github.com/zonewise/zonewise/lab/topology"
)

// credentials are all certificates and key files of a lab.
type credentials struct {
	ca, frontProxyCA     *pki.Authority
	apiServer            pki.Pair
	apiServerToKubelet   pki.Pair
	frontProxy           pki.Pair
	tokenKey, tokenCheck string
	users                map[string]pki.Pair
}

// users of the API server, beside the kubelets: file name -> subject.
var users = map[string]pki.Request{
	"admin":                   {CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}},
	"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
	"kube-scheduler":          {CommonName: "system:kube-scheduler"},
	"kube-proxy":              {CommonName: "system:kube-proxy"},
}

func makeCredentials(dir string, t topology.Topology, now time.Time) (*credentials, error) {
	c := &credentials{users: map[string]pki.Pair{}}
	var err error
	if c.ca, err = pki.Open(dir, "ca", now); err != nil {
		return nil, err
	}
	if c.frontProxyCA, err = pki.Open(dir, "front-proxy-ca", now); err != nil {
		return nil, err
	}
	if c.tokenKey, c.tokenCheck, err = pki.SigningKey(dir, "service-accounts"); err != nil {
		return nil, err
	}
	kubernetes := t.ServiceCIDR.Addr().Next()
	if t.IPv6Alone() {
		kubernetes = t.IPv6.ServiceCIDR.Addr().Next()
	}
	issue := func(a *pki.Authority, r pki.Request) (pair pki.Pair) {
		if err == nil {
			r.NotBefore = now
			pair, err = a.Issue(r)
		}
		return pair
	}
	c.apiServer = issue(c.ca, pki.Request{Name: "apiserver", CommonName: "kube-apiserver", Hosts: []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost",
		"127.0.0.1", t.API.String(), t.APIServer().String(), kubernetes.String(),
	}})
	c.apiServerToKubelet = issue(c.ca, pki.Request{
		Name: "apiserver-kubelet-client", CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"},
	})
	c.frontProxy = issue(c.frontProxyCA, pki.Request{Name: "front-proxy-client", CommonName: "front-proxy-client"})
	for name, request := range users {
		request.Name = name
		c.users[name] = issue(c.ca, request)
	}
	return c, err
}

// kubelet issues what one node needs: its name at the API server and its serving certificate.
func (c *credentials) kubelet(n topology.Node, now time.Time) (pki.Pair, error) {
	return c.ca.Issue(pki.Request{
		Name: "node-" + n.Alias, CommonName: "system:node:" + n.Name, Organizations: []string{"system:nodes"},
		Hosts: append([]string{n.Name}, texts(n.Addresses())...), NotBefore: now,
	})
}

// kubeconfig is the text of a kubeconfig file for one user.
func (c *credentials) kubeconfig(server, cluster, user string, pair pki.Pair) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.ca.CertPEM()}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = cluster
	data, err := clientcmd.Write(*config)
	if err != nil {
		return "", fmt.Errorf("kubeconfig of %s: %w", user, err)
	}
	return string(data), nil
}

// writePrivate writes a file that only its owner may read, and gives it to the user behind sudo.
func writePrivate(path, content string) error {
	temp := path + ".tmp"
	if err := os.WriteFile(temp, []byte(content), 0o600); err != nil {
		return err
	}
	uid, err1 := strconv.Atoi(os.Getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(os.Getenv("SUDO_GID"))
	if err1 == nil && err2 == nil {
		if err := os.Chown(temp, uid, gid); err != nil {
			return err
		}
	}
	return os.Rename(temp, path)
}
