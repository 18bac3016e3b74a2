//go:build story

package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What becomes of labs that are started twice, killed, interrupted and resumed. These tests make
// labs of their own, small ones, and look at the whole machine afterwards.

// patience bounds every wait. A machine that is busy with other things takes a while.
const patience = time.Minute

func TestLabTwice(t *testing.T) {
	l := newLab(t, "life")
	if out := l.must("up", "--zones", "1", "--nodes-per-zone", "1", "--offline"); !strings.Contains(out, "export KUBECONFIG="+l.kubeconfig()) {
		t.Errorf("up does not say how to go on:\n%s", out)
	}
	begin := time.Now()
	if out := l.must("up"); !strings.Contains(out, "running already") {
		t.Errorf("second up says:\n%s", out)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("second up took %s", took)
	}
	l.mustFail(1, "life exists and is different: remove it with `sudo zonewise lab down --name life`", "up", "--zones", "2")
	l.must("down")
	if out := l.must("down"); !strings.Contains(out, "There was no lab life") {
		t.Errorf("second down says:\n%s", out)
	}
}

// One lab, through everything that can happen to it and that it comes back from.
func TestLabResumes(t *testing.T) {
	l := newLab(t, "life")
	l.must("up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
	l.deploy()
	config, authority := l.read(l.kubeconfig()), l.read(l.dir("pki/ca.crt"))
	for _, event := range []struct {
		name   string
		happen func(t *testing.T, l *lab)
	}{
		{"SIGKILL of the lab", func(_ *testing.T, l *lab) { l.kill(l.runner()) }},
		{"SIGTERM of the lab", func(_ *testing.T, l *lab) { l.end(l.runner(), syscall.SIGTERM) }},
		{"SIGKILL of everything", func(_ *testing.T, l *lab) { l.kill(l.processes()...) }},
		{"reboot", func(t *testing.T, l *lab) {
			l.kill(l.processes()...)
			await(t, "the lab's cgroups are removed", func() error { return l.removeCgroups() })
			for _, f := range []string{"lab.sock", "lock"} {
				if err := os.Remove(l.dir(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
		}},
		{"Ctrl-C while it resumes", func(_ *testing.T, l *lab) {
			l.kill(l.runner())
			up := l.start("Control plane", 0, "up")
			up.signal(syscall.SIGINT)
			up.ends(130, "lab life is stopped and keeps its state")
		}},
		{"SIGKILL while it resumes", func(_ *testing.T, l *lab) {
			l.kill(l.runner())
			up := l.start("Control plane", 0, "up")
			up.signal(syscall.SIGKILL)
			up.ends(-1, "")
		}},
	} {
		t.Run(event.name, func(t *testing.T) {
			l := l.in(t)
			event.happen(t, l)
			await(t, "no process is left", func() error { return none(l.processes()) })
			l.mustFail(1, "lab life is not running: start it again with `sudo zonewise lab up --name life`", "status")
			l.must("up")
			if got := l.read(l.kubeconfig()); got != config {
				t.Errorf("another kubeconfig:\n%s\nbefore:\n%s", got, config)
			}
			if l.read(l.dir("pki/ca.crt")) != authority {
				t.Error("another certificate authority")
			}
			l.serves()
		})
	}
	for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "resolver", "machine-init", "kubelet", "containerd"} {
		t.Run("SIGKILL of "+component, func(t *testing.T) {
			l := l.in(t)
			pid := l.process(component)
			l.kill(pid)
			await(t, component+" runs again", func() error {
				if now := l.process(component); now == 0 || now == pid {
					return fmt.Errorf("process %d, before %d", now, pid)
				}
				return nil
			})
			l.serves()
			// Nothing serves by what it remembers: a new pod needs all of them.
			await(t, "a new pod runs", func() error {
				_, err := l.kubectl("rollout", "restart", "deployment/web")
				return err
			})
			l.rolledOut()
			l.serves()
		})
	}
}

func TestTwoLabs(t *testing.T) {
	one, two := newLab(t, "life"), newLab(t, "life2")
	var both sync.WaitGroup
	for l, cni := range map[*lab]string{one: "zonewise", two: "static"} {
		both.Go(func() {
			if _, err := l.run("up", "--zones", "1", "--nodes-per-zone", "1", "--offline", "--cni", cni); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if t.Failed() {
		return
	}
	one.deploy()
	two.deploy()
	if a, b := one.namespaces(), two.namespaces(); overlap(a, b) {
		t.Errorf("namespaces that both are in:\n%v\n%v", a, b)
	}
	one.must("down")
	two.serves()
}

func TestLabEndedWhileItStarts(t *testing.T) {
	args := []string{"up", "--zones", "1", "--nodes-per-zone", "1", "--offline"}
	// Moments of a start, by what it has shown, and a while after that.
	type moment struct {
		shown string
		after time.Duration
	}
	moments := []moment{
		{"Images unpacked", 0}, {"Network fabric", 700 * time.Millisecond}, {"Control plane", 300 * time.Millisecond}, {"1 nodes in 1 zones", 0},
	}
	early := []moment{{"", 0}, {"", 30 * time.Millisecond}, {"", 100 * time.Millisecond}, {"", 200 * time.Millisecond}, {"Starting lab", 0}}
	for _, end := range []struct {
		name    string
		moments []moment
		do      func(l *lab, up *running)
	}{
		{"SIGKILL of up", append(early, moments...), func(_ *lab, up *running) {
			up.signal(syscall.SIGKILL)
			up.ends(-1, "")
		}},
		{"SIGKILL of the lab", moments, func(l *lab, up *running) {
			l.kill(l.runner())
			up.ends(1, "")
		}},
		{"SIGKILL of everything, down", moments, func(l *lab, up *running) {
			up.signal(syscall.SIGKILL)
			l.kill(l.processes()...)
			up.ends(-1, "")
			l.must("down")
		}},
		{"Ctrl-C", moments, func(_ *lab, up *running) {
			up.signal(syscall.SIGINT)
			up.ends(130, "interrupted; nothing is left behind")
		}},
		{"down", moments, func(l *lab, up *running) {
			l.must("down")
			up.ends(1, "")
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			for _, m := range end.moments {
				t.Run(fmt.Sprintf("%s+%s", strings.ReplaceAll(m.shown, " ", "-"), m.after), func(t *testing.T) {
					l := newLab(t, "life")
					end.do(l, l.start(m.shown, m.after, args...))
					await(t, "nothing is left", func() error { return none(l.traces()) })
				})
			}
		})
	}
}

// TestLabEndedWhileItUnpacks kills a first start of all, which unpacks images: that makes mounts.
func TestLabEndedWhileItUnpacks(t *testing.T) {
	for _, who := range []string{"up", "the lab", "everything"} {
		t.Run("SIGKILL of "+who, func(t *testing.T) {
			l := newLab(t, "life")
			l.home = t.TempDir()
			up := l.start("Starting lab", 0, "up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
			await(t, "layers are unpacked", func() error {
				if found, _ := filepath.Glob(filepath.Join(l.home, "cache/.template-*/root/io.containerd.snapshotter.v1.overlayfs/snapshots/*")); len(found) == 0 {
					return errors.New("none yet")
				}
				return nil
			})
			switch runner := l.runner(); who {
			case "up":
				up.signal(syscall.SIGKILL)
			case "the lab":
				l.kill(runner)
			case "everything":
				up.signal(syscall.SIGKILL)
				l.kill(l.processes()...)
			}
			up.wait()
			if who == "everything" {
				l.must("down")
			}
			await(t, "nothing is left", func() error { return none(l.traces()) })
		})
	}
}

func TestTwoStartsAtOnce(t *testing.T) {
	l := newLab(t, "life")
	first := l.start("Starting lab", 0, "up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
	second := l.start("", 0, "up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
	codes := []int{first.wait(), second.wait()}
	out := first.text() + second.text()
	if codes[0]+codes[1] != 1 || !regexp.MustCompile(`lab life is being started or removed by another process \(\d+\): wait`).MatchString(out) {
		t.Errorf("exit codes %v, want 0 and 1:\n%s", codes, out)
	}
	l.deploy()
}

// lab is one lab of a test: named, taken down at its end, and looked for everywhere after that.
type lab struct {
	t    *testing.T
	name string
	home string // "" for the usual one
	bin  string
	// What its commands are run by, as who: in front of their words.
	within, as []string
}

func newLab(t *testing.T, name string) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("labs need root: use `make test-story`")
	}
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, name: name, bin: bin}
	if out, err := l.run("down"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := hostState(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the lab's log:\n%s", tail(l.dir("lab.log")))
		}
		if out, err := l.run("down"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if err := none(l.traces()); err != nil {
			t.Errorf("after down: %v", err)
		}
		if after := hostState(t); after != before {
			t.Errorf("the host's network or mounts changed; before:\n%s\nafter:\n%s", before, after)
		}
	})
	return l
}

func (l *lab) in(t *testing.T) *lab {
	copied := *l
	copied.t = t
	return &copied
}

func (l *lab) command(args ...string) *exec.Cmd {
	words := slices.Concat(l.within, l.as, []string{filepath.Join(l.bin, "zonewise"), "lab", args[0], "--name", l.name}, args[1:])
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "PATH="+l.bin+":"+os.Getenv("PATH"))
	if l.home != "" {
		cmd.Env = append(cmd.Env, "ZONEWISE_LAB_HOME="+l.home)
	}
	return cmd
}

// run runs `zonewise lab ARGS[0] --name NAME ARGS[1:]` and returns all that it printed.
func (l *lab) run(args ...string) (string, error) {
	out, err := l.command(args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (l *lab) must(args ...string) string {
	l.t.Helper()
	out, err := l.run(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// mustFail runs a command that has to fail with an exit code and one line that contains text.
func (l *lab) mustFail(code int, text string, args ...string) {
	l.t.Helper()
	cmd := l.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run()
	lines := strings.Split(strings.TrimSpace(errOut.String()), "\n")
	last := lines[len(lines)-1]
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(last, text) || !strings.HasPrefix(last, "zonewise lab: ") {
		l.t.Errorf("lab %s: exit code %d, want %d and one line with %q:\n%s%s", strings.Join(args, " "), got, code, text, out.String(), errOut.String())
	}
	if strings.Count(errOut.String(), "zonewise lab: ") != 1 || out.Len() > 0 {
		l.t.Errorf("lab %s: more than one line:\n%s%s", strings.Join(args, " "), out.String(), errOut.String())
	}
}

func (l *lab) dir(path string) string {
	home := l.home
	if home == "" {
		home = "/var/lib/zonewise"
	}
	return filepath.Join(home, "labs", l.name, path)
}

func (l *lab) kubeconfig() string { return l.dir("kubeconfig") }

func (l *lab) read(path string) string {
	l.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

func (l *lab) kubectl(args ...string) (string, error) {
	words := slices.Concat(l.as, []string{filepath.Join(l.bin, "kubectl"), "--kubeconfig", l.kubeconfig()}, args)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// deploy makes a Deployment and a Service with a node port.
func (l *lab) deploy() {
	l.t.Helper()
	for _, line := range []string{
		"create deployment web --image=registry.k8s.io/echoserver:1.5 --replicas=2",
		"expose deployment web --port=80 --target-port=8080 --type=NodePort",
	} {
		if _, err := l.kubectl(strings.Fields(line)...); err != nil {
			l.t.Fatal(err)
		}
	}
	l.rolledOut()
	l.serves()
}

func (l *lab) rolledOut() {
	l.t.Helper()
	await(l.t, "the deployment is rolled out", func() error {
		_, err := l.kubectl("rollout", "status", "deployment/web", "--timeout=1s")
		return err
	})
}

// serves checks that the Service answers 10 times in a row: from a node, and from the host through
// its node port.
func (l *lab) serves() {
	l.t.Helper()
	await(l.t, "the Service answers", func() error {
		ports, err := l.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP} {.spec.ports[0].nodePort}")
		if err != nil {
			return err
		}
		ip, port, _ := strings.Cut(ports, " ")
		if _, err := l.run("exec", "a1", "--", "bash", "-c", "for i in {1..10}; do curl -sSf --max-time 1 http://"+ip+" >/dev/null || exit 1; done"); err != nil {
			return err
		}
		status, err := l.run("status")
		if err != nil {
			return err
		}
		listen := regexp.MustCompile(`default/web +` + port + `/TCP +a1 +(\S+)`).FindStringSubmatch(status)
		if listen == nil {
			return fmt.Errorf("no node port %s in the status:\n%s", port, status)
		}
		out, err := exec.Command("curl", "-sSf", "--max-time", "1", "http://"+listen[1]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("node port at %s: %w: %s", listen[1], err, out)
		}
		return nil
	})
}

// runner is the process behind the lab; 0 if there is none.
func (l *lab) runner() int {
	data, _ := os.ReadFile(l.dir("lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// process is one that runs in the lab, by the role in its arguments or the name of its program; 0
// if there is none.
func (l *lab) process(name string) int {
	for _, pid := range l.processes() {
		args := strings.Split(string(readProc(pid, "cmdline")), "\x00")
		if len(args) > 2 && args[1] == "internal" && args[2] == name || filepath.Base(args[0]) == name ||
			name == "resolver" && strings.Contains(strings.Join(args, " "), "/resolver/Corefile") {
			return pid
		}
	}
	return 0
}

// processes are all that are in the lab's cgroups, or speak of its directory in their arguments.
func (l *lab) processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ended(pid) {
			continue
		}
		inside := regexp.MustCompile(`/zonewise-` + l.name + `(-[0-9a-f]{8})?(/|\n|$)`).Match(readProc(pid, "cgroup"))
		if inside || bytes.Contains(readProc(pid, "cmdline"), []byte("/labs/"+l.name+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill ends processes at once, and waits until they are gone.
func (l *lab) kill(pids ...int) {
	l.t.Helper()
	for _, pid := range pids {
		l.end(pid, syscall.SIGKILL)
	}
}

func (l *lab) end(pid int, sig syscall.Signal) {
	l.t.Helper()
	if pid < 2 {
		l.t.Fatalf("no process to end: %d", pid)
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		l.t.Fatal(err)
	}
	await(l.t, fmt.Sprintf("process %d is gone", pid), func() error {
		if ended(pid) {
			return nil
		}
		return errors.New(string(readProc(pid, "stat")))
	})
}

// ended tells whether a process is gone, or would be if its parent had asked for it.
func ended(pid int) bool {
	state := string(readProc(pid, "stat"))
	i := strings.LastIndex(state, ")")
	return i < 0 || strings.HasPrefix(state[i:], ") Z") || strings.HasPrefix(state[i:], ") X")
}

// namespaces of the lab's processes: everything but the host's own.
func (l *lab) namespaces() map[string]bool {
	out := map[string]bool{}
	for _, pid := range l.processes() {
		for _, kind := range []string{"net", "mnt", "pid", "uts", "ipc"} {
			ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
			host, _ := os.Readlink("/proc/self/ns/" + kind)
			if err == nil && ns != host {
				out[ns] = true
			}
		}
	}
	return out
}

func overlap(a, b map[string]bool) bool {
	for k := range a {
		if b[k] {
			return true
		}
	}
	return false
}

// traces are what the lab has on this machine.
func (l *lab) traces() []string {
	var out []string
	for _, pid := range l.processes() {
		out = append(out, fmt.Sprintf("process %d: %s", pid, strings.ReplaceAll(string(readProc(pid, "cmdline")), "\x00", " ")))
	}
	out = append(out, l.cgroups()...)
	if _, err := os.Lstat(l.dir("")); err == nil {
		out = append(out, l.dir(""))
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, "/labs/"+l.name+"/") || l.home != "" && strings.Contains(line, " "+l.home+"/") {
			out = append(out, "mount "+line)
		}
	}
	return out
}

func (l *lab) cgroups() []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup/zonewise-", "/sys/fs/cgroup/*/zonewise-"} {
		for _, end := range []string{"", "-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]"} {
			found, _ := filepath.Glob(pattern + l.name + end)
			out = append(out, found...)
		}
	}
	return out
}

// removeCgroups does what a reboot does to them.
func (l *lab) removeCgroups() error {
	for _, dir := range l.cgroups() {
		out, err := exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

func none[T any](left []T) error {
	if len(left) > 0 {
		return fmt.Errorf("%v", left)
	}
	return nil
}

func readProc(pid int, file string) []byte {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	return data
}

// running is a command that is under way.
type running struct {
	t     *testing.T
	cmd   *exec.Cmd
	shown *bufio.Reader
	seen  bytes.Buffer
}

// start starts a command and returns when it has shown a text, and a while after that.
func (l *lab) start(shown string, after time.Duration, args ...string) *running {
	l.t.Helper()
	r := &running{t: l.t, cmd: l.command(args...)}
	out, err := r.cmd.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	r.shown = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	r.until(shown, after)
	return r
}

// until returns when the command has shown a text, and a while after that.
func (r *running) until(shown string, after time.Duration) {
	r.t.Helper()
	for !strings.Contains(r.seen.String(), shown) {
		line, err := r.shown.ReadString('\n')
		r.seen.WriteString(line)
		if err != nil {
			r.t.Fatalf("%q was not shown: %v\n%s", shown, err, r.seen.String())
		}
	}
	<-time.After(after)
}

func (r *running) signal(s syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code; -1 for a signal.
func (r *running) wait() int {
	_, _ = io.Copy(&r.seen, r.shown)
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

func (r *running) text() string { return r.seen.String() }

func (r *running) ends(code int, text string) {
	r.t.Helper()
	if got := r.wait(); got != code || !strings.Contains(r.text(), text) {
		r.t.Errorf("exit code %d, want %d and %q:\n%s", got, code, text, r.text())
	}
}

// hostState is everything of the host that a lab must leave as it is.
func hostState(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, line := range []string{
		"ip -o addr | sed 's/valid_lft.*//'", "ip -o link", "ip route show table all", "ip rule", "ip netns list", "nft list ruleset",
		"cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter", "sort /proc/self/mountinfo",
	} {
		out, err := exec.Command("bash", "-o", "pipefail", "-c", line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		fmt.Fprintf(&all, "$ %s\n%s", line, out)
	}
	return all.String()
}

func tail(path string) string {
	out, _ := exec.Command("tail", "-n", "20", path).CombinedOutput()
	return string(out)
}

// await asks until there is no error, for as long as patience lasts.
func await(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not so after %s: %s: %v", patience, what, err)
		}
		<-tick.C
	}
}
