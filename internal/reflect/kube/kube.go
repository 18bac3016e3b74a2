// Package kube makes clients of the API server for the long-running parts of Zonewise.
package kube

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/zonewise/zonewise/internal/version"
)

// Options say how to reach the API server. The first that is set holds: Kubeconfig, then
// APIServer, then what the kubelet tells every pod (KUBERNETES_SERVICE_HOST and _PORT).
type Options struct {
	Part       string // "agent": named in the user agent
	Kubeconfig string // file
	// APIServer is an address that works without Services, https://host:port. An agent needs one
	// where nothing else serves the ClusterIP of the API server: it would have to reach the API
	// server to learn how to reach it.
	APIServer string
	Account   string // folder of the service account; empty is the pod's own
}

// Client returns a client that speaks protobuf and does not limit its own rate: the parts that
// use it hold a few watches and write next to nothing.
func Client(o Options) (kubernetes.Interface, error) {
	c, err := config(o)
	if err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("api server %s: %w", c.Host, err)
	}
	return client, nil
}

func config(o Options) (*rest.Config, error) {
	c, err := connection(o)
	if err != nil {
		return nil, err
	}
	c.UserAgent = version.UserAgent(o.Part)
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	c.QPS = -1
	return c, nil
}

func connection(o Options) (*rest.Config, error) {
	if o.Kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags(o.APIServer, o.Kubeconfig)
	}
	host, err := host(o.APIServer)
	if err != nil {
		return nil, err
	}
	if o.Account == "" {
		o.Account = "/var/run/secrets/kubernetes.io/serviceaccount"
	}
	token := filepath.Join(o.Account, "token")
	if _, err := os.Stat(token); err != nil {
		return nil, fmt.Errorf("service account: %w", err)
	}
	return &rest.Config{
		Host:            host,
		BearerTokenFile: token, // read again before it expires
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(o.Account, "ca.crt")},
	}, nil
}

func host(given string) (string, error) {
	if given != "" {
		u, err := url.Parse(given)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return "", fmt.Errorf("%q is not of the form https://host:port", given)
		}
		return given, nil
	}
	name, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if name == "" || port == "" {
		return "", errors.New("no address: not in a pod, and neither --apiserver nor --kubeconfig is given")
	}
	return "https://" + net.JoinHostPort(name, port), nil
}
