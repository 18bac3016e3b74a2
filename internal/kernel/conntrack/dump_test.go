package conntrack

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// message is what the kernel has to say of a flow.
func message(protocol byte) []byte {
	tuple := func(kind, address int, ip string, number int, port uint16) []byte {
		t := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
		t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(address, netip.MustParseAddr(ip).AsSlice())
		p := t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
		p.AddRtAttr(nl.CTA_PROTO_NUM, []byte{protocol})
		p.AddRtAttr(number, nl.BEUint16Attr(port))
		return t.Serialize()
	}
	return append(tuple(nl.CTA_TUPLE_ORIG, nl.CTA_IP_V4_DST, "10.100.0.10", nl.CTA_PROTO_DST_PORT, 53),
		tuple(nl.CTA_TUPLE_REPLY, nl.CTA_IP_V4_SRC, "10.0.0.2", nl.CTA_PROTO_SRC_PORT, 5353)...)
}

func TestDecode(t *testing.T) {
	want := Flow{To: netip.MustParseAddrPort("10.100.0.10:53"), From: netip.MustParseAddrPort("10.0.0.2:5353")}
	whole := message(unix.IPPROTO_UDP)
	if f, ok := decode(whole); !ok || f != want {
		t.Errorf("%v %v, want %v", f, ok, want)
	}
	if f, ok := decode(message(unix.IPPROTO_TCP)); ok {
		t.Errorf("of TCP: %v", f)
	}
	for n := range len(whole) - 4 { // the last attribute ends with padding
		if f, ok := decode(whole[:n]); ok {
			t.Errorf("of %d bytes of %d: %v", n, len(whole), f)
		}
	}
}
