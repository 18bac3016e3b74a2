package machine

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Enter is the first half of a machine's first process. It joins the machine's cgroups while the
// host's are still in sight, makes them the root of a cgroup namespace and starts over as Init: a
// namespace belongs to a thread, and only exec makes it that of the whole process.
func Enter(path string) error {
	spec, err := ReadSpec(path)
	if err != nil {
		return err
	}
	if err := EnterCgroup(spec.Cgroup); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	if err := EnterCgroup(SystemCgroup(spec.Cgroup)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The wish to die with the lab is the first thread's, and exec keeps that of the thread that calls it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the lab: %w", err)
	}
	return unix.Exec(self, []string{self, "internal", RoleInit, path}, os.Environ())
}

// SystemCgroup is where the own programs of a machine live, given the machine's cgroup: one level down,
// beside the pods, since cgroup v2 hands controllers only to cgroups whose parent has no processes.
func SystemCgroup(cgroup string) string { return filepath.Join(cgroup, "system") }

// Init is process 1 of a machine. It makes the file system, runs the services, those that use the
// network once it is there, and reaps whatever is orphaned. It returns when told to stop; the kernel does the rest.
func Init(path string) error {
	spec, err := ReadSpec(path)
	if err != nil {
		return err
	}
	if err := enterRoot(spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	settings := map[string]string{
		"net/ipv4/ip_forward":             "1",
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
	}
	if spec.IPv6 != "" {
		settings["net/ipv6/conf/all/forwarding"] = "1"
	}
	for key, value := range settings {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", key, err)
		}
	}
	gate := os.NewFile(3, "gate")
	booted := make(chan error, 1)
	go func() {
		defer func() { _ = gate.Close() }()
		_, err := io.ReadFull(gate, make([]byte, 1))
		booted <- err
	}()
	s := &services{running: map[int]*service{}, booted: booted}
	return s.run(nodeServices())
}

// KubeProxyConfig is where a machine that shall run kube-proxy finds its configuration.
const KubeProxyConfig = "/etc/kubernetes/kube-proxy.yaml"

func nodeServices() []*service {
	all := []*service{
		{name: "containerd", args: []string{binDir + "/containerd", "--config", "/etc/containerd/config.toml"}, ready: containerdSocket},
		{name: "kubelet", args: []string{binDir + "/zonewise-lab", "internal", "kubelet", "/etc/zonewise/kubelet.json"}, after: containerdSocket, online: true},
	}
	if _, err := os.Stat(KubeProxyConfig); err == nil {
		all = append(all, &service{name: "kube-proxy", args: []string{binDir + "/zonewise-lab", "internal", "kube-proxy", "--config=" + KubeProxyConfig}, online: true})
	}
	return all
}

const containerdSocket = "/run/containerd/containerd.sock"

// service is a program that runs for as long as the machine does, as under any init system.
type service struct {
	name    string
	args    []string
	ready   string // a path that exists once the service can be used; removed before it starts
	after   string // a path that must exist first
	online  bool   // needs the machine's network
	started time.Time
}

type services struct {
	running map[int]*service
	waiting []*service
	booted  <-chan error // nil once it has told that the network is there
}

const restartPause = time.Second

// run is one loop on one thread: it alone starts and reaps processes, so no exit is ever missed
// or taken by another.
func (s *services) run(all []*service) error {
	runtime.LockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT)
	s.waiting = all
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.startWaiting(); err != nil {
			return err
		}
		ticks := tick.C
		if len(s.waiting) == 0 {
			ticks = nil
		}
		select {
		case sig := <-signals:
			if sig != unix.SIGCHLD {
				return nil
			}
			s.reap()
		case err := <-s.booted:
			if err != nil {
				return fmt.Errorf("not booted: %w", err)
			}
			s.booted = nil
		case <-ticks:
		}
	}
}

func (s *services) startWaiting() error {
	var still []*service
	for _, w := range s.waiting {
		if !s.canStart(w) {
			still = append(still, w)
			continue
		}
		if err := s.start(w); err != nil {
			return err
		}
	}
	s.waiting = still
	return nil
}

func (s *services) canStart(w *service) bool {
	if w.online && s.booted != nil || time.Since(w.started) < restartPause {
		return false
	}
	if w.after == "" {
		return true
	}
	_, err := os.Stat(w.after)
	return err == nil
}

func (s *services) start(w *service) error {
	log, err := os.OpenFile("/var/log/"+w.name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if w.ready != "" {
		_ = os.Remove(w.ready)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	process, err := os.StartProcess(w.args[0], w.args, &os.ProcAttr{Dir: "/", Env: os.Environ(), Files: []*os.File{null, log, log}})
	if err != nil {
		return fmt.Errorf("start %s: %w", w.name, err)
	}
	w.started = time.Now()
	s.running[process.Pid] = w
	slog.Info("started", "service", w.name, "pid", process.Pid)
	return process.Release()
}

// reap collects every process that has ended: the services, to be started again, and orphans.
func (s *services) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if pid <= 0 {
			return
		}
		if w, ok := s.running[pid]; ok {
			delete(s.running, pid)
			slog.Warn("ended", "service", w.name, "pid", pid, "status", int(status))
			s.waiting = append(s.waiting, w)
		}
	}
}
