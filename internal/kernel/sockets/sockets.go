// Package sockets is the door to the kernel's list of sockets (sock_diag).
package sockets

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
)

// Socket is one that has a peer.
type Socket struct {
	Cookie      uint64 // no two sockets of the machine have the same
	Local, Peer netip.AddrPort
	Protocol    model.Protocol
}

// Connected lists the connected sockets, TCP and UDP, of the calling thread's network namespace.
func Connected() (out []Socket, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, x := range []struct {
			protocol model.Protocol
			list     func(uint8) ([]*netlink.Socket, error)
		}{{model.TCP, netlink.SocketDiagTCP}, {model.UDP, netlink.SocketDiagUDP}} {
			all, err := x.list(family)
			if err != nil {
				return nil, fmt.Errorf("sockets: %w", err)
			}
			for _, s := range all {
				local, _ := netip.AddrFromSlice(s.ID.Source)
				peer, _ := netip.AddrFromSlice(s.ID.Destination)
				if s.ID.DestinationPort == 0 {
					continue
				}
				out = append(out, Socket{
					Cookie:   uint64(s.ID.Cookie[1])<<32 | uint64(s.ID.Cookie[0]),
					Local:    netip.AddrPortFrom(local.Unmap(), s.ID.SourcePort),
					Peer:     netip.AddrPortFrom(peer.Unmap(), s.ID.DestinationPort),
					Protocol: x.protocol,
				})
			}
		}
	}
	return out, nil
}
