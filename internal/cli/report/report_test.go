package report

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
)

func endpoint(addr, zone string, share float64, connections, bytes uint64) view.Endpoint {
	return view.Endpoint{Address: addr, Zone: zone, Share: share, Connections: connections, Bytes: bytes}
}

func balance(why string, e ...view.Endpoint) view.Choice {
	return view.Choice{Verdict: "balance", Why: why, Endpoints: e}
}

// views are four nodes: one that obeys hints, one that cannot, one of an external policy, and one
// that obeys a ZoneRoute but for an internal policy.
func views() []view.Service {
	const a, b = "ap-northeast-2a", "ap-northeast-2b"
	one, two := "192.168.1.11:8080", "192.168.2.11:8080"
	of := func(node, zone string, ports ...view.Port) view.Service {
		return view.Service{Schema: view.Schema, Namespace: "default", Name: "web", Node: node, Zone: zone, Ports: ports}
	}
	port := func(f ...view.Frontend) view.Port {
		return view.Port{Port: 80, Protocol: "TCP", Name: "http", Frontends: f}
	}
	cluster := func(c view.Choice) view.Frontend {
		return view.Frontend{Kind: "ClusterIP", Address: "10.100.7.7:80", Choice: c}
	}
	outside := view.Frontend{Kind: "NodePort", Address: "192.168.1.10:30080",
		Choice: view.Choice{Verdict: "drop", Why: "externalTrafficPolicy Local: no endpoint on this node", Endpoints: []view.Endpoint{}}}
	inside := balance("all endpoints: no hints", endpoint(one, a, .5, 1, 100), endpoint(two, b, .5, 2, 200))
	outside.Inside = &inside
	return []view.Service{
		of("n3", "", port(cluster(view.Choice{Verdict: "reject", Why: "no endpoints", Endpoints: []view.Endpoint{}})),
			view.Port{Port: 53, Protocol: "UDP", Frontends: []view.Frontend{
				{Kind: "ClusterIP", Address: "10.100.7.7:53", Choice: balance("all endpoints: this node has no zone",
					endpoint("192.168.1.1:53", a, 1./3, 0, 0), endpoint("192.168.2.1:53", b, 1./3, 0, 0), endpoint("192.168.3.1:53", "", 1./3, 0, 0))}}}),
		of("n2", b, port(cluster(balance("zone hints: "+b, endpoint(two, b, 1, 100, 1234567))),
			view.Frontend{Kind: "NodePort", Address: "192.168.2.10:30080", Choice: balance("zone hints: "+b, endpoint(two, b, 1, 11, 1000))})),
		of("n1", a, port(cluster(balance("all endpoints: pod web-1 has no zone hint",
			endpoint(one, a, .5, 42, 999), endpoint(two, b, .5, 58, 45_600_000_000))), outside)),
		of("n4", a, port(cluster(balance("internalTrafficPolicy Local", endpoint(one, a, .5, 10, 1000), endpoint(two, b, .5, 10, 1000))),
			view.Frontend{Kind: "NodePort", Address: "192.168.1.28:30080", Choice: balance("ZoneRoute default/web: 94.5% own zone, bound 1.2",
				endpoint(one, a, .945, 0, 0), endpoint(two, b, .055, 0, 0))})),
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := Table(&b, Merge(model.Name{Namespace: "default", Name: "web"}, views())); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "table.txt", b.String())
}

func TestJSON(t *testing.T) {
	b, err := json.MarshalIndent(Merge(model.Name{Namespace: "default", Name: "web"}, views()[1:2]), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "service.json", string(b)+"\n")
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1 << 40: "1.1 TB", 1<<64 - 1: "18446.7 PB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// Bytes that nobody counted are not told as none.
func TestTrafficOfTheSocketPath(t *testing.T) {
	for want, e := range map[string]view.Endpoint{
		"1.0 kB":   {Connections: 5, Bytes: 1000},
		"n/a":      {Connections: 5, AtSocket: 5},
		"≥ 1.0 kB": {Connections: 5, AtSocket: 4, Bytes: 1000},
		"0 B":      {},
	} {
		if got := traffic(e); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}

// Of a Service with two families the first is in front, and the other below where it is another.
func TestTableOfTwoFamilies(t *testing.T) {
	choice := func(address string) view.Choice {
		return balance("all endpoints: no hints", endpoint(address, "a", 1, 1, 1))
	}
	s := view.Service{Namespace: "default", Name: "web", Node: "n1", Zone: "a", Ports: []view.Port{{Port: 80, Protocol: "TCP", Frontends: []view.Frontend{
		{Kind: "ClusterIP", Address: "10.100.7.7:80", Choice: choice("192.168.1.11:80")},
		{Kind: "ClusterIP", Address: "[fd00:10::7]:80", Choice: choice("[fd00::11]:80")},
		{Kind: "ExternalIP", Address: "1.2.3.4:80", Choice: choice("192.168.1.11:80")},
		{Kind: "LoadBalancer", Address: "1.2.3.5:80", Choice: view.Choice{Verdict: "drop", Why: "externalTrafficPolicy Local"}},
	}}}}
	var b bytes.Buffer
	if err := Table(&b, Merge(model.Name{Namespace: "default", Name: "web"}, []view.Service{s})); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "table_families.txt", b.String())
}
