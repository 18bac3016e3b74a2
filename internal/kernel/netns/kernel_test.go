//go:build kernel

package netns

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func inside(t *testing.T, ns *NS) (id string) {
	t.Helper()
	err := ns.Do(func() (err error) {
		id, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNewOpenDo(t *testing.T) {
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	again, err := Open(a.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if inside(t, a) == home || inside(t, a) != inside(t, again) {
		t.Errorf("home %s, made %s, opened %s", home, inside(t, a), inside(t, again))
	}
	// No thread that was inside comes back to serve others.
	for range 100 {
		if now, err := os.Readlink("/proc/thread-self/ns/net"); now != home || err != nil {
			t.Fatalf("at home: %s, %v", now, err)
		}
	}
	fault := errors.New("fault")
	if err := a.Do(func() error { return fault }); !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
}

func TestOpenNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "unmounted")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "-not"} {
		if _, err := Open(path); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Each goes through all that are there, and past what is none.
func TestEach(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		ns, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if err := os.Symlink(ns.Path(), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "gone"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	refuse := errors.New("refused")
	err := Each(dir, func() error {
		at, err := os.Readlink("/proc/thread-self/ns/net")
		seen[at] = true
		return errors.Join(err, refuse)
	})
	if len(seen) != 2 || !errors.Is(err, refuse) {
		t.Errorf("seen %v, %v", seen, err)
	}
	if err := Each(filepath.Join(dir, "nowhere"), func() error { return refuse }); err != nil {
		t.Error(err)
	}
}
