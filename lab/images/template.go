package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// templatePrefix begins the names of templates; what is still being made begins
// with a dot.
const templatePrefix = "template-"

// Template returns a containerd root in cacheDir that has the given archives
// imported and unpacked for Kubernetes, and makes it if there is none yet: it
// starts the containerd of binDir for that, with ctr beside it. CloneRoot makes
// the roots of nodes of it. A template never changes once it has its name. Two
// callers at once make one template. It needs root, and it puts no program into
// the background: they end with this process, however it ends.
func Template(ctx context.Context, binDir, cacheDir string, archives []Image) (string, error) {
	root, err := template(ctx, binDir, cacheDir, archives)
	if err != nil {
		return "", fmt.Errorf("images: template: %w", err)
	}
	return root, nil
}

func template(ctx context.Context, binDir, cacheDir string, archives []Image) (string, error) {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(cacheDir, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	root := filepath.Join(cacheDir, templatePrefix+contentKey(archives))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	// Under the lock nobody else is at work: these are of a process that was killed.
	stale, _ := filepath.Glob(filepath.Join(cacheDir, "."+templatePrefix+"*"))
	for _, dir := range stale {
		os.RemoveAll(dir)
	}
	work, err := os.MkdirTemp(cacheDir, "."+templatePrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := fill(ctx, binDir, work, archives); err != nil {
		return "", err
	}
	return root, os.Rename(filepath.Join(work, "root"), root)
}

// contentKey names a template by what is in it.
func contentKey(archives []Image) string {
	sum := sha256.New()
	for _, a := range archives {
		for _, t := range a.Tags {
			fmt.Fprintln(sum, t.Name, t.Manifest.Digest)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// fill runs a containerd on work/root, imports the archives and stops it.
func fill(ctx context.Context, binDir, work string, archives []Image) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The kernel ends containerd when the thread that started it ends: stay on it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	daemon, err := startContainerd(ctx, binDir, work)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait(); cancel() }()

	imported := importAll(ctx, binDir, work, archives)
	cancel() // asks containerd to stop
	if err := <-ended; imported == nil && err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("containerd: %w: %s", err, lastLog(work))
	}
	if imported != nil {
		return fmt.Errorf("%w (containerd: %s)", imported, lastLog(work))
	}
	return nil
}

func importAll(ctx context.Context, binDir, work string, archives []Image) error {
	if err := waitFor(ctx, socketOf(work)); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, a := range archives {
		group.Go(func() error {
			cmd := exec.CommandContext(ctx, filepath.Join(binDir, "ctr"), "-a", socketOf(work), "-n", "k8s.io", "image", "import", "--local", a.Path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to handle
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", filepath.Base(a.Path), err, strings.TrimSpace(string(out)))
			}
			return nil
		})
	}
	return group.Wait()
}

// startContainerd starts one without CRI and without anything outside of work.
// The database is not synced on each write: a template that a crash cuts short
// never gets its name.
func startContainerd(ctx context.Context, binDir, work string) (*exec.Cmd, error) {
	config := fmt.Sprintf(`version = 4
root = %q
state = %q
temp = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
  "io.containerd.differ.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.monitor.container.v1.restart"]
[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = %q
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
`, filepath.Join(work, "root"), filepath.Join(work, "state"), filepath.Join(work, "tmp"),
		socketOf(work), socketOf(work)+".ttrpc", filepath.Join(work, "shims"))
	file := filepath.Join(work, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(work, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "containerd"), "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	// In a mount namespace of its own: unpacking mounts every layer, and a kill must not leave those behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd, cmd.Start()
}

func socketOf(work string) string { return filepath.Join(work, "sock") }

// lastLog is the end of containerd's log, for an error.
func lastLog(work string) string {
	body, _ := os.ReadFile(filepath.Join(work, "log"))
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	return lines[len(lines)-1]
}

// waitFor waits for a socket to appear.
func waitFor(ctx context.Context, socket string) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return poll(ctx, "no socket yet", func() (bool, error) {
		_, err := os.Stat(socket)
		return err == nil, nil
	})
}

// lock takes the file's lock, which ends with the process at the latest.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, "another process makes it", func() (bool, error) {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

// poll asks done every few milliseconds until it says so.
func poll(ctx context.Context, state string, done func() (bool, error)) error {
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", state, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
