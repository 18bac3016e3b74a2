package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Image is an archive: one image or several, with their names. It keeps its file
// open, so that what it hands out stays whole when the file is replaced.
type Image struct {
	Path  string // of the archive
	Tags  []Tag
	Bytes int64 // size of the archive

	inputs string
	blobs  map[v1.Hash]piece
}

// Tag is a name in an archive, canonical ("docker.io/library/nginx:latest"), and
// the manifest or index that it stands for.
type Tag struct {
	Name     string
	Manifest v1.Descriptor
}

// Names are the names of all tags.
func (i Image) Names() []string {
	names := make([]string, 0, len(i.Tags))
	for _, t := range i.Tags {
		names = append(names, t.Name)
	}
	return names
}

// Blob is the content with that digest, if the archive has it.
func (i Image) Blob(h v1.Hash) (*io.SectionReader, bool) {
	p, ok := i.blobs[h]
	if !ok {
		return nil, false
	}
	return p.open(), true
}

// piece is a part of an archive, or of memory.
type piece struct {
	from         io.ReaderAt
	offset, size int64
}

func (p piece) open() *io.SectionReader { return io.NewSectionReader(p.from, p.offset, p.size) }

// small reads a piece that must be a document, not a layer.
func (p piece) small() ([]byte, error) {
	const limit = 8 << 20
	if p.size > limit {
		return nil, fmt.Errorf("document of %d bytes, want %d at most", p.size, limit)
	}
	return io.ReadAll(p.open())
}

func pieceOf(body []byte) piece {
	return piece{from: bytes.NewReader(body), size: int64(len(body))}
}

// Canonical is the name as containerd has it: "nginx" is docker.io/library/nginx:latest.
func Canonical(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", name, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// Open reads an OCI archive, or what "docker save" writes, and checks that it is
// whole: every document parses and every blob of this machine's platform is
// there, in its size. Layers are not hashed; containerd does that.
func Open(path string) (Image, error) {
	image, err := open(path)
	if err != nil {
		var at *os.PathError // has the path already
		if errors.As(err, &at) {
			return Image{}, fmt.Errorf("images: %w", err)
		}
		return Image{}, fmt.Errorf("images: %s: %w", filepath.Base(path), err)
	}
	return image, nil
}

func open(path string) (Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return Image{}, err
	}
	image, err := read(file)
	if err != nil {
		file.Close()
		return Image{}, err
	}
	image.Path = path
	return image, nil
}

func read(file *os.File) (Image, error) {
	info, err := file.Stat()
	if err != nil {
		return Image{}, err
	}
	if !info.Mode().IsRegular() {
		return Image{}, errors.New("not an image archive (not a regular file)")
	}
	entries, err := entriesOf(file, info.Size())
	if err != nil {
		return Image{}, err
	}
	image := Image{Bytes: info.Size(), blobs: map[v1.Hash]piece{}}
	index, oci := entries["index.json"]
	manifest, docker := entries["manifest.json"]
	if oci {
		if err := image.readLayout(index, entries); err != nil {
			return Image{}, err
		}
	}
	if docker && len(image.Tags) == 0 {
		if err := image.readDocker(manifest, entries); err != nil {
			return Image{}, err
		}
	}
	switch {
	case !oci && !docker:
		return Image{}, errors.New("not an image archive (no index.json or manifest.json)")
	case len(image.Tags) == 0:
		return Image{}, errors.New("no image name in it: save the image with its name and tag")
	}
	return image, nil
}

// entriesOf finds where each file of a tar file lies. Links within it, as older
// "docker save" wrote for layers that images share, are followed.
func entriesOf(file *os.File, size int64) (map[string]piece, error) {
	var magic [2]byte
	if _, err := file.ReadAt(magic[:], 0); err == nil && magic == [2]byte{0x1f, 0x8b} {
		return nil, errors.New("compressed: unpack it with gunzip first")
	}
	entries, links := map[string]piece{}, map[string]string{}
	for in := tar.NewReader(file); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if len(entries) == 0 {
				return nil, errors.New("not an image archive (not a tar file)")
			}
			return nil, fmt.Errorf("broken tar file: %w", err)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := file.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			if h.Size > size-at {
				return nil, fmt.Errorf("cut short in %s", name)
			}
			entries[name] = piece{from: file, offset: at, size: h.Size}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		}
	}
	for name, target := range links {
		if p, ok := entries[target]; ok {
			entries[name] = p
		}
	}
	return entries, nil
}

// readLayout takes the tags and blobs of an OCI layout.
func (i *Image) readLayout(index piece, entries map[string]piece) error {
	var top v1.IndexManifest
	if err := decode(index, &top); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	for name, p := range entries {
		algorithm, hex, ok := strings.Cut(strings.TrimPrefix(name, "blobs/"), "/")
		if !ok || !strings.HasPrefix(name, "blobs/") {
			continue
		}
		if h, err := v1.NewHash(algorithm + ":" + hex); err == nil {
			i.blobs[h] = p
		}
	}
	i.inputs = top.Annotations[inputsAnnotation]
	for _, d := range top.Manifests {
		name := d.Annotations[nameAnnotation]
		if ref := d.Annotations[refAnnotation]; name == "" && strings.Contains(ref, "/") {
			name = ref // alone it is often only the tag
		}
		if name == "" {
			continue
		}
		canonical, err := Canonical(name)
		if err != nil {
			return err
		}
		if err := i.check(d, 0); err != nil {
			return fmt.Errorf("%s: %w", canonical, err)
		}
		tag := Tag{Name: canonical, Manifest: v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}}
		if !slices.ContainsFunc(i.Tags, func(t Tag) bool { return t.Name == canonical }) {
			i.Tags = append(i.Tags, tag)
		}
	}
	return nil
}

func decode(p piece, into any) error {
	body, err := p.small()
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
