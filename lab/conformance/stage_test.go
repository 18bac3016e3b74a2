//go:build kernel

package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/rig"
)

func TestMain(m *testing.M) {
	if os.Getenv(proberVariable) != "" {
		if err := serveProbes(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The ports on which every host answers, by TCP and UDP, with either family's address.
const (
	webPort   = 8080
	adminPort = 9090
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

// How long an answer may take on a busy machine, and how long silence has to last to be silence.
const (
	patienceForAnswers = 3 * time.Second
	patienceForSilence = 150 * time.Millisecond
)

// host is who connects, and who answers. Two families, one name.
type host struct {
	name   string
	ns     *netns.NS
	addrs  [2]netip.Addr // IPv4, IPv6
	inside bool          // on the node, and so in its cgroup
}

func (h host) addr(v6 bool) netip.Addr {
	if v6 {
		return h.addrs[1]
	}
	return h.addrs[0]
}

// stage is a world with servers on every host, a dataplane on its node, and somebody to ask.
type stage struct {
	*plane
	world  *rig.World
	hosts  []host
	probes map[bool]prober // by host.inside
}

// newStage makes a stage on which the node has the path's dataplane, and no Services.
func newStage(t *testing.T, p path) *stage {
	t.Helper()
	w, err := rig.New(rig.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	// Refusals of UDP are ICMP messages, of which the kernel sends few in a second if it limits them.
	err = w.Node.Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/icmp_ratemask", []byte("0"), 0),
			os.WriteFile("/proc/sys/net/ipv6/icmp/ratemask", []byte("\n"), 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{world: w, hosts: cast(w)}
	for _, h := range s.hosts {
		for _, port := range []uint16{webPort, adminPort} {
			for _, a := range h.addrs {
				serveTCP(t, h.ns, netip.AddrPortFrom(a, port))
				serveUDP(t, h.ns, netip.AddrPortFrom(a, port))
			}
		}
	}
	inside, end, err := startThere(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error("prober:", err)
		}
	})
	s.probes = map[bool]prober{true: inside, false: newHere()}
	s.plane = newPlane(t, w, p)
	return s
}

func cast(w *rig.World) []host {
	at := netip.MustParseAddr
	hosts := []host{
		{"node", w.Node, [2]netip.Addr{at(rig.NodeV4), at(rig.NodeV6)}, true},
		{"remote", w.Outside, [2]netip.Addr{at(rig.RemoteV4), at(rig.RemoteV6)}, false},
		{"other", w.Outside, [2]netip.Addr{at(rig.OtherV4), at(rig.OtherV6)}, false},
		{"stranger", w.Outside, [2]netip.Addr{at(rig.StrangerV4), at(rig.StrangerV6)}, false},
	}
	for i, p := range w.Pods {
		hosts = append(hosts, host{fmt.Sprint("pod", i), p.NS, [2]netip.Addr{p.V4, p.V6}, true})
	}
	return hosts
}

func (s *stage) host(name string) host {
	i := slices.IndexFunc(s.hosts, func(h host) bool { return h.name == name })
	if i < 0 {
		panic("no host " + name)
	}
	return s.hosts[i]
}

// named is the host that answered, with the port if that is not webPort; "itself" is whoever really
// has the address that was asked.
func (s *stage) named(server, asked netip.AddrPort) string {
	if server == asked {
		return "itself"
	}
	for _, h := range s.hosts {
		if slices.Contains(h.addrs[:], server.Addr()) && server.Port() == webPort {
			return h.name
		}
		if slices.Contains(h.addrs[:], server.Addr()) {
			return fmt.Sprintf("%s:%d", h.name, server.Port())
		}
	}
	return server.String()
}

// serveTCP answers every line with the server's address and the client's.
func serveTCP(t *testing.T, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a client that did not wait
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintf(c, "%s %s\n", at, c.RemoteAddr())
				}
			}()
		}
	}()
}

// serveUDP answers every datagram alike.
func serveUDP(t *testing.T, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s\n", at, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())), from)
			}
		}
	}()
}

// target is an address of a Service in both families; one that it does not have is the zero address.
type target struct {
	what     string
	protocol int
	addrs    [2]netip.Addr
	port     uint16
	// never: the socket path leaves it to nft, whatever the choice.
	never bool
}

func (a target) addr(v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(a.addrs[1], a.port)
	}
	return netip.AddrPortFrom(a.addrs[0], a.port)
}

// at is a target at any addresses, IPv4 and IPv6.
func at(what string, protocol int, port uint16, addrs ...string) target {
	out := target{what: what, protocol: protocol, port: port}
	for _, text := range addrs {
		if a := netip.MustParseAddr(text); a.Is6() {
			out.addrs[1] = a
		} else {
			out.addrs[0] = a
		}
	}
	return out
}

// families are those that a target has.
func (a target) families() []bool {
	var out []bool
	for i, v6 := range []bool{false, true} {
		if a.addrs[i].IsValid() {
			out = append(out, v6)
		}
	}
	return out
}

func (s *stage) ask(t *testing.T, from string, to target, v6 bool, times int, patience time.Duration) []outcome {
	t.Helper()
	h := s.host(from)
	p := probe{Do: "ask", Space: h.ns.Path(), Protocol: to.protocol, To: to.addr(v6), Connect: true, Times: times, Patience: patience}
	if !h.inside {
		p.Source = h.addr(v6)
	}
	got, err := s.probes[h.inside].do(p)
	if err != nil {
		t.Fatalf("%s to %s: %v", from, to.what, err)
	}
	for _, o := range got.Outcomes {
		if o.Error == "" && o.Peer != to.addr(v6) {
			t.Errorf("%s to %s: the answer is from %s for the client, want %s", from, to.what, o.Peer, to.addr(v6))
		}
		if o.Took >= time.Second { // the first packet was lost: TCP sends it again after a second
			t.Logf("%s from %s to %s (%s): answered by %s after %s", o.Local, from, to.what, to.addr(v6), o.Server, o.Took)
		}
	}
	return got.Outcomes
}

// Sources that servers see.
const (
	kept   = false // the client's own
	masked = true  // the node's
)

// enough connections to meet each of a few endpoints: one in 8 is missed once in 10^11 times.
const enough = 200

// reach connects until every one of the servers (names, or name:port where it is not webPort) has
// answered, and fails if anybody else does, or if they see another source than they should.
func (s *stage) reach(t *testing.T, from string, to target, servers string, masquerade bool) {
	t.Helper()
	for _, v6 := range to.families() {
		if wrong := s.reached(t, from, to, v6, strings.Fields(servers), masquerade); wrong != "" {
			t.Errorf("%s to %s (%s): %s", from, to.what, to.addr(v6), wrong)
		}
	}
}

func (s *stage) reached(t *testing.T, from string, to target, v6 bool, servers []string, masquerade bool) (wrong string) {
	t.Helper()
	source := s.host(from).addr(v6)
	if masquerade && !s.atSocket(from, to) {
		source = s.host("node").addr(v6)
	}
	missing := slices.Clone(servers)
	for asked, lot := 0, 4+2*len(servers); ; lot = 2 * len(servers) {
		for _, o := range s.ask(t, from, to, v6, lot, patienceForAnswers) {
			if o.Error != "" {
				return fmt.Sprintf("%s, want %s", o.Error, servers)
			}
			name := s.named(o.Server, to.addr(v6))
			if !slices.Contains(servers, name) {
				return fmt.Sprintf("answered by %s, want %s", name, servers)
			}
			if o.Seen.Addr() != source {
				return fmt.Sprintf("%s sees %s, want %s", name, o.Seen.Addr(), source)
			}
			missing = slices.DeleteFunc(missing, func(m string) bool { return m == name })
		}
		if asked += lot; len(missing) == 0 {
			return ""
		}
		if asked > enough {
			return fmt.Sprintf("never answered by %s in %d connections", missing, asked)
		}
	}
}

// fails connects once to each family, and wants a refusal or silence.
func (s *stage) fails(t *testing.T, from string, to target, how string) {
	t.Helper()
	patience := patienceForAnswers
	if how == silence {
		patience = patienceForSilence
	}
	for _, v6 := range to.families() {
		if got := s.ask(t, from, to, v6, 1, patience)[0]; got.Error != how {
			t.Errorf("%s to %s (%s): %q from %s, want %s", from, to.what, to.addr(v6), got.Error, got.Server, how)
		}
	}
}
