package vpccni

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/lab/images"
)

// What is made of a build: archives that a lab can load, and a manifest that names their images, the cloud of
// a lab, and no resource that is none.
func TestMake(t *testing.T) {
	dir := t.TempDir()
	if err := Make(dir, io.Discard); err == nil || !strings.Contains(err.Error(), "run `make build-vpccni`") {
		t.Errorf("without programs: %v", err)
	}
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range all {
		for _, from := range i.files {
			write(from, from)
		}
	}
	write("chart/Chart.yaml", "apiVersion: v1\nname: x\nversion: 1.0.0\n")
	write("chart/crds/kustomization.yaml", "kind: Kustomization\n")
	write("chart/templates/x.yaml", "kind: ConfigMap\nmetadata: {name: x}\ndata: {images: '{{ .Values.image.override }} {{ .Values.init.image.override }}', endpoint: '{{ .Values.env.AWS_EC2_ENDPOINT }}'}\n")
	if err := Make(dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, Manifest))
	if err != nil {
		t.Fatal(err)
	}
	names := "docker.io/library/amazon-k8s-cni:lab docker.io/library/amazon-k8s-cni-init:lab"
	if s := string(text); !strings.Contains(s, "images: "+names) || !strings.Contains(s, "endpoint: http://192.168.0.12") || strings.Contains(s, "Kustomization") {
		t.Errorf("manifest:\n%s", s)
	}
	var loaded []string
	for _, archive := range Archives(dir) {
		image, err := images.Open(archive)
		if err != nil {
			t.Fatal(err)
		}
		loaded = append(loaded, image.Names()...)
	}
	if !slices.Equal(loaded, strings.Fields(names)) {
		t.Errorf("images %v", loaded)
	}
}
