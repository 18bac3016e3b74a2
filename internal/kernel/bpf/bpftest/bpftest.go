// Package bpftest has what tests of programs need: a file system for pins, a cgroup, and a look at
// whether a committed object is that of its sources.
package bpftest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// FileSystem makes a BPF file system for the test. The machine's mounts stay as they are.
func FileSystem(t testing.TB) string {
	t.Helper()
	f, err := bpf.NewFileSystem()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

// Cgroup makes a cgroup below the one that the test's process is in, and moves it there for the test.
func Cgroup(t testing.TB) string {
	t.Helper()
	mount, err := bpf.CgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	own, err := bpf.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(mount, own)
	dir := filepath.Join(before, fmt.Sprintf("zonewise-test-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err := move(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(move(before), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// OfItsSources fails unless object.sum in the test's folder is the sum of these files.
func OfItsSources(t *testing.T, sources ...string) {
	t.Helper()
	h := sha256.New()
	for _, name := range sources {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(source)
	}
	want, err := os.ReadFile("object.sum")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.Fields(string(want))[0] {
		t.Error("a source has changed: run make generate")
	}
}
