// Package registry serves image archives to containerd, as the mirror of every
// registry: the pull side of the OCI distribution API over plain HTTP. What the
// archives do not have it can fetch from the real registry.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zonewise/zonewise/lab/images"
)

// Upstream is a real registry, or all of them. Its errors say that it does not
// answer (ErrUnreachable) or does not give the image (any other).
type Upstream interface {
	// Manifest fetches what the reference stands for; it is canonical, by tag or by digest.
	Manifest(ctx context.Context, ref string) (Manifest, error)
	// Blob opens a layer or a configuration. repository is canonical, without a tag.
	Blob(ctx context.Context, repository string, digest v1.Hash) (body io.ReadCloser, size int64, err error)
}

// ErrUnreachable is the error of an Upstream that does not answer.
var ErrUnreachable = errors.New("registry does not answer")

// Manifest is a manifest or an index, as it is on the wire.
type Manifest struct {
	MediaType types.MediaType
	Digest    v1.Hash
	Body      []byte
}

// Registry is an http.Handler. An image that a user added comes first, then the
// upstream's, then the lab's own.
type Registry struct {
	upstream Upstream // nil: none

	mu      sync.RWMutex
	added   shelf
	builtIn shelf
}

// shelf is a set of archives, by path.
type shelf map[string]images.Image

// New serves the lab's own archives. upstream may be nil.
func New(upstream Upstream, builtIn ...images.Image) *Registry {
	r := &Registry{upstream: upstream, added: shelf{}, builtIn: shelf{}}
	for _, i := range builtIn {
		r.builtIn[i.Path] = i
	}
	return r
}

// Add serves one more archive, before all else. Adding a path again takes the
// file as it is now; of two archives with the same image name the later one
// counts. A file that is replaced by renaming does not disturb pulls under way.
func (r *Registry) Add(path string) (images.Image, error) {
	image, err := images.Open(path)
	if err != nil {
		return images.Image{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, have := range r.added {
		r.added[other] = without(have, image.Names())
	}
	r.added[path] = image
	return image, nil
}

// without is the image with fewer names; its blobs stay to be had.
func without(i images.Image, names []string) images.Image {
	taken := map[string]bool{}
	for _, n := range names {
		taken[n] = true
	}
	var rest []images.Tag
	for _, t := range i.Tags {
		if !taken[t.Name] {
			rest = append(rest, t)
		}
	}
	i.Tags = rest
	return i
}

// manifest finds what ref stands for.
func (r *Registry) manifest(ctx context.Context, ref reference) (Manifest, error) {
	if m, ok := r.local(ref, func(r *Registry) shelf { return r.added }); ok {
		return m, nil
	}
	var upstream error
	if r.upstream != nil {
		m, err := r.upstream.Manifest(ctx, ref.String())
		if err == nil {
			return m, nil
		}
		upstream = err
	}
	if m, ok := r.local(ref, func(r *Registry) shelf { return r.builtIn }); ok {
		return m, nil
	}
	return Manifest{}, unknown(ref, upstream)
}

// unknown is the error that ends in an event of the pod.
func unknown(ref reference, upstream error) error {
	mend := "load it with \"zonewise lab load FILE.tar\""
	switch {
	case upstream == nil:
		return fmt.Errorf("image %s is not in this lab: %s", ref, mend)
	case errors.Is(upstream, ErrUnreachable):
		return fmt.Errorf("image %s is not in this lab, and its registry does not answer: %s", ref, mend)
	default:
		return fmt.Errorf("image %s is not in this lab, and its registry refuses it (%w): %s", ref, upstream, mend)
	}
}

// local looks in the archives of one shelf.
func (r *Registry) local(ref reference, of func(*Registry) shelf) (Manifest, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, image := range of(r) {
		for _, t := range image.Tags {
			if t.Name == ref.String() {
				return read(image, t.Manifest.Digest, t.Manifest.MediaType)
			}
		}
		if ref.digest != (v1.Hash{}) {
			if m, ok := read(image, ref.digest, ""); ok {
				return m, true
			}
		}
	}
	return Manifest{}, false
}

// blob finds content by its digest, whatever image asks for it.
func (r *Registry) blob(h v1.Hash) (*io.SectionReader, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range []shelf{r.added, r.builtIn} {
		for _, image := range s {
			if b, ok := image.Blob(h); ok {
				return b, true
			}
		}
	}
	return nil, false
}
