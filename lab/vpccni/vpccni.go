// Package vpccni makes of AWS's own CNI, Amazon VPC CNI as its module has it, what a lab without a CNI plugin
// can install: two image archives and a manifest. What is held against ours, and against the region, is
// then the same programs, set up by the same chart, as on EKS. As a user does it:
//
//	make build-vpccni
//	sudo bin/zonewise lab up --cni none
//	sudo bin/zonewise lab load bin/vpccni/amazon-k8s-cni.tar bin/vpccni/amazon-k8s-cni-init.tar
//	bin/kubectl apply -f bin/vpccni/aws-vpc-cni.yaml
//
// Settings are those of its DaemonSet: kubectl -n kube-system set env daemonset/aws-node WARM_IP_TARGET=2.
// Without a lab its programs are in bin/vpccni by their names in the module, of which aws-k8s-agent needs an
// API server that may be away, the metadata of an instance, and AWS_EC2_ENDPOINT.
package vpccni

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/images/layer"
	"github.com/zonewise/zonewise/lab/install"
	"github.com/zonewise/zonewise/lab/topology"
)

// Manifest is what `kubectl apply` takes.
const Manifest = "aws-vpc-cni.yaml"

// Archives are what `zonewise lab load` takes.
func Archives(dir string) []string {
	var out []string
	for _, i := range all {
		out = append(out, i.path(dir))
	}
	return out
}

// image is one of upstream's: its files by their names in its own directory, as its Dockerfile puts them there.
type image struct {
	archive string
	dir     string
	files   map[string]string // from the directory of programs
	config  v1.Config
}

const systemPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var all = []image{
	{
		archive: "amazon-k8s-cni", dir: "app",
		files: map[string]string{
			"aws-k8s-agent": "aws-k8s-agent", "aws-cni": "routed-eni-cni-plugin", "egress-cni": "egress-cni-plugin",
			"aws-vpc-cni": "aws-vpc-cni", "grpc-health-probe": "grpc-health-probe",
			"10-aws.conflist": "files/10-aws.conflist", "eni-max-pods.txt": "files/eni-max-pods.txt",
		},
		config: v1.Config{Entrypoint: []string{"/app/aws-vpc-cni"}, WorkingDir: "/app", Env: []string{systemPath}},
	}, {
		archive: "amazon-k8s-cni-init", dir: "init",
		files:  map[string]string{"aws-vpc-cni-init": "aws-vpc-cni-init", "host-local": "host-local", "portmap": "portmap"},
		config: v1.Config{Cmd: []string{"/init/aws-vpc-cni-init"}, WorkingDir: "/init", Env: []string{systemPath}},
	},
}

// system is where the rest of an image comes from: upstream's base has iptables, and here that of the node
// is mounted at /usr.
var system = layer.Tree{
	"bin": layer.Symlink("usr/bin"), "sbin": layer.Symlink("usr/sbin"), "lib": layer.Symlink("usr/lib"), "lib64": layer.Symlink("usr/lib64"),
	"usr": layer.Dir(0o755), "etc/alternatives": layer.Dir(0o755), "tmp": layer.Dir(0o1777), "run": layer.Dir(0o755), "var/run": layer.Symlink("../run"),
}

// Make writes the archives and the manifest into dir, where the programs and the chart are already.
func Make(dir string, log io.Writer) error {
	for _, i := range all {
		if err := i.write(dir); err != nil {
			return fmt.Errorf("%s: %w", i.archive, err)
		}
	}
	text, err := manifest(os.DirFS(filepath.Join(dir, "chart")))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, Manifest), text, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(log, "%s: for a lab of `zonewise lab up --cni none`\n", filepath.Join(dir, Manifest))
	return nil
}

func (i image) path(dir string) string { return filepath.Join(dir, i.archive+".tar") }

func (i image) name() string { return "docker.io/library/" + i.archive + ":lab" }

func (i image) write(dir string) error {
	tree := layer.Tree{}
	for name, f := range system {
		tree[name] = f
	}
	for name, from := range i.files {
		body, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			return fmt.Errorf("%w: run `make build-vpccni`", err)
		}
		mode := int64(0o755)
		if path.Dir(from) != "." {
			mode = 0o644
		}
		tree[path.Join(i.dir, name)] = layer.Regular(mode, body)
	}
	return images.Write(i.path(dir), i.name(), tree, i.config)
}

// manifest renders upstream's chart for the network of a lab by default.
func manifest(chart fs.FS) ([]byte, error) {
	topo, err := topology.New(topology.Config{CNI: topology.CNINone})
	if err != nil {
		return nil, err
	}
	objects, err := install.Chart(chart, values(topo))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, o := range objects {
		if o.GetKind() == "Kustomization" { // lies beside the definitions of its resources
			continue
		}
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return out.Bytes(), nil
}

// values say where the images and the cloud are. The agent for network policies is a program of another
// module, and no part of what gives addresses.
func values(t topology.Topology) map[string]any {
	mount := func(name, path string) (volume, mount any) {
		return map[string]any{"name": name, "hostPath": map[string]any{"path": path}},
			map[string]any{"name": name, "mountPath": path, "readOnly": true}
	}
	usr, atUsr := mount("usr", "/usr")
	alternatives, atAlternatives := mount("alternatives", "/etc/alternatives") // which iptables it is
	return map[string]any{
		"image":             map[string]any{"override": all[0].name()},
		"init":              map[string]any{"image": map[string]any{"override": all[1].name()}},
		"nodeAgent":         map[string]any{"enabled": false},
		"env":               map[string]any{"AWS_EC2_ENDPOINT": "http://" + t.EC2.String(), "CLUSTER_NAME": t.Name},
		"extraVolumes":      []any{usr, alternatives},
		"extraVolumeMounts": []any{atUsr, atAlternatives},
	}
}
