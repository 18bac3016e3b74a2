package cluster

import (
	"context"
	"fmt"
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
			k := &keeper{Lab: l, node: n, template: template, changes: l.changes()}
			err := k.make()
			if err == nil {
				l.keepers.Go(func() { k.keep(keeping) })
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
