package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zonewise/zonewise/lab/images"
)

// reference is an image as a request names it.
type reference struct {
	repository string // canonical: "docker.io/library/nginx"
	tag        string // one of tag and digest is set
	digest     v1.Hash
}

func (r reference) String() string {
	if r.tag != "" {
		return r.repository + ":" + r.tag
	}
	return r.repository + "@" + r.digest.String()
}

// parseReference puts a request's parts together: host is the registry that
// containerd would ask ("docker.io"), name the repository in it.
func parseReference(host, name, id string) (reference, error) {
	repository := name
	if host != "" {
		repository = host + "/" + name
	}
	canonical, err := images.Canonical(repository)
	if err != nil {
		return reference{}, err
	}
	ref := reference{repository: strings.TrimSuffix(canonical, ":latest")}
	if strings.Contains(id, ":") {
		ref.digest, err = v1.NewHash(id)
		return ref, err
	}
	ref.tag = id
	if _, err := images.Canonical(ref.String()); err != nil {
		return reference{}, err
	}
	return ref, nil
}

// read takes a manifest out of an archive. An unknown media type is in the
// document itself; a blob that is no manifest has none.
func read(image images.Image, h v1.Hash, media types.MediaType) (Manifest, bool) {
	const largest = 4 << 20 // as much as a registry must accept
	section, ok := image.Blob(h)
	if !ok || section.Size() > largest {
		return Manifest{}, false
	}
	body, err := io.ReadAll(section)
	if err != nil {
		return Manifest{}, false
	}
	if media == "" {
		media = mediaTypeOf(body)
	}
	return Manifest{MediaType: media, Digest: h, Body: body}, media != ""
}

func mediaTypeOf(body []byte) types.MediaType {
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return ""
	}
	var document struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(body, &document) != nil {
		return ""
	}
	switch {
	case document.MediaType != "":
		return document.MediaType
	case document.Manifests != nil:
		return types.OCIImageIndex
	case document.Layers != nil:
		return types.OCIManifestSchema1
	}
	return ""
}

// parsePath takes a request's path apart: /v2/NAME/manifests/ID or /v2/NAME/blobs/ID.
func parsePath(path string) (name, kind, id string, err error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	parts := strings.Split(rest, "/")
	if n := len(parts); ok && n >= 3 {
		name, kind, id = strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
	}
	if kind != "manifests" && kind != "blobs" {
		return "", "", "", fmt.Errorf("%s: only images can be pulled here", path)
	}
	return name, kind, id, nil
}
