package addresses

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	p := Plugin{Executable: program, BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), MTU: 9001}
	for _, content := range []string{"old", "a newer one"} {
		if err := os.WriteFile(program, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Install(); err != nil {
			t.Fatal(err)
		}
		installed := filepath.Join(p.BinDir, "zonewise-cni")
		got, err := os.ReadFile(installed)
		if err != nil || string(got) != content {
			t.Errorf("plugin: %q, %v", got, err)
		}
		if info, err := os.Stat(installed); err != nil || info.Mode() != 0o755 {
			t.Errorf("plugin: %v, %v", info.Mode(), err)
		}
	}
	const want = `{
  "cniVersion": "1.1.0",
  "name": "zonewise",
  "plugins": [
    {
      "mtu": 9001,
      "pool": {
        "from": "cloud"
      },
      "type": "zonewise-cni"
    }
  ]
}`
	conf := filepath.Join(p.ConfDir, "10-zonewise.conflist")
	if got, err := os.ReadFile(conf); err != nil || string(got) != want {
		t.Errorf("configuration: %s, %v", got, err)
	}
	for range 2 {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(conf); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the configuration is still there")
	}
}

// What cannot be written whole leaves what was there, and nothing beside it.
func TestInstallFails(t *testing.T) {
	dir := t.TempDir()
	p := Plugin{Executable: filepath.Join(dir, "none"), BinDir: dir, ConfDir: dir}
	if err := p.Install(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
