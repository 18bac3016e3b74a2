package addresses

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Plugin is what the container runtime of the node is told: where the plugin is, and that it is to be asked.
type Plugin struct {
	Executable string // of the plugin: PluginName, in the folder of this program
	BinDir     string // as this process sees it
	ConfDir    string
	MTU        int // of pods; 0: as the primary interface has
}

// PluginName is the name of the plugin's program, and that by which the runtime finds it.
const PluginName = "zonewise-cni"

// confName is that of the configuration. Of several the runtime takes the first.
const confName = "10-zonewise.conflist"

// Install puts the plugin where the runtime looks, and then the configuration: with that the node becomes ready.
func (p Plugin) Install() error {
	if err := copyFile(p.Executable, filepath.Join(p.BinDir, PluginName), 0o755); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	plugin := map[string]any{"type": PluginName, "pool": map[string]any{"from": "cloud"}}
	if p.MTU > 0 {
		plugin["mtu"] = p.MTU
	}
	data, err := json.MarshalIndent(map[string]any{"cniVersion": "1.1.0", "name": "zonewise", "plugins": []any{plugin}}, "", "  ")
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if err := replace(filepath.Join(p.ConfDir, confName), bytes.NewReader(data), 0o644); err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

// Remove takes both away again, the configuration first: the runtime then waits for another plugin.
func (p Plugin) Remove() error {
	var errs []error
	for _, path := range []string{filepath.Join(p.ConfDir, confName), filepath.Join(p.BinDir, PluginName)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("plugin: %w", err))
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string, mode fs.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	return replace(to, source, mode)
}

// replace writes a file beside, and then in place of what is there: the runtime starts either the old plugin or the new.
func replace(path string, content io.Reader, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// The runtime reads every *.conflist: what is not whole must not be called so.
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}
