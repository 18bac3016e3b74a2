//go:build kernel

package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Chunks that open an association: RFC 9260, section 3.3.
const (
	sctpInit    = 1
	sctpInitAck = 2
	sctpTag     = 0x5ca1ab1e
	sctpPort    = 5000 // the client's
)

// associates opens an association by hand, as the kernel may know no sockets of SCTP: the client's
// first packet comes to the endpoint's port, and the answer comes back from the Service's address.
func (s *stage) associates(t *testing.T, from string, to target, server string, masquerade bool) {
	t.Helper()
	for _, v6 := range to.families() {
		if err := s.associate(s.host(from), s.host(server), to.addr(v6), masquerade); err != nil {
			t.Errorf("%s to %s (%s): %v", from, to.what, to.addr(v6), err)
		}
	}
}

func (s *stage) associate(client, server host, to netip.AddrPort, masquerade bool) error {
	v6 := to.Addr().Is6()
	near, err := rawSCTP(client, v6)
	if err != nil {
		return err
	}
	defer unix.Close(near)
	far, err := rawSCTP(server, v6)
	if err != nil {
		return err
	}
	defer unix.Close(far)

	own := netip.AddrPortFrom(client.addr(v6), sctpPort)
	first := sctpPacket(own.Port(), to.Port(), 0, sctpInit)
	if err := unix.Sendto(near, first, 0, address(netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return err
	}
	got, source, err := receiveSCTP(far)
	if err != nil {
		return fmt.Errorf("at the endpoint: %w", err)
	}
	want := own.Addr()
	if masquerade {
		want = s.host("node").addr(v6)
	}
	if port := binary.BigEndian.Uint16(got[2:]); source != want || port != webPort {
		return fmt.Errorf("the endpoint sees %s at its port %d, want %s at %d", source, port, want, webPort)
	}
	answer := sctpPacket(webPort, binary.BigEndian.Uint16(got), sctpTag, sctpInitAck)
	if err := unix.Sendto(far, answer, 0, address(netip.AddrPortFrom(source, 0))); err != nil {
		return err
	}
	got, source, err = receiveSCTP(near)
	if err != nil {
		return fmt.Errorf("at the client: %w", err)
	}
	from, port := netip.AddrPortFrom(source, binary.BigEndian.Uint16(got)), binary.BigEndian.Uint16(got[2:])
	if from != to || port != sctpPort {
		return fmt.Errorf("the answer is from %s to port %d", from, port)
	}
	return nil
}

// rawSCTP hears all SCTP that comes to the host's address.
func rawSCTP(h host, v6 bool) (fd int, err error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	err = h.ns.Do(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		return errors.Join(patience(fd, patienceForAnswers), unix.Bind(fd, address(netip.AddrPortFrom(h.addr(v6), 0))))
	})
	return fd, err
}

func receiveSCTP(fd int) ([]byte, netip.Addr, error) {
	buf := make([]byte, 512)
	var n int
	var from unix.Sockaddr
	err := whole(func() (err error) {
		n, from, err = unix.Recvfrom(fd, buf, 0)
		return err
	})
	if err != nil {
		return nil, netip.Addr{}, err
	}
	b, source := buf[:n], addrPort(from).Addr()
	if source.Is4() && n > 0 { // the header of IPv4 comes with it
		b = b[min(n, int(b[0]&15)*4):]
	}
	if len(b) < 12 {
		return nil, source, fmt.Errorf("%d bytes", len(b))
	}
	return b, source, nil
}

// sctpPacket is a packet of one chunk, INIT or INIT ACK, whose parameters do not matter.
func sctpPacket(from, to uint16, tag uint32, chunk byte) []byte {
	b := make([]byte, 12, 32)
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], tag)
	b = append(b, chunk, 0, 0, 20)
	for _, word := range []uint32{sctpTag, 65536, 1<<16 | 1, 1} { // tag, window, streams, first number
		b = binary.BigEndian.AppendUint32(b, word)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
