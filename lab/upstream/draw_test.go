package upstream_test

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
)

func drawNode(t *rapid.T) model.Node {
	return model.Node{
		Name:      rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "node"),
		Zone:      rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone"),
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fd00::10")},
	}
}

// drawSlices makes up to three slices. An address occurs once, or once more as a terminating
// twin: of two live endpoints with one address upstream takes whichever it meets last.
func drawSlices(t *rapid.T) []model.Slice { return drawFamily(t, false) }

func drawFamily(t *rapid.T, v6 bool) []model.Slice {
	tidy := rapid.Bool().Draw(t, "tidy") // every endpoint ready and hinted, so that hints are often obeyed
	n := rapid.IntRange(0, 8).Draw(t, "endpoints")
	out := make([]model.Slice, 3)
	name := "web"
	if v6 {
		name = "web6"
	}
	for i := range out {
		out[i] = model.Slice{
			Name:    model.Name{Namespace: "shop", Name: fmt.Sprintf("%s-%d", name, i)},
			Service: "web", V6: v6,
			Ports: []model.EndpointPort{
				{Name: "p", Protocol: model.TCP, Port: 8080},
				{Name: "p", Protocol: model.UDP, Port: 8081},
				{Name: "p", Protocol: model.SCTP, Port: 8083},
				{Name: "other", Protocol: model.TCP, Port: 8082},
			},
		}
	}
	place := func(e model.Endpoint) {
		i := rapid.IntRange(0, len(out)-1).Draw(t, "slice")
		out[i].Endpoints = append(out[i].Endpoints, e)
	}
	for i := range n {
		e := drawEndpoint(t, i, v6, tidy)
		place(e)
		if !e.Terminating && rapid.IntRange(0, 5).Draw(t, "twin") == 0 {
			twin := drawEndpoint(t, i, v6, false)
			twin.Ready, twin.Terminating = false, true
			place(twin)
		}
	}
	return out
}

func drawEndpoint(t *rapid.T, i int, v6, tidy bool) model.Endpoint {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
	if v6 {
		addr = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)})
	}
	e := model.Endpoint{
		Addr: addr,
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
