//go:build kernel

package region

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// testNode is a process in a network namespace of its own, where a node would be.
type testNode struct {
	topology.Node
	ns  *os.File
	cmd *exec.Cmd
}

// newFabric has static addresses, unless the cloud's are asked for.
func newFabric(t *testing.T, c topology.Config) *Fabric {
	t.Helper()
	if c.CNI == "" {
		c.CNI = topology.CNIStatic
	}
	topo, err := topology.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(topo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// attach starts a process that waits for the end of its input, and makes it a node of the fabric
// with all addresses of its pool on lo.
func attach(t *testing.T, f *Fabric, alias string) testNode {
	t.Helper()
	node, ok := f.topo.Node(alias)
	if !ok {
		t.Fatalf("no node %s", alias)
	}
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		_ = in.Close()
		_ = cmd.Wait()
	})
	if err := f.Attach(node, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		In(ns, func() error { return carries("eth0") }), In(f.Thread.NS(), func() error { return carries(linkName(node.Alias, 0)) }),
	); err != nil {
		t.Fatal(err)
	}
	if err := In(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		for _, a := range node.Pool {
			err = errors.Join(err, netlink.AddrAdd(lo, own(a)))
		}
		if node.PodsIPv6.IsValid() {
			err = errors.Join(err, netlink.AddrAdd(lo, own(podIPv6(node))))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return testNode{node, ns, cmd}
}

// send sends UDP packets of a size, one after the other, each once the one before has arrived.
func send(t *testing.T, from testNode, source netip.Addr, to testNode, target netip.Addr, packets, size int) {
	t.Helper()
	var server, client net.PacketConn
	if err := errors.Join(
		In(to.ns, func() error { return local(target) }),
		In(to.ns, func() (err error) { server, err = net.ListenPacket("udp", at(target)); return }),
		In(from.ns, func() (err error) { client, err = net.ListenPacket("udp", at(source)); return }),
	); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close(); _ = client.Close() }()
	buffer := make([]byte, 65535)
	for range packets {
		if _, err := client.WriteTo(buffer[:size], net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 7))); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, peer, err := server.ReadFrom(buffer)
		if err != nil || n != size || peer.String() != at(source) {
			t.Fatalf("from %s to %s: %d bytes from %v, %v", source, target, n, peer, err)
		}
	}
}

// await asks until the answer is yes: the kernel does some of what it is told a moment later.
func await(what string, ask func() (bool, error)) error {
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := ask()
		if yes && err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not so: %s (%v)", what, err)
		}
		<-tick.C
	}
}

// local waits until packets for an address are taken in.
func local(a netip.Addr) error {
	return await(a.String()+" is local", func() (bool, error) {
		routes, err := netlink.RouteGet(a.AsSlice())
		return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
	})
}

// carries waits until a device sends: until then what it is given is dropped.
func carries(name string) error {
	return await(name+" is up", func() (bool, error) {
		link, err := netlink.LinkByName(name)
		return err == nil && link.Attrs().OperState == netlink.OperUp, err
	})
}

func at(a netip.Addr) string { return netip.AddrPortFrom(a, 7).String() }

// The fabric delivers between all addresses, with no translation, and counts to the byte.
func TestFabricCountsByZonePair(t *testing.T) {
	f := newFabric(t, topology.Config{Zones: topology.Spread(2, 2)})
	a1, a2, b1 := attach(t, f, "a1"), attach(t, f, "a2"), attach(t, f, "b1")
	const headers = 28 // IP and UDP
	want := map[[2]string]Crossing{}
	for _, flow := range []struct {
		from          testNode
		source        netip.Addr
		to            testNode
		target        netip.Addr
		packets, size int
	}{
		{a1, a1.Address, b1, b1.Address, 3, 100},   // node to node, to another zone
		{a1, a1.Address, b1, b1.Pool[2], 4, 100},   // node to pod
		{b1, b1.Pool[2], a1, a1.Address, 4, 200},   // and back
		{a1, a1.Pool[0], b1, b1.Pool[16], 5, 8900}, // pod to pod, jumbo frames
		{b1, b1.Pool[1], a2, a2.Pool[2], 2, 1},     // and back to another node
		{a1, a1.Pool[3], a2, a2.Pool[3], 7, 1000},  // within the zone
		{a1, a1.Pool[4], a1, a1.Pool[5], 9, 1000},  // within the node: not the fabric's
	} {
		send(t, flow.from, flow.source, flow.to, flow.target, flow.packets, flow.size)
		if flow.from.Alias != flow.to.Alias {
			pair := [2]string{flow.from.Zone, flow.to.Zone}
			c := want[pair]
			c.Bytes += uint64(flow.packets * (flow.size + headers))
			c.Packets += uint64(flow.packets)
			want[pair] = c
		}
	}
	if got, err := f.BetweenPods(); err != nil || got != 5*(8900+headers)+2*(1+headers) {
		t.Errorf("%d bytes between pods, %v", got, err)
	}
	got, err := f.Crossings()
	if err != nil || len(got) != 4 {
		t.Fatalf("%d pairs, %v", len(got), err)
	}
	for _, c := range got {
		if w := want[[2]string{c.From, c.To}]; c.Bytes != w.Bytes || c.Packets != w.Packets {
			t.Errorf("from %s to %s: %d bytes in %d packets, want %d in %d", c.From, c.To, c.Bytes, c.Packets, w.Bytes, w.Packets)
		}
	}
}

// A stream's segments cross as one packet each time, as the kernels at both ends have them: one header for many.
func TestFabricCountsSegmentsTogether(t *testing.T) {
	f := newFabric(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	const size = 20_000_000
	var server net.Listener
	var client net.Conn
	if err := errors.Join(
		In(b1.ns, func() (err error) { server, err = net.Listen("tcp", at(b1.Address)); return }),
		In(a1.ns, func() (err error) { client, err = net.DialTimeout("tcp", at(b1.Address), 5*time.Second); return }),
	); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	read := make(chan int64, 1)
	go func() {
		conn, err := server.Accept()
		if err != nil {
			read <- 0
			return
		}
		n, _ := io.Copy(io.Discard, conn)
		_ = conn.Close()
		read <- n
	}()
	if _, err := client.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n := <-read; n != size {
		t.Fatalf("%d bytes arrived", n)
	}
	again := sentAgain(t, client.(*net.TCPConn))
	_ = client.Close()
	got, err := f.Crossings()
	if err != nil {
		t.Fatal(err)
	}
	const headers = 52 // IP, and TCP with timestamps; those of the handshake have more
	there := got[1]
	if extra := int64(there.Bytes) - size - again - int64(there.Packets)*headers; extra < 0 || extra > 100 {
		t.Errorf("%d bytes in %d packets: %d more than payload and a header each", there.Bytes, there.Packets, extra)
	}
	if there.Packets > size/MTU/2 {
		t.Errorf("%d packets: as many as on a wire", there.Packets)
	}
}

// sentAgain is how many bytes of a stream were sent more than once, as happens on a busy machine.
func sentAgain(t *testing.T, conn *net.TCPConn) int64 {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return int64(info.Bytes_retrans)
}

// podIPv6 is the first address of a node's range for pods.
func podIPv6(n topology.Node) netip.Addr { return n.PodsIPv6.Addr().Next() }

// With both families each delivers by itself, and one count has the bytes of both.
func TestFabricOfBothFamilies(t *testing.T) {
	f := newFabric(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 2)})
	a1, a2, b1 := attach(t, f, "a1"), attach(t, f, "a2"), attach(t, f, "b1")
	send(t, a1, a1.AddressIPv6, b1, b1.AddressIPv6, 3, 100)            // node to node
	send(t, a1, podIPv6(a1.Node), b1, podIPv6(b1.Node), 5, 8900)       // pod to pod
	send(t, a1, a1.Pool[0], b1, b1.Pool[16], 7, 500)                   // and by IPv4
	send(t, a2, podIPv6(a2.Node), a1, a1.AddressIPv6, 2, 1)            // within the zone
	again := attach(t, f, "b1")                                        // a node that died
	send(t, again, podIPv6(again.Node), a2, podIPv6(a2.Node), 1, 1000) // and is back, at once
	const header4, header6 = 28, 48                                    // IP and UDP
	if got, err := f.BetweenPods(); err != nil || got != 5*(8900+header6)+7*(500+header4)+1000+header6 {
		t.Errorf("%d bytes between pods, %v", got, err)
	}
	got, err := f.Crossings()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Crossing{
		{"ap-northeast-2a", "ap-northeast-2a", 2 * (1 + header6), 2},
		{"ap-northeast-2a", "ap-northeast-2b", 3*(100+header6) + 5*(8900+header6) + 7*(500+header4), 15},
		{"ap-northeast-2b", "ap-northeast-2a", 1000 + header6, 1},
		{From: "ap-northeast-2b", To: "ap-northeast-2b"},
	} {
		if got[i] != want {
			t.Errorf("got %+v, want %+v", got[i], want)
		}
	}
}

// An address of the VPC that no node has is not delivered anywhere.
func TestFabricDropsWhatNobodyOwns(t *testing.T) {
	f := newFabric(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	forward := func() error { return sysctls(map[string]string{"net/ipv6/conf/all/forwarding": "1"}) }
	if err := In(b1.ns, forward); err != nil { // as every node does
		t.Fatal(err)
	}
	for _, address := range []string{
		"192.168.2.200:80", "[fd00:192:168:2::200]:80", // of a zone
		"[fd00:192:168:2:1::200]:80", // of a node's pods
	} {
		var conn net.Conn
		err := In(a1.ns, func() (err error) {
			conn, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", address)
			return err
		})
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("%s: error %v, want that there is no such host or network", address, err)
		}
	}
	// Only what was for a node's pods went to the node, and did not come back to go round: each is one
	// of a few tries.
	if got, err := f.Crossings(); err != nil || got[1].Packets == 0 || got[1].Packets > 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A node that died can be attached again, at once.
func TestAttachAgain(t *testing.T) {
	f := newFabric(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	send(t, a1, a1.Address, b1, b1.Pool[0], 1, 10)
	again := attach(t, f, "b1")
	send(t, a1, a1.Address, again, again.Pool[0], 1, 10)
	got, err := f.Crossings()
	if err != nil || got[1].Packets != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestThreadAfterClose(t *testing.T) {
	thread, err := NewThread()
	if err != nil {
		t.Fatal(err)
	}
	thread.Close()
	if err := thread.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want %v", err, ErrClosed)
	}
}
