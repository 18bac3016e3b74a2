//go:build kernel

package conformance

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// The options of a socket with which checkpoints are made: linux/tcp.h.
const (
	tcpRepairOn    = 1
	tcpRepairOff   = -1 // without a probe of the window
	receiveQueue   = 1
	farOutOfWindow = 0x40000000
)

// invalid has a server send a segment that is far outside of the window: conntrack takes it for no
// part of the connection and does not translate it back. A client that got it from an address which
// it does not know would refuse it, with a reset that ends the server's connection.
func invalid(t *testing.T, s *stage) {
	s.set(svc(1, balanced, externalLocal))
	port := uint16(7070) // each time another: a repaired socket does not share its port
	for _, v6 := range []bool{false, true} {
		s.stray(t, "pod0", clusterIP(1), v6, port)
		s.stray(t, "stranger", balancer(1), v6, port+1)
		s.stray(t, "stranger", clusterIP(1), v6, port+2) // masqueraded: the segment is for the node
		port += 3
	}
}

// stray connects to a server of its own at the Service's endpoint.
func (s *stage) stray(t *testing.T, from string, to target, v6 bool, port uint16) {
	t.Helper()
	pod2 := s.host("pod2")
	at := netip.AddrPortFrom(pod2.addr(v6), port)
	all := s.behind(svc(1), on("pod2")...)
	for _, slice := range all {
		slice.Ports[0].Port = ptr(int32(port))
	}
	s.set(all)
	accepted := acceptOne(t, pod2.ns, at)
	c := s.client(t, from, to, v6, true)
	conn := <-accepted
	defer conn.Close()
	answers := make(chan struct{}) // one for each; who reads while the socket is repaired gets an error
	defer close(answers)
	go func() {
		lines := bufio.NewScanner(conn)
		for range answers {
			lines.Scan()
			fmt.Fprintf(conn, "%s %s\n", at, conn.RemoteAddr())
		}
	}()
	server := fmt.Sprint("pod2:", port)
	answers <- struct{}{}
	c.hears("before", server)
	err := pod2.ns.Do(func() error { return sendStray(conn, at) })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		answers <- struct{}{}
		c.hears("after a stray segment", server)
	}
}

func acceptOne(t *testing.T, ns *netns.NS, at netip.AddrPort) <-chan *net.TCPConn {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan *net.TCPConn, 1)
	go func() {
		defer l.Close()
		if c, err := l.Accept(); err == nil {
			out <- c.(*net.TCPConn)
		}
	}()
	return out
}

// sendStray sends a segment with the connection's ports and the right acknowledgement, and a
// sequence number from nowhere.
func sendStray(c *net.TCPConn, from netip.AddrPort) error {
	var seen uint32
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { seen, inner = received(int(fd)) })
	if err = errors.Join(err, inner); err != nil {
		return err
	}
	to := netip.MustParseAddrPort(c.RemoteAddr().String())
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, address(netip.AddrPortFrom(from.Addr(), 0))); err != nil {
		return err
	}
	return unix.Sendto(fd, segment(from, to, seen+farOutOfWindow, seen), 0, address(netip.AddrPortFrom(to.Addr(), 0)))
}

// received is the sequence number that the socket expects next.
func received(fd int) (uint32, error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOn); err != nil {
		return 0, err
	}
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, receiveQueue)
	seq, errRead := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	return uint32(seq), errors.Join(err, errRead, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOff))
}

// segment is a TCP segment with a byte in it: RFC 9293, section 3.1.
func segment(from, to netip.AddrPort, seq, ack uint32) []byte {
	b := make([]byte, 21)
	binary.BigEndian.PutUint16(b[0:], from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = 5<<4, 0x10 // five words; ACK
	binary.BigEndian.PutUint16(b[14:], 1000)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(b)))
	pseudo = binary.BigEndian.AppendUint32(pseudo, unix.IPPROTO_TCP)
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// checksum is the Internet's: RFC 1071.
func checksum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
