package kube

import (
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
	"net"
	"time"
)

const (
	validity = 90 * 24 * time.Hour
	renewal  = 30 * 24 * time.Hour // before the end
	skew     = time.Hour           // that clocks of a cluster may differ by
)

// pair is a serving certificate and the authorities by which the API server may check it: its own
// first, then those of certificates that replicas may still serve.
type pair struct {
	cert, key, bundle []byte // PEM
}

// issue makes a serving certificate for host, and an authority for it alone, whose key is forgotten:
// nothing that is stored can sign another certificate.
func issue(host string, now time.Time) (pair, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "zonewise-webhook-ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	leaf := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "zonewise-webhook"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	for _, c := range []*x509.Certificate{ca, leaf} {
		c.NotBefore, c.NotAfter = now.Add(-skew), now.Add(validity)
		if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
			return pair{}, err
		}
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return pair{}, err
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return pair{}, err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{cert: toPEM("CERTIFICATE", leafDER), key: toPEM("PRIVATE KEY", keyDER), bundle: toPEM("CERTIFICATE", caDER)}, nil
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// load checks a pair and returns its certificate.
func (p pair) load(host string, now time.Time) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, err
	}
	if err := verify(c.Leaf, p.bundle, host, now); err != nil {
		return nil, err
	}
	return &c, nil
}

func verify(leaf *x509.Certificate, bundle []byte, host string, now time.Time) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("no authority")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now}); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// join puts authorities together, each once, and leaves out what is over or no certificate.
func join(now time.Time, bundles ...[]byte) []byte {
	var out []byte
	seen := map[string]bool{}
	for _, b := range bundles {
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil || now.After(c.NotAfter) || seen[string(c.Raw)] {
				continue
			}
			seen[string(c.Raw)] = true
			out = append(out, toPEM("CERTIFICATE", c.Raw)...)
		}
	}
	return out
}
