package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zonewise/zonewise/lab/images"
	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/topology"
)

// startNodes starts all nodes, and meanwhile installs what is to run on them.
func (l *Lab) startNodes(ctx, running context.Context, template string) error {
	// What pods leave on a node's disk is not for the host's other users.
	if err := os.MkdirAll(l.paths.Nodes(), 0o700); err != nil {
		return err
	}
	keeping, letGo := context.WithCancel(running)
	l.letGo = letGo
	var group errgroup.Group
	for _, n := range l.topo.Nodes() {
		group.Go(func() error {
			m, err := l.startNode(n, template)
			if err != nil {
				return err
			}
			l.keepers.Go(func() { l.keepNode(keeping, n, m, template) })
			return nil
		})
	}
	group.Go(func() error { return l.install(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return l.waitNodes(ctx)
}

// stopNodes ends all machines and whoever would start them again.
func (l *Lab) stopNodes() {
	if l.letGo == nil {
		return // none was started
	}
	l.letGo()
	l.keepers.Wait()
}

// keepNode starts a node again whenever its machine has died, as if power had come back, until ctx
// ends; then it stops it.
func (l *Lab) keepNode(ctx context.Context, n topology.Node, m *machine.Machine, template string) {
	for {
		select {
		case <-m.Done():
		case <-ctx.Done():
			m.Stop(stopPatience)
			return
		}
		err := fmt.Errorf("node %s ended: %s", n.Alias, lastLine(m.LogPath()))
		l.setMachine(n.Alias, nil)
		l.fail(err)
		for err != nil {
			slog.Warn("starting a node again", "node", n.Alias, "err", err)
			if !pause(ctx, restartPause) {
				return
			}
			m, err = l.startNode(n, template)
		}
	}
}

// pause waits, and tells whether ctx went on meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// startNode makes a machine with a fresh disk for images: what pods it had is gone, as after a
// reboot with an empty image store, and comes back from the API server.
func (l *Lab) startNode(n topology.Node, template string) (*machine.Machine, error) {
	spec, err := machineSpec(l.paths, l.topo, n, l.binDir, template, l.credentials, l.now())
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Alias, err)
	}
	if err := fillDisk(spec.Root, template); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Alias, err)
	}
	m, err := machine.Start(l.parent, l.program, spec)
	if err != nil {
		return nil, err
	}
	err = l.fabric.Attach(n, m.PID())
	if err == nil {
		err = m.Boot()
	}
	if err != nil {
		m.Stop(0)
		return nil, fmt.Errorf("%w: %s", err, lastLine(m.LogPath()))
	}
	l.setMachine(n.Alias, m)
	return m, nil
}

// fillDisk puts the images and the CNI plugin onto a node's disk.
func fillDisk(root, template string) error {
	store := filepath.Join(root, "var/lib/containerd")
	if err := os.RemoveAll(store); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(store), 0o755); err != nil {
		return err
	}
	if err := images.CloneRoot(template, store, "/lab/images"); err != nil {
		return err
	}
	plugins := filepath.Join(root, "opt/cni/bin")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return err
	}
	link := filepath.Join(plugins, "zonewise-cni")
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	return os.Symlink("/lab/bin/zonewise", link)
}

func (l *Lab) setMachine(alias string, m *machine.Machine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m == nil {
		delete(l.machines, alias)
	} else {
		l.machines[alias] = m
	}
}

// pids are the first processes of the machines that run, by alias.
func (l *Lab) pids() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]int, len(l.machines))
	for alias, m := range l.machines {
		out[alias] = m.PID()
	}
	return out
}
