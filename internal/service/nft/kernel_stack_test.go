//go:build kernel

package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// stack is the world in one family.
type stack struct {
	world
	node, podA, podB, remote, other, out string
	// cluster, external and balancer are addresses for Services; second is another of the node.
	cluster, external, balancer, second string
}

// inBoth runs a test in a world of its own for each family.
func inBoth(t *testing.T, test func(*testing.T, stack)) {
	same := func(a string) string { return a }
	for name, of := range map[string]func(string) string{"IPv4": same, "IPv6": six} {
		t.Run(name, func(t *testing.T) {
			s := stack{newWorld(t), of(nodeIP), of(podAIP), of(podBIP), of(remoteIP), of(otherIP), of(outIP),
				of("10.100.0.7"), of("203.0.113.7"), of("198.51.100.7"), of("192.168.1.20")}
			s.serveAll(t)
			s.in(t, s.world.node, func() error { return address("eth0", alone(s.second).String(), "") })
			s.in(t, s.world.out, func() error {
				l, err := linkByName("eth0")
				if err != nil {
					return err
				}
				for _, a := range []string{s.cluster, s.external, s.balancer, s.second} {
					if err := l.via(a, s.node); err != nil {
						return err
					}
				}
				return nil
			})
			test(t, s)
		})
	}
}

func at(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// all is a Service with a frontend of every kind; node ports answer at two addresses of the node.
func (s stack) all(change func(*model.Service), endpoints ...model.Endpoint) []service.Frontend {
	m := model.Service{
		Name: model.Name{Namespace: "t", Name: "all"}, Type: model.LoadBalancer,
		ClusterIPs:      []netip.Addr{netip.MustParseAddr(s.cluster)},
		ExternalIPs:     []netip.Addr{netip.MustParseAddr(s.external)},
		LoadBalancerIPs: []netip.Addr{netip.MustParseAddr(s.balancer)},
		Ports:           []model.ServicePort{{Protocol: model.TCP, Port: servicePort, NodePort: 30080}},
	}
	if change != nil {
		change(&m)
	}
	n := theNode
	n.NodePorts = []netip.Addr{netip.MustParseAddr(s.node), netip.MustParseAddr(s.second)}
	return service.Plan(n, m, []model.Slice{{
		Name: m.Name, Service: "all", Endpoints: endpoints, V6: m.ClusterIPs[0].Is6(),
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: targetPort}},
	}}, nil)
}

// outside are the frontends of all but the cluster IP.
func (s stack) outside() map[string]string {
	return map[string]string{
		"external address": at(s.external, 80), "load balancer": at(s.balancer, 80),
		"node port": at(s.node, 30080), "node port at the second address": at(s.second, 30080),
	}
}

// want asks and compares who answers, and whom that saw.
func (s stack) want(t *testing.T, what string, from *netns.NS, addr string, servers []string, client string) {
	t.Helper()
	got, err := s.ask(from, addr)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if got.client == s.second {
		got.client = s.node // one as good as the other
	}
	for _, server := range servers {
		if got == (answer{target(server), client}) {
			return
		}
	}
	t.Errorf("%s: %v, want one of %v, which sees %s", what, got, servers, client)
}

func (s stack) refused(t *testing.T, what string, from *netns.NS, addr string) {
	t.Helper()
	if got, err := s.ask(from, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: %v %v, want it refused", what, got, err)
	}
}

func (s stack) silent(t *testing.T, what string, from *netns.NS, addr string) {
	t.Helper()
	if c, err := s.dial(from, "tcp", addr, 300*time.Millisecond); !timeout(err) {
		t.Errorf("%s: %v %v, want silence", what, c, err)
	}
}

// Every kind of frontend, from everywhere, by policy Cluster and Local, and without endpoints.
func TestEveryFrontend(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		here, there := endpoint(s.podA, "n1"), endpoint(s.remote, "n2")
		both := []string{s.podA, s.remote}

		d.update("all", s.all(nil, here, there))
		s.want(t, "a pod to the cluster IP", s.world.podB, at(s.cluster, 80), both, s.podB)
		s.want(t, "the node to the cluster IP", s.world.node, at(s.cluster, 80), both, s.node)
		s.want(t, "outside to the cluster IP", s.world.out, at(s.cluster, 80), both, s.node)
		for what, addr := range s.outside() {
			s.want(t, "outside: "+what, s.world.out, addr, both, s.node)
			s.want(t, "a pod: "+what, s.world.podB, addr, both, s.node)
			s.want(t, "the node: "+what, s.world.node, addr, both, s.node)
		}

		d.update("all", s.all(nil, here))
		for what, addr := range map[string]string{"cluster IP": at(s.cluster, 80), "load balancer": at(s.balancer, 80)} {
			s.want(t, "a pod to itself: "+what, s.world.podA, addr, both[:1], s.node)
		}

		local := func(m *model.Service) { m.ExternalLocal = true }
		d.update("all", s.all(local, here, there))
		for what, addr := range s.outside() {
			s.want(t, "Local, outside: "+what, s.world.out, addr, both[:1], s.out)
			s.want(t, "Local, a pod: "+what, s.world.podB, addr, both, s.podB)
			s.want(t, "Local, the node: "+what, s.world.node, addr, both, s.node)
		}
		d.update("all", s.all(local, there))
		for what, addr := range s.outside() {
			s.silent(t, "Local and none here, outside: "+what, s.world.out, addr)
			s.want(t, "Local and none here, a pod: "+what, s.world.podB, addr, both[1:], s.podB)
		}

		d.update("all", s.all(nil))
		s.refused(t, "no endpoints: cluster IP", s.world.podB, at(s.cluster, 80))
		for what, addr := range s.outside() {
			s.refused(t, "no endpoints, outside: "+what, s.world.out, addr)
			s.refused(t, "no endpoints, a pod: "+what, s.world.podB, addr)
			s.refused(t, "no endpoints, the node: "+what, s.world.node, addr)
		}
		s.refused(t, "an undefined port", s.world.podB, at(s.cluster, 81))
	})
}

// Only those who may use a load balancer's address can; other addresses are for everybody.
func TestSources(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		of := func(list ...string) []service.Frontend {
			return s.all(func(m *model.Service) {
				for _, p := range list {
					m.SourceRanges = append(m.SourceRanges, netip.MustParsePrefix(p))
				}
			}, endpoint(s.remote, "n2"))
		}
		bits := netip.MustParseAddr(s.out).BitLen()
		network := netip.MustParsePrefix(s.out + "/" + strconv.Itoa(bits*3/4)).Masked().String()
		alone := s.out + "/" + strconv.Itoa(bits)
		stranger := s.other + "/" + strconv.Itoa(bits)

		d.update("all", of(stranger))
		s.silent(t, "from elsewhere", s.world.out, at(s.balancer, 80))
		s.silent(t, "a pod from elsewhere", s.world.podB, at(s.balancer, 80))
		s.want(t, "to the external address", s.world.out, at(s.external, 80), []string{s.remote}, s.node)
		s.want(t, "to the node port", s.world.out, at(s.node, 30080), []string{s.remote}, s.node)
		for what, list := range map[string][]string{
			"one address": {alone}, "a network": {network}, "one of two": {stranger, alone}, "several lengths": {stranger, network},
			"everybody": {"0.0.0.0/0", "::/0"},
		} {
			d.update("all", of(list...))
			s.want(t, what, s.world.out, at(s.balancer, 80), []string{s.remote}, s.node)
		}
		d.update("all", of(alone))
		s.silent(t, "a pod, when only outside may", s.world.podB, at(s.balancer, 80))
		rules := s.nft(t, "list", "ruleset")
		readable(t, rules)
		if !strings.Contains(rules, "goto from-"+strconv.Itoa(bits)) {
			t.Error(rules)
		}
		d.update("all", of())
		s.want(t, "nobody is left out", s.world.podB, at(s.balancer, 80), []string{s.remote}, s.node)
	})
}

// Addresses of the range that no Service has are dropped; all others are none of our business.
func TestUnallocated(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		wide := netip.MustParsePrefix(s.cluster + map[bool]string{true: "/64", false: "/24"}[netip.MustParseAddr(s.cluster).Is6()])
		free := wide.Addr().Next().String()
		allocate := func(list ...netip.Prefix) {
			t.Helper()
			s.in(t, s.world.node, func() error { return d.applier.ServiceCIDRs(list) })
		}
		s.in(t, s.world.out, func() error { return address("lo", alone(free).String(), "") })
		s.serve(t, s.world.out, at(free, 80))
		want := map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(nil, endpoint(s.remote, "n2"))}
		allocate(wide)
		s.in(t, s.world.node, func() error { return d.applier.Apply(want, false) })
		if _, err := s.ask(s.world.podB, at(free, 80)); err != nil {
			t.Errorf("before all Services are known: %v", err)
		}
		d.apply(want)
		s.silent(t, "nobody's address", s.world.podB, at(free, 80))
		s.silent(t, "nobody's address, from the node", s.world.node, at(free, 80))
		s.want(t, "a cluster IP of the range", s.world.podB, at(s.cluster, 80), []string{s.remote}, s.podB)
		s.refused(t, "an undefined port of the range", s.world.podB, at(s.cluster, 81))
		s.want(t, "an endpoint itself", s.world.podB, target(s.remote), []string{s.remote}, s.podB)
		readable(t, s.nft(t, "list", "ruleset"))
		allocate()
		if _, err := s.ask(s.world.podB, at(free, 80)); err != nil {
			t.Errorf("no range any more: %v", err)
		}
	})
}

func TestMasqueradeAll(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		door := kernelnft.Dial(s.world.node.FD())
		defer door.Close()
		d := dataplane{t, s.world, nft.New(door, conntrack.Conn{}, nft.Options{MasqueradeAll: true})}
		d.apply(map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(nil, endpoint(s.remote, "n2"))})
		s.want(t, "a pod to the cluster IP", s.world.podB, at(s.cluster, 80), []string{s.remote}, s.node)
	})
}

// A node without IPv6 has no table for it, until there is something to do.
func TestNoTableForNothing(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	d.update("four", svc{name: "four", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(remoteIP, "n2")}}.plan())
	d.counters()
	if rules := w.nft(t, "list", "tables"); strings.Contains(rules, "ip6") {
		t.Error(rules)
	}
	d.update("six", svc{name: "six", ip: six("10.100.0.8"), endpoints: []model.Endpoint{endpoint(six(remoteIP), "n2")}}.plan())
	for _, addr := range []string{"10.100.0.7", six("10.100.0.8")} {
		if _, err := w.ask(w.podA, at(addr, 80)); err != nil {
			t.Error(err)
		}
	}
	rules := w.nft(t, "list", "ruleset")
	readable(t, rules)
	for _, want := range []string{"table ip6 zonewise", six("10.100.0.8") + " . tcp . 80 : " + numberOf(t, rules, "cip-1"), "dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 1 map @backends"} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %s in %s", want, rules)
		}
	}
	if got := d.counters(); len(got) != 2 {
		t.Errorf("counted %v", got)
	}
	w.in(t, w.node, func() error { return d.applier.Remove() })
	if rules := w.nft(t, "list", "tables"); rules != "" {
		t.Error(rules)
	}
}

type device struct{ index int }

func linkByName(name string) (device, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return device{}, err
	}
	return device{i.Index}, nil
}
