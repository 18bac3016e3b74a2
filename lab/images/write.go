package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zonewise/zonewise/lab/images/layer"
)

// Annotations of the index of an archive.
const (
	nameAnnotation   = "io.containerd.image.name" // the full name, as containerd imports it
	refAnnotation    = "org.opencontainers.image.ref.name"
	inputsAnnotation = "io.zonewise.inputs" // what the archive was made of; see recipe.key
)

// writeArchive writes the image as an OCI layout in a tar file, put in place
// whole. Its one layer is not compressed: the lab unpacks it on the machine that
// made it, and its digest then depends on no compressor.
func writeArchive(path string, tree layer.Tree, r recipe, inputs string) error {
	spool, err := os.CreateTemp(filepath.Dir(path), ".layer-*")
	if err != nil {
		return err
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	sum := sha256.New()
	if err := tree.Write(io.MultiWriter(spool, sum)); err != nil {
		return err
	}
	size, err := spool.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	diff := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}

	config := blobOf(v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux", Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		Config: r.config, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}},
	})
	manifest := blobOf(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Digest: config.digest, Size: config.size()},
		Layers: []v1.Descriptor{{MediaType: types.OCIUncompressedLayer, Digest: diff, Size: size}},
	})
	index := blobOf(indexOf(manifest, r.refs, inputs))
	return replaceFile(path, func(w io.Writer) error {
		out := tar.NewWriter(w)
		for _, b := range []blob{{body: []byte(`{"imageLayoutVersion":"1.0.0"}`), name: "oci-layout"}, config.named(), manifest.named(), index.as("index.json")} {
			if err := putBlob(out, b.name, b.size(), bytes.NewReader(b.body)); err != nil {
				return err
			}
		}
		if _, err := spool.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := putBlob(out, blobPath(diff), size, spool); err != nil {
			return err
		}
		return out.Close()
	})
}

func indexOf(manifest blob, refs []string, inputs string) v1.IndexManifest {
	index := v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Annotations: map[string]string{inputsAnnotation: inputs},
	}
	for _, ref := range refs {
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Digest: manifest.digest, Size: manifest.size(),
			Platform:    here(),
			Annotations: map[string]string{nameAnnotation: ref, refAnnotation: ref},
		})
	}
	return index
}

// blob is a small piece of an archive.
type blob struct {
	name   string
	body   []byte
	digest v1.Hash
}

// blobOf is the JSON of v, a value of ours that always has one.
func blobOf(v any) blob {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(body)
	return blob{body: body, digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
}

func (b blob) size() int64         { return int64(len(b.body)) }
func (b blob) as(name string) blob { b.name = name; return b }
func (b blob) named() blob         { return b.as(blobPath(b.digest)) }

// blobPath is where an OCI layout keeps a blob.
func blobPath(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func putBlob(out *tar.Writer, name string, size int64, body io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(out, body)
	return err
}

// replaceFile puts what write writes at path, or leaves path as it was.
func replaceFile(path string, write func(io.Writer) error) error {
	next, err := os.CreateTemp(filepath.Dir(path), ".archive-*")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name())
	defer next.Close()
	if err := write(next); err != nil {
		return err
	}
	if err := next.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}
