// Package images makes the lab's images as OCI archives, with no registry and no
// container engine, and reads the archives that others made.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Options say what Build works with.
type Options struct {
	BinDir   string    // where the programs are that go into images
	OutDir   string    // where the archives go
	CacheDir string    // package files, kept between runs; empty: OutDir/.cache
	Version  string    // the product's version: the tag of its own image
	Log      io.Writer // one line an image; nil: nothing
}

// Build makes every archive of the lab in OutDir and returns them all. An archive
// whose inputs have not changed is left as it is.
func Build(ctx context.Context, o Options) ([]Image, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(o.OutDir, ".cache")
	}
	if err := os.MkdirAll(o.OutDir, 0o755); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	var built []Image
	for _, r := range recipes(o) {
		image, err := build(ctx, r, o)
		if err != nil {
			return built, fmt.Errorf("images: %s: %w", r.name, err)
		}
		built = append(built, image)
	}
	return built, nil
}

// errInputsUnknown is a source that cannot tell what it would be made of, for want
// of a network: the archive there is will do.
var errInputsUnknown = errors.New("inputs unknown")

func build(ctx context.Context, r recipe, o Options) (Image, error) {
	path := filepath.Join(o.OutDir, r.name+".tar")
	old, oldErr := Open(path)
	inputs, err := r.source.inputs(ctx)
	if errors.Is(err, errInputsUnknown) && oldErr == nil && ctx.Err() == nil {
		fmt.Fprintf(o.Log, "%s: kept: %v\n", filepath.Base(path), err)
		return old, nil
	}
	if err != nil {
		return Image{}, err
	}
	key := r.key(inputs)
	if oldErr == nil && old.inputs == key {
		return old, nil
	}
	tree, err := r.source.tree(ctx)
	if err != nil {
		return Image{}, err
	}
	r.prepare(tree)
	if err := writeArchive(path, tree, r, key); err != nil {
		return Image{}, err
	}
	image, err := Open(path)
	if err != nil {
		return Image{}, err
	}
	fmt.Fprintf(o.Log, "%s: %s (%.1f MB)\n", filepath.Base(path), strings.Join(image.Names(), ", "), float64(image.Bytes)/1e6)
	return image, nil
}

// List opens every archive in dir, by name. No such directory: no archives.
func List(dir string) ([]Image, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	var all []Image
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".tar") {
			continue
		}
		image, err := Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, image)
	}
	return all, nil
}
