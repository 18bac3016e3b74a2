//go:build kernel

package nft_test

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// flowsFrom opens UDP flows from n ports, with one datagram each. Nobody need answer: what counts
// is what the kernel counted.
func (w world) flowsFrom(t *testing.T, ns *netns.NS, port, n int, to string) {
	t.Helper()
	w.in(t, ns, func() error {
		server, err := net.ResolveUDPAddr("udp4", to)
		if err != nil {
			return err
		}
		for i := range n {
			c, err := net.DialUDP("udp4", &net.UDPAddr{Port: port + i}, server)
			if err != nil {
				return err
			}
			if _, err = c.Write([]byte("x")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			c.Close()
		}
		return nil
	})
}

const firstPort = 10_000

// flowsOf opens a UDP flow from the port of each address, which need not be anybody's.
func (w world) flowsOf(t *testing.T, ns *netns.NS, from []string, port int, to string) {
	t.Helper()
	w.in(t, ns, func() error {
		server := netip.MustParseAddrPort(to)
		free := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var refused error
			err := c.Control(func(fd uintptr) {
				level, option := unix.SOL_IP, unix.IP_TRANSPARENT
				if server.Addr().Is6() {
					level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
				}
				refused = unix.SetsockoptInt(int(fd), level, option, 1)
			})
			return errors.Join(err, refused)
		}}
		for _, ip := range from {
			c, err := free.ListenPacket(t.Context(), "udp", at(ip, port))
			if err != nil {
				return err
			}
			if _, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(server)); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			c.Close()
		}
		return nil
	})
}

// weighted gives the backends of a plan the shares, by address; an endpoint without one is none.
func weighted(plan []service.Frontend, shares map[string]float64) []service.Frontend {
	give := func(c *service.Choice) {
		var out []service.Backend
		for _, b := range c.Backends {
			if b.Share = shares[b.Addr.Addr().String()]; b.Share > 0 {
				out = append(out, b)
			}
		}
		c.Backends = out
	}
	for i := range plan {
		if plan[i].Inside != nil {
			give(plan[i].Inside)
			continue // from outside: this node's endpoints, evenly
		}
		give(&plan[i].Choice)
	}
	return plan
}

var fourEndpoints = []model.Endpoint{endpoint(podAIP, "n1"), endpoint(podBIP, "n1"), endpoint(remoteIP, "n2"), endpoint(otherIP, "n3")}

// Shares of connections are those of the plan, by every way into a Service.
func TestConnectionsFollowTheWeights(t *testing.T) {
	// Five sigma of so many is less than four of 20,000, and chance alone never fails the test.
	const n, sigmas = 32_000, 5
	for name, shares := range map[string]map[string]float64{
		"a zone that spills":    {podAIP: .4725, podBIP: .4725, remoteIP: .055},
		"all different":         {podAIP: .01, podBIP: .62, remoteIP: .3, otherIP: .07},
		"nearly nothing abroad": {podAIP: .3333, podBIP: .3333, remoteIP: .3333, otherIP: .0001},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := newDataplane(t, w)
			d.apply(nil)
			s := svc{name: "web", protocol: model.UDP, ip: "10.100.0.7", nodePort: 30080, endpoints: fourEndpoints}
			d.update("web", weighted(s.plan(), shares))
			local := s
			local.name, local.ip, local.nodePort = "local", "10.100.0.8", 30081
			local.change = func(s *model.Service) { s.ExternalLocal = true }
			d.update("local", weighted(local.plan(), shares))
			for _, way := range []struct {
				name, to string
				from     *netns.NS
			}{
				{"ClusterIP", "10.100.0.7:80", w.podA}, {"node port from outside", nodeIP + ":30080", w.out},
				{"node port of externalTrafficPolicy Local, from inside", nodeIP + ":30081", w.podB},
			} {
				w.flowsFrom(t, way.from, firstPort, n, way.to)
				counted := d.counters()
				total := 0.0
				for ip, share := range shares {
					p := service.Pair{
						Frontend: service.Key{Addr: netip.MustParseAddrPort(way.to), Protocol: model.UDP},
						Backend:  netip.MustParseAddrPort(target(ip)),
					}
					got := float64(counted[p].Connections)
					total += got
					if sigma := math.Sqrt(n * share * (1 - share)); math.Abs(got-n*share) > sigmas*sigma {
						t.Errorf("%s: %s got %v of %d, want %v ± %.0f", way.name, ip, got, n, n*share, sigmas*sigma)
					}
				}
				if total != n {
					t.Errorf("%s: %v of %d connections went to endpoints with a share", way.name, total, n)
				}
			}
		})
	}
}

// A change of weights is seen by the next connection, and back to even shares too.
func TestWeightsChange(t *testing.T) {
	const n = 4000
	w := newWorld(t)
	d := newDataplane(t, w)
	d.apply(nil)
	s := svc{name: "web", protocol: model.UDP, ip: "10.100.0.7", endpoints: fourEndpoints[1:]}
	before := map[string]float64{}
	for round, shares := range []map[string]float64{
		{podBIP: .9, remoteIP: .1}, {podBIP: .1, remoteIP: .2, otherIP: .7}, {remoteIP: 1},
		{podBIP: 1. / 3, remoteIP: 1. / 3, otherIP: 1. / 3}, {podBIP: .5, remoteIP: .25, otherIP: .25},
	} {
		d.update("web", weighted(s.plan(), shares))
		for _, e := range fourEndpoints[1:] {
			if shares[e.Addr.String()] == 0 {
				delete(before, e.Addr.String()) // its counter goes with it
			}
		}
		d.counters()
		w.flowsFrom(t, w.podA, firstPort+n*round, n, "10.100.0.7:80")
		counted := d.counters()
		for ip, share := range shares {
			p := service.Pair{
				Frontend: service.Key{Addr: netip.MustParseAddrPort("10.100.0.7:80"), Protocol: model.UDP},
				Backend:  netip.MustParseAddrPort(target(ip)),
			}
			got := float64(counted[p].Connections) - before[ip]
			before[ip] += got
			if math.Abs(got-n*share) > 5*math.Sqrt(n*share*(1-share)) {
				t.Errorf("%v: %s got %v of %d", shares, ip, got, n)
			}
		}
	}
}

func TestNftListsWeights(t *testing.T) {
	w := newWorld(t)
	d := newDataplane(t, w)
	d.apply(nil)
	s := svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: fourEndpoints}
	d.update("web", weighted(s.plan(), map[string]float64{podAIP: .3, podBIP: .3, remoteIP: .3, otherIP: .1}))
	whole := w.nft(t, "list", "ruleset")
	for _, want := range []string{
		"10.100.0.7 . tcp . 80 : " + numberOf(t, whole, "cip-4-3"), "192.168.1.10 . tcp . 30080 : " + numberOf(t, whole, "ext-4-3"),
		`ip daddr . meta l4proto . th dport . numgen random mod 4 @weights goto lb-4 comment "toss 1 of 4 from 0x00000000"`,
		"10.100.0.7 . tcp . 80 . 0x00000001",
	} {
		if !strings.Contains(whole, want) {
			t.Errorf("nothing like this in it: %s", want)
		}
	}
	readable(t, whole)
}
