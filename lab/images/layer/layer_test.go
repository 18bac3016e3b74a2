package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriteIsSortedCompleteAndRepeatable(t *testing.T) {
	tree := Tree{
		"usr/bin/zsh": Regular(0o755, []byte("shell")),
		"bin":         Symlink("usr/bin"),
		"tmp":         Dir(0o1777),
		"usr/bin":     Dir(0o700),
	}
	var first, second bytes.Buffer
	if err := errors.Join(tree.Write(&first), tree.Write(&second)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same tree became other bytes")
	}
	var got []string
	for in := tar.NewReader(&first); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || !h.ModTime.Equal(h.ModTime.Truncate(0)) || h.ModTime.Unix() != 0 {
			t.Errorf("%s: uid %d, time %v", h.Name, h.Uid, h.ModTime)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname)
	}
	want := []string{
		"Lrwxrwxrwx bin usr/bin", "dtrwxrwxrwx tmp/ ", "drwxr-xr-x usr/ ", "drwx------ usr/bin/ ", "-rwxr-xr-x usr/bin/zsh ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"./usr/": "usr", "/": "", "../../etc/x": "etc/x", ".": "", "a//b": "a/b"} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}
