package upstream_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

const cases = 10_000

// Whatever the slices say, each frontend has the endpoints that kube-proxy would have behind it.
func TestChoiceIsUpstreams(t *testing.T) {
	seen := map[string]int{}
	for range cases / 100 { // rapid runs 100 cases a check
		rapid.Check(t, func(t *rapid.T) {
			node := drawNode(t)
			svc, eps := drawService(t), drawSlices(t)
			theirs := choose(t, node, svc, eps)
			for _, f := range service.Plan(node, svc, eps, nil) {
				local := f.Kind == service.ClusterIP && svc.InternalLocal ||
					f.Kind == service.NodePort && svc.ExternalLocal
				want := theirs.cluster
				if local {
					want = theirs.local
				}
				compare(t, f, f.Choice, want, theirs.any, local)
				if f.Inside != nil {
					compare(t, f, *f.Inside, theirs.cluster, theirs.any, false)
				}
				rule, _, _ := strings.Cut(f.Why, ":")
				seen[string(f.Verdict)+", "+rule]++
			}
		})
	}
	t.Logf("frontends compared: %v", seen)
	for _, v := range []string{
		"balance, node hints", "balance, zone hints", "balance, all endpoints", "balance, terminating",
		"balance, internalTrafficPolicy Local", "drop, externalTrafficPolicy Local", "reject, no endpoints",
	} {
		if seen[v] == 0 {
			t.Errorf("no case ended in %q: the generator is too narrow", v)
		}
	}
}

func compare(t *rapid.T, f service.Frontend, ours service.Choice, want []string, hasAny, local bool) {
	var got []string
	for _, b := range ours.Backends {
		got = append(got, b.Addr.String())
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("endpoints (-upstream +ours):\n%s\n%s", d, f)
	}
	verdict := service.Balance
	switch {
	case !hasAny:
		verdict = service.Reject
	case len(want) == 0 && local:
		verdict = service.Drop
	}
	if ours.Verdict != verdict {
		t.Fatalf("verdict %s, upstream's is %s:\n%s", ours.Verdict, verdict, f)
	}
}

func drawNode(t *rapid.T) model.Node {
	return model.Node{
		Name:      rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"),
		Zone:      rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone"),
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10")},
	}
}

func drawService(t *rapid.T) model.Service {
	s := model.Service{
		Name:          model.Name{Namespace: "shop", Name: "web"},
		Type:          rapid.SampledFrom([]model.ServiceType{model.ClusterIP, model.NodePort}).Draw(t, "type"),
		ClusterIPs:    []netip.Addr{netip.MustParseAddr("10.100.3.7")},
		InternalLocal: rapid.Bool().Draw(t, "internalLocal"),
		Ports: []model.ServicePort{{
			Name:     "p",
			Protocol: rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP}).Draw(t, "protocol"),
			Port:     80,
		}},
	}
	if s.Type == model.NodePort {
		s.Ports[0].NodePort = 30080
		s.ExternalLocal = rapid.Bool().Draw(t, "externalLocal")
	}
	return s
}

// drawSlices makes up to three slices. An address occurs once, or once more as a terminating
// twin: of two live endpoints with one address upstream takes whichever it meets last.
func drawSlices(t *rapid.T) []model.Slice {
	tidy := rapid.Bool().Draw(t, "tidy") // every endpoint ready and hinted, so that hints are often obeyed
	n := rapid.IntRange(0, 8).Draw(t, "endpoints")
	out := make([]model.Slice, 3)
	for i := range out {
		out[i] = model.Slice{
			Name:    model.Name{Namespace: "shop", Name: fmt.Sprintf("web-%d", i)},
			Service: "web",
			Ports: []model.EndpointPort{
				{Name: "p", Protocol: model.TCP, Port: 8080},
				{Name: "p", Protocol: model.UDP, Port: 8081},
				{Name: "other", Protocol: model.TCP, Port: 8082},
			},
		}
	}
	place := func(e model.Endpoint) {
		i := rapid.IntRange(0, len(out)-1).Draw(t, "slice")
		out[i].Endpoints = append(out[i].Endpoints, e)
	}
	for i := range n {
		e := drawEndpoint(t, i, tidy)
		place(e)
		if !e.Terminating && rapid.IntRange(0, 5).Draw(t, "twin") == 0 {
			twin := drawEndpoint(t, i, false)
			twin.Ready, twin.Terminating = false, true
			place(twin)
		}
	}
	return out
}

func drawEndpoint(t *rapid.T, i int, tidy bool) model.Endpoint {
	e := model.Endpoint{
		Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
		Node: rapid.SampledFrom([]string{"", "n1", "n2", "n3"}).Draw(t, "on"),
		Pod:  fmt.Sprintf("web-%d", i), Ready: true, Serving: true,
	}
	least := 0
	if tidy {
		least = 1
	} else {
		e.Ready = rapid.Bool().Draw(t, "ready")
		e.Serving = rapid.Bool().Draw(t, "serving")
		e.Terminating = rapid.Bool().Draw(t, "terminating")
	}
	e.ZoneHints = rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), least, 2).Draw(t, "zoneHints")
	if rapid.Bool().Draw(t, "hintsNodes") {
		e.NodeHints = rapid.SliceOfN(rapid.SampledFrom([]string{"n1", "n2", "n3"}), least, 2).Draw(t, "nodeHints")
	}
	return e
}
