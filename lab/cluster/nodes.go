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

// makeNodes begins to start the machines of all nodes. Much of that needs no control plane, and goes
// on while the API server starts.
func (l *Lab) makeNodes(running context.Context, template string) error {
	// What pods leave on a node's disk is not for the host's other users.
	if err := os.MkdirAll(l.paths.Nodes(), 0o700); err != nil {
		return err
	}
	keeping, letGo := context.WithCancel(running)
	l.letGo = letGo
	for _, n := range l.topo.Nodes() {
		l.making.Go(func() error {
			m, err := l.makeNode(n, template)
			if err == nil {
				l.keepers.Go(func() { l.keepNode(keeping, n, m, template) })
			}
			return err
		})
	}
	return nil
}

// bootNodes lets the kubelets of all nodes start, and meanwhile installs what is to run there.
func (l *Lab) bootNodes(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error {
		if err := l.making.Wait(); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, m := range l.machines {
			if err := m.Boot(); err != nil {
				return fmt.Errorf("%w: %s", err, lastLine(m.LogPath()))
			}
		}
		return nil
	})
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
	_ = l.making.Wait() // its error is told already, or of no interest any more
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
			if m, err = l.makeNode(n, template); err == nil {
				err = m.Boot()
			}
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

// makeNode makes a machine with a fresh disk for images, in its place in the fabric: what pods it had
// is gone, as after a reboot with an empty image store, and comes back from the API server. Its
// kubelet starts once it is booted.
func (l *Lab) makeNode(n topology.Node, template string) (*machine.Machine, error) {
	spec, err := machineSpec(l.paths, l.topo, n, l.binDir, template, l.instance(n), l.credentials, l.now())
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Alias, err)
	}
	if err := fillDisk(spec.Root, template, l.topo.CNI); err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Alias, err)
	}
	m, err := machine.Start(l.parent, l.program, spec)
	if err != nil {
		return nil, err
	}
	if err := l.fabric.Attach(n, m.PID()); err != nil {
		m.Stop(0)
		return nil, fmt.Errorf("%w: %s", err, lastLine(m.LogPath()))
	}
	if err := l.serveMetadata(n, m); err != nil {
		m.Stop(0)
		return nil, fmt.Errorf("node %s: %w", n.Alias, err)
	}
	l.setMachine(n.Alias, m)
	return m, nil
}

// fillDisk puts the images onto a node's disk, and the CNI plugin where nothing in the cluster does so.
func fillDisk(root, template, cni string) error {
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
	if cni != topology.CNIStatic {
		return nil
	}
	return os.Symlink("/lab/bin/zonewise-cni", link)
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
