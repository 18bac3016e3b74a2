package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zonewise/zonewise/lab/images/layer"
)

// recipe is one image: where its files come from, and how it runs.
type recipe struct {
	name   string   // of the archive, without .tar
	refs   []string // the names that pods know the image by
	source source
	more   layer.Tree // files beside the source's
	config v1.Config
}

// source is where an image's files come from.
type source interface {
	// inputs says in one string which files tree would return, at less cost.
	inputs(ctx context.Context) (string, error)
	tree(ctx context.Context) (layer.Tree, error)
}

// Names of the images that the lab itself starts.
const (
	Pause = "registry.k8s.io/pause:3.10"
	DNS   = "registry.k8s.io/coredns/coredns:v1.14.7"
	Tools = "docker.io/nicolaka/netshoot:latest"
)

// Product is the name of the product's own image.
func Product(version string) string { return "ghcr.io/zonewise/zonewise:" + version }

const systemPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func recipes(o Options) []recipe {
	program := func(from, to string) source { return binaries{{from: filepath.Join(o.BinDir, from), to: to}} }
	ours := func(name string) binary { return binary{from: filepath.Join(o.BinDir, name), to: name} }
	return []recipe{
		{
			name: "pause", refs: []string{Pause}, source: program("pause", "pause"),
			config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"},
		}, {
			name: "echoserver", refs: []string{"registry.k8s.io/echoserver:1.5"}, source: program("echo", "echoserver"),
			config: v1.Config{Entrypoint: []string{"/echoserver"}, ExposedPorts: ports("8080/tcp", "8080/udp")},
		}, {
			name: "echo-server", refs: []string{"docker.io/ealen/echo-server:latest"}, source: program("echo", "echo-server"),
			config: v1.Config{Entrypoint: []string{"/echo-server"}, ExposedPorts: ports("80/tcp", "80/udp")},
		}, {
			name: "coredns", refs: []string{DNS}, source: program("coredns", "coredns"),
			config: v1.Config{Entrypoint: []string{"/coredns"}, User: "65532:65532", ExposedPorts: ports("53/tcp", "53/udp")},
			more:   accounts,
		}, {
			name: "zonewise", refs: []string{Product(o.Version)}, source: binaries{ours("zonewise"), ours("zonewise-cni")},
			config: v1.Config{Entrypoint: []string{"/zonewise"}, User: "65532:65532"},
			more:   accounts,
		}, {
			name: "netshoot", refs: []string{Tools}, source: tools(filepath.Join(o.CacheDir, "apt")),
			config: v1.Config{Cmd: []string{"zsh"}, Env: []string{systemPath, "LANG=C.UTF-8"}, WorkingDir: "/root"},
		},
	}
}

// accounts names the users that an image without a system may run as.
var accounts = layer.Tree{
	"etc/passwd": layer.Regular(0o644, []byte("root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/:/nologin\n")),
	"etc/group":  layer.Regular(0o644, []byte("root:x:0:\nnonroot:x:65532:\n")),
	"tmp":        layer.Dir(0o1777),
}

func ports(all ...string) map[string]struct{} {
	set := map[string]struct{}{}
	for _, p := range all {
		set[p] = struct{}{}
	}
	return set
}

// prepare adds the recipe's own files to those of its source.
func (r recipe) prepare(tree layer.Tree) {
	for name, f := range r.more {
		tree[name] = f
	}
}

// key changes whenever the archive would: with the source's inputs and with the recipe.
func (r recipe) key(inputs string) string {
	all, err := json.Marshal(struct {
		Refs   []string
		Inputs string
		More   layer.Tree
		Config v1.Config
	}{r.refs, inputs, r.more, r.config})
	if err != nil {
		panic(err) // plain values: cannot happen
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:])
}

// binaries are programs of ours at the root of an image.
type binaries []binary

type binary struct{ from, to string }

func (b binaries) inputs(context.Context) (string, error) {
	all := sha256.New()
	for _, one := range b {
		body, err := os.ReadFile(one.from)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(body)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

func (b binaries) tree(context.Context) (layer.Tree, error) {
	tree := layer.Tree{}
	for _, one := range b {
		body, err := os.ReadFile(one.from)
		if err != nil {
			return nil, err
		}
		tree[one.to] = layer.Regular(0o755, body)
	}
	return tree, nil
}
