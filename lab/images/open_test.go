package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zonewise/zonewise/lab/images/layer"
)

// fixed is a source of one file.
type fixed string

func (f fixed) inputs(context.Context) (string, error) { return string(f), nil }
func (f fixed) tree(context.Context) (layer.Tree, error) {
	return layer.Tree{"app": layer.Regular(0o755, []byte(f))}, nil
}

func archive(t testing.TB, content string, refs ...string) string {
	t.Helper()
	dir := t.TempDir()
	r := recipe{name: "app", refs: refs, source: fixed(content), config: v1.Config{Entrypoint: []string{"/app"}}}
	if _, err := build(t.Context(), r, Options{OutDir: dir, Log: io.Discard}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "app.tar")
}

func TestWhatWeBuildIsWholeAndRepeatable(t *testing.T) {
	one, two := archive(t, "x", "nginx", "example.com/a/b:1"), archive(t, "x", "nginx", "example.com/a/b:1")
	if a, b := content(t, one), content(t, two); !bytes.Equal(a, b) {
		t.Error("the same inputs became another archive")
	}
	got, err := Open(one)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"docker.io/library/nginx:latest", "example.com/a/b:1"}, got.Names()); diff != "" {
		t.Error(diff)
	}
	if int(got.Bytes) != len(content(t, one)) || got.Path != one {
		t.Errorf("%+v", got)
	}
	if _, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(one) }); err == nil {
		t.Error("an OCI archive should not pretend to be a docker archive")
	}
}

func TestBuildOnlyWhatChanged(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	o := Options{OutDir: dir, Log: &log}
	r := recipe{name: "app", refs: []string{"example.com/a:1"}, source: fixed("one")}
	for step, want := range []struct {
		change func()
		built  bool
	}{
		{func() {}, true},
		{func() {}, false},
		{func() { r.source = fixed("two") }, true},
		{func() { r.config.User = "1" }, true},
		{func() { r.more = layer.Tree{"etc": layer.Dir(0o755)} }, true},
		{func() {}, false},
		{func() { os.Truncate(filepath.Join(dir, "app.tar"), 2000) }, true},
	} {
		want.change()
		log.Reset()
		if _, err := build(t.Context(), r, o); err != nil {
			t.Fatal(err)
		}
		if built := log.Len() > 0; built != want.built {
			t.Errorf("step %d: built %v, want %v", step, built, want.built)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if all, err := List(dir); err != nil || len(all) != 1 || len(left) != 0 {
		t.Errorf("%v %v, left %v", all, err, left)
	}
}

// without is a source that has lost its network.
type without struct{ fixed }

func (without) inputs(context.Context) (string, error) { return "", errInputsUnknown }

func TestKeepTheArchiveWhenOffline(t *testing.T) {
	o := Options{OutDir: t.TempDir(), Log: io.Discard}
	r := recipe{name: "app", refs: []string{"example.com/a:1"}, source: without{}}
	if _, err := build(t.Context(), r, o); !errors.Is(err, errInputsUnknown) {
		t.Errorf("nothing to keep: %v", err)
	}
	r.source = fixed("one")
	first, err := build(t.Context(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	r.source = without{}
	if kept, err := build(t.Context(), r, o); err != nil || kept.Tags[0].Manifest.Digest != first.Tags[0].Manifest.Digest {
		t.Errorf("%+v %v", kept, err)
	}
}

func TestOpenWhatOthersWrite(t *testing.T) {
	image, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	tags := map[name.Tag]v1.Image{}
	for _, n := range []string{"nginx:1", "ghcr.io/x/y:z"} {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = image
	}
	if err := tarball.MultiWriteToFile(saved, tags); err != nil {
		t.Fatal(err)
	}
	got, err := Open(saved)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Tags) != 2 {
		t.Fatalf("%v", got.Names())
	}
	for _, tag := range got.Tags {
		if err := (&got).check(tag.Manifest, 0); err != nil {
			t.Errorf("%s: %v", tag.Name, err)
		}
	}
	config, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Blob(config); !ok {
		t.Error("the image got another configuration, so another id")
	}
}

// An index of several platforms, of which the archive has this machine's.
func TestOpenIndexOfPlatforms(t *testing.T) {
	dir := t.TempDir()
	image, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: here()}})
	top, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := top.AppendIndex(index, layout.WithAnnotations(map[string]string{refAnnotation: "quay.io/a/b:2"})); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.tar")
	pack(t, filepath.Join(dir, "layout"), path)
	got, err := Open(path)
	if err != nil || len(got.Tags) != 1 || got.Tags[0].Name != "quay.io/a/b:2" || !got.Tags[0].Manifest.MediaType.IsIndex() {
		t.Errorf("%+v %v", got.Tags, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := content(t, archive(t, "x", "example.com/a:1"))
	for file, c := range map[string]struct {
		body []byte
		want string
	}{
		"empty.tar":   {nil, "not an image archive (no index.json or manifest.json)"},
		"text.tar":    {bytes.Repeat([]byte("hello\n"), 500), "not an image archive (not a tar file)"},
		"files.tar":   {tarOf(t, "readme", "hello"), "not an image archive (no index.json or manifest.json)"},
		"a.tar.gz":    {[]byte("\x1f\x8b\x08rest"), "compressed: unpack it with gunzip first"},
		"short.tar":   {good[:len(good)-3000], "cut short in blobs/sha256/"},
		"json.tar":    {tarOf(t, "index.json", "{"), "index.json: unexpected end of JSON input"},
		"noname.tar":  {tarOf(t, "index.json", "{}"), "no image name in it: save the image with its name and tag"},
		"nolayer.tar": {tarOf(t, "manifest.json", `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`), `a:1: "c" is missing`},
		"changed.tar": {bytes.Replace(good, []byte(`"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest`), []byte(`"schemaVersion":3,"mediaType":"application/vnd.oci.image.manifest`), 1), "its content is sha256:"},
		"header.tar":  {bytes.Replace(good, []byte("blobs/sha256/"), []byte("blobs/sha257/"), 1), "broken tar file: "},
		"noblob.tar":  {tarOf(t, "index.json", `{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","annotations":{"io.containerd.image.name":"a"}}]}`), "docker.io/library/a:latest: blob sha256:0000"},
	} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, c.body, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		if err == nil || !strings.HasPrefix(err.Error(), "images: "+file+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", file, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(dir, "none.tar")); err == nil || strings.Count(err.Error(), "none.tar") != 1 {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
}

// Whatever a file holds, Open says what is wrong, or hands out blobs that can be read.
func FuzzOpen(f *testing.F) {
	f.Add(content(f, archive(f, "x", "example.com/a:1")))
	f.Add(tarOf(f, "manifest.json", `[{"Config":"manifest.json","RepoTags":["a:1"],"Layers":[]}]`))
	f.Add(tarOf(f, "index.json", `{"manifests":[{"annotations":{"io.containerd.image.name":"a"},"digest":"sha256:x","size":-1}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body []byte) {
		path := filepath.Join(dir, "f.tar")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := Open(path)
		if err != nil {
			return
		}
		for _, tag := range image.Tags {
			b, ok := image.Blob(tag.Manifest.Digest)
			if !ok {
				t.Fatalf("%s: manifest %s is not there", tag.Name, tag.Manifest.Digest)
			}
			if n, err := io.Copy(io.Discard, b); err != nil || n != tag.Manifest.Size {
				t.Fatalf("%s: %d bytes of %d: %v", tag.Name, n, tag.Manifest.Size, err)
			}
		}
	})
}

func content(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tarOf(t testing.TB, name, body string) []byte {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	if err := putBlob(out, name, int64(len(body)), strings.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pack writes a folder as a tar file.
func pack(t *testing.T, dir, to string) {
	t.Helper()
	file, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := tar.NewWriter(file)
	if err := out.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
