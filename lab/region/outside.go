package region

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/lab/topology"
)

// outside is the world outside of the VPC, as far as the lab has one: a network of documentation addresses
// behind the fabric, with one server, which answers each request with the address that it saw.
type outside struct {
	thread *Thread
	ipv6   bool
	server *http.Server
}

func newOutside(ipv6 bool) (*outside, error) {
	thread, err := NewThread()
	if err != nil {
		return nil, fmt.Errorf("outside: %w", err)
	}
	return &outside{thread: thread, ipv6: ipv6}, nil
}

// connect joins the calling thread's namespace, the fabric's, to the outside, and starts its server.
func (o *outside) connect() error {
	const near, far = "outside", "eth0"
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = near, 1500 // as the internet's
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerMTU: 1500, PeerNamespace: netlink.NsFd(int(o.thread.NS().Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s: %w", near, err)
	}
	if err := o.configure(near, gateway(topology.Outside), gateway(topology.OutsideIPv6)); err != nil {
		return err
	}
	var listeners []net.Listener
	if err := o.thread.Do(func() error {
		if err := o.configure("lo"); err != nil {
			return err
		}
		if err := o.configure(far, topology.OutsideServer, topology.OutsideServerIPv6); err != nil {
			return err
		}
		if err := o.back(gateway(topology.Outside), net.IPv4zero); err != nil {
			return err
		}
		addresses := []netip.Addr{topology.OutsideServer}
		if o.ipv6 {
			if err := o.back(gateway(topology.OutsideIPv6), net.IPv6zero); err != nil {
				return err
			}
			addresses = append(addresses, topology.OutsideServerIPv6)
		}
		for _, a := range addresses {
			l, err := net.Listen("tcp", netip.AddrPortFrom(a, 80).String())
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	o.server = &http.Server{Handler: http.HandlerFunc(whoAmI), ReadHeaderTimeout: 10 * time.Second}
	for _, l := range listeners {
		go func() { _ = o.server.Serve(l) }()
	}
	return nil
}

// configure sets a device up with the addresses, of the families that there are.
func (o *outside) configure(device string, addresses ...netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	for _, a := range addresses {
		bits := topology.Outside.Bits()
		if a.Is6() {
			bits = topology.OutsideIPv6.Bits()
		}
		address := own(a)
		address.Mask = net.CIDRMask(bits, a.BitLen())
		if a.Is6() && !o.ipv6 {
			continue
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("%s address %s: %w", device, a, err)
		}
	}
	return nil
}

// back is the way from the outside to everywhere.
func (o *outside) back(via netip.Addr, all net.IP) error {
	route := &netlink.Route{Gw: via.AsSlice(), Dst: &net.IPNet{IP: all, Mask: net.CIDRMask(0, via.BitLen())}}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("route back by %s: %w", via, err)
	}
	return nil
}

// whoAmI answers with the client's address and nothing else, as the servers do that people ask.
func whoAmI(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, address)
}

func (o *outside) close() {
	if o.server != nil {
		_ = o.server.Close()
	}
	o.thread.Close()
}
