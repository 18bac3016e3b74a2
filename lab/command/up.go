package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/topology"
)

type upFlags struct {
	file         string
	zones        int
	perZone      int
	instanceType string
	proxy        string
	wait         time.Duration
	offline      bool
}

func newUp() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab, or go on with one that was interrupted",
		Example: "  sudo zonewise lab up\n  sudo zonewise lab up --name big --zones 4 --nodes-per-zone 3\n" +
			"  sudo zonewise lab up -f lab.yaml",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "read the lab from `lab.yaml`; flags that are given override it")
	flags.IntVar(&f.zones, "zones", 3, "number of zones")
	flags.IntVar(&f.perZone, "nodes-per-zone", 2, "number of nodes in each zone")
	flags.StringVar(&f.instanceType, "instance-type", "t3.medium", "instance `type` of the nodes: what they report, and how many pods they hold")
	flags.StringVar(&f.proxy, "proxy", topology.ProxyZonewise, "what programs Services on the nodes: zonewise or kube-proxy")
	flags.DurationVar(&f.wait, "wait", 2*time.Minute, "give up after this time")
	flags.BoolVar(&f.offline, "offline", false, "never ask a registry for an image")
	return cmd
}

func up(cmd *cobra.Command, f upFlags) error {
	config, err := f.config(cmd)
	if err != nil {
		return err
	}
	if err := needRoot(cmd); err != nil {
		return err
	}
	return startLab(cmd.Context(), config, f.wait, newProgress(cmd.ErrOrStderr()))
}

// config is lab.yaml overridden by the flags that were given.
func (f upFlags) config(cmd *cobra.Command) (topology.Config, error) {
	var c topology.Config
	flags := cmd.Flags()
	if f.file != "" {
		data, err := os.ReadFile(f.file)
		if err != nil {
			return c, err
		}
		if c, err = topology.Parse(data); err != nil {
			return c, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if flags.Changed("name") || c.Name == "" {
		c.Name = labName(cmd)
	}
	if flags.Changed("zones") || flags.Changed("nodes-per-zone") || c.Zones == nil {
		if f.zones < 1 || f.perZone < 1 {
			return c, usageError{errors.New("--zones and --nodes-per-zone: a lab needs at least one of each")}
		}
		c.Zones = topology.Spread(f.zones, f.perZone)
	}
	if flags.Changed("instance-type") || c.InstanceType == "" {
		c.InstanceType = f.instanceType
	}
	if flags.Changed("proxy") || c.Proxy == "" {
		c.Proxy = f.proxy
	}
	c.Offline = c.Offline || f.offline
	if _, err := topology.New(c); err != nil {
		if f.file != "" {
			return c, fmt.Errorf("%s: %w", f.file, err)
		}
		return c, usageError{err}
	}
	return c.WithDefaults(), nil
}

// startLab starts a lab and shows its steps. It does nothing if the lab runs already.
func startLab(ctx context.Context, c topology.Config, wait time.Duration, show *progress) error {
	p := cluster.PathsOf(c.Name)
	fresh := false
	switch have, err := cluster.LoadConfig(p); {
	case errors.Is(err, cluster.ErrNotFound):
		fresh = true
	case err != nil:
		return err
	case cluster.Running(p):
		show.say("Lab %s is running already.", c.Name)
		return hints(ctx, c.Name, show)
	case !reflect.DeepEqual(have, c):
		return fmt.Errorf("lab %s exists and is different: remove it with `sudo zonewise lab down%s`, or choose another --name", c.Name, nameFlag(c.Name))
	}
	if err := preflight(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.Dir, 0o755); err != nil {
		return err
	}
	if err := cluster.SaveConfig(p, c); err != nil {
		return errors.Join(err, cleanup(c.Name, fresh))
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	show.say("Starting lab %s: %d zones, %s.", c.Name, len(c.Zones), c.Region)
	if err := runInBackground(ctx, c.Name, fresh, show); err != nil {
		return errors.Join(err, cleanup(c.Name, fresh))
	}
	return hints(ctx, c.Name, show)
}

// cleanup removes what a failed start has made. A lab that was there before keeps its state.
func cleanup(name string, fresh bool) error {
	if !fresh {
		return nil
	}
	_, err := cluster.Remove(name)
	return err
}

// runInBackground starts the process that runs the lab and follows its start. The pipe to it is the
// lab's life line: closed before the lab is committed, by whatever end of this process, it undoes
// the start.
func runInBackground(ctx context.Context, name string, fresh bool, show *progress) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	logPath := filepath.Join(cluster.PathsOf(name).Dir, "lab.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	runner := exec.Command(self, "internal", "run", name, fmt.Sprintf("--fresh=%t", fresh))
	runner.Stderr = log
	runner.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	line, err := runner.StdinPipe()
	if err != nil {
		return err
	}
	events, err := runner.StdoutPipe()
	if err != nil {
		return err
	}
	if err := runner.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = line.Close() })
	defer stop()
	failure := follow(events, show)
	if failure == nil && stop() {
		if _, err := io.WriteString(line, commitLine); err == nil {
			show.finish()
			return runner.Process.Release()
		}
	}
	_ = line.Close()
	_ = runner.Wait() // it undoes what it did first
	show.fail()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("lab %s is not up in time: see %s, or give it longer with --wait", name, logPath)
	case ctx.Err() != nil:
		return errInterrupted
	case failure == nil:
		return fmt.Errorf("lab %s ended while it started", name)
	}
	return failure
}

const commitLine = "commit\n"

// follow shows events until the lab is ready or its process is gone.
func follow(events io.Reader, show *progress) error {
	failure := errors.New("the lab's process ended early")
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e cluster.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue
		}
		switch e.State {
		case cluster.Ready:
			return nil
		case cluster.StepStarted:
			show.start(e.Step)
		case cluster.StepDone:
			show.done(e.Took)
		case cluster.StepFailed:
			show.fail()
			failure = errors.New(e.Error)
			if e.Step != "" {
				failure = fmt.Errorf("%s: %s", e.Step, e.Error)
			}
		}
	}
	return failure
}

// hints end a start: what there is, and the one command to go on with.
func hints(ctx context.Context, name string, show *progress) error {
	s, err := status(context.WithoutCancel(ctx), name)
	if err != nil {
		return err
	}
	show.say("API after %.1f s, nodes after %.1f s, DNS after %.1f s; %d MB of memory.", s.Boot.API, s.Boot.Nodes, s.Boot.DNS, s.MemoryBytes/1e6)
	show.say("Use it:\n\n    export KUBECONFIG=%s\n    kubectl get nodes -L topology.kubernetes.io/zone\n", s.Kubeconfig)
	return nil
}

// runLab is the process behind a lab. A start that is abandoned leaves nothing of a fresh lab.
func runLab(ctx context.Context, name, version string, fresh bool) error {
	signal.Ignore(unix.SIGPIPE) // whoever watched the start may be gone
	p := cluster.PathsOf(name)
	held, err := cluster.Hold(p)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	encode := json.NewEncoder(os.Stdout)
	fail := func(err error) error {
		_ = encode.Encode(cluster.Event{State: cluster.StepFailed, Error: err.Error()})
		return err
	}
	config, err := cluster.LoadConfig(p)
	if err != nil {
		return fail(err)
	}
	topo, err := topology.New(config)
	if err != nil {
		return fail(err)
	}
	program, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var committed atomic.Bool
	go func() {
		// Whoever started us either says "commit" or is gone.
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if line == commitLine {
			committed.Store(true)
		} else {
			cancel()
		}
	}()
	err = cluster.Run(ctx, cluster.Options{
		Topology: topo, Program: program, Version: version,
		Report: func(e cluster.Event) { _ = encode.Encode(e) },
	})
	if fresh && !committed.Load() {
		return errors.Join(err, cluster.Abandon(p))
	}
	return err
}
