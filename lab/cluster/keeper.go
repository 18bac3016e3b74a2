package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/topology"
)

// keeper gives a node a machine for as long as the cloud says that its instance has power.
type keeper struct {
	*Lab
	node     topology.Node
	template string          // of the store of images
	changes  <-chan struct{} // of the cloud's records; nil with static addresses
	machine  *machine.Machine
	power    power // with which the machine was made
}

// power is what the cloud says of a node's instance.
type power struct {
	instance string // id; empty: it was terminated
	on       bool
	boots    int // how often it was booted anew
}

// missing says why a node has no power; empty where it has.
func (p power) missing() string {
	switch {
	case p.on:
		return ""
	case p.instance == "":
		return "terminated"
	}
	return "stopped"
}

// changes tells of those of the cloud's records.
func (l *Lab) changes() <-chan struct{} {
	if l.cloud == nil {
		return nil
	}
	return l.cloud.records.Changes()
}

// powerOf tells whether a node is to run. With static addresses it always is, and its id is made up.
func (l *Lab) powerOf(n topology.Node) power {
	if l.cloud == nil {
		return power{instance: instanceID(l.topo, n), on: true}
	}
	i := l.cloud.records.Records().InstanceOf(n.Alias)
	if i == nil {
		return power{}
	}
	return power{i.ID, i.Running(), i.Boots}
}

// restore starts what the cloud has stopped, and makes new instances of nodes whose own was terminated. It returns
// the aliases of these nodes.
func (l *Lab) restore() ([]string, error) {
	nodes := []string{}
	for _, n := range l.topo.Nodes() {
		if l.powerOf(n).on {
			continue
		}
		if _, err := l.cloud.records.Launch(l.cloud.launches[n.Alias]); err != nil {
			return nodes, err
		}
		nodes = append(nodes, n.Alias)
	}
	return nodes, nil
}

// keep starts the node again whenever its machine has died, as if power had come back, until ctx ends; then
// it stops it. What the cloud stops, reboots or terminates loses its power at once.
func (k *keeper) keep(ctx context.Context) {
	for {
		select {
		case <-k.machine.Done():
		case <-k.changes:
			if k.powerOf(k.node) == k.power {
				continue
			}
			k.machine.Stop(0)
		case <-ctx.Done():
			k.machine.Stop(stopPatience)
			return
		}
		k.setMachine(k.node.Alias, nil)
		err := fmt.Errorf("node %s ended: %s", k.node.Alias, lastLine(k.machine.LogPath()))
		k.fail(err)
		for err != nil {
			if !k.await(ctx) {
				return
			}
			slog.Warn("starting a node again", "node", k.node.Alias, "err", err)
			if !pause(ctx, restartPause) {
				return
			}
			if err = k.make(); err == nil {
				err = k.machine.Boot()
			}
		}
	}
}

// await waits until the node is to run, and tells whether ctx went on until then.
func (k *keeper) await(ctx context.Context) bool {
	for {
		now := k.powerOf(k.node)
		if now.instance != k.power.instance {
			k.forget(ctx)
		}
		if now.on {
			return ctx.Err() == nil
		}
		slog.Info("a node has no power", "node", k.node.Alias, "instance", now.instance)
		select {
		case <-k.changes:
		case <-ctx.Done():
			return false
		}
	}
}

// forget takes the Node of an instance that was terminated out of the cluster, as a cloud's own controller does. A
// Node that comes back under its name is another.
func (k *keeper) forget(ctx context.Context) {
	err := poll(ctx, nil, "the Node of a terminated instance is deleted", func(ctx context.Context) (bool, error) {
		client, err := kubernetes.NewForConfig(k.client)
		if err != nil {
			return false, err
		}
		err = client.CoreV1().Nodes().Delete(ctx, k.node.Name, metav1.DeleteOptions{})
		return err == nil || apierrors.IsNotFound(err), err
	})
	if err == nil {
		k.power.instance = ""
	}
}

// make makes a machine with a fresh disk for images, in its place in the fabric: what pods it had
// is gone, as after a reboot with an empty image store, and comes back from the API server. Its
// kubelet starts once it is booted.
func (k *keeper) make() error {
	n, p := k.node, k.powerOf(k.node)
	if !p.on {
		return fmt.Errorf("node %s: %w", n.Alias, errNoPower)
	}
	spec, err := machineSpec(k.paths, k.topo, n, k.binDir, k.template, p.instance, k.credentials, k.now())
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Alias, err)
	}
	if err := fillDisk(spec.Root, k.template, k.topo.CNI); err != nil {
		return fmt.Errorf("node %s: %w", n.Alias, err)
	}
	m, err := machine.Start(k.parent, k.program, spec)
	if err != nil {
		return err
	}
	if err := k.fabric.Attach(n, m.PID()); err != nil {
		m.Stop(0)
		return fmt.Errorf("%w: %s", err, lastLine(m.LogPath()))
	}
	if err := k.serveMetadata(p.instance, m); err != nil {
		m.Stop(0)
		return fmt.Errorf("node %s: %w", n.Alias, err)
	}
	k.machine, k.power = m, p
	k.setMachine(n.Alias, m)
	return nil
}

var errNoPower = errors.New("its instance has been stopped or terminated meanwhile")
