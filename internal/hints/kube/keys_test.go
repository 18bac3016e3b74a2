package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
)

var begin = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func ensure(t *testing.T, k *Keys, now time.Time) []byte {
	t.Helper()
	bundle, err := k.Ensure(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// trusts fails the test if an API server with the bundle would not talk to the replica.
func trusts(t *testing.T, bundle []byte, replica *Keys, now time.Time) {
	t.Helper()
	c, err := replica.certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(c.Leaf, bundle, replica.host, now); err != nil {
		t.Error(err)
	}
}

func read1(t *testing.T, client kubernetes.Interface) *corev1.Secret {
	t.Helper()
	s, err := client.CoreV1().Secrets("ns").Get(t.Context(), SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeysAreSharedAndRenewed(t *testing.T) {
	client := fake.NewClientset()
	leader, other := NewKeys(client, "ns", Host("ns"), quiet), NewKeys(client, "ns", Host("ns"), quiet)
	if _, err := leader.certificate(nil); err == nil {
		t.Error("a certificate out of nothing")
	}
	first := ensure(t, leader, begin)
	other.adopt(fromSecret(read1(t, client)), begin)
	trusts(t, first, leader, begin)
	trusts(t, first, other, begin)
	if again := ensure(t, leader, begin.Add(validity-renewal-time.Hour)); !bytes.Equal(first, again) {
		t.Error("renewed too early")
	}

	at := begin.Add(validity - renewal + time.Hour)
	second := ensure(t, leader, at)
	if bytes.Equal(first, second) || !bytes.Contains(second, first) {
		t.Error("the new bundle must hold both authorities")
	}
	old, _ := other.certificate(nil)
	other.adopt(fromSecret(read1(t, client)), at)
	if now, _ := other.certificate(nil); now != old {
		t.Error("the new certificate is served before the API server can know its authority")
	}
	trusts(t, second, other, at)
	other.adopt(fromSecret(read1(t, client)), at.Add(2*settled))
	if now, _ := other.certificate(nil); now == old {
		t.Error("the new certificate is not served")
	}
	trusts(t, second, other, at)

	third := ensure(t, leader, begin.Add(2*validity)) // the first authority is over
	if bytes.Contains(third, first) {
		t.Error("the bundle grows for ever")
	}
}

func TestKeysThatAreGoneOrSpoilt(t *testing.T) {
	for what, spoil := range map[string]func(*testing.T, kubernetes.Interface){
		"gone": func(t *testing.T, c kubernetes.Interface) {
			if err := c.CoreV1().Secrets("ns").Delete(t.Context(), SecretName, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"empty": func(t *testing.T, c kubernetes.Interface) {
			s := read1(t, c)
			s.Data = nil
			if _, err := c.CoreV1().Secrets("ns").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		"of another host": func(t *testing.T, c kubernetes.Interface) {
			p, err := issue("elsewhere", begin)
			if err != nil {
				t.Fatal(err)
			}
			s := read1(t, c)
			s.Data = map[string][]byte{corev1.TLSCertKey: p.cert, corev1.TLSPrivateKeyKey: p.key, authorities: p.bundle}
			if _, err := c.CoreV1().Secrets("ns").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			client := fake.NewClientset()
			leader, other := NewKeys(client, "ns", Host("ns"), quiet), NewKeys(client, "ns", Host("ns"), quiet)
			ensure(t, leader, begin)
			other.adopt(fromSecret(read1(t, client)), begin)
			spoil(t, client)
			other.adopt(fromSecret2(client), begin)
			bundle := ensure(t, leader, begin)
			trusts(t, bundle, leader, begin)
			trusts(t, bundle, other, begin) // which still serves the old one
			if _, err := fromSecret(read1(t, client)).load(Host("ns"), begin); err != nil {
				t.Error(err)
			}
		})
	}
}

// fromSecret2 is what a replica reads, be there a Secret or not.
func fromSecret2(c kubernetes.Interface) pair {
	s, err := c.CoreV1().Secrets("ns").Get(context.Background(), SecretName, metav1.GetOptions{})
	if err != nil {
		return pair{}
	}
	return fromSecret(s)
}

// A client that offers HTTP/2 gets HTTP/1.1: see TLS.
func TestServerSpeaksHTTP1(t *testing.T) {
	keys := NewKeys(fake.NewClientset(), "ns", "127.0.0.1", quiet)
	bundle := ensure(t, keys, time.Now())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := keys.Server(NewHandler(planned(zoneOf), quiet))
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { server.Close(); <-done })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("https://"+listener.Addr().String()+Path, "application/json", bytes.NewReader(reviewOf(stock("web-1", 1, "a"), "CREATE")))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 1 {
		t.Errorf("%s, %s", answer.Status, answer.Proto)
	}
}
