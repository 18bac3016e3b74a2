package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// table4 is where the tests look.
var (
	table4 = layout{family: nft.IPv4}.table()
	table6 = layout{family: nft.IPv6}.table()
)

type desired = map[model.Name][]service.Frontend

// means is what a table means to packets: slots are drawn at random, so that their order among
// those of one share is nothing, and a backend is one of a set.
type means struct {
	Frontends map[string]string
	Sets      map[string][]string
	Chains    []string
}

func meaning(t *testing.T, k *nft.Fake) means {
	t.Helper()
	out := means{Frontends: map[string]string{}, Sets: map[string][]string{}}
	if _, there, err := k.Read(table4); err != nil || !there {
		t.Fatalf("table: %v %v", there, err)
	}
	for _, table := range []nft.Table{table4, table6} {
		out.read(t, k, table)
	}
	for _, l := range out.Sets {
		slices.Sort(l)
	}
	slices.Sort(out.Chains)
	return out
}

// read adds what a table means. One of IPv6 that holds nothing means as much as none.
func (out *means) read(t *testing.T, k *nft.Fake, table nft.Table) {
	t.Helper()
	contents, there, err := k.Read(table)
	if err != nil {
		t.Fatal(err)
	}
	if !there {
		return
	}
	fixed := map[string]bool{}
	for _, c := range (layout{family: table.Family}).chains() {
		fixed[c.Name] = table.Family == nft.IPv6
	}
	for c, rules := range contents.Chains {
		if !fixed[c] {
			out.Chains = append(out.Chains, fmt.Sprint(table, c, rules))
		}
	}
	front := frontendLength(table.Family)
	mean := map[string]string{}
	list := func(s set) []nft.Element {
		elements, err := k.Elements(table, sets[s])
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(elements, func(a, b nft.Element) int { return cmpString(a.Data+a.Key, b.Data+b.Key) })
		return elements
	}
	for _, s := range meanings {
		for _, e := range list(s) {
			mean[sets[s].Name+e.Key] = string(e.Verdict)
			out.Sets[sets[s].Name] = append(out.Sets[sets[s].Name], string(e.Verdict))
		}
	}
	meaning := func(s set, number string) string {
		m, _ := s.meaning()
		return mean[sets[m].Name+numberIn(number)]
	}
	for _, s := range []set{services, inside, unreachable, affinity} {
		for _, e := range list(s) {
			out.Frontends[fmt.Sprintf("%x", e.Key)] += fmt.Sprintf(" %s=%s", sets[s].Name, meaning(s, e.Data))
		}
	}
	sizes := map[string]sizes{} // of both
	for _, s := range []set{services, inside} {
		for _, e := range list(s) {
			name := meaning(s, e.Data)
			if _, to, ok := strings.Cut(name, goingTo); ok {
				name = to
			}
			_, text, _ := strings.Cut(strings.Replace(name, keeping, "", 1), "-")
			which := "out"
			if s == inside {
				which = "in"
			}
			sizes[e.Key+which], _ = parseSizes(text)
		}
	}
	for _, e := range list(backends) {
		slot := int(binary.NativeEndian.Uint32([]byte(e.Key[front:])))
		which := "out"
		if slot >= insideSlots {
			which, slot = "in", slot-insideSlots
		}
		tier := 0
		for _, n := range sizes[e.Key[:front]+which] {
			if slot >= n {
				tier++
			}
		}
		k := fmt.Sprintf("%x %s %d", e.Key[:front], which, tier)
		out.Sets[k] = append(out.Sets[k], fmt.Sprintf("%x", e.Data))
	}
	for _, s := range []set{clusterIPs, hairpin, weights} {
		for _, e := range list(s) {
			out.Sets[sets[s].Name] = append(out.Sets[sets[s].Name], fmt.Sprintf("%x", e.Key))
		}
	}
	for _, s := range []set{sources, groups, eligible, eligibleInside} {
		for _, e := range list(s) {
			out.Sets[sets[s].Name] = append(out.Sets[sets[s].Name], fmt.Sprintf("%x %x %s", e.Key, e.Data, e.Verdict))
		}
	}
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// random is a desired state: all kinds of frontends, addresses that come again in other states.
func random(r *rand.Rand) desired {
	out := desired{}
	node := model.Node{Name: "n1", Zone: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fd00::10")}}
	for i := range 12 {
		if r.IntN(3) == 0 {
			continue
		}
		s := model.Service{
			Name:       model.Name{Namespace: "t", Name: fmt.Sprintf("s%d", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100, 0, byte(i)})},
			Ports: []model.ServicePort{
				{Name: "a", Protocol: model.TCP, Port: 80, NodePort: uint16(30000 + i)},
				{Name: "b", Protocol: model.UDP, Port: 80},
			},
			InternalLocal: r.IntN(3) == 0, ExternalLocal: r.IntN(2) == 0,
			Affinity: time.Duration(r.IntN(3)) * time.Hour,
		}
		if r.IntN(2) == 0 {
			s.ClusterIPs = append(s.ClusterIPs, six(10, byte(i)))
			s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), six(11, byte(i))}
			s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})}
			for range r.IntN(4) {
				s.SourceRanges = append(s.SourceRanges, netip.PrefixFrom(six(1, byte(r.IntN(4))), 120+r.IntN(9)),
					netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(4))}), 24+r.IntN(9)))
			}
		}
		slice := model.Slice{Name: s.Name, Service: s.Name.Name, Ports: []model.EndpointPort{
			{Name: "a", Protocol: model.TCP, Port: 8080}, {Name: "b", Protocol: model.UDP, Port: 8053},
		}}
		for range r.IntN(6) {
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(10))}),
				Node: fmt.Sprintf("n%d", r.IntN(3)), Ready: r.IntN(4) > 0, Serving: true,
			})
		}
		slice6 := slice
		slice6.V6, slice6.Endpoints = true, nil
		for _, e := range slice.Endpoints {
			e.Addr = six(0, e.Addr.As4()[3])
			slice6.Endpoints = append(slice6.Endpoints, e)
		}
		out[s.Name] = service.Plan(node, s, []model.Slice{slice, slice6}, nil)
		if r.IntN(2) == 0 {
			unequal(r, out[s.Name])
		}
	}
	return out
}

func six(network, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 7: network, 15: host})
}

// unequal gives every backend a share out of a few.
func unequal(r *rand.Rand, plan []service.Frontend) {
	give := func(c *service.Choice) {
		sum := 0.0
		for i := range c.Backends {
			c.Backends[i].Share = float64(1 + r.IntN(3))
			sum += c.Backends[i].Share
		}
		for i := range c.Backends {
			c.Backends[i].Share /= sum
		}
	}
	for i := range plan {
		give(&plan[i].Choice)
		if plan[i].Inside != nil {
			give(plan[i].Inside)
		}
	}
}

func world(t *testing.T) (*nft.Fake, *Applier) {
	k := &nft.Fake{}
	return k, New(k, &conntrack.Fake{}, Options{})
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The test that every applier of Zonewise passes.
func TestConformance(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		want, other := random(r), random(r)
		k, a := world(t)
		ok(t, a.Apply(want, true))
		first := meaning(t, k)

		commits := k.Commits
		ok(t, a.Apply(want, true))
		ok(t, a.Update(want))
		ok(t, New(k, &conntrack.Fake{}, Options{}).Apply(want, true))
		if k.Commits != commits {
			t.Fatalf("seed %d: twice: %d transactions for nothing", seed, k.Commits-commits)
		}

		ok(t, a.Apply(other, true))
		ok(t, a.Apply(want, true))
		sweep(t, a)
		if d := cmp.Diff(first, meaning(t, k)); d != "" {
			t.Fatalf("seed %d: another state and back:\n%s", seed, d)
		}

		broken := errors.New("broken")
		for n := range 4 {
			k.Fail = func(*nft.Batch) error {
				if n--; n < 0 {
					return broken
				}
				return nil
			}
			if err := a.Apply(other, true); err != nil && !errors.Is(err, broken) {
				t.Fatal(err)
			}
			k.Fail = nil
			ok(t, a.Apply(want, true))
			sweep(t, a)
			if d := cmp.Diff(first, meaning(t, k)); d != "" {
				t.Fatalf("seed %d: failure half-way and again:\n%s", seed, d)
			}
		}

		ok(t, a.Apply(nil, true))
		sweep(t, a)
		clean := meaning(t, k)
		if len(clean.Frontends)+len(clean.Sets) > 0 || len(clean.Chains) != len(a.halves[0].layout.chains()) {
			t.Fatalf("seed %d: empty is not clean: %v", seed, clean)
		}
		ok(t, a.Remove())
		ok(t, a.Remove())
		for _, table := range []nft.Table{table4, table6} {
			if _, there, _ := k.Read(table); there {
				t.Fatalf("%s outlived Remove", table)
			}
		}
	}
}

// A cold start that fails between two of its transactions goes on where it stopped.
func TestColdStartInLots(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	want := random(r)
	whole, a := world(t)
	ok(t, a.Apply(want, true))
	for fail := range 5 {
		k, b := world(t)
		b.halves[0].lot = 4
		n := 0
		k.Fail = func(*nft.Batch) error {
			if n++; n == fail+1 {
				return errors.New("broken")
			}
			return nil
		}
		if err := b.Apply(want, true); err == nil {
			t.Fatalf("only %d transactions", n)
		}
		k.Fail = nil
		ok(t, b.Apply(want, true))
		if d := cmp.Diff(meaning(t, whole), meaning(t, k)); d != "" {
			t.Fatalf("failed in lot %d:\n%s", fail, d)
		}
		if d := cmp.Diff(uses(a), uses(b)); d != "" {
			t.Fatalf("uses:\n%s", d)
		}
	}
}

// Any way of updates to a state leads to the table that Apply writes for it.
func TestUpdatesLeadWhereApplyDoes(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 11))
		k, a := world(t)
		ok(t, a.Apply(random(r), true))
		var now desired
		for range 6 {
			now = random(r)
			change := desired{}
			for name := range a.halves[0].want {
				change[name] = now[name]
			}
			for name := range now {
				change[name] = now[name]
			}
			if r.IntN(2) == 0 {
				ok(t, a.Update(change))
				continue
			}
			for name, plan := range change {
				fail := r.IntN(8) == 0
				k.Fail = func(*nft.Batch) error {
					if fail {
						return errors.New("broken")
					}
					return nil
				}
				if err := a.Update(desired{name: plan}); err != nil {
					k.Fail = nil
					ok(t, a.Update(desired{name: plan}))
				}
				k.Fail = nil
			}
		}
		sweep(t, a)
		fresh, b := world(t)
		ok(t, b.Apply(now, true))
		if d := cmp.Diff(meaning(t, fresh), meaning(t, k)); d != "" {
			t.Fatalf("seed %d (-applied +updated):\n%s", seed, d)
		}
		if d := cmp.Diff(uses(b), uses(a)); d != "" {
			t.Fatalf("seed %d: uses:\n%s", seed, d)
		}
	}
}

// sweep does what the next Applies would do.
func sweep(t *testing.T, a *Applier) {
	t.Helper()
	ok(t, a.each(func(h *half) error {
		if !h.there {
			return nil
		}
		return errors.Join(h.sweep(), h.sweep())
	}))
}

func uses(a *Applier) []map[use]int { return []map[use]int{a.halves[0].uses, a.halves[1].uses} }

func TestAChangeOfOneEndpointIsAFewElements(t *testing.T) {
	k, a := world(t)
	f := service.Frontend{
		Service: model.Name{Namespace: "t", Name: "s"}, Kind: service.ClusterIP, Protocol: model.TCP,
		Addr: netip.MustParseAddrPort("10.100.0.1:80"),
	}
	with := func(n, without int) desired {
		f := f
		f.Verdict = service.Balance
		for i := range n {
			if i != without {
				f.Backends = append(f.Backends, service.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)})
			}
		}
		return desired{f.Service: {f}}
	}
	ok(t, a.Apply(with(100, 3), true))
	ok(t, a.Update(with(100, 4))) // 99 as before, one for another
	before := k.Changes
	ok(t, a.Update(with(100, 7)))
	if n := k.Changes - before; n != 2 {
		t.Errorf("one endpoint for another: %d changes, want an element out and one in", n)
	}
	before = k.Changes
	ok(t, a.Update(with(99, 7))) // one fewer: slot, verdict, chain lb-98 with three rules
	if n := k.Changes - before; n > 10 {
		t.Errorf("one endpoint fewer: %d changes", n)
	}
}

func TestNothingIsPrunedBeforeInputsAreComplete(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	all := random(r)
	k, a := world(t)
	ok(t, a.Apply(all, true))
	full := meaning(t, k)

	successor := New(k, &conntrack.Fake{}, Options{})
	ok(t, successor.Apply(nil, false))
	for name, plan := range all {
		ok(t, successor.Update(desired{name: plan}))
		if d := cmp.Diff(full, meaning(t, k)); d != "" {
			t.Fatalf("while it learns:\n%s", d)
		}
	}
	half := desired{}
	for name, plan := range all {
		if len(half) < len(all)/2 {
			half[name] = plan
		}
	}
	ok(t, successor.Apply(half, false))
	if d := cmp.Diff(full, meaning(t, k)); d != "" {
		t.Fatalf("half, incomplete:\n%s", d)
	}
	ok(t, successor.Apply(half, true))
	sweep(t, successor)
	fresh, b := world(t)
	ok(t, b.Apply(half, true))
	if d := cmp.Diff(meaning(t, fresh), meaning(t, k)); d != "" {
		t.Fatalf("half, complete:\n%s", d)
	}
}

func TestAudit(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	k, a := world(t)
	audit := func(step string, want bool) {
		t.Helper()
		got, err := a.Audit()
		ok(t, err)
		if got != want {
			t.Errorf("%s: repaired %v", step, got)
		}
	}
	audit("before the first Apply", false)
	want := random(r)
	ok(t, a.Apply(want, true))
	for name, plan := range random(r) {
		ok(t, a.Update(desired{name: plan}))
	}
	ok(t, a.Apply(want, true))
	sweep(t, a)
	good, commits := meaning(t, k), k.Commits
	audit("nobody else was there", false)
	if k.Commits != commits {
		t.Error("an audit wrote")
	}

	stranger := nft.NewBatch(nft.Table{Family: nft.IPv4, Name: "strangers"})
	stranger.AddTable()
	ok(t, k.Commit(stranger))
	audit("someone changed another table", false)

	vandal := nft.NewBatch(table4)
	vandal.DelTable()
	ok(t, k.Commit(vandal))
	audit("the table was deleted", true)
	audit("again", false)
	if d := cmp.Diff(good, meaning(t, k)); d != "" {
		t.Errorf("after the repair:\n%s", d)
	}

	k.Fail = func(*nft.Batch) error { return errors.New("broken") }
	gone := desired{}
	for name := range want {
		gone[name] = nil
	}
	if err := a.Update(gone); err == nil {
		t.Fatal("a broken kernel took an update")
	}
	k.Fail = nil
	audit("after a failure", true)
	ok(t, a.Remove())
	audit("off", false)
}

// A table of another version serves on until everything is known, and is then replaced.
func TestAnotherLayoutIsReplacedWhenComplete(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	want := random(r)
	k, a := world(t)
	ok(t, a.Apply(want, true))
	good := meaning(t, k)
	age := func() {
		for _, table := range []nft.Table{table4, table6} {
			other := nft.NewBatch(table)
			other.FlushChain(layoutChain)
			other.DelChain(layoutChain)
			other.AddChain(nft.Chain{Name: "layout-0"})
			ok(t, k.Commit(other))
		}
	}
	age()
	foreign, commits := meaning(t, k), k.Commits

	a = New(k, &conntrack.Fake{}, Options{})
	ok(t, a.Apply(nil, false))
	for name, plan := range want {
		ok(t, a.Update(desired{name: plan}))
	}
	if d := cmp.Diff(foreign, meaning(t, k)); d != "" || k.Commits != commits {
		t.Fatalf("touched before inputs were complete:\n%s", d)
	}
	broken := errors.New("broken")
	for fail := range 3 {
		n := 0
		k.Fail = func(*nft.Batch) error {
			if n++; n == fail+1 {
				return broken
			}
			return nil
		}
		if err := a.Apply(want, true); !errors.Is(err, broken) {
			t.Fatalf("transaction %d: %v", fail, err)
		}
		k.Fail = nil
		ok(t, a.Apply(want, true))
		if d := cmp.Diff(good, meaning(t, k)); d != "" {
			t.Fatalf("replaced:\n%s", d)
		}
		if _, there, _ := k.Read(a.halves[0].layout.interim()); there {
			t.Fatal("the interim table was left behind")
		}
		if fail < 2 {
			age()
		}
	}
}

// With weights, too, one endpoint for another is one element; another weight is some tosses.
func TestAChangeOfAWeightIsAFewElements(t *testing.T) {
	k, a := world(t)
	f := service.Frontend{
		Service: model.Name{Namespace: "t", Name: "s"}, Kind: service.ClusterIP, Protocol: model.TCP,
		Addr: netip.MustParseAddrPort("10.100.0.1:80"),
	}
	with := func(own float64, near, far []int) desired {
		f := f
		f.Verdict = service.Balance
		for _, i := range near {
			f.Backends = append(f.Backends, backend(i, own/float64(len(near))))
		}
		for _, i := range far {
			f.Backends = append(f.Backends, backend(i, (1-own)/float64(len(far))))
		}
		return desired{f.Service: {f}}
	}
	changes := func(what string, want desired, most int) {
		t.Helper()
		before := k.Changes
		ok(t, a.Update(want))
		if n := k.Changes - before; n == 0 || n > most {
			t.Errorf("%s: %d changes", what, n)
		}
	}
	near, far := []int{0, 1, 2, 3}, []int{4, 5, 6, 7, 8, 9}
	ok(t, a.Apply(with(.945, near, far), true))
	changes("one near endpoint for another", with(.945, []int{0, 1, 2, 100}, far), 2)
	changes("one far endpoint for another", with(.945, []int{0, 1, 2, 100}, []int{4, 5, 6, 7, 8, 101}), 2)
	changes("another weight", with(.93, []int{0, 1, 2, 100}, []int{4, 5, 6, 7, 8, 101}), 40)
	// Verdict, two slots, tosses; chains lb-11 and lb-11-5 with their rules.
	changes("one near endpoint more", with(.95, []int{0, 1, 2, 3, 100}, []int{4, 5, 6, 7, 8, 101}), 60)
}

// Chains that nothing uses any more do not pile up under a Service that goes up and down.
func TestIdleChainsAreSwept(t *testing.T) {
	k, a := world(t)
	ok(t, a.Apply(nil, true))
	f := service.Frontend{Service: model.Name{Namespace: "t", Name: "s"}, Kind: service.ClusterIP, Addr: netip.MustParseAddrPort("10.100.0.1:80"), Protocol: model.TCP}
	f.Verdict = service.Balance
	for n := range 2000 {
		f.Backends = nil
		for i := range 2 + n%50 {
			f.Backends = append(f.Backends, backend(i, 1))
			if i > n/50 {
				f.Backends[i].Share = .5
			}
		}
		ok(t, a.Update(desired{f.Service: {f}}))
	}
	contents, _, err := k.Read(table4)
	ok(t, err)
	if n := len(contents.Chains); n > 3*fewChains {
		t.Errorf("%d chains for one Service", n)
	}
}

func TestTwoServicesClaimOneAddress(t *testing.T) {
	k, a := world(t)
	front := func(name, backend string) desired {
		n := model.Name{Namespace: "t", Name: name}
		return desired{n: {{
			Service: n, Kind: service.ClusterIP, Protocol: model.TCP, Addr: netip.MustParseAddrPort("10.100.0.1:80"),
			Choice: service.Choice{Verdict: service.Balance, Backends: []service.Backend{{Addr: netip.MustParseAddrPort(backend), Local: true}}},
		}}}
	}
	ok(t, a.Apply(nil, true))
	ok(t, a.Update(front("old", "10.0.0.1:80")))
	ok(t, a.Update(front("new", "10.0.0.2:80")))
	ok(t, a.Update(desired{{Namespace: "t", Name: "old"}: nil}))
	sweep(t, a)
	fresh, b := world(t)
	ok(t, b.Apply(front("new", "10.0.0.2:80"), true))
	if d := cmp.Diff(meaning(t, fresh), meaning(t, k)); d != "" {
		t.Errorf("after the old one has gone:\n%s", d)
	}
}

func TestStaleUDPFlowsAreCut(t *testing.T) {
	at := netip.MustParseAddrPort
	flows := &conntrack.Fake{Flows: []conntrack.Flow{
		{To: at("10.100.0.1:53"), From: at("10.0.0.1:53")},
		{To: at("10.100.0.1:53"), From: at("10.0.0.2:53")},
		{To: at("10.100.0.1:53"), From: at("10.100.0.1:53")}, // found no Service
		{To: at("10.100.0.1:54"), From: at("10.0.0.9:53")},   // another's
	}}
	a := New(&nft.Fake{}, flows, Options{})
	dns := func(keep ...string) desired {
		n := model.Name{Namespace: "t", Name: "dns"}
		f := service.Frontend{Service: n, Kind: service.ClusterIP, Protocol: model.UDP, Addr: at("10.100.0.1:53")}
		f.Verdict = service.Balance
		for _, k := range keep {
			f.Keep = append(f.Keep, at(k))
			f.Backends = append(f.Backends, service.Backend{Addr: at(k)})
		}
		return desired{n: {f}}
	}
	ok(t, a.Apply(dns("10.0.0.1:53", "10.0.0.2:53"), true))
	if len(flows.Flows) != 3 {
		t.Errorf("at the start: %v, want only the lost one cut", flows.Flows)
	}
	reads := flows.Reads
	ok(t, a.Update(dns("10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53")))
	if flows.Reads != reads {
		t.Error("the flow table was read though no endpoint had gone")
	}
	ok(t, a.Update(dns("10.0.0.2:53")))
	if len(flows.Flows) != 2 || flows.Flows[0].From != at("10.0.0.2:53") {
		t.Errorf("after an endpoint has gone: %v", flows.Flows)
	}
}

func TestPairKey(t *testing.T) {
	p := service.Pair{
		Frontend: service.Key{Addr: netip.MustParseAddrPort("10.100.0.1:443"), Protocol: model.UDP},
		Backend:  netip.MustParseAddrPort("192.168.1.11:65535"),
	}
	if got := (&half{layout: layout{family: nft.IPv4}}).pairOf(frontend(p.Frontend) + target(p.Backend)); got != p {
		t.Errorf("%v became %v", p, got)
	}
}
