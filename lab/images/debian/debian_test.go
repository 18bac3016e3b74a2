package debian

import (
	"archive/tar"
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/lab/images/layer"
)

func TestParseURIs(t *testing.T) {
	got, err := parseURIs(strings.Join([]string{
		`'http://deb.debian.org/debian/pool/main/z/zsh/zsh_5.9-4%2bb15_amd64.deb' zsh_5.9-4+b15_amd64.deb 907512 MD5Sum:00`,
		`W: some warning`,
		`'http://deb.debian.org/debian/pool/main/l/libcap2.deb' libcap2_1%3a2.66-4_amd64.deb 1 SHA256:00`,
	}, "\n"))
	want := []Package{
		{Name: "libcap2", Version: "1:2.66-4", File: "libcap2_1%3a2.66-4_amd64.deb"},
		{Name: "zsh", Version: "5.9-4+b15", File: "zsh_5.9-4+b15_amd64.deb"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"", "nothing to do\n", "'http://x/odd.deb' odd.deb 1 MD5Sum:0", "'http://x/a_%zz_all.deb' a_%zz_all.deb 1 MD5Sum:0"} {
		if got, err := parseURIs(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestMergeMovesEverythingUnderUsr(t *testing.T) {
	var pkg bytes.Buffer
	out := tar.NewWriter(&pkg)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./bin/ping", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 2},
		{Name: "./bin/ping4", Typeflag: tar.TypeSymlink, Linkname: "ping", Mode: 0o777},
		{Name: "./bin/ping6", Typeflag: tar.TypeLink, Linkname: "./bin/ping", Mode: 0o755},
		{Name: "./bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin", Mode: 0o777},
		{Name: "./library/x", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "./usr/share/doc/ping/copyright", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := out.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			out.Write([]byte("hi"))
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	got := layer.Tree{"usr/bin": layer.Dir(0o711)}
	if err := merge(tar.NewReader(&pkg), regexp.MustCompile(`^usr/share/doc(/|$)`), got); err != nil {
		t.Fatal(err)
	}
	want := layer.Tree{
		"usr/bin":       layer.Dir(0o711),
		"usr/bin/ping":  layer.Regular(0o4755, []byte("hi")),
		"usr/bin/ping4": layer.Symlink("ping"),
		"usr/bin/ping6": {Type: tar.TypeLink, Mode: 0o755, Link: "usr/bin/ping"},
		"library/x":     layer.Dir(0o700),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMergeRefusesDevices(t *testing.T) {
	var pkg bytes.Buffer
	out := tar.NewWriter(&pkg)
	if err := out.WriteHeader(&tar.Header{Name: "dev/null", Typeflag: tar.TypeChar}); err != nil {
		t.Fatal(err)
	}
	err := merge(tar.NewReader(&pkg), regexp.MustCompile(`^$`), layer.Tree{})
	if err == nil || !strings.Contains(err.Error(), "dev/null: entry of type") {
		t.Error(err)
	}
}

// A program without its library is an error, a plugin without it is left out.
func TestLibrariesMustBeThere(t *testing.T) {
	body, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	needs, err := librariesOf(layer.Regular(0o755, body))
	if err != nil {
		t.Fatal(err)
	}
	tree := layer.Tree{"usr/bin/app": layer.Regular(0o755, body), "usr/lib/x/tc/q.so": layer.Regular(0o644, body)}
	err = checkLibraries(tree)
	_, kept := tree["usr/lib/x/tc/q.so"]
	if len(needs) == 0 { // a test binary without cgo needs none
		if err != nil || !kept {
			t.Errorf("needs nothing: %v, plugin kept %v", err, kept)
		}
		return
	}
	if err == nil || kept {
		t.Errorf("needs %v: error %v, plugin kept %v", needs, err, kept)
	}
	for _, lib := range needs {
		tree["usr/lib/"+lib] = layer.Regular(0o644, nil)
	}
	if err := checkLibraries(tree); err != nil {
		t.Error(err)
	}
}
