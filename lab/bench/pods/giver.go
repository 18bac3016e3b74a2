package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is who gives addresses to pods.
type Kind string

// The kinds: ours, and Amazon's VPC CNI, unchanged.
const (
	Zonewise Kind = "zonewise"
	VPCCNI   Kind = "vpc-cni"
)

// Kinds lists them, ours first.
func Kinds() []Kind { return []Kind{Zonewise, VPCCNI} }

// programs are the daemon and the plugin of each.
var programs = map[Kind][2]string{
	Zonewise: {"zonewise", "zonewise-cni"},
	VPCCNI:   {"vpccni/aws-k8s-agent", "vpccni/routed-eni-cni-plugin"},
}

// Absent is why a kind cannot run here, or nil.
func Absent(k Kind, bin string) error {
	for _, name := range programs[k] {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// Giver is a daemon that runs on a node, with its plugin.
type Giver struct {
	Kind   Kind
	Log    string // file
	node   *Node
	plugin string
	conf   []byte // of the plugin
	ready  func() bool
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error // of the daemon, after ended
}

// confDir is where ours says that pods can have addresses; upstream's is asked for by its socket.
const (
	confDir = "/run/bench/net.d"
	socket  = "/run/aws-node/ipamd.sock"
)

// Start starts a daemon, with settings such as WARM_IP_TARGET=5.
func Start(n *Node, k Kind, bin string, settings ...string) (*Giver, error) {
	g := &Giver{Kind: k, Log: filepath.Join(n.dir, string(k)+".log"), node: n, plugin: filepath.Join(bin, programs[k][1]), ended: make(chan struct{})}
	environment, err := n.environment()
	if err != nil {
		return nil, err
	}
	var args []string
	conf := map[string]any{"cniVersion": "1.0.0"}
	switch k {
	case Zonewise:
		args = []string{"addresses", "--node=" + n.node.Name, "--kubeconfig=" + filepath.Join(n.dir, "kubeconfig"),
			"--state-dir=/run/zonewise/cni", "--cni-bin-dir=/run/bench/bin", "--cni-conf-dir=" + confDir}
		conf["name"], conf["type"], conf["pool"] = "zonewise", "zonewise-cni", map[string]any{"from": "cloud"}
		g.ready = func() bool {
			found, err := filepath.Glob(n.Path(confDir + "/*.conflist"))
			return err == nil && len(found) > 0
		}
	case VPCCNI:
		// As upstream's chart has it, but for what would be written outside of the node's own folders.
		environment = append(environment, "MY_NODE_NAME="+n.node.Name, "ENABLE_IPv4=true", "ENABLE_IPv6=false", "VPC_CNI_VERSION=v1.23.2",
			"AWS_VPC_K8S_CNI_LOG_FILE=stderr", "AWS_VPC_K8S_CNI_LOGLEVEL=DEBUG", "DISABLE_INTROSPECTION=true", "DISABLE_METRICS=true")
		conf["cniVersion"], conf["name"], conf["type"], conf["vethPrefix"], conf["mtu"] = "0.4.0", "aws-cni", "aws-cni", "eni", "9001"
		conf["podSGEnforcingMode"], conf["pluginLogFile"], conf["pluginLogLevel"] = "strict", "/run/aws-node/plugin.log", "DEBUG"
		g.ready = func() bool {
			c, err := net.Dial("unix", n.Path(socket))
			return err == nil && c.Close() == nil
		}
	}
	if g.conf, err = json.Marshal(conf); err != nil {
		return nil, err
	}
	log, err := os.Create(g.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g.cmd = exec.Command(filepath.Join(bin, programs[k][0]), args...)
	g.cmd.Env, g.cmd.Stdout, g.cmd.Stderr, g.cmd.Dir = append(environment, settings...), log, log, "/"
	if err := n.In(func() error {
		return errors.Join(os.MkdirAll(filepath.Dir(socket), 0o755), g.cmd.Start())
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.ended)
	}()
	return g, nil
}

// Ready waits until pods can be started: the container runtime has a plugin then.
func (g *Giver) Ready(ctx context.Context) error { return g.until(ctx, "is ready", g.ready) }

// Settled waits until the node has so many addresses for pods, and its daemon has wanted no more changes for so long.
func (g *Giver) Settled(ctx context.Context, addresses int, still time.Duration) error {
	return g.until(ctx, fmt.Sprintf("has %d addresses for pods", addresses), func() bool {
		return g.node.Addresses() >= addresses && g.node.calm() >= still
	})
}

func (g *Giver) until(ctx context.Context, what string, ask func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-tick.C:
		case <-g.ended:
			return fmt.Errorf("%s ended: %w; see %s", g.Kind, g.err, g.Log)
		case <-ctx.Done():
			return fmt.Errorf("not so: %s %s: %w; see %s", g.Kind, what, ctx.Err(), g.Log)
		}
	}
	return nil
}

// Stop ends the daemon.
func (g *Giver) Stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-g.ended:
	case <-timer.C:
		_ = g.cmd.Process.Signal(unix.SIGKILL)
		<-g.ended
	}
}
