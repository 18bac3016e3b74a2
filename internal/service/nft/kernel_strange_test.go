//go:build kernel

package nft_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// A kernel that takes no more of something takes everything else.
func TestWhatTheKernelRefuses(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	// The agent takes the set as it finds it: with room for four endpoints.
	b := kernelnft.NewBatch(table4)
	b.AddTable()
	b.AddChain(kernelnft.Chain{Name: "layout-8"})
	b.AddSet(kernelnft.Set{
		Name: "backends", Key: []kernelnft.Field{kernelnft.Addr, kernelnft.Protocol, kernelnft.Port, kernelnft.Mark},
		Data: []kernelnft.Field{kernelnft.Addr, kernelnft.Port}, Size: 4,
	})
	door := kernelnft.Dial(w.node.FD())
	defer door.Close()
	if err := door.Commit(b); err != nil {
		t.Fatal(err)
	}
	plans := map[model.Name][]service.Frontend{}
	add := func(name, ip string, n int) model.Name {
		s := svc{name: name, ip: ip, endpoints: fourEndpoints[:n]}
		plans[s.id()] = s.plan()
		return s.id()
	}
	big := add("big", "10.100.0.1", 4)
	for i := range 3 {
		add(fmt.Sprintf("small-%d", i), fmt.Sprintf("10.100.0.1%d", i), 1)
	}
	d.apply(plans)
	faulty := func(step string, want ...model.Name) {
		t.Helper()
		var got []model.Name
		for _, f := range d.applier.Faults() {
			got = append(got, f.Object)
			if !strings.Contains(f.Problem, "add to set backends") {
				t.Errorf("%s: %v", step, f)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: faults of %v, want %v", step, got, want)
		}
	}
	serves := func(ip string) bool {
		_, err := w.ask(w.podA, at(ip, 80))
		return err == nil
	}
	served := 0
	for i := range 3 {
		if serves(fmt.Sprintf("10.100.0.1%d", i)) {
			served++
		}
	}
	if serves("10.100.0.1") { // it came first, and what did not fit is the others
		t.Logf("the big one and %d others", served)
	} else if faulty("at the start", big); served != 3 {
		t.Errorf("%d of three small ones are served", served)
	}
	d.update("big", nil)
	audit := func() {
		t.Helper()
		w.in(t, w.node, func() error {
			_, err := d.applier.Audit()
			return err
		})
	}
	audit()
	faulty("without the big one")
	for i := range 3 {
		if ip := fmt.Sprintf("10.100.0.1%d", i); !serves(ip) {
			t.Errorf("%s is not served", ip)
		}
	}
	d.update("big", maps.Clone(plans)[big])
	faulty("the big one again", big)
	for i := range 3 {
		d.update(fmt.Sprintf("small-%d", i), nil)
	}
	audit()
	faulty("alone")
	if !serves("10.100.0.1") {
		t.Error("the big one alone is not served")
	}
}

// segment is a TCP segment without data.
func segment(from, to netip.AddrPort, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], 1000)
	binary.BigEndian.PutUint32(b[8:], 2000)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 1024)
	pseudo := append(append(append([]byte{}, from.Addr().AsSlice()...), to.Addr().AsSlice()...), 0, 6, 0, byte(len(b)))
	sum := uint32(0)
	for all := append(pseudo, b...); len(all) > 0; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// An answer of an endpoint that conntrack makes no sense of would come to the client from an address
// that it never asked, and the client would reset the connection.
func TestAnswersOfNoFlowDoNotGetThrough(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		const synAck, ack = 0x12, 0x10
		d := newDataplane(t, s.world)
		network := "ip4:tcp"
		if netip.MustParseAddr(s.node).Is6() {
			network = "ip6:tcp"
		}
		var pod, server net.PacketConn
		open := func(ip string, c *net.PacketConn) func() error {
			return func() (err error) {
				*c, err = net.ListenPacket(network, ip)
				return err
			}
		}
		s.in(t, s.world.podA, open(s.podA, &pod))
		defer pod.Close()
		s.in(t, s.world.out, open(s.remote, &server))
		defer server.Close()
		// The pod gets what it is sent, until a segment that begins a flow of its own.
		gets := func(port uint16) (flags []byte) {
			t.Helper()
			from := netip.MustParseAddrPort(target(s.remote))
			to := netip.AddrPortFrom(netip.MustParseAddr(s.podA), port)
			for _, f := range []byte{synAck, ack} {
				if _, err := server.WriteTo(segment(from, to, f), &net.IPAddr{IP: net.ParseIP(s.podA)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := pod.SetReadDeadline(time.Now().Add(dialTimeout)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			for {
				n, _, err := pod.ReadFrom(buf)
				if err != nil {
					t.Fatal(errors.Join(err, fmt.Errorf("%v came", flags)))
				}
				if n < 20 || binary.BigEndian.Uint16(buf[2:]) != port {
					continue
				}
				if flags = append(flags, buf[13]); buf[13] == ack {
					return flags
				}
			}
		}
		d.apply(map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(nil, endpoint(s.remote, "n2"))})
		if got := gets(5001); len(got) != 1 {
			t.Errorf("with the dataplane: segments with flags %v got through", got)
		}
		s.in(t, s.world.node, d.applier.Remove)
		b := kernelnft.NewBatch(table4) // something that tracks
		b.AddTable()
		door := kernelnft.Dial(s.world.node.FD())
		defer door.Close()
		if err := door.Commit(b); err != nil {
			t.Fatal(err)
		}
		if got := gets(5002); len(got) != 2 {
			t.Errorf("without: %v, want both: the test tests nothing", got)
		}
	})
}

// The same where the node had masqueraded, and such an answer comes to itself.
func TestAnswersOfNoFlowToTheNode(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(nil, endpoint(s.podA, "n1"))})
		client, err := s.dial(s.world.out, "tcp", at(s.cluster, 80), dialTimeout)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := read(client); err != nil {
			t.Fatal(err)
		}
		network := "ip4:tcp"
		if netip.MustParseAddr(s.node).Is6() {
			network = "ip6:tcp"
		}
		var pod net.PacketConn
		s.in(t, s.world.podA, func() (err error) {
			pod, err = net.ListenPacket(network, s.podA)
			return err
		})
		defer pod.Close()
		// A segment of the endpoint with a number that is far outside of the window.
		const ack, rst = 0x10, 0x04
		to := s.masqueraded(t, target(s.podA))
		_, err = pod.WriteTo(segment(netip.MustParseAddrPort(target(s.podA)), to, ack), &net.IPAddr{IP: to.Addr().AsSlice()})
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the node had to say to it came before this does.
		const line = "still there?\n"
		if _, err := client.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if err := pod.SetReadDeadline(time.Now().Add(dialTimeout)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 200)
		for {
			n, _, err := pod.ReadFrom(buf)
			if err != nil || n < 20 {
				t.Fatal(n, err)
			}
			if buf[13]&rst != 0 {
				t.Errorf("the node reset the endpoint's connection: %x", buf[:n])
			}
			if strings.HasSuffix(string(buf[:n]), line) {
				return
			}
		}
	})
}

// masqueraded returns the address, one of the node's, by which the endpoint knows its only client.
func (s stack) masqueraded(t *testing.T, endpoint string) netip.AddrPort {
	t.Helper()
	family := netlink.InetFamily(unix.AF_INET)
	if netip.MustParseAddr(s.node).Is6() {
		family = unix.AF_INET6
	}
	var out netip.AddrPort
	s.in(t, s.world.node, func() error {
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		for _, f := range list {
			if at(f.Reverse.SrcIP.String(), int(f.Reverse.SrcPort)) == endpoint {
				out = netip.MustParseAddrPort(at(f.Reverse.DstIP.String(), int(f.Reverse.DstPort)))
			}
		}
		return err
	})
	if !out.IsValid() {
		t.Fatalf("no flow to %s", endpoint)
	}
	return out
}

// UDP flows of either family are cut when their endpoint has gone.
func TestFlowsOfBothFamiliesAreCut(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		s.serveUDP(t, s.world.podB, target(s.podB))
		s.serveUDP(t, s.world.out, target(s.remote))
		d := newDataplane(t, s.world)
		d.apply(nil)
		dns := svc{name: "dns", protocol: model.UDP, ip: s.cluster, nodePort: 30053, endpoints: []model.Endpoint{endpoint(s.remote, "n2")}}
		d.update("dns", dns.plan())
		var flows []net.Conn
		for _, f := range []struct {
			from string
			to   string
		}{{"pod", at(s.cluster, 80)}, {"out", at(s.node, 30053)}, {"node", at(s.cluster, 80)}} {
			ns := map[string]func() (net.Conn, error){
				"pod":  func() (net.Conn, error) { return s.dial(s.world.podA, "udp", f.to, dialTimeout) },
				"out":  func() (net.Conn, error) { return s.dial(s.world.out, "udp", f.to, dialTimeout) },
				"node": func() (net.Conn, error) { return s.dial(s.world.node, "udp", f.to, dialTimeout) },
			}
			c, err := ns[f.from]()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			flows = append(flows, c)
		}
		want := func(step, server string) {
			t.Helper()
			for i, c := range flows {
				if got, err := askOn(c); err != nil || got.server != server {
					t.Errorf("%s: flow %d: %v %v, want %s", step, i, got, err, server)
				}
			}
		}
		want("at first", target(s.remote))
		dns.endpoints = []model.Endpoint{endpoint(s.podB, "n1")}
		d.update("dns", dns.plan())
		want("the endpoint was replaced", target(s.podB))
	})
}
