// Package trust lets agents and the leading controller know each other: the leader keeps an authority of its own, signs
// what agents ask for, and says where it is.
package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	authorityLeft = 365 * 24 * time.Hour // when it is signed anew, with the key that it has
	serverLife    = 7 * 24 * time.Hour
	agentLife     = 24 * time.Hour
	skew          = 5 * time.Minute // that clocks of a cluster may differ by
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return certify(key, now)
}

// certify makes an authority's certificate. One that is made anew of the same key vouches for all that the old one
// has signed.
func certify(key *ecdsa.PrivateKey, now time.Time) (*authority, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "zonewise-meter-ca"}, NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	return &authority{c, key}, err
}

// load reads what pems returned.
func load(certificate, key []byte) (*authority, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	private, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("not an authority of ours")
	}
	return &authority{pair.Leaf, private}, nil
}

func (a *authority) pems() (certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	return toPEM("CERTIFICATE", a.certificate.Raw), toPEM("PRIVATE KEY", der), err
}

// pool trusts this authority alone.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

// server makes a certificate by which agents know the leader.
func (a *authority) server(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: Name}, DNSNames: []string{Name}, NotAfter: now.Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public(), now)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// agent makes the certificate that a node asked for.
func (a *authority) agent(request *x509.CertificateRequest, life time.Duration, now time.Time) ([]byte, error) {
	der, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: request.Subject.CommonName, Organization: []string{Organization}}, NotAfter: now.Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, request.PublicKey, now)
	return toPEM("CERTIFICATE", der), err
}

func (a *authority) sign(c *x509.Certificate, key crypto.PublicKey, now time.Time) ([]byte, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore, c.KeyUsage, c.BasicConstraintsValid = serial, now.Add(-skew), x509.KeyUsageDigitalSignature, true
	return x509.CreateCertificate(rand.Reader, c, a.certificate, key, a.key)
}

func serialNumber() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// readRequest reads a request and checks that who asks has its key.
func readRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("not a certificate request in PEM")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return r, nil
}
