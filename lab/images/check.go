package images

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// check walks from a manifest or an index to the layers that this machine would
// unpack. An index may name other platforms that the archive leaves out.
func (i *Image) check(d v1.Descriptor, depth int) error {
	p, err := i.whole(d)
	if err != nil {
		return err
	}
	body, err := p.small()
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	sum, _, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return err
	}
	if sum != d.Digest {
		return fmt.Errorf("manifest %s: its content is %s", d.Digest, sum)
	}
	if !d.MediaType.IsIndex() {
		return i.checkManifest(body)
	}
	const deepest = 4
	if depth == deepest {
		return errors.New("index in index in index")
	}
	return i.checkIndex(body, depth)
}

func (i *Image) checkIndex(body []byte, depth int) error {
	index, err := v1.ParseIndexManifest(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	for _, m := range index.Manifests {
		if m.Platform == nil || m.Platform.Satisfies(*here()) {
			return i.check(m, depth+1)
		}
	}
	return fmt.Errorf("no image for %s in it", here())
}

// here is the platform of this machine's containers.
func here() *v1.Platform { return &v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func (i *Image) checkManifest(body []byte) error {
	manifest, err := v1.ParseManifest(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	for _, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		if _, err := i.whole(d); err != nil {
			return err
		}
	}
	return nil
}

// whole finds a blob and holds its size against what is said of it.
func (i *Image) whole(d v1.Descriptor) (piece, error) {
	p, ok := i.blobs[d.Digest]
	if !ok {
		return piece{}, fmt.Errorf("blob %s is missing", d.Digest)
	}
	if p.size != d.Size {
		return piece{}, fmt.Errorf("blob %s has %d bytes, want %d", d.Digest, p.size, d.Size)
	}
	return p, nil
}
