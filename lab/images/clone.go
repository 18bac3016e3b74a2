package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Parts of a containerd root.
const (
	metadataFile = "io.containerd.metadata.v1.bolt/meta.db"
	snapshotFile = "io.containerd.snapshotter.v1.overlayfs/metadata.db"
	snapshotsDir = "io.containerd.snapshotter.v1.overlayfs/snapshots"
	blobsDir     = "io.containerd.content.v1.content/blobs/sha256"
	ingestDir    = "io.containerd.content.v1.content/ingest"
	rootMode     = 0o700
)

// CloneRoot makes dst, which must not exist, the root of a new containerd that
// has what the template has. It copies the two databases, links the blobs and
// points to the template's unpacked layers, which all clones share and none can
// change: they are lower layers only. seenAs is the template's path as the new
// containerd will see it, if it sees other paths than we do; else empty. The
// template must stay as long as the clone.
func CloneRoot(template, dst, seenAs string) error {
	if err := cloneRoot(template, dst, seenAs); err != nil {
		return fmt.Errorf("images: clone: %w", err)
	}
	return nil
}

func cloneRoot(template, dst, seenAs string) error {
	if seenAs == "" {
		var err error
		if seenAs, err = filepath.Abs(template); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dst, rootMode); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(metadataFile), snapshotsDir, blobsDir, ingestDir} {
		if err := os.MkdirAll(filepath.Join(dst, dir), rootMode); err != nil {
			return err
		}
	}
	for _, file := range []string{metadataFile, snapshotFile} {
		if err := copyFile(filepath.Join(template, file), filepath.Join(dst, file), 0o600); err != nil {
			return err
		}
	}
	if err := each(filepath.Join(template, blobsDir), func(name string) error {
		return linkFile(filepath.Join(template, blobsDir, name), filepath.Join(dst, blobsDir, name))
	}); err != nil {
		return err
	}
	return each(filepath.Join(template, snapshotsDir), func(name string) error {
		return os.Symlink(filepath.Join(seenAs, snapshotsDir, name), filepath.Join(dst, snapshotsDir, name))
	})
}

func each(dir string, do func(name string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := do(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// linkFile links a file that nobody writes to, or copies it to another file system.
func linkFile(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EMLINK) {
		return copyFile(from, to, 0o444)
	}
	return err
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// PruneTemplates removes the templates in cacheDir that are not in use: all but
// those listed.
func PruneTemplates(cacheDir string, inUse []string) error {
	found, err := filepath.Glob(filepath.Join(cacheDir, templatePrefix+"*"))
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	var bad []error
	for _, root := range found {
		if !slices.Contains(inUse, root) {
			bad = append(bad, os.RemoveAll(root))
		}
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	return nil
}
