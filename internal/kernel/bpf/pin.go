package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// Exists tells whether there is something at a path.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Pinned opens the map at a pin: nil if there is nothing, and an error if it is another than s asks
// for, save that it may have room for more or fewer elements.
func Pinned(pin string, s *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", s.Name, err)
	}
	if m.Type() != s.Type || m.KeySize() != s.KeySize || m.ValueSize() != s.ValueSize || m.Flags() != s.Flags {
		return nil, errors.Join(fmt.Errorf("map %s: %s is another: %v", s.Name, pin, m), m.Close())
	}
	return m, nil
}

// Pin pins a map unless there is something already. The folder is made if it is missing.
func Pin(m *ebpf.Map, pin string) error {
	if Exists(pin) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(pin), 0o700); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	again, err := m.Clone() // one that knows of no pin
	if err != nil {
		return fmt.Errorf("map %s: %w", filepath.Base(pin), err)
	}
	if err := errors.Join(again.Pin(pin), again.Close()); err != nil {
		return fmt.Errorf("map %s: %w", filepath.Base(pin), err)
	}
	return nil
}

// Refusal says in a sentence why the kernel does not take programs. Privileges are what a process
// needs to load them, and programs is what they are called, with what they need of a kernel.
func Refusal(err error, privileges, programs string) string {
	var v *ebpf.VerifierError
	if errors.As(err, &v) && len(v.Log) > 0 {
		return "the kernel refuses a program: " + strings.TrimSpace(v.Log[len(v.Log)-1]) + " (" + v.Cause.Error() + ")"
	}
	if errors.Is(err, os.ErrPermission) {
		return "the kernel does not let this process load eBPF programs (it needs " + privileges + ")"
	}
	return "the kernel refuses " + programs + ": " + err.Error()
}
