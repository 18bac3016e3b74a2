package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/lab/images/layer"
)

// Rootfs merges the files of packages that Fetch brought, without those that drop
// matches. Paths are those of a merged /usr: bin, sbin and lib* are links into it.
func (a *Apt) Rootfs(ctx context.Context, packages []Package, drop *regexp.Regexp) (layer.Tree, error) {
	tree := layer.Tree{}
	for _, p := range packages {
		if err := a.unpack(ctx, p, drop, tree); err != nil {
			return nil, fmt.Errorf("debian: %s: %w", p.File, err)
		}
	}
	for _, dir := range merged {
		if _, ok := tree["usr/"+dir]; ok {
			tree[dir] = layer.Symlink("usr/" + dir)
		}
	}
	return tree, checkLibraries(tree)
}

func (a *Apt) unpack(ctx context.Context, p Package, drop *regexp.Regexp, into layer.Tree) error {
	var trouble bytes.Buffer
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", a.Path(p))
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	bad := merge(tar.NewReader(out), drop, into)
	io.Copy(io.Discard, out) // the tar stream has padding behind its end
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb: %w: %s", err, lastLine(trouble.String()))
	}
	return bad
}

// merge adds the entries of a package to the tree. Directories that several
// packages have keep the first one's mode, as with dpkg.
func merge(in *tar.Reader, drop *regexp.Regexp, into layer.Tree) error {
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		plain := layer.Clean(h.Name)
		name := underUsr(plain)
		// A release with a merged /usr ships the links that Rootfs makes.
		isLink := h.Typeflag == tar.TypeSymlink && slices.Contains(merged, plain)
		if name == "" || isLink || drop.MatchString(name) {
			continue
		}
		f := layer.File{Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeDir:
			if _, ok := into[name]; ok {
				continue
			}
		case tar.TypeReg:
			if f.Body, err = io.ReadAll(in); err != nil {
				return err
			}
		case tar.TypeLink:
			f.Link = underUsr(layer.Clean(h.Linkname))
		case tar.TypeSymlink:
		default:
			return fmt.Errorf("%s: entry of type %q", name, h.Typeflag)
		}
		into[name] = f
	}
}

// merged are the directories that live under /usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

func underUsr(name string) string {
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}

// checkLibraries holds programs and libraries against the libraries they need, which
// some package must bring, or too many packages were skipped. Plugins, in folders
// of their own below lib, may need what a package only recommends: they are dropped.
func checkLibraries(tree layer.Tree) error {
	have := map[string]bool{}
	for name := range tree {
		have[path.Base(name)] = true
	}
	var missing []error
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		needs, err := librariesOf(tree[name])
		if err != nil {
			return fmt.Errorf("debian: %s: %w", name, err)
		}
		lacks := slices.DeleteFunc(needs, func(lib string) bool { return have[lib] })
		switch {
		case len(lacks) == 0:
		case plugin.MatchString(name):
			delete(tree, name)
		default:
			missing = append(missing, fmt.Errorf("debian: %s needs %s, which no package brings", name, strings.Join(lacks, ", ")))
		}
	}
	return errors.Join(missing...)
}

var plugin = regexp.MustCompile(`^usr/lib/[^/]+/.+/[^/]+\.so$`)

// librariesOf lists what an ELF file needs; any other file needs nothing.
func librariesOf(f layer.File) ([]string, error) {
	if !bytes.HasPrefix(f.Body, []byte(elf.ELFMAG)) {
		return nil, nil
	}
	file, err := elf.NewFile(bytes.NewReader(f.Body))
	if err != nil {
		return nil, err
	}
	return file.ImportedLibraries()
}
