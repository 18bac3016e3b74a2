// Package layer is a tree of files in memory that becomes one layer of an image:
// the same tree always becomes the same bytes.
package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// File is one entry of a Tree. Its owner is root unless said otherwise.
type File struct {
	Type byte   // tar.TypeReg, TypeDir, TypeSymlink or TypeLink
	Mode int64  // permission bits, set-id and sticky bits included
	UID  int    // owner
	GID  int    // group
	Link string // target: of a symlink as written, of a hard link a path in the tree
	Body []byte // content of a regular file
}

// Tree maps clean paths without a leading slash ("usr/bin/zsh") to files.
// Directories that are only implied by a path are root's, mode 0755.
type Tree map[string]File

// Regular is a file with content.
func Regular(mode int64, body []byte) File {
	return File{Type: tar.TypeReg, Mode: mode, Body: body}
}

// Symlink points to target.
func Symlink(target string) File { return File{Type: tar.TypeSymlink, Mode: 0o777, Link: target} }

// Dir is an empty directory.
func Dir(mode int64) File { return File{Type: tar.TypeDir, Mode: mode} }

// Clean turns a tar or absolute path into a key of a Tree; the root is "".
func Clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// Write writes the tree as a tar stream: sorted, parents first, every time zero.
func (t Tree) Write(w io.Writer) error {
	all := t.complete()
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := write(out, name, all[name]); err != nil {
			return fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	return out.Close()
}

// complete adds the directories that paths imply.
func (t Tree) complete() Tree {
	all := maps.Clone(t)
	for name := range t {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; ok {
				break
			}
			all[dir] = Dir(0o755)
		}
	}
	return all
}

func write(out *tar.Writer, name string, f File) error {
	header := &tar.Header{
		Name: name, Typeflag: f.Type, Mode: f.Mode, Uid: f.UID, Gid: f.GID,
		Linkname: f.Link, Size: int64(len(f.Body)), ModTime: time.Unix(0, 0),
	}
	if f.Type == tar.TypeDir {
		header.Name += "/"
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := out.Write(f.Body)
	return err
}
