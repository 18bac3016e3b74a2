package stream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Files are the paths of PEM files: who we trust, and who we are.
type Files struct{ CA, Certificate, Key string }

// Source tells who we are, and who we trust.
type Source func() (tls.Certificate, *x509.CertPool, error)

// ServerTLS asks every caller for a certificate. The source is asked anew for each connection, so that what it has
// can be renewed.
func ServerTLS(from Source) (*tls.Config, error) {
	get := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		certificate, pool, err := from()
		if err != nil {
			return nil, err
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}}, nil
	}
	c, err := get(nil)
	if err != nil {
		return nil, err
	}
	c.GetConfigForClient = get
	return c, nil
}

// ClientTLS shows our certificate, read anew for each connection, to a controller of that name. The authority is
// read once.
func ClientTLS(files Files, controller string) (*tls.Config, error) {
	_, pool, err := files.Read()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: controller,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, _, err := files.Read()
			return &certificate, err
		}}, nil
}

// Read is a Source.
func (f Files) Read() (tls.Certificate, *x509.CertPool, error) {
	certificate, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return certificate, nil, fmt.Errorf("certificate: %w", err)
	}
	authorities, err := os.ReadFile(f.CA)
	if err != nil {
		return certificate, nil, fmt.Errorf("authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return certificate, nil, errors.New("authority: " + f.CA + " has no certificate")
	}
	return certificate, pool, nil
}
