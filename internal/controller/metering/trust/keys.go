package trust

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/internal/loop"
)

// Names of what the chart, the controller and the agents make between them.
const (
	Name      = "zonewise-meter"    // of the Service, its slice, the Secret, and the leader's certificate
	ConfigMap = "zonewise-meter-ca" // has the authority's certificate for everybody

	certificateKey = "ca.crt"
	privateKey     = "ca.key"
	manager        = "zonewise-controller"
	portName       = "meter"
)

// Config is what Keys need.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	PodIP     string // where agents reach the leader
	Listen    string // its port
	Log       *slog.Logger
}

// Keys are the leader's: its authority, its certificate, and where it is.
type Keys struct {
	Config

	mu     sync.Mutex
	signer *authority
	served *tls.Certificate
}

// New returns keys that have nothing yet.
func New(c Config) *Keys { return &Keys{Config: c} }

const again = time.Minute

// Run keeps all that until ctx ends. Only the leader may.
func (k *Keys) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		loop.New(k.ensure, loop.Options{Resync: again, RetryMin: time.Second, RetryMax: 30 * time.Second, Failed: func(err error, retry time.Duration) {
			k.Log.Error("certificates", "err", err, "retry", retry)
		}}).Run(ctx)
	})
	wg.Go(func() { k.sign(ctx) })
	wg.Wait()
}

// Open finds the authority, or makes it. Without it there is no Source.
func (k *Keys) Open(ctx context.Context) error {
	a, err := k.secret(ctx, time.Now())
	if err != nil {
		return fmt.Errorf("secret %s/%s: %w", k.Namespace, Name, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer == nil || !bytes.Equal(k.signer.certificate.Raw, a.certificate.Raw) {
		k.signer, k.served = a, nil
	}
	return nil
}

// Source is for stream.ServerTLS.
func (k *Keys) Source() (tls.Certificate, *x509.CertPool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer == nil {
		return tls.Certificate{}, nil, errors.New("certificate: the authority is not there yet")
	}
	now := time.Now()
	if k.served == nil || now.After(k.served.Leaf.NotBefore.Add(serverLife/2)) {
		next, err := k.signer.server(now)
		if err != nil {
			return tls.Certificate{}, nil, fmt.Errorf("certificate: %w", err)
		}
		k.served = next
	}
	return *k.served, k.signer.pool(), nil
}

func (k *Keys) authority() *authority {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signer
}

// ensure makes everything be there as it should. Agents look for the slice last: who finds it can be let in.
func (k *Keys) ensure(ctx context.Context) error {
	if err := k.Open(ctx); err != nil {
		return err
	}
	if err := k.publish(ctx, k.authority()); err != nil {
		return fmt.Errorf("configmap %s/%s: %w", k.Namespace, ConfigMap, err)
	}
	if err := k.slice(ctx); err != nil {
		return fmt.Errorf("endpointslice %s/%s: %w", k.Namespace, Name, err)
	}
	return nil
}

// secret returns the authority that is kept, or makes one. Where it is damaged agents must ask for new certificates.
func (k *Keys) secret(ctx context.Context, now time.Time) (*authority, error) {
	secrets := k.Client.CoreV1().Secrets(k.Namespace)
	have, err := secrets.Get(ctx, Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	there := err == nil
	var a *authority
	if there {
		a, err = load(have.Data[certificateKey], have.Data[privateKey])
		switch {
		case err != nil:
			k.Log.Warn("certificates: the authority is damaged, and made anew; agents ask for new certificates", "secret", Name, "err", err)
		case now.Add(authorityLeft).Before(a.certificate.NotAfter):
			return a, nil
		default:
			if a, err = certify(a.key, now); err != nil {
				return nil, err
			}
		}
	}
	if a == nil {
		if a, err = newAuthority(now); err != nil {
			return nil, err
		}
	}
	next := &corev1.Secret{ObjectMeta: k.meta(Name), Type: corev1.SecretTypeOpaque}
	if there {
		next = have.DeepCopy()
	}
	certificate, key, err := a.pems()
	if err != nil {
		return nil, err
	}
	next.Data = map[string][]byte{certificateKey: certificate, privateKey: key}
	if there {
		_, err = secrets.Update(ctx, next, metav1.UpdateOptions{})
	} else {
		_, err = secrets.Create(ctx, next, metav1.CreateOptions{})
	}
	return a, err
}

func (k *Keys) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: k.Namespace, Name: name, Labels: map[string]string{"app.kubernetes.io/name": "zonewise"}}
}

func (k *Keys) publish(ctx context.Context, a *authority) error {
	maps := k.Client.CoreV1().ConfigMaps(k.Namespace)
	data := map[string]string{certificateKey: string(toPEM("CERTIFICATE", a.certificate.Raw))}
	have, err := maps.Get(ctx, ConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: k.meta(ConfigMap), Data: data}, metav1.CreateOptions{})
	case err == nil && !reflect.DeepEqual(have.Data, data):
		next := have.DeepCopy()
		next.Data = data
		_, err = maps.Update(ctx, next, metav1.UpdateOptions{})
	}
	return err
}

// slice says where the leader is.
func (k *Keys) slice(ctx context.Context) error {
	want, err := k.wanted()
	if err != nil {
		return err
	}
	slices := k.Client.DiscoveryV1().EndpointSlices(k.Namespace)
	have, err := slices.Get(ctx, Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = slices.Create(ctx, want, metav1.CreateOptions{})
		return err
	case err != nil:
		return err
	case have.AddressType != want.AddressType: // which cannot be changed
		if err := slices.Delete(ctx, Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		_, err = slices.Create(ctx, want, metav1.CreateOptions{})
		return err
	case same(have, want):
		return nil
	}
	next := have.DeepCopy()
	next.Endpoints, next.Ports = want.Endpoints, want.Ports
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	maps.Copy(next.Labels, want.Labels)
	_, err = slices.Update(ctx, next, metav1.UpdateOptions{})
	return err
}

// same leaves alone what others may add: hints, above all.
func same(have, want *discoveryv1.EndpointSlice) bool {
	for key, v := range want.Labels {
		if have.Labels[key] != v {
			return false
		}
	}
	return len(have.Endpoints) == 1 && reflect.DeepEqual(have.Endpoints[0].Addresses, want.Endpoints[0].Addresses) &&
		ptr.Deref(have.Endpoints[0].Conditions.Ready, true) && reflect.DeepEqual(have.Ports, want.Ports)
}

func (k *Keys) wanted() (*discoveryv1.EndpointSlice, error) {
	ip, err := netip.ParseAddr(k.PodIP)
	if err != nil {
		return nil, fmt.Errorf("pod IP: %w", err)
	}
	kind := discoveryv1.AddressTypeIPv4
	if ip.Is6() {
		kind = discoveryv1.AddressTypeIPv6
	}
	_, text, err := net.SplitHostPort(k.Listen)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return nil, errors.New("port " + text + " is none that agents can be told of")
	}
	meta := k.meta(Name)
	meta.Labels[discoveryv1.LabelServiceName], meta.Labels[discoveryv1.LabelManagedBy] = Name, manager
	return &discoveryv1.EndpointSlice{
		ObjectMeta: meta, AddressType: kind,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To(portName), Port: ptr.To(int32(port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}, nil
}

// Sweep takes away what the leader keeps in the cluster. What is gone already is no error.
func Sweep(ctx context.Context, client kubernetes.Interface, namespace string) error {
	for what, remove := range map[string]func() error{
		"endpointslice " + Name: func() error {
			return client.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, Name, metav1.DeleteOptions{})
		},
		"secret " + Name: func() error { return client.CoreV1().Secrets(namespace).Delete(ctx, Name, metav1.DeleteOptions{}) },
		"configmap " + ConfigMap: func() error {
			return client.CoreV1().ConfigMaps(namespace).Delete(ctx, ConfigMap, metav1.DeleteOptions{})
		},
	} {
		if err := remove(); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}
