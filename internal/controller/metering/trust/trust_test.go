package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKeys(client *fake.Clientset) *Keys {
	return New(Config{Client: client, Namespace: "ns", PodIP: "10.0.0.7", Listen: ":9473", Log: slog.New(slog.DiscardHandler)})
}

// wish is a request as an agent makes it.
func wish(t testing.TB, change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequest)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "n1", Organization: []string{Organization}}}
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr-1"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: Signer, Username: "system:serviceaccount:ns:zonewise-agent",
		Extra:  map[string]certificatesv1.ExtraValue{nodeExtra: {"n1"}},
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
	}}
	if change != nil {
		change(c, r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, c, key)
	must(t, err)
	if r.Spec.Request == nil {
		r.Spec.Request = toPEM("CERTIFICATE REQUEST", der)
	}
	return r
}

// answered runs the leader until it has answered a request that comes.
func answered(t *testing.T, r *certificatesv1.CertificateSigningRequest, change func(*fake.Clientset)) (*certificatesv1.CertificateSigningRequest, *Keys) {
	t.Helper()
	client := fake.NewClientset()
	if change != nil {
		change(client)
	}
	k := newKeys(client)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	all := client.CertificatesV1().CertificateSigningRequests()
	made, err := all.Create(ctx, r, metav1.CreateOptions{})
	must(t, err)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for open(made) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no answer")
		}
		made, err = all.Get(context.Background(), r.Name, metav1.GetOptions{})
		must(t, err)
	}
	cancel()
	<-done
	return made, k
}

func TestAgentsGetCertificates(t *testing.T) {
	for seconds, want := range map[int32]time.Duration{0: agentLife, 3600: time.Hour, 1: shortest, 1e6: agentLife} {
		r, k := answered(t, wish(t, func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			if seconds > 0 {
				r.Spec.ExpirationSeconds = ptr.To(seconds)
			}
		}), nil)
		if !has(r, certificatesv1.CertificateApproved) {
			t.Fatalf("%+v", r.Status)
		}
		block, _ := pem.Decode(r.Status.Certificate)
		c, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		_, pool, err := k.Source()
		must(t, err)
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Error(err)
		}
		if left := time.Until(c.NotAfter) - want; left > 0 || left < -time.Minute || c.Subject.CommonName != "n1" || c.IsCA {
			t.Errorf("%v for %v until %v", c.Subject, seconds, c.NotAfter)
		}
	}
}

// Nobody gets a certificate but the agent of a node, for that node.
func TestOthersAreDenied(t *testing.T) {
	type change = func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequest)
	for want, c := range map[string]change{
		`the agent of node n2 asks for a certificate of "n1"`: func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Extra[nodeExtra] = []string{"n2"}
		},
		"not bound to a pod": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) { r.Spec.Extra = nil },
		"the token is not bound": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Extra[nodeExtra] = []string{"n1", "n2"}
		},
		"system:serviceaccount:other:zonewise-agent asks": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Username = "system:serviceaccount:other:zonewise-agent"
		},
		"kubernetes-admin asks, and only": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Username = "kubernetes-admin"
		},
		"organization is": func(c *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
			c.Subject.Organization = append(c.Subject.Organization, "system:masters")
		},
		"no names beside": func(c *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
			c.DNSNames = []string{"n2"}
		},
		"no names beside the": func(c *x509.CertificateRequest, _ *certificatesv1.CertificateSigningRequest) {
			c.IPAddresses = []net.IP{net.IPv4(1, 2, 3, 4)}
		},
		"usage server auth is not given": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Usages = append(r.Spec.Usages, certificatesv1.UsageServerAuth)
		},
		"usage client auth is missing": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Usages = r.Spec.Usages[:1]
		},
		"not a certificate request": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = []byte("nonsense")
		},
		"asn1": func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Spec.Request = toPEM("CERTIFICATE REQUEST", []byte("nonsense"))
		},
	} {
		r := wish(t, c)
		client := fake.NewClientset(r)
		k := newKeys(client)
		must(t, k.Open(t.Context()))
		get := func(name string) (*certificatesv1.CertificateSigningRequest, error) {
			return client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		}
		must(t, k.answer(t.Context(), r.Name, get))
		r, err := get(r.Name)
		must(t, err)
		if len(r.Status.Certificate) > 0 || len(r.Status.Conditions) != 1 || r.Status.Conditions[0].Type != certificatesv1.CertificateDenied ||
			!strings.Contains(r.Status.Conditions[0].Message, want) {
			t.Errorf("%s: %+v", want, r.Status)
		}
	}
}

// What another signer has to answer is left alone, and a write that fails is tried again.
func TestRequestsOfOthersAndFailures(t *testing.T) {
	failures := 2
	r, _ := answered(t, wish(t, nil), func(c *fake.Clientset) {
		c.PrependReactor("update", "certificatesigningrequests", func(a k8stesting.Action) (bool, runtime.Object, error) {
			if failures > 0 && a.GetSubresource() == "approval" {
				failures--
				return true, nil, errors.New("the API server is busy")
			}
			return false, nil, nil
		})
		other := wish(t, func(_ *x509.CertificateRequest, r *certificatesv1.CertificateSigningRequest) {
			r.Name, r.Spec.SignerName, r.Spec.Username = "other", "kubernetes.io/kube-apiserver-client", "somebody"
		})
		must(t, c.Tracker().Add(other))
		c.PrependReactor("update", "certificatesigningrequests", func(a k8stesting.Action) (bool, runtime.Object, error) {
			if a.(k8stesting.UpdateAction).GetObject().(*certificatesv1.CertificateSigningRequest).Name == "other" {
				t.Error("another signer's request was answered")
			}
			return false, nil, nil
		})
	})
	if failures != 0 || len(r.Status.Certificate) == 0 {
		t.Errorf("%+v", r.Status)
	}
}

// The authority stays as it is over leaders, lives on in a new certificate of its key, and is made anew only when it is
// damaged.
func TestAuthorityStays(t *testing.T) {
	client := fake.NewClientset()
	k := newKeys(client)
	now := time.Now()
	first, err := k.secret(t.Context(), now)
	must(t, err)
	second, err := newKeys(client).secret(t.Context(), now)
	must(t, err)
	if !first.certificate.Equal(second.certificate) {
		t.Error("another leader has another authority")
	}
	then := now.Add(authorityLife - authorityLeft + time.Hour)
	old, err := first.server(then.Add(-time.Hour))
	must(t, err)
	later, err := k.secret(t.Context(), then)
	must(t, err)
	if later.certificate.Equal(first.certificate) || !later.certificate.NotAfter.After(first.certificate.NotAfter) {
		t.Error("it is not renewed")
	}
	if _, err := old.Leaf.Verify(x509.VerifyOptions{Roots: later.pool(), DNSName: Name, CurrentTime: then}); err != nil {
		t.Errorf("what was signed before: %v", err)
	}
	s, err := client.CoreV1().Secrets("ns").Get(t.Context(), Name, metav1.GetOptions{})
	must(t, err)
	s.Data[privateKey] = []byte("nonsense")
	_, err = client.CoreV1().Secrets("ns").Update(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	damaged, err := k.secret(t.Context(), now)
	must(t, err)
	again, err := k.secret(t.Context(), now)
	must(t, err)
	if damaged.certificate.Equal(later.certificate) || !again.certificate.Equal(damaged.certificate) {
		t.Error("a damaged authority")
	}
}

// Where the authority was deleted another one is made; agents are told of the one by which they are asked from then on.
func TestALostAuthority(t *testing.T) {
	client := fake.NewClientset()
	k := newKeys(client)
	must(t, k.ensure(t.Context()))
	old, _, err := k.Source()
	must(t, err)
	must(t, client.CoreV1().Secrets("ns").Delete(t.Context(), Name, metav1.DeleteOptions{}))
	must(t, k.ensure(t.Context()))
	now, pool, err := k.Source()
	must(t, err)
	told, err := client.CoreV1().ConfigMaps("ns").Get(t.Context(), ConfigMap, metav1.GetOptions{})
	must(t, err)
	known := x509.NewCertPool()
	known.AppendCertsFromPEM([]byte(told.Data[certificateKey]))
	if _, err := now.Leaf.Verify(x509.VerifyOptions{Roots: known, DNSName: Name}); err != nil || !known.Equal(pool) {
		t.Errorf("agents do not know the leader: %v", err)
	}
	if _, err := old.Leaf.Verify(x509.VerifyOptions{Roots: known, DNSName: Name}); err == nil {
		t.Error("it is the same authority")
	}
}

// The leader says where it is, mends what others change, and leaves what it does not speak of.
func TestLeaderIsFound(t *testing.T) {
	client := fake.NewClientset(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: Name}, AddressType: discoveryv1.AddressTypeIPv6})
	slice := func() *discoveryv1.EndpointSlice {
		s, err := client.DiscoveryV1().EndpointSlices("ns").Get(t.Context(), Name, metav1.GetOptions{})
		must(t, err)
		return s
	}
	k := newKeys(client)
	must(t, k.ensure(t.Context()))
	s := slice()
	if s.AddressType != discoveryv1.AddressTypeIPv4 || fmt.Sprint(s.Endpoints[0].Addresses) != "[10.0.0.7]" || *s.Ports[0].Port != 9473 || *s.Ports[0].Name != "meter" ||
		s.Labels[discoveryv1.LabelServiceName] != "zonewise-meter" || s.Labels[discoveryv1.LabelManagedBy] != "zonewise-controller" {
		t.Errorf("%+v", s)
	}
	s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}
	s.Annotations = map[string]string{"x": "y"}
	_, err := client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	client.ClearActions()
	must(t, k.ensure(t.Context()))
	for _, a := range client.Actions() {
		if a.GetVerb() != "get" {
			t.Errorf("%s %s, though all is as it should be", a.GetVerb(), a.GetResource().Resource)
		}
	}
	next := newKeys(client)
	next.PodIP = "10.0.0.8"
	must(t, next.ensure(t.Context()))
	if s := slice(); fmt.Sprint(s.Endpoints[0].Addresses) != "[10.0.0.8]" || s.Annotations["x"] != "y" {
		t.Errorf("%+v", s)
	}
	m, err := client.CoreV1().ConfigMaps("ns").Get(t.Context(), ConfigMap, metav1.GetOptions{})
	must(t, err)
	if m.Data[certificateKey] != string(toPEM("CERTIFICATE", next.authority().certificate.Raw)) {
		t.Errorf("%v", m.Data)
	}
	must(t, Sweep(t.Context(), client, "ns"))
	must(t, Sweep(t.Context(), client, "ns"))
	var left int
	for _, list := range []func() (int, error){
		func() (int, error) {
			l, err := client.CoreV1().Secrets("ns").List(t.Context(), metav1.ListOptions{})
			return len(l.Items), err
		},
		func() (int, error) {
			l, err := client.CoreV1().ConfigMaps("ns").List(t.Context(), metav1.ListOptions{})
			return len(l.Items), err
		},
		func() (int, error) {
			l, err := client.DiscoveryV1().EndpointSlices("ns").List(t.Context(), metav1.ListOptions{})
			return len(l.Items), err
		},
	} {
		n, err := list()
		must(t, err)
		left += n
	}
	if left != 0 {
		t.Errorf("%d objects are left", left)
	}
	k.PodIP = "here"
	if err := k.ensure(t.Context()); err == nil || !strings.Contains(err.Error(), "endpointslice ns/zonewise-meter: pod IP") {
		t.Error(err)
	}
}
