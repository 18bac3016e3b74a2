package metering

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/certificate"
)

const (
	// signer is the controller that leads.
	signer = "zonewise.io/agent"
	// group is what our certificate says we are.
	group = "zonewise:agents"
	// authority is the ConfigMap with the certificate of who signs; its key is authorityKey.
	authority    = "zonewise-meter-ca"
	authorityKey = "ca.crt"
	// lifetime of a certificate. The manager renews it when some four fifths of that are over.
	lifetime = 24 * time.Hour
	// A certificate that is refused is given up at once, the next one after again, and so on, ever more slowly: where
	// a controller refuses all, not all nodes may ask all the time.
	again   = time.Minute
	slowest = time.Hour
)

// credentials are who we are, and whom we trust: a certificate of our own, which the controller signs on
// request, and the controller's authority.
type credentials struct {
	client    kubernetes.Interface
	namespace string
	node      string
	file      string // with certificate and key
	log       *slog.Logger
	ready     chan struct{} // closed when there is a certificate
	once      sync.Once
	doubt     func() // asks for a pass

	mu      sync.Mutex
	pem     string // of the authority
	roots   *x509.CertPool
	manager certificate.Manager
	stop    context.CancelFunc // of the manager
	shown   *tls.Certificate   // the last time that we were asked who we are
	refused *tls.Certificate   // by the controller
	next    time.Time          // before that a certificate that is refused is not given up
	wait    time.Duration      // from one such time to the next
}

// pass looks whom we trust. Whoever has another authority signs anew, and so does who refuses what was signed.
func (c *credentials) pass(ctx context.Context) error {
	m, err := c.client.CoreV1().ConfigMaps(c.namespace).Get(ctx, authority, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("the controller's authority: %w", err)
	}
	text := m.Data[authorityKey]
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(text)) {
		return fmt.Errorf("the controller's authority: ConfigMap %s/%s has no certificate at %s", c.namespace, authority, authorityKey)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if text == c.pem {
		if c.refused == nil || c.manager.Current() != c.refused {
			return nil
		}
		if err := c.giveUp(time.Now()); err != nil {
			return err
		}
	}
	return c.manage(ctx, text, roots)
}

// giveUp throws away the certificate that was refused, if it is time to.
func (c *credentials) giveUp(now time.Time) error {
	if now.Before(c.next) {
		return fmt.Errorf("the controller refuses this node's certificate; another is asked for at %s", c.next.UTC().Format(time.RFC3339))
	}
	if err := os.Remove(c.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("certificate that is refused: %w", err)
	}
	c.log.Warn("meter: the controller refuses this node's certificate; another is asked for")
	c.wait = min(max(2*c.wait, again), slowest)
	c.next = now.Add(c.wait)
	return nil
}

// manage has a certificate got and renewed from now on.
func (c *credentials) manage(ctx context.Context, text string, roots *x509.CertPool) error {
	if c.stop != nil {
		c.stop()
	}
	managed, stop := context.WithCancel(ctx)
	period := lifetime
	manager, err := certificate.NewManager(&certificate.Config{
		Ctx: &managed, Name: "zonewise-meter",
		ClientsetFn:                  func(*tls.Certificate) (kubernetes.Interface, error) { return c.client, nil },
		Template:                     &x509.CertificateRequest{Subject: pkix.Name{CommonName: c.node, Organization: []string{group}}},
		SignerName:                   signer,
		RequestedCertificateLifetime: &period,
		Usages:                       []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		CertificateStore:             &certificateFile{c.file, roots, c.have, c.doubt},
	})
	if err != nil {
		stop()
		return fmt.Errorf("certificate: %w", err)
	}
	c.pem, c.roots, c.manager, c.stop = text, roots, manager, stop
	manager.Start()
	return nil
}

func (c *credentials) have() { c.once.Do(func() { close(c.ready) }) }

// refuse hears that the controller does not take what it was shown.
func (c *credentials) refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = c.shown
}

var errNoCertificate = errors.New("the controller has not signed this node's certificate yet (kubectl get csr)")

func (c *credentials) noAuthority() error {
	return fmt.Errorf("the controller's authority is not known yet (ConfigMap %s/%s)", c.namespace, authority)
}

// show returns who we are, for the controller.
func (c *credentials) show() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.manager == nil {
		return nil, c.noAuthority()
	}
	certificate := c.manager.Current()
	if certificate == nil {
		return nil, errNoCertificate
	}
	c.shown = certificate
	return certificate, nil
}

// trusted returns whom we trust.
func (c *credentials) trusted() (*x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil {
		return nil, c.noAuthority()
	}
	return c.roots, nil
}

// tls is for connections to a controller of that name. Certificate and authority are those of the moment of
// each connection: both are renewed while the agent lives.
func (c *credentials) tls(controller string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: controller,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.show() },
		InsecureSkipVerify:   true, // VerifyConnection does the same, by the authority of now
		VerifyConnection: func(s tls.ConnectionState) error {
			roots, err := c.trusted()
			if err != nil {
				return err
			}
			intermediates := x509.NewCertPool()
			for _, one := range s.PeerCertificates[1:] {
				intermediates.AddCert(one)
			}
			_, err = s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: controller, Roots: roots, Intermediates: intermediates})
			return err
		},
	}
}

// certificateFile keeps one certificate with its key. It counts as none unless the authority has signed it.
type certificateFile struct {
	path  string
	roots *x509.CertPool
	have  func()
	doubt func() // hears of a certificate that another authority signed
}

// Current is as certificate.Store's.
func (f *certificateFile) Current() (*tls.Certificate, error) {
	data, err := os.ReadFile(f.path)
	var pair *tls.Certificate
	if err == nil {
		pair, err = f.parse(data, data)
	}
	if err != nil {
		none := certificate.NoCertKeyError(err.Error())
		return nil, &none
	}
	return pair, nil
}

// Update is as certificate.Store's.
func (f *certificateFile) Update(cert, key []byte) (*tls.Certificate, error) {
	pair, err := f.parse(cert, key)
	if err != nil {
		f.doubt()
		return nil, fmt.Errorf("what the controller signed: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return nil, err
	}
	data := append(append([]byte{}, cert...), '\n')
	if err := os.WriteFile(f.path+".tmp", append(data, key...), 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(f.path+".tmp", f.path); err != nil {
		return nil, err
	}
	return pair, nil
}

// parse takes a certificate that the authority has signed and that holds now.
func (f *certificateFile) parse(cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: f.roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, err
	}
	f.have()
	return &pair, nil
}
