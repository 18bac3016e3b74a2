package images

import (
	"bytes"
	"errors"
	"fmt"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// saved is one image in the manifest.json of "docker save".
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDocker takes the images of a docker archive. Such an archive has no
// manifests: they are made here, over its layers as they lie in it.
func (i *Image) readDocker(list piece, entries map[string]piece) error {
	var all []saved
	if err := decode(list, &all); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	for _, s := range all {
		if len(s.RepoTags) == 0 {
			continue
		}
		manifest, err := i.manifestOf(s, entries)
		if err != nil {
			return fmt.Errorf("%s: %w", s.RepoTags[0], err)
		}
		for _, ref := range s.RepoTags {
			name, err := Canonical(ref)
			if err != nil {
				return err
			}
			i.Tags = append(i.Tags, Tag{Name: name, Manifest: manifest})
		}
	}
	return nil
}

func (i *Image) manifestOf(s saved, entries map[string]piece) (v1.Descriptor, error) {
	config, err := i.addEntry(s.Config, types.OCIConfigJSON, entries)
	if err != nil {
		return v1.Descriptor{}, err
	}
	var file v1.ConfigFile
	if err := decode(i.blobs[config.Digest], &file); err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: %w", s.Config, err)
	}
	if len(file.RootFS.DiffIDs) != len(s.Layers) {
		return v1.Descriptor{}, errors.New("its configuration and manifest.json differ in their layers")
	}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{}}
	for n, name := range s.Layers {
		l, err := i.addEntry(name, types.OCIUncompressedLayer, entries)
		if err != nil {
			return v1.Descriptor{}, err
		}
		if l.MediaType == types.OCIUncompressedLayer && l.Digest != file.RootFS.DiffIDs[n] {
			return v1.Descriptor{}, fmt.Errorf("%s: its content is %s, want %s", name, l.Digest, file.RootFS.DiffIDs[n])
		}
		manifest.Layers = append(manifest.Layers, l)
	}
	made := blobOf(manifest)
	i.blobs[made.digest] = pieceOf(made.body)
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: made.digest, Size: made.size()}, nil
}

// addEntry makes a blob of a file in the archive.
func (i *Image) addEntry(name string, media types.MediaType, entries map[string]piece) (v1.Descriptor, error) {
	p, ok := entries[path.Clean(name)]
	if !ok {
		return v1.Descriptor{}, fmt.Errorf("%q is missing", name)
	}
	digest, _, err := v1.SHA256(p.open())
	if err != nil {
		return v1.Descriptor{}, err
	}
	if media == types.OCIUncompressedLayer {
		var head [4]byte
		p.open().ReadAt(head[:], 0) // shorter than this: not compressed
		switch {
		case bytes.HasPrefix(head[:], []byte{0x1f, 0x8b}):
			media = types.OCILayer
		case bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
			media = types.OCILayerZStd
		}
	}
	i.blobs[digest] = p
	return v1.Descriptor{MediaType: media, Digest: digest, Size: p.size}, nil
}
