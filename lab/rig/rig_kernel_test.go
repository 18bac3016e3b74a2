//go:build kernel

package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

func newWorld(t *testing.T) *World {
	t.Helper()
	w, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestEveryoneReachesEveryone connects each machine of the world to each address of each other.
func TestEveryoneReachesEveryone(t *testing.T) {
	w := newWorld(t)
	type machine struct {
		name  string
		ns    *netns.NS
		addrs []string
	}
	all := []machine{
		{"node", w.Node, []string{NodeV4, SecondV4, NodeV6, SecondV6}},
		{"outside", w.Outside, []string{OutsideV4, RemoteV4, OtherV4, StrangerV4, OutsideV6, RemoteV6, OtherV6, StrangerV6}},
	}
	for i, p := range w.Pods {
		all = append(all, machine{fmt.Sprint("pod ", i), p.NS, []string{p.V4.String(), p.V6.String()}})
	}
	if len(w.Pods) != 6 || w.Pods[0].V4 != netip.MustParseAddr("192.168.1.11") || w.Pods[5].V6 != netip.MustParseAddr("fd00:192:168:1::16") {
		t.Errorf("pods %+v", w.Pods)
	}
	for _, m := range all {
		for _, a := range m.addrs {
			answer(t, m.ns, a)
		}
	}
	for _, from := range all {
		for _, to := range all {
			for _, a := range to.addrs {
				if got, err := ask(from.ns, a); err != nil || got != a {
					t.Errorf("%s to %s at %s: %q, %v", from.name, to.name, a, got, err)
				}
			}
		}
	}
}

// answer says the address to everyone who connects to it.
func answer(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "7"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, addr)
			c.Close()
		}
	}()
}

func ask(ns *netns.NS, addr string) (string, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "7"), 2*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// TestCommand runs a program in a pod, and looks where it is.
func TestCommand(t *testing.T) {
	w := newWorld(t)
	out, err := w.Command(w.Pods[3].NS, "sh", "-c", "cat /proc/self/cgroup; ip -brief -4 address show dev eth0").CombinedOutput()
	for _, want := range []string{"0::/" + filepath.Base(w.Cgroup) + "\n", w.Pods[3].V4.String()} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s\n%v, want %s", out, err, want)
		}
	}
}

// TestCloseRemovesAll has a program that would not end, and this process, in the world's cgroup.
func TestCloseRemovesAll(t *testing.T) {
	w := newWorld(t)
	before, err := bpf.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.Command(w.Node, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Enter(); err != nil {
		t.Fatal(err)
	}
	if now, err := bpf.OwnCgroup(); now != "/"+filepath.Base(w.Cgroup) {
		t.Errorf("in cgroup %s, %v", now, err)
	}
	dir := w.dir
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Errorf("the program ended with %v", err)
	}
	for _, path := range []string{dir, w.Cgroup} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if now, err := bpf.OwnCgroup(); now != before {
		t.Errorf("in cgroup %s, %v; was in %s", now, err, before)
	}
}

// TestPlaces: programs in the world use the BPF file system and the names of namespaces, and the machine
// has the mounts that it had.
func TestPlaces(t *testing.T) {
	mounts := func() string {
		t.Helper()
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := mounts()
	w := newWorld(t)
	if strings.Contains(mounts(), w.name) {
		t.Errorf("mounted before and now:\n%s\n%s", before, mounts())
	}
	out, err := w.Command(w.Node, "sh", "-ec", `mkdir "$0/zonewise"; stat -f -c %T "$0" "$0/zonewise"
		for pod in "$1"/*; do nsenter --net="$pod" ip -brief -4 address show dev eth0; done`, w.BPF, w.Namespaces).CombinedOutput()
	want := []string{"bpf_fs\nbpf_fs\n"}
	for _, p := range w.Pods {
		want = append(want, p.V4.String())
	}
	for _, part := range want {
		if err != nil || !strings.Contains(string(out), part) {
			t.Errorf("%s\n%v, want %s", out, err, part)
		}
	}
	for world, there := range map[*World]bool{w: true, newWorld(t): false} {
		if _, err := os.Stat(filepath.Join(world.BPF, "zonewise")); (err == nil) != there {
			t.Errorf("%s: %v", world.BPF, err)
		}
	}
}

// TestSweep gives a world the name of a process that is no more: the next one removes it.
func TestSweep(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	mount, err := bpf.CgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	dir, name := t.TempDir(), fmt.Sprintf("%s%d-1", prefix, gone.Process.Pid)
	left := []string{filepath.Join(dir, name), filepath.Join(mount, name)}
	for _, path := range left {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/proc/1/ns/net", filepath.Join(left[0], "pod0")); err != nil {
		t.Fatal(err)
	}
	if err := sweep(dir, mount); err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
