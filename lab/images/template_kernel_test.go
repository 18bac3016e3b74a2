//go:build kernel

package images

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/google/go-cmp/cmp"
)

// binDir has what "make build" built.
const binDir = "../../bin"

// Two nodes at once run containers off one template, and what they do stays theirs.
func TestTwoNodesOffOneTemplate(t *testing.T) {
	bin, err := filepath.Abs(binDir)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "zw") // short: sockets in it have 107 bytes for their path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var archives []Image
	for _, r := range recipes(Options{BinDir: bin, OutDir: dir})[:2] { // pause and echo
		image, err := build(t.Context(), r, Options{OutDir: dir, Log: t.Output()})
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, image)
	}
	template := templateTwice(t, bin, filepath.Join(dir, "cache"), archives)
	before := treeOf(t, template)

	for _, node := range []string{"a", "b"} {
		if err := CloneRoot(template, filepath.Join(dir, node), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := CloneRoot(template, filepath.Join(dir, "a"), ""); err == nil {
		t.Error("cloned over a root that is there")
	}
	out := runNodes(t, bin, dir)
	for _, want := range []string{"a: -style: want text or json", "b: -style: want text or json", "a: images 1", "b: images 2"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if diff := cmp.Diff(before, treeOf(t, template)); diff != "" {
		t.Errorf("the nodes changed the template:\n%s", diff)
	}
	if err := PruneTemplates(filepath.Dir(template), []string{template}); err != nil || !exists(template) {
		t.Errorf("pruned one in use: %v", err)
	}
	if err := PruneTemplates(filepath.Dir(template), nil); err != nil || exists(template) {
		t.Errorf("not pruned: %v", err)
	}
}

// templateTwice asks for the same template from two sides at once.
func templateTwice(t *testing.T, bin, cache string, archives []Image) string {
	var roots [2]string
	var group errgroup.Group
	for n := range roots {
		group.Go(func() (err error) {
			roots[n], err = Template(t.Context(), bin, cache, archives)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if roots[0] != roots[1] {
		t.Errorf("two templates of the same images: %v", roots)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, ".template-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	return roots[0]
}

// runNodes starts a containerd on each clone, in namespaces that end with the
// script: no process, mount, link or cgroup outlives it.
func runNodes(t *testing.T, bin, dir string) string {
	const script = `
set -e
mount --make-rprivate /; mount -t proc proc /proc; mount -t tmpfs tmpfs /run
node() {
	cat > $2/$1.toml <<-END
		version = 4
		root = "$2/$1"
		state = "/run/$1"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.internal.v1.opt"]
		[plugins."io.containerd.server.v1.grpc"]
		  address = "/run/$1.sock"
		[plugins."io.containerd.server.v1.ttrpc"]
		  address = "/run/$1.sock.ttrpc"
	END
	containerd -c $2/$1.toml 2> $2/$1.log &
	until [ -S /run/$1.sock ]; do sleep 0.01; done
	# The echo server refuses this style and so ends by itself.
	ctr -a /run/$1.sock -n k8s.io run --rm --cgroup "" registry.k8s.io/echoserver:1.5 $1 /echoserver -style none 2>&1 | sed "s/^echo: style \"none\"/$1: -style/" || true
}
node a "$0" "$1" & one=$!
node b "$0" "$1" & two=$!
wait $one $two
ctr -a /run/a.sock -n k8s.io images rm --sync registry.k8s.io/pause:3.10 > /dev/null
for n in a b; do echo "$n: images $(ctr -a /run/$n.sock -n k8s.io images ls -q | wc -l)"; done
`
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script, dir, bin)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("nodes: %v\n%s", err, out)
	}
	return string(out)
}

// treeOf lists the files of a folder with their sizes.
func treeOf(t *testing.T, dir string) map[string]int64 {
	all := map[string]int64{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			all[path] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
