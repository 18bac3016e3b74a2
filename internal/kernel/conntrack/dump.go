package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// What asks for flows like a tuple, and which parts of that count (linux/netfilter/nfnetlink_conntrack.h).
	ctaFilter           = 25     // CTA_FILTER
	ctaFilterOrigFlags  = 1      // CTA_FILTER_ORIG_FLAGS
	ctaFilterByProtocol = 1 << 3 // CTA_FILTER_FLAG(CTA_PROTO_NUM)

	familyHeader = 4 // family, version and resource
)

// door is a socket for the flows of one family.
type door struct {
	socket *nl.NetlinkSocket
	family uint8
}

func open(v6 bool) (*door, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv)); err != nil {
		s.Close()
		return nil, err
	}
	d := &door{socket: s, family: unix.AF_INET}
	if v6 {
		d.family = unix.AF_INET6
	}
	return d, nil
}

func (d *door) request(kind, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|kind, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: d.socket}}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: d.family, Version: nl.NFNETLINK_V0})
	return r
}

// cut reads the UDP flows and deletes those that the function names.
func (d *door) cut(named func(Flow) bool) (n int, err error) {
	var gone [][]byte
	each := func(m []byte) bool {
		if len(m) < familyHeader {
			return true
		}
		if f, ok := decode(m[familyHeader:]); ok && named(f) {
			gone = append(gone, m[familyHeader:])
		}
		return true
	}
	unread := d.list(true).ExecuteIter(unix.NETLINK_NETFILTER, 0, each)
	if errors.Is(unread, syscall.EINVAL) || errors.Is(unread, syscall.EOPNOTSUPP) { // a kernel that does not filter
		gone = nil
		unread = d.list(false).ExecuteIter(unix.NETLINK_NETFILTER, 0, each)
	}
	if unread != nil && !errors.Is(unread, netlink.ErrDumpInterrupted) {
		return 0, unread
	}
	for _, flow := range gone {
		r := d.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
		r.AddRawData(flow) // with its number, so that no other is meant that has its place by now
		if _, e := r.Execute(unix.NETLINK_NETFILTER, 0); e != nil && !errors.Is(e, syscall.ENOENT) {
			return n, errors.Join(unread, e)
		}
		n++
	}
	return n, unread
}

// list asks for all flows, or for those of UDP.
func (d *door) list(filtered bool) *nl.NetlinkRequest {
	r := d.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	if !filtered {
		return r
	}
	like := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	like.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil).AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
	by := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	by.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(ctaFilterByProtocol))
	r.AddData(like)
	r.AddData(by)
	return r
}

// decode returns the flow of a message, unless it is not of UDP.
func decode(m []byte) (f Flow, ok bool) {
	there, back := at(m, nl.CTA_TUPLE_ORIG), at(m, nl.CTA_TUPLE_REPLY)
	if p := at(there, nl.CTA_TUPLE_PROTO, nl.CTA_PROTO_NUM); len(p) != 1 || p[0] != unix.IPPROTO_UDP {
		return Flow{}, false
	}
	f.To = end(there, nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST, nl.CTA_PROTO_DST_PORT)
	f.From = end(back, nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC, nl.CTA_PROTO_SRC_PORT)
	return f, f.To.IsValid() && f.From.IsValid()
}

// end is one end of a tuple, by the attributes that have it.
func end(tuple []byte, four, six, port uint16) netip.AddrPort {
	ip := at(tuple, nl.CTA_TUPLE_IP, four)
	if ip == nil {
		ip = at(tuple, nl.CTA_TUPLE_IP, six)
	}
	a, ok := netip.AddrFromSlice(ip)
	p := at(tuple, nl.CTA_TUPLE_PROTO, port)
	if !ok || len(p) != 2 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p))
}

// at returns the value of an attribute, by the types that lead to it, or nil.
func at(b []byte, path ...uint16) []byte {
	for _, want := range path {
		b = find(b, want)
	}
	return b
}

func find(b []byte, want uint16) []byte {
	const header = unix.SizeofNlAttr
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint16(b))
		if n < header || n > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == want {
			return b[header:n]
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
