package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/registry"
)

// prepareImages opens every archive that the lab has, and returns the unpacked images that its
// nodes start with.
func (l *Lab) prepareImages(ctx context.Context) (string, error) {
	dir := filepath.Join(l.binDir, "images")
	builtIn, err := images.List(dir)
	if err != nil {
		return "", err
	}
	if len(builtIn) == 0 {
		return "", fmt.Errorf("no archives in %s: run `make build`", dir)
	}
	loaded, err := images.List(l.paths.Images())
	if err != nil {
		return "", err
	}
	if l.registry, err = newRegistry(builtIn, loaded, l.topo.Offline); err != nil {
		return "", err
	}
	return l.pinTemplate(ctx, builtIn)
}

// pinTemplate makes the unpacked images, says that this lab uses them, and removes those that no lab
// does. One lab at a time: another that starts from another build must not remove these in between.
func (l *Lab) pinTemplate(ctx context.Context, builtIn []images.Image) (string, error) {
	if err := os.MkdirAll(Cache(), 0o755); err != nil {
		return "", err
	}
	var pinning *os.File
	err := poll(ctx, nil, "no other lab unpacks images", func(context.Context) (_ bool, err error) {
		pinning, err = lockFile(filepath.Join(Cache(), ".pin"))
		return err == nil, err
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = pinning.Close() }()
	template, err := images.Template(ctx, l.binDir, Cache(), builtIn)
	if err != nil {
		return "", err
	}
	if err := writeFile(l.paths.Template(), []byte(template), 0o644); err != nil {
		return "", err
	}
	return template, pruneTemplates()
}

func newRegistry(builtIn, loaded []images.Image, offline bool) (*registry.Registry, error) {
	var upstream registry.Upstream
	if !offline {
		upstream = &registry.Remote{}
	}
	r := registry.New(upstream, builtIn...)
	for _, i := range loaded {
		if _, err := r.Add(i.Path); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// pruneTemplates removes unpacked images that no lab uses: those of older builds.
func pruneTemplates() error {
	names, err := Names()
	if err != nil {
		return err
	}
	var inUse []string
	for _, name := range names {
		data, err := os.ReadFile(PathsOf(name).Template())
		if err != nil {
			continue // a lab that has not come so far uses none
		}
		inUse = append(inUse, string(data))
	}
	return images.PruneTemplates(Cache(), inUse)
}
