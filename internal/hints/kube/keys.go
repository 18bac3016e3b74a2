package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/loop"
)

// Names of what the chart and the controller make between them.
const (
	ServiceName = "zonewise-webhook" // before the controller's pods, port 443
	SecretName  = "zonewise-webhook" // the serving certificate
	Port        = 9472               // of the pods
)

// authorities is the key of the Secret that holds the bundle.
const authorities = "ca.crt"

// settled is how long a new certificate waits before it replaces one that still holds: the API
// server must first hear of the authority that made it.
const settled = time.Minute

// Keys are the serving certificate, which all replicas share by a Secret. The leader makes it and
// renews it; everybody reads it.
type Keys struct {
	client    kubernetes.Interface
	namespace string
	host      string
	log       *slog.Logger

	mu     sync.Mutex
	held   pair
	served *tls.Certificate
}

// Host is the name by which the API server knows the webhook.
func Host(namespace string) string { return ServiceName + "." + namespace + ".svc" }

// NewKeys returns keys that are not loaded yet, for a webhook that the API server knows by host.
func NewKeys(client kubernetes.Interface, namespace, host string, log *slog.Logger) *Keys {
	return &Keys{client: client, namespace: namespace, host: host, log: log}
}

// TLS is how the webhook serves. It speaks HTTP/1.1 alone: a connection on which an answer did not
// come in time is then closed, and the next one goes to a replica that is well. A connection of
// HTTP/2 would be used on, whatever has become of the replica at its end.
func (k *Keys) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: k.certificate}
}

// Server returns the server that answers at Path; serve it with ServeTLS("", "").
func (k *Keys) Server(h http.Handler) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("POST "+Path, h)
	return &http.Server{
		Handler: mux, TLSConfig: k.TLS(), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
}

func (k *Keys) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.served == nil {
		return nil, errors.New("no certificate yet")
	}
	return k.served, nil
}

// Run keeps up with the Secret until ctx ends.
func (k *Keys) Run(ctx context.Context) {
	loop.New(func(ctx context.Context) error {
		s, err := k.secret(ctx)
		if err != nil || s == nil {
			return err
		}
		k.adopt(fromSecret(s), time.Now())
		return nil
	}, loop.Options{Resync: 10 * time.Second, RetryMin: time.Second, RetryMax: 10 * time.Second}).Run(ctx)
}

// Ensure makes the Secret hold a certificate that lasts, and returns the authorities by which to
// check whatever a replica may serve. Only the leader may.
func (k *Keys) Ensure(ctx context.Context, now time.Time) ([]byte, error) {
	s, err := k.secret(ctx)
	if err != nil {
		return nil, err
	}
	var have pair
	if s != nil {
		have = fromSecret(s)
	}
	if _, err := have.load(k.host, now.Add(renewal)); err == nil {
		k.adopt(have, now)
		return have.bundle, nil
	}
	next, err := issue(k.host, now)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	next.bundle = join(now, next.bundle, have.bundle, k.held.bundle)
	k.mu.Unlock()
	if err := k.store(ctx, s, next); err != nil {
		return nil, err
	}
	k.log.Info("hints: the webhook has a new certificate", "secret", k.namespace+"/"+SecretName, "until", now.Add(validity).UTC().Format(time.DateOnly))
	k.adopt(next, now)
	return next.bundle, nil
}

// adopt serves a pair from now on, unless what is served holds and the pair is too young.
func (k *Keys) adopt(p pair, now time.Time) {
	c, err := p.load(k.host, now)
	if err != nil {
		return // the leader makes another
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held.bundle = p.bundle
	if k.served != nil && bytes.Equal(k.held.cert, p.cert) {
		return
	}
	young := now.Before(c.Leaf.NotBefore.Add(skew + settled))
	if k.served != nil && young && verify(k.served.Leaf, p.bundle, k.host, now) == nil {
		return
	}
	k.held, k.served = p, c
}

// secret returns nil if there is none.
func (k *Keys) secret(ctx context.Context) (*corev1.Secret, error) {
	s, err := k.client.CoreV1().Secrets(k.namespace).Get(ctx, SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("secret %s/%s: %w", k.namespace, SecretName, err)
	}
	return s, nil
}

func (k *Keys) store(ctx context.Context, old *corev1.Secret, p pair) error {
	data := map[string][]byte{corev1.TLSCertKey: p.cert, corev1.TLSPrivateKeyKey: p.key, authorities: p.bundle}
	secrets := k.client.CoreV1().Secrets(k.namespace)
	var err error
	if old == nil {
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: SecretName, Labels: map[string]string{"app.kubernetes.io/name": "zonewise"}},
			Type:       corev1.SecretTypeTLS, Data: data,
		}, metav1.CreateOptions{})
	} else {
		s := old.DeepCopy()
		s.Data = data
		_, err = secrets.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("secret %s/%s: %w", k.namespace, SecretName, err)
	}
	return nil
}

func fromSecret(s *corev1.Secret) pair {
	return pair{cert: s.Data[corev1.TLSCertKey], key: s.Data[corev1.TLSPrivateKeyKey], bundle: s.Data[authorities]}
}
