package registry

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Error codes of the distribution API.
const (
	codeDenied      = "DENIED"
	codeNameInvalid = "NAME_INVALID"
	codeBlobUnknown = "BLOB_UNKNOWN"
	codeUnsupported = "UNSUPPORTED"
)

// ServeHTTP answers a pull. containerd says in "ns" whose mirror it takes us for.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, codeUnsupported, errors.New("this registry is read-only"))
		return
	}
	if q.URL.Path == "/v2/" || q.URL.Path == "/v2" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
		return
	}
	name, kind, id, err := parsePath(q.URL.Path)
	if err != nil {
		refuse(w, http.StatusNotFound, codeUnsupported, err)
		return
	}
	ref, err := parseReference(q.URL.Query().Get("ns"), name, id)
	if err != nil {
		refuse(w, http.StatusBadRequest, codeNameInvalid, err)
		return
	}
	if kind == "manifests" {
		r.serveManifest(w, q, ref)
	} else {
		r.serveBlob(w, q, ref)
	}
}

// serveManifest refuses an unknown image with 403, not 404: containerd drops the
// text of a 404, and asks again for that of a 403, which then shows in the pod's
// events.
func (r *Registry) serveManifest(w http.ResponseWriter, q *http.Request, ref reference) {
	m, err := r.manifest(q.Context(), ref)
	if err != nil {
		refuse(w, http.StatusForbidden, codeDenied, err)
		return
	}
	w.Header().Set("Content-Type", string(m.MediaType))
	w.Header().Set("Content-Length", strconv.Itoa(len(m.Body)))
	w.Header().Set("Docker-Content-Digest", m.Digest.String())
	if q.Method == http.MethodGet {
		w.Write(m.Body)
	}
}

func (r *Registry) serveBlob(w http.ResponseWriter, q *http.Request, ref reference) {
	if ref.digest == (v1.Hash{}) {
		refuse(w, http.StatusBadRequest, codeNameInvalid, errors.New("a blob is named by its digest"))
		return
	}
	w.Header().Set("Docker-Content-Digest", ref.digest.String())
	if b, ok := r.blob(ref.digest); ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+ref.digest.String()+`"`)
		http.ServeContent(w, q, "", time.Time{}, b)
		return
	}
	if r.upstream == nil {
		refuse(w, http.StatusNotFound, codeBlobUnknown, errors.New(ref.String()+" is not in this lab"))
		return
	}
	body, size, err := r.upstream.Blob(q.Context(), ref.repository, ref.digest)
	if err != nil {
		refuse(w, http.StatusNotFound, codeBlobUnknown, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if q.Method == http.MethodGet {
		io.Copy(w, body) // cut short, containerd sees a wrong size and asks again
	}
}

// refuse writes an error as the distribution API has it.
func refuse(w http.ResponseWriter, status int, code string, err error) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string][]entry{"errors": {{Code: code, Message: err.Error()}}})
}
