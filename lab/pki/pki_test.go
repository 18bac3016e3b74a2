package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir, "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestIssuedCertificate(t *testing.T) {
	a := open(t, t.TempDir())
	pair, err := a.Issue(Request{
		Name: "apiserver", CommonName: "kube-apiserver", Organizations: []string{"some"},
		Hosts: []string{"kubernetes.default", "10.100.0.1"}, NotBefore: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertPEM())
	for _, host := range []string{"kubernetes.default", "10.100.0.1"} {
		if _, err := keys.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: now}); err != nil {
			t.Errorf("as server %s: %v", host, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(5 * 365 * 24 * time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := keys.Leaf.Verify(client); err != nil {
		t.Errorf("as client, in five years: %v", err)
	}
	if keys.Leaf.Subject.CommonName != "kube-apiserver" || keys.Leaf.Subject.Organization[0] != "some" {
		t.Errorf("subject %s", keys.Leaf.Subject)
	}
}

func TestClientCertificateCannotServe(t *testing.T) {
	a := open(t, t.TempDir())
	pair, err := a.Issue(Request{Name: "admin", CommonName: "admin", NotBefore: now})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range keys.Leaf.ExtKeyUsage {
		if use == x509.ExtKeyUsageServerAuth {
			t.Error("a certificate without hosts can serve")
		}
	}
}

// A lab that is resumed has the authority, certificates and keys that it had.
func TestOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	request := Request{Name: "admin", CommonName: "admin", NotBefore: now}
	before, err := first.Issue(request)
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := SigningKey(dir, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	key, _ := os.ReadFile(private)
	second := open(t, dir)
	if !bytes.Equal(first.CertPEM(), second.CertPEM()) {
		t.Error("another authority")
	}
	after, err := second.Issue(request)
	if err != nil || !bytes.Equal(before.Cert, after.Cert) || !bytes.Equal(before.Key, after.Key) {
		t.Errorf("another certificate, %v", err)
	}
	privateAgain, publicAgain, err := SigningKey(dir, "tokens")
	if err != nil || privateAgain != private || publicAgain != public {
		t.Errorf("%s, %s, %v", privateAgain, publicAgain, err)
	}
	if again, _ := os.ReadFile(private); !bytes.Equal(key, again) {
		t.Error("another signing key")
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := open(t, dir).Issue(Request{Name: "admin", CommonName: "admin", NotBefore: now}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := SigningKey(dir, "tokens"); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBrokenAuthority(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	if err := os.WriteFile(a.CertFile(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "ca", now); err == nil {
		t.Error("an empty certificate is taken for an authority")
	}
}
