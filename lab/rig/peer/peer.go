// Package peer runs what is measured beside each other on the node of a world: Zonewise's agent with
// its socket path and without, Kubernetes' kube-proxy in its modes, and nobody at all. Each is the
// program that users run, as a process of its own, in a cgroup of its own.
package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/rig"
)

// Kind is what does Services on a node.
type Kind string

// The kinds. Direct ones do no Services: endpoints are reached at their own addresses, with
// connection tracking on the way or without.
const (
	Direct            Kind = "direct"
	DirectConntrack   Kind = "direct-conntrack"
	Zonewise          Kind = "zonewise"
	ZonewiseNFT       Kind = "zonewise-nft"
	KubeProxyNFT      Kind = "kube-proxy-nft"
	KubeProxyIPTables Kind = "kube-proxy-iptables"
)

// Kinds lists them, the floor first.
func Kinds() []Kind {
	return []Kind{Direct, DirectConntrack, Zonewise, ZonewiseNFT, KubeProxyNFT, KubeProxyIPTables}
}

// Services tells whether there is a program that does Services.
func (k Kind) Services() bool { return k != Direct && k != DirectConntrack }

// Options of Start.
type Options struct {
	Bin  string // directory of the programs zonewise and zonewise-lab
	Dir  string // directory for configuration and logs
	Node string // the node's name
	CPU  int    // the only one that it may use; less than 0: any
	// Meter is the agent's --meter; empty: off.
	Meter string
}

// grace is how long a program may take to end when asked to.
const grace = 5 * time.Second

// Peer is one that runs.
type Peer struct {
	Kind Kind
	Log  string // file; empty where there is no program

	world  *rig.World
	cmd    *exec.Cmd
	cgroup string // of version 2, with all its processes in it
	memory string // a cgroup that counts memory, with the same; empty if there can be none
	ended  chan struct{}
	err    error // of the program, after ended
}

// Start starts a peer on the world's node, against an API server that the node reaches at the URL.
func Start(w *rig.World, k Kind, api string, o Options) (*Peer, error) {
	p := &Peer{Kind: k, world: w, ended: make(chan struct{})}
	if err := p.start(api, o); err != nil {
		return nil, fmt.Errorf("%s: %w", k, errors.Join(err, p.Stop()))
	}
	return p, nil
}

func (p *Peer) start(api string, o Options) error {
	switch p.Kind {
	case Direct:
		return nil
	case DirectConntrack:
		return track(p.world)
	}
	args, err := Command(p.world, p.Kind, api, o)
	if err != nil {
		return err
	}
	if o.CPU >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(o.CPU)}, args...)
	}
	p.cgroup = filepath.Join(p.world.Cgroup, "peer")
	if err := os.Mkdir(p.cgroup, 0o755); err != nil {
		return err
	}
	cgroup, err := os.Open(p.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	p.Log = filepath.Join(o.Dir, string(p.Kind)+".log")
	log, err := os.Create(p.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.world.Command(p.world.Node, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	p.memory, err = countMemory(p.cgroup, cmd.Process.Pid)
	return err
}

// track has the node's kernel follow connections, as it does wherever a rule asks for their state.
func track(w *rig.World) error {
	cmd := w.Command(w.Node, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`table inet floor {
	chain forward { type filter hook forward priority 0; ct state invalid drop; }
	chain output { type filter hook output priority 0; ct state invalid drop; }
}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// Ended is closed when the program has ended; Err tells how.
func (p *Peer) Ended() <-chan struct{} { return p.ended }

// Err is why the program is not running any more, with the end of its log.
func (p *Peer) Err() error {
	select {
	case <-p.ended:
	default:
		return nil
	}
	log, _ := os.ReadFile(p.Log)
	return fmt.Errorf("%s ended: %v\n%s", p.Kind, p.err, log[max(0, len(log)-2000):])
}

// Pause stops every process of the peer until Resume. What is programmed keeps working.
func (p *Peer) Pause() error { return p.signal(unix.SIGSTOP) }

// Resume lets it go on.
func (p *Peer) Resume() error { return p.signal(unix.SIGCONT) }

func (p *Peer) signal(s unix.Signal) error {
	if p.cgroup == "" {
		return nil
	}
	pids, err := processes(p.cgroup)
	for _, pid := range pids {
		if e := unix.Kill(pid, s); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Stop ends the program and waits for its end. It is safe to repeat.
func (p *Peer) Stop() error {
	var errs []error
	if p.cmd != nil {
		errs = append(errs, p.Resume())
		_ = p.cmd.Process.Signal(unix.SIGTERM) // fails if it has ended
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		select {
		case <-p.ended:
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		cancel()
		p.cmd = nil
	}
	if p.memory != "" && p.memory != p.cgroup {
		errs = append(errs, removeMemory(p.memory))
		p.memory = ""
	}
	return errors.Join(errs...)
}
