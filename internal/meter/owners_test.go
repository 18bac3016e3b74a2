package meter_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// whose folds one counter of a window and tells whose its client was; "" for Unknown, and the bytes that are ambiguous.
func whose(o *meter.Owners, from, to time.Duration) (workload string, ambiguous uint64) {
	k := meter.Key{Client: netip.MustParseAddr("10.0.1.7"), Server: netip.MustParseAddrPort("10.0.2.1:80"), Protocol: model.TCP, Side: meter.ClientEnd}
	before := reading(from, map[meter.Key]meter.Totals{k: {FlowCount: bytes(5)}})
	flows, lost := meter.Fold(before, reading(to, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6)}}), o)
	return flows[0].Client.Workload, lost.Ambiguous
}

// Who is found at an address had it since the last one left, at the earliest since they exist; where somebody
// has it still it changes hands at that instant.
func TestTakeAndLeave(t *testing.T) {
	const s = time.Second
	at, old, young := addr("10.0.1.7"), pod("a", "a1", "x", "deployment/old"), pod("a", "a1", "x", "deployment/young")
	for _, c := range []struct {
		name     string
		tell     func(o *meter.Owners)
		from, to time.Duration
		want     string
	}{
		{"news of the first comes late", func(o *meter.Owners) { o.Take(at, young, 50*s, 60*s) }, 51 * s, 55 * s, "deployment/young"},
		{"before it existed", func(o *meter.Owners) { o.Take(at, young, 50*s, 60*s) }, 30 * s, 40 * s, ""},
		{"after the last one left", func(o *meter.Owners) {
			o.Take(at, old, 1*s, 2*s)
			o.Leave(at, old, 50*s)
			o.Take(at, young, 40*s, 60*s)
		}, 50 * s, 55 * s, "deployment/young"},
		{"until the last one left", func(o *meter.Owners) {
			o.Take(at, old, 1*s, 2*s)
			o.Leave(at, old, 50*s)
			o.Take(at, young, 40*s, 60*s)
		}, 45 * s, 50 * s, "deployment/old"},
		{"taken over, before", func(o *meter.Owners) { o.Take(at, old, 1*s, 2*s); o.Take(at, young, 40*s, 60*s) }, 50 * s, 60 * s, "deployment/old"},
		{"taken over, after", func(o *meter.Owners) { o.Take(at, old, 1*s, 2*s); o.Take(at, young, 40*s, 60*s) }, 60 * s, 70 * s, "deployment/young"},
		{"its end is told late", func(o *meter.Owners) {
			o.Take(at, old, 1*s, 2*s)
			o.Take(at, young, 40*s, 60*s)
			o.Leave(at, old, 65*s)
		}, 60 * s, 70 * s, "deployment/young"},
		{"gone and back in an instant", func(o *meter.Owners) { o.Take(at, old, 1*s, 60*s); o.Leave(at, old, 60*s); o.Take(at, old, 60*s, 60*s) }, 70 * s, 80 * s, "deployment/old"},
		{"come, gone and back in an instant", func(o *meter.Owners) {
			o.Take(at, old, 60*s, 60*s)
			o.Leave(at, old, 60*s)
			o.Take(at, old, 60*s, 60*s)
		}, 70 * s, 80 * s, "deployment/old"},
		{"a clock that is ahead", func(o *meter.Owners) { o.Take(at, young, 90*s, 60*s) }, 60 * s, 70 * s, "deployment/young"},
		{"somebody else leaves", func(o *meter.Owners) { o.Take(at, old, 1*s, 2*s); o.Leave(at, young, 3*s) }, 50 * s, 60 * s, "deployment/old"},
	} {
		o := meter.NewOwners(node("a", "a1"), s)
		o.Block(netip.MustParsePrefix("10.0.0.0/8"), model.Party{Kind: model.Unknown})
		c.tell(o)
		if got, ambiguous := whose(o, c.from, c.to); got != c.want || ambiguous > 0 {
			t.Errorf("%s: %q, %d bytes ambiguous; want %q", c.name, got, ambiguous, c.want)
		}
	}
}

// A node port is one at every node's addresses, also of nodes that come later, and at no other's.
func TestNodePorts(t *testing.T) {
	o := a1()
	web := meter.Target{Service: model.Name{Namespace: "shop", Name: "web"}, Via: model.ViaNodePort, Port: 80}
	o.ServeNodes(30099, model.TCP, web, 0, 0)
	o.Own(addr("192.168.9.1"), node("c", "c9"), 0, 0)
	dial := func(server string, proto model.Protocol, from, to time.Duration) model.FlowKey {
		k := meter.Key{Client: netip.MustParseAddr("10.0.1.1"), Server: netip.MustParseAddrPort(server), Protocol: proto, Side: meter.ClientEnd}
		flows, _ := meter.Fold(reading(from, nil), reading(to, map[meter.Key]meter.Totals{k: {FlowCount: bytes(5)}}), o)
		return flows[0].FlowKey
	}
	for server, want := range map[string]model.Via{
		"192.168.2.1:30099": model.ViaNodePort, "192.168.9.1:30099": model.ViaNodePort, "[fd00::3]:30099": model.ViaNodePort,
		"10.0.2.1:30099": model.ViaDirect, "198.51.100.7:30099": model.ViaDirect, "192.168.2.1:30098": model.ViaDirect,
	} {
		f := dial(server, model.TCP, 0, time.Minute)
		if f.Via != want || (f.Service == web.Service) != (want == model.ViaNodePort) || want == model.ViaNodePort && f.Port != 80 {
			t.Errorf("%s: %v %v:%d, want %v", server, f.Via, f.Service, f.Port, want)
		}
	}
	if f := dial("192.168.2.1:30099", model.UDP, 0, time.Minute); f.Via != model.ViaDirect {
		t.Errorf("another protocol: %v", f.Via)
	}
	o.UnserveNodes(30099, model.TCP, web, 2*time.Minute)
	if f := dial("192.168.2.1:30099", model.TCP, 3*time.Minute, 4*time.Minute); f.Via != model.ViaDirect {
		t.Errorf("after it was taken away: %v", f.Via)
	}
	o.Forget(time.Hour)
	if f := dial("192.168.2.1:30099", model.TCP, time.Minute, 2*time.Minute); f.Via != model.ViaDirect {
		t.Errorf("what ended long ago is remembered: %v", f.Via)
	}
}

// What is no Service's any more, or no endpoint, is dialled for itself.
func TestUnserveAndUnback(t *testing.T) {
	const s = time.Second
	o := meter.NewOwners(node("a", "a1"), s)
	vip, backend := place("10.96.0.1:80", model.TCP), place("10.0.2.1:5432", model.TCP)
	one := meter.Target{Service: model.Name{Namespace: "x", Name: "one"}, Via: model.ViaClusterIP, Port: 80}
	two := meter.Target{Service: model.Name{Namespace: "x", Name: "two"}, Via: model.ViaClusterIP, Port: 80}
	peers := meter.Target{Service: model.Name{Namespace: "x", Name: "peers"}, Via: model.ViaHeadless, Port: 5432}
	o.Serve(vip, one, 0, 0)
	o.Unserve(vip, one, 50*s)
	o.Serve(vip, two, 50*s, 0)
	o.Back(backend, peers, 0, 0)
	o.Unback(backend, peers, 50*s)
	for _, c := range []struct {
		server   string
		from, to time.Duration
		want     string
	}{
		{"10.96.0.1:80", 40 * s, 50 * s, "one"}, {"10.96.0.1:80", 50 * s, 60 * s, "two"},
		{"10.0.2.1:5432", 40 * s, 50 * s, "peers"}, {"10.0.2.1:5432", 60 * s, 70 * s, ""},
	} {
		k := meter.Key{Client: netip.MustParseAddr("10.0.1.1"), Server: netip.MustParseAddrPort(c.server), Protocol: model.TCP, Side: meter.ClientEnd}
		flows, lost := meter.Fold(reading(c.from, map[meter.Key]meter.Totals{k: {FlowCount: bytes(5)}}),
			reading(c.to, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6)}}), o)
		if flows[0].Service.Name != c.want || lost.Ambiguous > 0 {
			t.Errorf("%s from %v to %v: %v, lost %v; want %q", c.server, c.from, c.to, flows[0], lost, c.want)
		}
	}
}
