package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/images"
)

// importTime bounds the import of one archive into all nodes.
const importTime = 2 * time.Minute

// load keeps an archive with the lab, serves it to pulls, and puts it on every node, so that pods
// which never pull find it too. An archive that some node refuses is not kept.
func (l *Lab) load(ctx context.Context, path string) ([]string, error) {
	image, err := images.Open(path)
	if err != nil {
		return nil, err
	}
	// By content: files of the same name from different directories are different images.
	sum := sha256.New()
	for _, t := range image.Tags {
		fmt.Fprintln(sum, t.Name, t.Manifest.Digest)
	}
	kept := filepath.Join(l.paths.Images(), hex.EncodeToString(sum.Sum(nil)[:8])+".tar")
	if err := copyFile(path, kept); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, importTime)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2) // unpacking is disk and CPU, and every node does the same
	for alias, pid := range l.pids() {
		group.Go(func() error {
			if err := importInto(ctx, pid, kept); err != nil {
				return fmt.Errorf("load %s: node %s: %w", path, alias, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, os.Remove(kept))
	}
	if _, err := l.registry.Add(kept); err != nil {
		return nil, err
	}
	return image.Names(), nil
}

// importInto hands an archive to a node's containerd.
func importInto(ctx context.Context, pid int, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	cmd := exec.CommandContext(ctx, "nsenter", EnterArgs(pid, "/lab/bin/ctr", "-n", "k8s.io", "image", "import", "-")...)
	cmd.Stdin = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// EnterArgs are nsenter's arguments to run a command inside a node, where its first process is.
// (--wd=/ would be the host's root, which the command then cannot name.)
func EnterArgs(pid int, command ...string) []string {
	return append([]string{"--target", strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd", "--"}, command...)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	temp := to + ".part"
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, to)
}
