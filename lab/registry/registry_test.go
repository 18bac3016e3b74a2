package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"

	"github.com/zonewise/zonewise/lab/images"
)

func TestPullFromArchives(t *testing.T) {
	dir := t.TempDir()
	r := New(nil, open(t, save(t, dir, "own.tar", "registry.k8s.io/pause:3.10")))
	server := serve(t, r)

	if res, _ := get(t, server, "/v2/", ""); res.StatusCode != http.StatusOK {
		t.Errorf("/v2/: %s", res.Status)
	}
	pull(t, server, "registry.k8s.io", "pause", "3.10")

	// By every spelling that stands for the same image.
	if _, err := r.Add(save(t, dir, "nginx.tar", "nginx")); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{"docker.io", "index.docker.io"} {
		pull(t, server, ns, "library/nginx", "latest")
	}
	pull(t, server, "", "docker.io/library/nginx", "latest")
}

func TestUnknownImageSaysHowToLoadIt(t *testing.T) {
	server := serve(t, New(nil))
	res, body := get(t, server, "/v2/library/redis/manifests/7?ns=docker.io", "")
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Errors) != 1 {
		t.Fatalf("%s: %v", body, err)
	}
	// containerd shows the text of a 403 only.
	want := `image docker.io/library/redis:7 is not in this lab: load it with "zonewise lab load FILE.tar"`
	if res.StatusCode != http.StatusForbidden || answer.Errors[0].Message != want {
		t.Errorf("%s %s, want %q", res.Status, body, want)
	}
}

func TestBadRequests(t *testing.T) {
	server := serve(t, New(nil))
	for path, want := range map[string]int{
		"/": 404, "/v2/a/tags/list": 404, "/v2/manifests/x": 404, "/v3/a/manifests/x": 404,
		"/v2/UPPER/manifests/x?ns=docker.io": 400, "/v2/a/manifests/sha256:1?ns=docker.io": 400,
		"/v2/a/manifests/bad%20tag?ns=docker.io": 400, "/v2/a/blobs/latest?ns=docker.io": 400,
		"/v2/a/blobs/sha256:" + strings.Repeat("0", 64) + "?ns=docker.io": 404,
	} {
		if res, body := get(t, server, path, ""); res.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", path, res.Status, body, want)
		}
	}
	res, err := http.Post(server+"/v2/a/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("push: %s", res.Status)
	}
}

func TestRange(t *testing.T) {
	path := save(t, t.TempDir(), "a.tar", "example.com/a:1")
	server := serve(t, New(nil, open(t, path)))
	layer := pull(t, server, "example.com", "a", "1").Layers[0]
	url := "/v2/a/blobs/" + layer.Digest.String() + "?ns=example.com"
	_, all := get(t, server, url, "")
	res, part := get(t, server, url, "bytes=10-19")
	if res.StatusCode != http.StatusPartialContent || !bytes.Equal(part, all[10:20]) {
		t.Errorf("%s, %d bytes", res.Status, len(part))
	}
}

// The user's archive goes before the registry, the registry before our own.
func TestOrder(t *testing.T) {
	dir := t.TempDir()
	far := serve(t, registry.New())
	host := strings.TrimPrefix(far, "http://")
	ref := host + "/team/app:1"
	ours := open(t, save(t, dir, "ours.tar", ref))
	r := New(&Remote{}, ours)
	server := serve(t, r)

	if got := pull(t, server, host, "team/app", "1"); got.Config.Digest != configOf(t, ours) {
		t.Errorf("the registry does not have it: got %v, want our own", got.Config.Digest)
	}
	push(t, ref)
	theirs := pull(t, server, host, "team/app", "1")
	if theirs.Config.Digest == configOf(t, ours) {
		t.Error("the registry has it: got our own")
	}
	users, err := r.Add(save(t, dir, "user.tar", ref))
	if err != nil {
		t.Fatal(err)
	}
	if got := pull(t, server, host, "team/app", "1"); got.Config.Digest != configOf(t, users) {
		t.Error("the user loaded one: got another")
	}
	later, err := r.Add(save(t, dir, "later.tar", ref))
	if err != nil {
		t.Fatal(err)
	}
	if got := pull(t, server, host, "team/app", "1"); got.Config.Digest != configOf(t, later) {
		t.Error("the user loaded a later one: got another")
	}
}

func TestRegistryThatRefuses(t *testing.T) {
	far := serve(t, registry.New())
	host := strings.TrimPrefix(far, "http://")
	server := serve(t, New(&Remote{}))
	_, body := get(t, server, "/v2/none/manifests/1?ns="+host, "")
	if !strings.Contains(string(body), "its registry refuses it ("+host+": Not Found)") {
		t.Errorf("%s", body)
	}
}

// A registry that is down is asked once a minute, and the pull falls back.
func TestRegistryThatIsDown(t *testing.T) {
	var asked atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.Close()
		}
	}()
	host := listener.Addr().String()
	now := time.Unix(1000, 0)
	far := &Remote{Now: func() time.Time { return now }}
	ours := open(t, save(t, t.TempDir(), "ours.tar", host+"/app:1"))
	server := serve(t, New(far, ours))

	pull(t, server, host, "app", "1")
	first := asked.Load()
	if first == 0 {
		t.Error("the registry was not asked")
	}
	pull(t, server, host, "app", "1")
	_, body := get(t, server, "/v2/other/manifests/1?ns="+host, "")
	if !strings.Contains(string(body), "its registry does not answer") {
		t.Errorf("%s", body)
	}
	if n := asked.Load(); n != first {
		t.Errorf("asked %d times more within the minute", n-first)
	}
	now = now.Add(downFor)
	pull(t, server, host, "app", "1")
	if asked.Load() == first {
		t.Error("not asked again after the minute")
	}
}

func TestManyPullsWhileLoading(t *testing.T) {
	dir := t.TempDir()
	r := New(nil, open(t, save(t, dir, "a.tar", "example.com/a:1")))
	server := serve(t, r)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error { pull(t, server, "example.com", "a", "1"); return nil })
	}
	group.Go(func() error {
		for n := range 5 {
			// The same path again and again, as after a rebuild.
			if _, err := r.Add(save(t, dir, "b.tar", fmt.Sprintf("example.com/b:%d", n))); err != nil {
				return err
			}
			pull(t, server, "example.com", "b", fmt.Sprint(n))
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAddOfNoArchive(t *testing.T) {
	if _, err := New(nil).Add(filepath.Join(t.TempDir(), "none.tar")); err == nil {
		t.Error("no error")
	}
}

// save writes a new random image as "docker save" would.
func save(t *testing.T, dir, file, ref string) string {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(2000, 2)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, file)
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		t.Fatal(err)
	}
	return path
}

func push(t *testing.T, ref string) {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(2000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) images.Image {
	t.Helper()
	i, err := images.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func configOf(t *testing.T, i images.Image) v1.Hash {
	t.Helper()
	b, ok := i.Blob(i.Tags[0].Manifest.Digest)
	if !ok {
		t.Fatal("no manifest")
	}
	m, err := v1.ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	return m.Config.Digest
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// pull does what containerd does: HEAD, the manifest by digest, then its blobs.
func pull(t *testing.T, server, ns, repository, tag string) *v1.Manifest {
	t.Helper()
	m, err := tryPull(server, ns, repository, tag)
	if err != nil {
		t.Errorf("pull %s/%s:%s: %v", ns, repository, tag, err)
		return &v1.Manifest{Layers: []v1.Descriptor{{}}}
	}
	return m
}

func tryPull(server, ns, repository, tag string) (*v1.Manifest, error) {
	base := server + "/v2/" + repository
	head, err := http.Head(base + "/manifests/" + tag + "?ns=" + ns)
	if err != nil {
		return nil, err
	}
	head.Body.Close()
	if head.StatusCode != http.StatusOK {
		return nil, errors.New("HEAD: " + head.Status)
	}
	digest := head.Header.Get("Docker-Content-Digest")
	body, err := content(base+"/manifests/"+digest+"?ns="+ns, digest)
	if err != nil {
		return nil, err
	}
	if int64(len(body)) != head.ContentLength {
		return nil, fmt.Errorf("manifest of %d bytes, HEAD said %d", len(body), head.ContentLength)
	}
	m, err := v1.ParseManifest(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, err := content(base+"/blobs/"+d.Digest.String()+"?ns="+ns, d.Digest.String()); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// content gets what has the digest.
func content(url, digest string) ([]byte, error) {
	res, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, res.Status, body)
	}
	if h, _, _ := v1.SHA256(bytes.NewReader(body)); h.String() != digest {
		return nil, fmt.Errorf("%s: its content is %s", url, h)
	}
	return body, nil
}

func get(t *testing.T, server, path, span string) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, server+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if span != "" {
		request.Header.Set("Range", span)
	}
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}
