// Package machine makes a node of the lab: a process tree with network, mount, PID, IPC, UTS and
// cgroup namespaces of its own, in which containerd and the kubelet run as on any machine. The tree
// hangs on one process, the machine's first: when that ends, the kernel ends all the others and the
// namespaces, with every mount and interface in them, are gone.
package machine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/region"
)

// Spec is all that a machine needs to know to start. It is written to Dir before the machine is.
type Spec struct {
	Alias    string
	Cgroup   string // of the machine, below the root of every hierarchy
	Hostname string
	Address  string
	IPv6     string // the second address; "": none, and packets of that family are not forwarded
	Resolver string
	Dir      string // of the machine on the host: its spec, log and root directory
	Root     string
	BinDir   string // programs, seen inside at /lab/bin
	Images   string // unpacked images, seen inside at /lab/images
	// Files to put into the machine before it starts: path inside -> content. Mode 0600.
	Files map[string]string
}

// Roles under which the lab's program is started again, as a machine's first process.
const (
	RoleEnter = "machine"      // joins cgroups, then becomes RoleInit
	RoleInit  = "machine-init" // the machine's process 1
)

// killPatience is how long killed processes of an earlier life may take to be gone.
const killPatience = 10 * time.Second

// Machine is a running node.
type Machine struct {
	Spec Spec
	cmd  *exec.Cmd
	gate *os.File
	done chan struct{}
}

// Start makes the machine's files and its first process, which starts what needs no network. The
// network interface can be attached then. The machine dies with the thread.
func Start(thread *region.Thread, program string, spec Spec) (*Machine, error) {
	// After a crash the cgroups of pods are there still, and take no process into what is above them.
	if err := RemoveCgroup(spec.Cgroup, killPatience); err != nil {
		return nil, fmt.Errorf("machine %s: %w", spec.Alias, err)
	}
	if err := prepare(spec); err != nil {
		return nil, fmt.Errorf("machine %s: %w", spec.Alias, err)
	}
	logFile, err := os.OpenFile(logPath(spec.Dir), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = logFile.Close() }()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = read.Close() }()
	m := &Machine{Spec: spec, gate: write, done: make(chan struct{})}
	m.cmd = exec.Command(program, "internal", RoleEnter, specPath(spec.Dir))
	m.cmd.Stdout, m.cmd.Stderr = logFile, logFile
	m.cmd.ExtraFiles = []*os.File{read}
	m.cmd.Env = []string{"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := thread.Do(m.cmd.Start); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("machine %s: %w", spec.Alias, err)
	}
	go func() {
		_ = m.cmd.Wait() // why it ended is in its log
		close(m.done)
	}()
	return m, nil
}

func prepare(spec Spec) error {
	if err := os.MkdirAll(spec.Dir, 0o755); err != nil {
		return err
	}
	if err := makeRoot(spec); err != nil {
		return err
	}
	for path, content := range spec.Files {
		full := filepath.Join(spec.Root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			return err
		}
	}
	spec.Files = nil // they may hold keys, and are in place
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(specPath(spec.Dir), data, 0o600)
}

// Boot lets the machine start what needs its network: the kubelet.
func (m *Machine) Boot() error {
	_, err := m.gate.Write([]byte{1})
	if err != nil {
		return fmt.Errorf("machine %s is gone: %w", m.Spec.Alias, err)
	}
	return m.gate.Close()
}

// PID of the machine's first process, through which its namespaces are reached.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Done is closed when the machine is gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// LogPath is where the machine's first process writes.
func (m *Machine) LogPath() string { return logPath(m.Spec.Dir) }

// Stop ends the machine: kindly, then, after patience, at once.
func (m *Machine) Stop(patience time.Duration) {
	_ = m.cmd.Process.Signal(unix.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-m.done:
	case <-timer.C:
		_ = m.cmd.Process.Kill()
		<-m.done
	}
}

// ReadSpec reads what Start wrote.
func ReadSpec(path string) (Spec, error) {
	var s Spec
	data, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func logPath(dir string) string { return filepath.Join(dir, "machine.log") }

func specPath(dir string) string { return filepath.Join(dir, "machine.json") }
