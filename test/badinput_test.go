//go:build story

package test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Whatever is wrong: one line that names the thing and the mend, the exit code of the contract, and
// nothing left behind.

func TestBadInput(t *testing.T) {
	l := newLab(t, "life")
	file := filepath.Join(t.TempDir(), "lab.yaml")
	for _, c := range []struct {
		name, yaml, want string
	}{
		{"unknown field", "nodes: 3", `lab.yaml: unknown field "nodes"`},
		{"overlapping subnets", "zones: [{nodes: 1, subnet: 192.168.1.0/24}, {nodes: 1, subnet: 192.168.1.0/25}]", "zones[1].subnet 192.168.1.0/25 overlaps zones[0].subnet 192.168.1.0/24"},
		{"zone without nodes", "zones: [{nodes: 1}, {}]", "zones[1] (ap-northeast-2b): nodes is 0: a zone needs at least one"},
		{"unknown instance type", "instanceType: t9.huge", `instance type "t9.huge" is not known here: use one of c5.large,`},
		{"subnet that the cloud does not have", "cni: zonewise\nzones: [{nodes: 1, subnet: 192.168.1.0/29}]", "zones[0].subnet 192.168.1.0/29: with cni: zonewise a range from /16 to /28"},
		{"more nodes than addresses", "cni: zonewise\nzones: [{nodes: 6, subnet: 192.168.1.0/28}]", "zones[0].subnet 192.168.1.0/28 holds 5 nodes of t3.medium, not 6: use a larger subnet or fewer nodes"},
		{"zone of another region", "cni: zonewise\nzones: [{nodes: 1, name: us-east-1a}]", `zones[0].name "us-east-1a": with cni: zonewise a zone of region ap-northeast-2, such as ap-northeast-2a`},
		{"an instance type with a letter wrong", "instanceType: t3.medum", `instance type "t3.medum" is not known here: is t3.medium meant? Else use one of c5.large,`},
		{"settings of the CNI", "cni: zonewise\nvalues: {cni: {env: {WARM_IP_TARGET: few, AWS_VPC_ENI_MTU: 99}}}", `values.cni.env: AWS_VPC_ENI_MTU: "99" is not a number from 1280 to 9001; WARM_IP_TARGET: "few" is not a number from 0`},
		{"a small subnet for pods", "cni: zonewise\nvalues: {cni: {env: {AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: true}}}\nzones: [{nodes: 6, podSubnet: 100.64.0.0/28}]", "zones[0].podSubnet 100.64.0.0/28 has addresses for 5 nodes with a pod each, not 6: use a larger subnet"},
		{"not YAML", "]", "lab.yaml: yaml: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			l.in(t).mustFail(1, c.want, "up", "-f", file)
		})
	}
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{1, "lab file: open /no/lab.yaml: no such file or directory", []string{"up", "-f", "/no/lab.yaml"}},
		{2, "unknown flag: --colour", []string{"up", "--colour"}},
		{2, "unknown flag: --colour", []string{"status", "--colour"}},
		{2, `instance type "t9" is not known here: use one of`, []string{"up", "--instance-type", "t9"}},
		{2, `proxy "ipvs": use zonewise or kube-proxy`, []string{"up", "--proxy", "ipvs"}},
		{2, "a lab needs at least one of each", []string{"up", "--zones", "0"}},
		{2, "--wait 0s: give it some time", []string{"up", "--wait", "0s"}},
		{2, "-o yaml: use table or json", []string{"status", "-o", "yaml"}},
		{2, "requires at least 1 arg", []string{"load"}},
		{2, "requires at least 2 arg", []string{"exec", "a1"}},
		{2, "accepts 1 arg", []string{"logs"}},
		{2, "--tail x: use a number of lines, or all", []string{"logs", "etcd", "--tail", "x"}},
		{2, `name "My Lab": use 1 to 32 lower-case letters`, []string{"status", "--name", "My Lab"}},
		{2, `name "../x": use 1 to 32 lower-case letters`, []string{"down", "--name", "../x"}},
		{1, "no lab named life", []string{"status"}},
		{1, "no lab named life", []string{"kubeconfig"}},
		{1, "no lab named life", []string{"load", "/dev/null"}},
		{1, "no lab named life", []string{"exec", "a1", "--", "true"}},
		{1, "no lab named life", []string{"logs", "etcd"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) { l.in(t).mustFail(c.code, c.want, c.args...) })
	}
	t.Run("unknown command", func(t *testing.T) { l.in(t).mustFail(2, `unknown command "start"`, "start") })
	t.Run("up without root", func(t *testing.T) {
		l := l.in(t)
		l.as = nobody(t)
		l.mustFail(1, "up needs root, for namespaces and cgroups: run it with sudo", "up")
		l.mustFail(1, "down needs root", "down")
	})
	if err := none(l.traces()); err != nil {
		t.Error(err)
	}
}

func TestBadInputOfARunningLab(t *testing.T) {
	l := newLab(t, "life")
	l.must("up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
	notArchive := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(notArchive, bytes.Repeat([]byte("no archive "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"x.tar: not an image archive", []string{"load", notArchive}},
		{"no such file or directory", []string{"load", "/no/such.tar"}},
		{"not an image archive", []string{"load", "/tmp"}},
		{"lab life has no node z9: see `zonewise lab status --name life` for names and aliases", []string{"exec", "z9", "--", "true"}},
		{`no component "kubelet": use one of lab, etcd,`, []string{"logs", "kubelet"}},
		{"lab life has no node z9", []string{"logs", "z9/kubelet"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) { l.in(t).mustFail(1, c.want, c.args...) })
	}
	t.Run("nothing of a bad archive is kept", func(t *testing.T) {
		if kept, _ := filepath.Glob(l.dir("images/*")); len(kept) > 0 {
			t.Error(kept)
		}
	})
	t.Run("without root", func(t *testing.T) {
		l := l.in(t)
		l.as = nobody(t)
		for _, args := range [][]string{{"status"}, {"exec", "a1", "--", "true"}, {"load", notArchive}, {"kubeconfig"}, {"logs", "a1/kubelet"}} {
			l.mustFail(1, "lab life belongs to root: run this with sudo", args...)
		}
		// The column is as wide as the longest name: another lab may be there.
		if out := l.must("list"); !regexp.MustCompile(`(?m)^life +running$`).MatchString(out) {
			t.Errorf("list:\n%s", out)
		}
	})
	t.Run("keys are root's alone", func(t *testing.T) {
		out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "grep", "-rlE", "PRIVATE KEY|client-key-data", l.dir("")).Output()
		var exit *exec.ExitError
		if len(out) > 0 || !errors.As(err, &exit) {
			t.Errorf("others can read: %s, %v", out, err)
		}
	})
}

func TestKubeconfigBelongsToTheUserBehindSudo(t *testing.T) {
	l := newLab(t, "life")
	cmd := l.command("up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
	cmd.Env = append(cmd.Env, "SUDO_UID=65534", "SUDO_GID=65534")
	cmd = withUmask(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(l.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || owner.Uid != 65534 {
		t.Errorf("mode %s, owner %d", info.Mode(), owner.Uid)
	}
	l = l.in(t)
	l.as = nobody(t)
	if out, err := l.kubectl("get", "nodes"); err != nil || !strings.Contains(out, " Ready ") {
		t.Errorf("as that user: %s, %v", out, err)
	}
}

// withUmask runs a command as someone would whose files are nobody else's business.
func withUmask(cmd *exec.Cmd) *exec.Cmd {
	strict := exec.Command("bash", append([]string{"-c", `umask 077; exec "$@"`, "-"}, cmd.Args...)...)
	strict.Env = cmd.Env
	return strict
}

func TestPortTaken(t *testing.T) {
	l := newLab(t, "life")
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "apiPort: %d\n", port), 0o600); err != nil {
		t.Fatal(err)
	}
	l.mustFail(1, fmt.Sprintf("apiPort %d of 127.0.0.1 is taken: choose another in lab.yaml, or 0 for a free one", port), "up", "-f", file)
	if err := none(l.traces()); err != nil {
		t.Error(err)
	}
}

func TestWaitTooShort(t *testing.T) {
	l := newLab(t, "life")
	l.mustFail(1, "lab life is not up after 1.5s", "up", "--offline", "--wait", "1500ms")
	if err := none(l.traces()); err != nil {
		t.Error(err)
	}
}

func TestProgramMissing(t *testing.T) {
	whole := newLab(t, "life")
	l := whole.in(t)
	l.bin = t.TempDir()
	for _, name := range []string{"zonewise", "zonewise-cni", "zonewise-lab"} {
		if out, err := exec.Command("cp", filepath.Join(whole.bin, name), l.bin).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	l.mustFail(1, "containerd is not in "+l.bin+" beside zonewise-lab: run `make build`", "up")
}

// The disk is a file system in memory, in a mount namespace that nobody else sees.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name string
		size string
		fill bool
	}{
		{"before the start", "64m", false},
		{"in the middle", "1500m", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "life")
			disk := t.TempDir()
			l.home = filepath.Join(disk, "labs-home")
			l.within = []string{"unshare", "--mount", "bash", "-c", `mount -t tmpfs -o size=` + c.size + ` tmpfs ` + disk + ` && "$@"; code=$?; ls -A ` + disk + `/labs-home/labs 2>/dev/null >&2; exit $code`, "-"}
			up := l.start("", 0, "up", "--zones", "1", "--nodes-per-zone", "1", "--offline")
			if c.fill {
				up.until("Network fabric", 0)
				ns := fmt.Sprintf("/proc/%d/root", up.cmd.Process.Pid)
				out, err := exec.Command("dd", "if=/dev/zero", "of="+ns+disk+"/fill", "bs=1M").CombinedOutput()
				if err == nil {
					t.Fatalf("the disk is not full: %s", out)
				}
			}
			up.ends(1, "disk of "+l.home)
			if !strings.Contains(up.text(), "is full") || !strings.Contains(up.text(), "ZONEWISE_LAB_HOME") || strings.Count(up.text(), "zonewise lab: ") != 1 {
				t.Errorf("said:\n%s", up.text())
			}
			if strings.HasSuffix(up.text(), "\nlife\n") {
				t.Errorf("left on that disk:\n%s", up.text())
			}
			l.within = nil
			if err := none(l.traces()); err != nil {
				t.Error(err)
			}
		})
	}
}

// nobody is a command line that runs another as a user without rights.
func nobody(t *testing.T) []string {
	t.Helper()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal(err)
	}
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
}
