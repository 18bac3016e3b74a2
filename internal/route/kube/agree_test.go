package kube

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/endpointslice/topologycache"

	"github.com/zonewise/zonewise/internal/model"
)

// random returns a cluster and a Service, often with something wrong.
func random(r *rand.Rand) ([]model.Node, []model.Slice) {
	var nodes []model.Node
	zones, worst := 1+r.IntN(6), r.IntN(4)
	for i := range 1 + r.IntN(9) {
		n := model.Node{
			Name: fmt.Sprintf("n%d", i), Zone: string(rune('a' + r.IntN(zones))),
			Ready: r.IntN(12) > 0, ControlPlane: r.IntN(12) == 0, MilliCPU: int64(1+r.IntN(4)) * 500,
		}
		switch r.IntN(25) * worst {
		case 1:
			n.Zone = ""
		case 2:
			n.MilliCPU = 0
		}
		nodes = append(nodes, n)
	}
	s := model.Slice{Name: model.Name{Name: "web-1"}, Service: "web"}
	for i := range r.IntN(40) {
		host := nodes[r.IntN(len(nodes))]
		e := model.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 0, byte(i / 200), byte(1 + i%200)}), Pod: fmt.Sprintf("web-%d", i),
			Node: host.Name, Zone: host.Zone, Ready: r.IntN(10) > 0,
		}
		switch r.IntN(100) * worst {
		case 1:
			e.Zone = ""
		case 2:
			e.Zone, e.Node, e.Pod = "", "", ""
		case 3:
			e.Zone, e.Node = "", "gone"
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return nodes, []model.Slice{s}
}

// expected is the verdict by the arithmetic with which we explain; empty: hints.
func expected(u *Upstream, refs []*model.Endpoint) string {
	n, sum := ready(refs), 0
	for _, z := range u.zones {
		sum += minimum(z.share, n)
	}
	switch {
	case len(u.zones) == 0:
		return topologycache.InsufficientNodeInfo
	case len(u.zones) > n:
		return fmt.Sprintf("%s (%d endpoints, %d zones)", topologycache.InsufficientNumberOfEndpoints, n, len(u.zones))
	case sum > n:
		return fmt.Sprintf("%s (%d endpoints, %d zones)", topologycache.MinAllocationExceedsOverloadThreshold, n, len(u.zones))
	case slices.ContainsFunc(refs, func(e *model.Endpoint) bool { return e.Ready && e.Zone == "" }):
		return topologycache.NoZoneSpecified
	}
	return ""
}

var svc = model.Service{Name: model.Name{Name: "web"}, TopologyMode: "Auto"}

// It holds too that upstream has no other refusals: it cannot come to "Nodes only ready in one zone",
// nor to "No hints allocated for zones".
func TestExplanationAgreesWithLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	seen := map[bool]int{}
	for i := range 50_000 {
		nodes, all := random(r)
		u := New(nodes)
		verdict, hinted := u.Of(svc, false, all)
		seen[verdict.Hints]++
		if want := expected(u, endpoints(all)); verdict.Reason != want {
			t.Fatalf("case %d: library %q, arithmetic %q\n%v\n%v", i, verdict.Reason, want, nodes, all)
		}
		if said := verdict.Inequality != "" && verdict.Fix != ""; said == verdict.Hints || verdict.Hints != (verdict.Reason == "") {
			t.Fatalf("case %d: %+v", i, verdict)
		}
		for _, e := range hinted[0].Endpoints {
			if has := len(e.ZoneHints) == 1; has != (verdict.Hints && e.Ready) {
				t.Fatalf("case %d: endpoint %+v with verdict %+v", i, e, verdict)
			}
		}
		if verdict.Hints || i%10 > 0 {
			continue
		}
		fix := u.Fix(svc.Name, false, all)
		fixed, after := fix.Apply(svc.Name, false, nodes, all)
		if again := New(fixed).refusal(svc.Name, false, kubeEndpoints(endpoints(after))); again != "" {
			t.Fatalf("case %d: after %q: %s\n%v\n%v", i, fix.Text, again, nodes, all)
		}
	}
	if seen[true] < 5_000 || seen[false] < 5_000 {
		t.Errorf("too one-sided: %v", seen)
	}
}

// even returns zones that are often equal, and pods that are in few of them.
func even(r *rand.Rand) ([]model.Node, []model.Slice) {
	var nodes []model.Node
	for z := range 3 + r.IntN(5) {
		name := string(rune('a' + z))
		nodes = append(nodes, model.Node{Name: name, Zone: name, Ready: true, MilliCPU: int64(1+r.IntN(2)) * 1000})
	}
	used := 1 + r.IntN(len(nodes))
	all := zoned(r.IntN(40))
	for i := range all[0].Endpoints {
		all[0].Endpoints[i].Zone = nodes[r.IntN(used)].Zone
	}
	return nodes, all
}

// flows counts endpoints by zone and hint, summed by giver and by taker: which of the givers' endpoints
// goes to which taker is upstream's free choice.
func flows(refs []*model.Endpoint, hint func(int) string) string {
	give, take := map[string]int{}, map[string]int{}
	for i, e := range refs {
		if e.Ready && hint(i) != e.Zone {
			give[e.Zone]++
			take[hint(i)]++
		}
	}
	return fmt.Sprint(give, take)
}

// What we settle by name is always one of the results that the library itself has, seen by asking
// it again and again; and it is the same whichever of them we start from.
func TestTiesAreOneOfUpstreamsResults(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 2))
	tied := 0
	for i := range 2_000 {
		nodes, all := even(r)
		u := New(nodes)
		refs := endpoints(all)
		kube := kubeEndpoints(refs)
		if u.refusal(svc.Name, false, kube) != "" {
			continue
		}
		u.hint(refs, kube)
		ours := flows(refs, func(i int) string { return refs[i].ZoneHints[0] })
		theirs := map[string]bool{}
		for try := 0; try < 40 || !theirs[ours] && try < 5_000; try++ {
			again := kubeEndpoints(refs)
			u.refusal(svc.Name, false, again)
			theirs[flows(refs, func(i int) string { return again[i].Hints.ForZones[0].Name })] = true
			u.hint(refs, again)
			if got := flows(refs, func(i int) string { return refs[i].ZoneHints[0] }); got != ours {
				t.Fatalf("case %d: first %s, then %s", i, ours, got)
			}
		}
		if !theirs[ours] {
			t.Fatalf("case %d: ours %s is none of %v", i, ours, theirs)
		}
		if len(theirs) > 1 {
			tied++
		}
	}
	if tied < 100 {
		t.Errorf("only %d cases had ties", tied)
	}
}

// The fix is the nearest: the library refuses every number of endpoints in between.
func TestScaleIsTheNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 3_000 {
		nodes, all := random(r)
		u := New(nodes)
		n := ready(endpoints(all))
		if len(u.zones) == 0 || u.hinted(n) {
			continue
		}
		more, fewer := u.nearest(n)
		accepted := func(k int) bool { return u.refusal(svc.Name, false, kubeEndpoints(endpoints(zoned(k)))) == "" }
		if !accepted(more) || fewer > 0 && (!accepted(fewer) || n-fewer >= more-n) {
			t.Fatalf("case %d: %d endpoints, nearest %d and %d", i, n, more, fewer)
		}
		from := fewer + 1
		if fewer == 0 {
			from = max(0, n-(more-n)+1)
		}
		for k := from; k < more; k++ {
			if accepted(k) {
				t.Fatalf("case %d: %d endpoints, nearest %d and %d, but %d is accepted", i, n, more, fewer, k)
			}
		}
	}
}

// zoned is a Service of n ready endpoints, all in zone a.
func zoned(n int) []model.Slice {
	s := model.Slice{Service: "web"}
	for i := range n {
		s.Endpoints = append(s.Endpoints, model.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Zone: "a", Ready: true})
	}
	return []model.Slice{s}
}

func TestFormulaShowsEnoughDigits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		share, n := r.Float64(), 1+r.IntN(500)
		var gotN, got int
		var shown float64
		if _, err := fmt.Sscanf(formula(share, n), "ceil(%d × %f / 1.2) = %d", &gotN, &shown, &got); err != nil {
			t.Fatal(err)
		}
		if gotN != n || got != minimum(share, n) || minimum(shown, n) != got {
			t.Fatalf("share %v of %d: %s", share, n, formula(share, n))
		}
	}
}

// What upstream's own controllers never report must not break anything either.
func TestOddInput(t *testing.T) {
	for name, nodes := range map[string][]model.Node{
		"less than no CPU": {{Name: "a", Zone: "a", Ready: true, MilliCPU: -5}, {Name: "b", Zone: "b", Ready: true, MilliCPU: 5}},
		"endless CPU":      {{Name: "a", Zone: "a", Ready: true, MilliCPU: 1 << 62}, {Name: "b", Zone: "b", Ready: true, MilliCPU: 1 << 62}, {Name: "c", Zone: "b", Ready: true, MilliCPU: 1 << 62}},
		"one name twice":   {{Name: "a", Zone: "", Ready: true, MilliCPU: 5}, {Name: "a", Zone: "b", Ready: true, MilliCPU: 5}},
		"1,000 zones":      thousand(),
	} {
		u := New(nodes)
		verdict, _ := u.Of(svc, false, zoned(3))
		fix := u.Fix(svc.Name, false, zoned(3))
		if verdict.Hints == (verdict.Fix != "") || fix.Text != verdict.Fix {
			t.Errorf("%s: %+v", name, verdict)
		}
		fixed, after := fix.Apply(svc.Name, false, nodes, zoned(3))
		if again, _ := New(fixed).Of(svc, false, after); !again.Hints {
			t.Errorf("%s: after %q: %+v", name, fix.Text, again)
		}
	}
}

func thousand() (out []model.Node) {
	for i := range 1000 {
		out = append(out, model.Node{Name: fmt.Sprintf("n%03d", i), Zone: fmt.Sprintf("z%03d", i), Ready: true, MilliCPU: int64(1000 + i)})
	}
	return out
}
