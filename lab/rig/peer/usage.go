package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"
)

// CPU is the time that all of the peer's processes have used, those that have ended among them.
func (p *Peer) CPU() (time.Duration, error) {
	if p.cgroup == "" {
		return 0, nil
	}
	n, err := field(filepath.Join(p.cgroup, "cpu.stat"), "usage_usec")
	return time.Duration(n) * time.Microsecond, err
}

// RSS is the bytes of memory that are in use by its processes as of now, shared ones in each of them.
func (p *Peer) RSS() (uint64, error) {
	return p.sum(func(proc string) (uint64, error) {
		text, err := os.ReadFile(filepath.Join(proc, "statm")) // proc_pid_statm(5): in pages
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(text))
		if len(fields) < 2 {
			return 0, nil
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		return n * uint64(os.Getpagesize()), err
	})
}

// PSS is the same, with shared memory divided among those who share it. It takes the kernel a while.
func (p *Peer) PSS() (uint64, error) {
	return p.sum(func(proc string) (uint64, error) {
		n, err := field(filepath.Join(proc, "smaps_rollup"), "Pss:")
		return n << 10, err // proc_pid_smaps(5): in kB
	})
}

// sum adds up over all processes; those that end meanwhile count nothing.
func (p *Peer) sum(of func(proc string) (uint64, error)) (uint64, error) {
	if p.cgroup == "" {
		return 0, nil
	}
	pids, err := processes(p.cgroup)
	var sum uint64
	for _, pid := range pids {
		n, e := of(filepath.Join("/proc", strconv.Itoa(pid)))
		if e != nil && !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, e)
		}
		sum += n
	}
	return sum, err
}

// CgroupMemory is what the kernel charges to its processes: their own memory, and that of maps and
// sets in the kernel that they made. It is false if nothing on this machine counts that.
func (p *Peer) CgroupMemory() (bytes uint64, counted bool, err error) {
	if p.memory == "" {
		return 0, false, nil
	}
	name := "memory.current"
	if p.memory != p.cgroup {
		name = "memory.usage_in_bytes"
	}
	text, err := os.ReadFile(filepath.Join(p.memory, name))
	if err != nil {
		return 0, false, err
	}
	bytes, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return bytes, true, err
}

// memoryV1 is where version 1 counts memory, on machines that have it there.
const memoryV1 = "/sys/fs/cgroup/memory"

// countMemory puts a process that has just begun where memory is counted.
func countMemory(cgroup string, pid int) (string, error) {
	if _, err := os.Stat(filepath.Join(cgroup, "memory.current")); err == nil {
		return cgroup, nil
	}
	if _, err := os.Stat(filepath.Join(memoryV1, "memory.usage_in_bytes")); err != nil {
		return "", nil
	}
	dir := filepath.Join(memoryV1, filepath.Base(filepath.Dir(cgroup)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	if errors.Is(err, unix.ESRCH) { // it has ended already, which is told by Ended
		err = nil
	}
	return dir, err
}

// removeMemory removes a cgroup of version 1, whose processes may be on their way out.
func removeMemory(dir string) error {
	pids, err := processes(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids { // what the peer had started, if anything
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(grace)
	for {
		err := unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
}

func processes(cgroup string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// field is the number after a name in a file of names and numbers.
func field(path, name string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == name {
			return strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("%s: no %s", path, name))
}

// Metrics are the program's own figures, by name.
func (p *Peer) Metrics(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	address := agentAddress
	if p.Kind == KubeProxyNFT || p.Kind == KubeProxyIPTables {
		address = kubeProxyAddress
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = p.world.Node.Do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return c, err
		}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(response.Body)
}

// Programmed is how many changes the program says that the kernel obeys.
func (p *Peer) Programmed(ctx context.Context) (uint64, error) {
	name := "zonewise_network_programming_duration_seconds"
	if p.Kind == KubeProxyNFT || p.Kind == KubeProxyIPTables {
		name = "kubeproxy_network_programming_duration_seconds"
	}
	all, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, m := range all[name].GetMetric() {
		sum += m.GetHistogram().GetSampleCount()
	}
	return sum, nil
}

// WatchMemory looks at RSS every 20 ms until stop, which returns the most that it saw, or that the
// kernel saw of the program alone.
func (p *Peer) WatchMemory() (stop func() uint64) {
	var most uint64
	quit, done := make(chan struct{}), make(chan struct{})
	look := func() {
		if n, err := p.RSS(); err == nil {
			most = max(most, n)
		}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			look()
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() uint64 {
		close(quit)
		<-done
		look()
		if p.cmd != nil {
			if n, err := field(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"), "VmHWM:"); err == nil {
				most = max(most, n<<10) // proc_pid_status(5): in kB
			}
		}
		return most
	}
}

// Pin keeps every thread of the peer on one CPU from now on.
func (p *Peer) Pin(cpu int) error {
	if p.cgroup == "" {
		return nil
	}
	pids, err := processes(p.cgroup)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, pid := range pids {
		// Threads that begin meanwhile are their makers' heirs, and the second look finds the rest.
		for range 2 {
			threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, t := range threads {
				id, err := strconv.Atoi(t.Name())
				if err != nil {
					return err
				}
				if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("pin %d: %w", id, err)
				}
			}
		}
	}
	return nil
}
