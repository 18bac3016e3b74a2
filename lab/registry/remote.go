package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Remote is the Upstream of the real registries, asked without credentials. One
// that cannot be connected to is left alone for a while, so that a lab without a
// network waits once and not for each pod.
type Remote struct {
	Now func() time.Time // the clock; nil: time.Now

	once   sync.Once
	puller *remote.Puller
	broken error

	mu   sync.Mutex
	down map[string]time.Time // registry host: not to be asked again before
}

const (
	connectTimeout = 2 * time.Second
	downFor        = 60 * time.Second
)

// Manifest fetches a manifest by tag or by digest.
func (r *Remote) Manifest(ctx context.Context, ref string) (Manifest, error) {
	at, err := name.ParseReference(ref)
	if err != nil {
		return Manifest{}, err
	}
	var got *remote.Descriptor
	err = r.ask(at.Context(), func(p *remote.Puller) (err error) {
		got, err = p.Get(ctx, at)
		return err
	})
	if err != nil {
		return Manifest{}, err
	}
	return Manifest{MediaType: got.MediaType, Digest: got.Digest, Body: got.Manifest}, nil
}

// Blob opens a blob of a repository.
func (r *Remote) Blob(ctx context.Context, repository string, digest v1.Hash) (io.ReadCloser, int64, error) {
	at, err := name.NewDigest(repository + "@" + digest.String())
	if err != nil {
		return nil, 0, err
	}
	var body io.ReadCloser
	var size int64
	err = r.ask(at.Context(), func(p *remote.Puller) error {
		layer, err := p.Layer(ctx, at)
		if err != nil {
			return err
		}
		if size, err = layer.Size(); err != nil {
			return err
		}
		body, err = layer.Compressed()
		return err
	})
	return body, size, err
}

// ask calls do unless the repository's registry was found down a short while ago.
func (r *Remote) ask(at name.Repository, do func(*remote.Puller) error) error {
	host := at.RegistryStr()
	if r.isDown(host) {
		return fmt.Errorf("%s: %w", host, ErrUnreachable)
	}
	r.once.Do(func() {
		r.puller, r.broken = remote.NewPuller(
			remote.WithTransport(impatient()),
			remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		)
	})
	if r.broken != nil {
		return r.broken
	}
	err := do(r.puller)
	if unreachable(err) {
		r.setDown(host)
		return fmt.Errorf("%s: %w: %w", host, ErrUnreachable, err)
	}
	var answered *transport.Error
	if errors.As(err, &answered) {
		return fmt.Errorf("%s: %s", host, http.StatusText(answered.StatusCode))
	}
	return err
}

// impatient is a transport that gives up soon on a registry that is not there.
func impatient() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout = connectTimeout
	t.ResponseHeaderTimeout = 15 * time.Second
	return t
}

// unreachable tells an answer from none. A request that its own caller gave up
// says nothing of the registry.
func unreachable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	var answered *transport.Error
	if errors.As(err, &answered) {
		return answered.StatusCode >= http.StatusInternalServerError
	}
	var low net.Error
	var on *url.Error
	return errors.As(err, &low) || errors.As(err, &on)
}

func (r *Remote) isDown(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Before(r.down[host])
}

func (r *Remote) setDown(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down == nil {
		r.down = map[string]time.Time{}
	}
	r.down[host] = r.now().Add(downFor)
}

func (r *Remote) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
