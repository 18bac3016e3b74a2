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

// ServerTLS asks every caller for a certificate. Files are read anew for each connection, so that they can be renewed.
func ServerTLS(files Files) (*tls.Config, error) {
	get := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		certificate, pool, err := files.read()
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
	_, pool, err := files.read()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: controller,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, _, err := files.read()
			return &certificate, err
		}}, nil
}

func (f Files) read() (tls.Certificate, *x509.CertPool, error) {
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
