//go:build kernel

package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/lab/rig"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
)

const (
	patience = 30 * time.Second
	virtual  = "10.100.0.7:80"
)

// TestPeers has every kind do a Service, and sees it paused and stopped.
func TestPeers(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(string(k), func(t *testing.T) { testPeer(t, k) })
	}
}

func testPeer(t *testing.T, k Kind) {
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	if err := Absent(k, bin); err != nil {
		t.Fatal(err)
	}
	w, err := rig.New(rig.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	server := w.Pods[2]
	accept(t, server, server.V4.String()+":8080")
	p, err := Start(w, k, serve(t, w), Options{Bin: bin, Dir: t.TempDir(), Node: "n1", CPU: 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	target := virtual
	if !k.Services() {
		target = server.V4.String() + ":8080"
	}
	connected(t, w, p, target)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	connected(t, w, p, target) // what is programmed works on
	if k.Services() {
		measured(t, p)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	connected(t, w, p, target)
}

// measured looks at a program that is paused, lets it go on, and asks it for its figures.
func measured(t *testing.T, p *Peer) {
	t.Helper()
	pids, err := processes(p.cgroup)
	if err != nil || len(pids) == 0 {
		t.Fatalf("processes %v, %v", pids, err)
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil || !strings.Contains(string(state), "State:\tT") || !strings.Contains(string(state), "Cpus_allowed_list:\t0\n") {
		t.Errorf("%s\n%v", state, err)
	}
	cpu, err := p.CPU()
	if err != nil || cpu <= 0 || cpu > time.Hour {
		t.Errorf("CPU time %v, %v", cpu, err)
	}
	rss, err := p.RSS()
	if err != nil {
		t.Error(err)
	}
	if pss, err := p.PSS(); err != nil || pss == 0 || pss > rss {
		t.Errorf("PSS %d, RSS %d, %v", pss, rss, err)
	}
	if most := p.WatchMemory()(); most < rss {
		t.Errorf("most memory %d, RSS %d", most, rss)
	}
	if n, counted, err := p.CgroupMemory(); err != nil || counted && n == 0 {
		t.Errorf("cgroup memory %d, %v", n, err)
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if m, err := p.Metrics(ctx); err != nil || len(m) == 0 {
		t.Errorf("%d metrics, %v", len(m), err)
	}
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}

// TestEnded sees a program end by itself.
func TestEnded(t *testing.T) {
	w, err := rig.New(rig.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "zonewise"), []byte("#!/bin/sh\necho cannot >&2\nexit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := Start(w, Zonewise, "http://127.0.0.1:1", Options{Bin: bin, Dir: t.TempDir(), Node: "n1", CPU: -1})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Ended():
	case <-time.After(patience):
		t.Fatal("still there")
	}
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "exit status 7\ncannot") {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// TestEndedBeforeItIsCounted has a program end before its memory can be counted: that is no failure to start.
func TestEndedBeforeItIsCounted(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	dir, err := countMemory(filepath.Join(t.TempDir(), fmt.Sprintf("zonewise-ended-%d", os.Getpid()), "peer"), cmd.Process.Pid)
	if err != nil {
		t.Error(err)
	}
	if dir != "" {
		if err := removeMemory(dir); err != nil {
			t.Error(err)
		}
	}
}

// serve tells of one Service with one endpoint, on the node's loopback.
func serve(t *testing.T, w *rig.World) (url string) {
	t.Helper()
	snapshot, err := apiserver.Prepare(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: rig.NodeV4}}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.100.0.7", ClusterIPs: []string{"10.100.0.7"},
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, SessionAffinity: corev1.ServiceAffinityNone,
				Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{w.Pods[2].V4.String()}, NodeName: ptr.To("n1")}}})
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	err = w.Node.Do(func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, done := apiserver.New(snapshot, apiserver.Options{}), make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// accept takes connections in a pod and closes them.
func accept(t *testing.T, p rig.Pod, address string) {
	t.Helper()
	var l net.Listener
	err := p.NS.Do(func() (err error) {
		l, err = net.Listen("tcp4", address)
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
			c.Close()
		}
	}()
}

// connected waits until a client in a pod, and in the world's cgroup, gets a connection.
func connected(t *testing.T, w *rig.World, p *Peer, target string) {
	t.Helper()
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := w.Command(w.Pods[0].NS, "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/"+host+"/"+port).CombinedOutput()
		if err == nil {
			return
		}
		if ended := p.Err(); ended != nil && p.cmd != nil {
			t.Fatal(ended)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: no connection to %s: %v, %s", p.Kind, target, err, out)
		}
	}
}
