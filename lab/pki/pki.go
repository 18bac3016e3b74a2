// Package pki makes the lab's private certificate authority and everything it signs. Keys live in
// files of mode 0600; a lab that is resumed keeps the ones it has.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lab certificates outlive any lab.
const validity = 10 * 365 * 24 * time.Hour

// Authority signs certificates and keeps them as NAME.crt and NAME.key in Dir.
type Authority struct {
	Dir  string
	name string
	cert *x509.Certificate
	key  crypto.Signer
}

// Request describes a certificate.
type Request struct {
	Name          string // of the files
	CommonName    string
	Organizations []string
	Hosts         []string // DNS names and addresses; with any, the certificate can serve
	NotBefore     time.Time
}

// Open loads the authority NAME of dir, or makes it.
func Open(dir, name string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{Dir: dir, name: name}
	certPath, keyPath := a.CertFile(), a.path(name, "key")
	if certPEM, err := os.ReadFile(certPath); err == nil {
		keyPEM, err := os.ReadFile(keyPath)
		if err != nil {
			return nil, err
		}
		return a, a.parse(certPEM, keyPEM)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "zonewise-lab-" + name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.key = key
	return a, a.write(name, der, key)
}

// CertFile is the path of the authority's own certificate.
func (a *Authority) CertFile() string { return a.path(a.name, "crt") }

// CertPEM is the authority's own certificate.
func (a *Authority) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pair is a certificate and its key, as files and as PEM.
type Pair struct {
	CertFile, KeyFile string
	Cert, Key         []byte
}

// Issue returns the certificate of a request, signing it where there is none yet.
func (a *Authority) Issue(r Request) (Pair, error) {
	p := Pair{CertFile: a.path(r.Name, "crt"), KeyFile: a.path(r.Name, "key")}
	if _, err := os.Stat(p.CertFile); err != nil {
		if err := a.sign(r); err != nil {
			return p, fmt.Errorf("certificate %s: %w", r.Name, err)
		}
	}
	var err error
	if p.Cert, err = os.ReadFile(p.CertFile); err != nil {
		return p, err
	}
	p.Key, err = os.ReadFile(p.KeyFile)
	return p, err
}

func (a *Authority) sign(r Request) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		NotBefore:    r.NotBefore.Add(-time.Hour), NotAfter: r.NotBefore.Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(r.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	return a.write(r.Name, der, key)
}

// SigningKey returns the files of a key pair for service-account tokens: private, then public.
func SigningKey(dir, name string) (private, public string, err error) {
	private, public = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	if _, err := os.Stat(public); err == nil {
		return private, public, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	if err := writeKey(private, key); err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", err
	}
	return private, public, writePEM(public, "PUBLIC KEY", der)
}

func (a *Authority) path(name, ext string) string { return filepath.Join(a.Dir, name+"."+ext) }

// write puts the key first: a certificate on disk always has its key.
func (a *Authority) write(name string, der []byte, key *ecdsa.PrivateKey) error {
	if err := writeKey(a.path(name, "key"), key); err != nil {
		return err
	}
	return writePEM(a.path(name, "crt"), "CERTIFICATE", der)
}

func (a *Authority) parse(certPEM, keyPEM []byte) error {
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return fmt.Errorf("authority %s: no PEM in %s", a.name, a.Dir)
	}
	var err error
	if a.cert, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return err
	}
	a.key, err = x509.ParseECPrivateKey(keyBlock.Bytes)
	return err
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	temp := path + ".tmp"
	if err := os.WriteFile(temp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("pki: the system has no randomness: " + err.Error())
	}
	return n
}
