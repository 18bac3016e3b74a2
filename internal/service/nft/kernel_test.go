//go:build kernel

package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// dataplane is an applier of the world's node, which it enters for each call.
type dataplane struct {
	t       testing.TB
	w       world
	applier *nft.Applier
}

func newDataplane(t testing.TB, w world) dataplane {
	return newDataplaneOn(t, w, &counting{Conn: kernelnft.Dial(0)})
}

func newDataplaneOn(t testing.TB, w world, door *counting) dataplane {
	t.Cleanup(func() { door.Close() })
	return dataplane{t, w, nft.New(door, conntrack.Conn{}, nft.Options{})}
}

// newCounting counts bytes, too.
func newCounting(t testing.TB, w world) dataplane {
	door := kernelnft.Dial(0)
	t.Cleanup(func() { door.Close() })
	return dataplane{t, w, nft.New(door, conntrack.Conn{}, nft.Options{CountBytes: true})}
}

func (d dataplane) apply(want map[model.Name][]service.Frontend) {
	d.t.Helper()
	d.w.in(d.t, d.w.node, func() error { return d.applier.Apply(want, true) })
}

func (d dataplane) update(name string, plan []service.Frontend) {
	d.t.Helper()
	d.w.in(d.t, d.w.node, func() error {
		return d.applier.Update(map[model.Name][]service.Frontend{{Namespace: "t", Name: name}: plan})
	})
}

func (d dataplane) counters() map[service.Pair]service.Traffic {
	d.t.Helper()
	var out map[service.Pair]service.Traffic
	d.w.in(d.t, d.w.node, func() (err error) {
		out, err = d.applier.Counters()
		return err
	})
	return out
}

var theNode = model.Node{Name: "n1", Zone: "a", Addresses: []netip.Addr{netip.MustParseAddr(nodeIP), netip.MustParseAddr(six(nodeIP))}}

// svc describes a Service of one port for plan.
type svc struct {
	name      string
	protocol  model.Protocol
	ip        string
	nodePort  uint16
	change    func(*model.Service)
	endpoints []model.Endpoint
}

const (
	servicePort = 80
	targetPort  = 8080
)

func (s svc) plan() []service.Frontend {
	if s.protocol == 0 {
		s.protocol = model.TCP
	}
	m := model.Service{
		Name: model.Name{Namespace: "t", Name: s.name}, Type: model.NodePort,
		ClusterIPs: []netip.Addr{netip.MustParseAddr(s.ip)},
		Ports:      []model.ServicePort{{Protocol: s.protocol, Port: servicePort, NodePort: s.nodePort}},
	}
	if s.change != nil {
		s.change(&m)
	}
	slice := model.Slice{
		Name: m.Name, Service: s.name, Endpoints: s.endpoints, V6: m.ClusterIPs[0].Is6(),
		Ports: []model.EndpointPort{{Protocol: s.protocol, Port: targetPort}},
	}
	return service.Plan(theNode, m, []model.Slice{slice}, nil)
}

func endpoint(ip, node string, zoneHints ...string) model.Endpoint {
	return model.Endpoint{
		Addr: netip.MustParseAddr(ip), Node: node, Ready: true, Serving: true, ZoneHints: zoneHints,
	}
}

func target(ip string) string { return net.JoinHostPort(ip, strconv.Itoa(targetPort)) }

func must(t testing.TB, got answer, err error) answer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (w world) serveAll(t testing.TB) {
	t.Helper()
	w.serve(t, w.podA, target(podAIP))
	w.serve(t, w.podB, target(podBIP))
	w.serve(t, w.out, target(remoteIP))
	w.serve(t, w.out, target(otherIP))
	w.serve(t, w.podA, target(six(podAIP)))
	w.serve(t, w.podB, target(six(podBIP)))
	w.serve(t, w.out, target(six(remoteIP)))
	w.serve(t, w.out, target(six(otherIP)))
}

func TestClusterIP(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	d.update("web", svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(remoteIP, "n2")}}.plan())

	got, err := w.ask(w.podA, "10.100.0.7:80")
	if must(t, got, err) != (answer{target(remoteIP), podAIP}) {
		t.Errorf("from a pod: %v, want the pod's own address at the server", got)
	}
	got, err = w.ask(w.node, "10.100.0.7:80")
	if must(t, got, err) != (answer{target(remoteIP), nodeIP}) {
		t.Errorf("from the node: %v", got)
	}
	got, err = w.ask(w.out, "10.100.0.7:80")
	if must(t, got, err) != (answer{target(remoteIP), nodeIP}) {
		t.Errorf("from outside the cluster: %v, want it masqueraded", got)
	}
}

func TestNodePort(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	s := svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: []model.Endpoint{endpoint(podAIP, "n1"), endpoint(podBIP, "n1")}}
	d.update("web", s.plan())
	for _, from := range []struct {
		name string
		ask  func() (answer, error)
	}{
		{"outside", func() (answer, error) { return w.ask(w.out, nodeIP+":30080") }},
		{"the node", func() (answer, error) { return w.ask(w.node, nodeIP+":30080") }},
		{"a pod", func() (answer, error) { return w.ask(w.podA, nodeIP+":30080") }},
	} {
		got, err := from.ask()
		if must(t, got, err); got.client != nodeIP {
			t.Errorf("from %s: %v, want the source masqueraded", from.name, got)
		}
	}
}

func TestExternalLocal(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	local := func(s *model.Service) { s.ExternalLocal = true }
	s := svc{name: "web", ip: "10.100.0.7", nodePort: 30080, change: local, endpoints: []model.Endpoint{endpoint(podAIP, "n1"), endpoint(remoteIP, "n2")}}
	d.update("web", s.plan())
	for range 20 {
		got, err := w.ask(w.out, nodeIP+":30080")
		if must(t, got, err) != (answer{target(podAIP), outIP}) {
			t.Fatalf("from outside: %v, want the local endpoint and the client's address", got)
		}
	}
	inside := map[string]int{}
	for range 40 {
		got, err := w.ask(w.podB, nodeIP+":30080")
		if must(t, got, err).client != podBIP {
			t.Fatalf("from a pod: %v, want its own address", got)
		}
		inside[got.server]++
		if got, err = w.ask(w.node, nodeIP+":30080"); must(t, got, err).client != nodeIP {
			t.Fatalf("from the node: %v", got)
		}
	}
	if len(inside) != 2 {
		t.Errorf("insiders reached %v, want all endpoints", inside)
	}

	s.endpoints = s.endpoints[1:]
	d.update("web", s.plan())
	if _, err := w.dial(w.out, "tcp4", nodeIP+":30080", 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) && !timeout(err) {
		t.Errorf("from outside without a local endpoint: %v, want silence", err)
	}
	if got, err := w.ask(w.podB, nodeIP+":30080"); must(t, got, err).server != target(remoteIP) {
		t.Errorf("from a pod without a local endpoint: %v", got)
	}
}

func timeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestHairpin(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	d.update("web", svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan())
	got, err := w.ask(w.podA, "10.100.0.7:80")
	if must(t, got, err) != (answer{target(podAIP), nodeIP}) {
		t.Errorf("a pod reaching itself: %v", got)
	}
	if got, err = w.ask(w.podB, "10.100.0.7:80"); must(t, got, err).client != podBIP {
		t.Errorf("a pod reaching another: %v, want its own address", got)
	}
}

func TestRejectAndDrop(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	d.update("none", svc{name: "none", ip: "10.100.0.8", nodePort: 30081}.plan())
	d.update("udp", svc{name: "udp", ip: "10.100.0.8", protocol: model.UDP}.plan())
	d.update("web", svc{name: "web", ip: "10.100.0.7", endpoints: []model.Endpoint{endpoint(podAIP, "n1")}}.plan())
	refused := []struct {
		from string
		ask  func() (answer, error)
	}{
		{"a pod to a Service without endpoints", func() (answer, error) { return w.ask(w.podA, "10.100.0.8:80") }},
		{"the node to a Service without endpoints", func() (answer, error) { return w.ask(w.node, "10.100.0.8:80") }},
		{"outside to a NodePort without endpoints", func() (answer, error) { return w.ask(w.out, nodeIP+":30081") }},
		{"a pod to a NodePort without endpoints", func() (answer, error) { return w.ask(w.podB, nodeIP+":30081") }},
		{"a pod to an undefined port", func() (answer, error) { return w.ask(w.podA, "10.100.0.7:81") }},
		{"the node to an undefined port", func() (answer, error) { return w.ask(w.node, "10.100.0.7:81") }},
		{"a pod to a UDP Service without endpoints", func() (answer, error) { return w.askUDP(w.podA, "10.100.0.8:80") }},
	}
	for _, r := range refused {
		if got, err := r.ask(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v %v, want it refused", r.from, got, err)
		}
	}
	d.update("web", svc{name: "web", ip: "10.100.0.7", change: func(s *model.Service) { s.InternalLocal = true },
		endpoints: []model.Endpoint{endpoint(remoteIP, "n2")}}.plan())
	if _, err := w.dial(w.podA, "tcp4", "10.100.0.7:80", 300*time.Millisecond); !timeout(err) {
		t.Errorf("internalTrafficPolicy Local without an endpoint here: %v, want silence", err)
	}
	// Endpoints appear: the refused are served at once.
	d.update("none", svc{name: "none", ip: "10.100.0.8", nodePort: 30081, endpoints: []model.Endpoint{endpoint(podBIP, "n1")}}.plan())
	for _, r := range refused[:4] {
		if got, err := r.ask(); err != nil || got.server != target(podBIP) {
			t.Errorf("%s, which has one now: %v %v", r.from, got, err)
		}
	}
}
