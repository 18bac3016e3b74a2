package kube

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/zonewise/zonewise/internal/model"
)

// Fix is the least that makes upstream hint a Service. Its parts are done together.
type Fix struct {
	Text string // for people; empty if there is nothing to do

	Label map[string]string     // nodes to label with a zone; which one it is, is assumed
	CPU   map[string]int64      // nodes that must report allocatable milli-CPU; how much is assumed
	Ready []string              // nodes that must become ready
	Add   []model.Node          // nodes to add; names, zones and CPU are examples
	Zone  map[netip.Addr]string // endpoints that need a zone
	Scale int                   // ready endpoints in all; 0: as many as there are
	Fewer int                   // the same by taking endpoints away, where that is nearer; 0: it is not
}

// mended is what the nodes lack, and upstream without that.
type mended struct {
	fix   Fix
	texts []string
	up    *Upstream
	// assumed goes after numbers that depend on what had to be assumed.
	assumed string
}

// Fix returns the least that makes upstream hint the Service with topology-mode Auto; a zero Fix if
// it does.
func (u *Upstream) Fix(svc model.Name, v6 bool, all []model.Slice) Fix {
	refs := endpoints(own(svc, v6, all))
	if u.refusal(svc, v6, kubeEndpoints(refs)) == "" {
		return Fix{}
	}
	return u.fix(refs)
}

func (u *Upstream) fix(refs []*model.Endpoint) Fix {
	m := u.mend()
	out := m.fix
	texts := slices.Clone(m.texts)
	texts = append(texts, u.fixEndpoints(&out, m.up, refs)...)
	n := ready(refs)
	if !m.up.hinted(n) {
		out.Scale, out.Fewer = m.up.nearest(n)
		text := fmt.Sprintf("%s (%d more)", plural(out.Scale, "endpoint"), out.Scale-n)
		if out.Fewer > 0 {
			text += fmt.Sprintf(", or %d (%d fewer)", out.Fewer, n-out.Fewer)
		}
		texts = append(texts, text+m.assumed)
	}
	out.Text = strings.Join(texts, ", and ")
	return out
}

// nearest returns the next greater number of endpoints that upstream hints, and the next smaller one
// if that is nearer. As each zone's minimum is less than its share × n / 1.2 + 1, six endpoints a zone
// are always enough.
func (u *Upstream) nearest(n int) (more, fewer int) {
	more = max(n+1, len(u.zones))
	for limit := 6*len(u.zones) + 6; more < limit && !u.hinted(more); {
		more++
	}
	for less := n - 1; n-less < more-n && less >= len(u.zones); less-- {
		if u.hinted(less) {
			return more, less
		}
	}
	return more, 0
}

// fixEndpoints gives a zone to endpoints that have none.
func (u *Upstream) fixEndpoints(out *Fix, after *Upstream, refs []*model.Endpoint) (texts []string) {
	var again, lost []string
	nodes := map[string]string{}
	out.Zone = map[netip.Addr]string{}
	example := after.zones[0].name
	for _, e := range refs {
		if !e.Ready || e.Zone != "" || out.Label[e.Node] != "" {
			continue
		}
		n, known := u.node(e.Node)
		switch {
		case known && n.Zone == "":
			nodes[n.Name] = example // one that does not count: its zone changes no shares
		case e.Pod != "":
			out.Zone[e.Addr] = cmp.Or(n.Zone, example)
			again = append(again, e.Pod)
		default:
			out.Zone[e.Addr] = example
			lost = append(lost, e.Addr.String())
		}
	}
	if len(nodes) > 0 {
		texts = append(texts, labelText(slices.Sorted(maps.Keys(nodes))))
		maps.Copy(nodes, out.Label)
		out.Label = nodes
	}
	if len(again) > 0 {
		texts = append(texts, "replace "+list("pod", again))
	}
	if len(lost) > 0 {
		texts = append(texts, "give "+list("endpoint", lost)+" a zone")
	}
	return texts
}

func labelText(nodes []string) string {
	return "label " + list("node", nodes) + " with " + corev1.LabelTopologyZone
}

// mendNodes finds what the nodes lack. Zones that it must assume are those with the least CPU, so
// that shares stay even.
func (u *Upstream) mendNodes() mended {
	if len(u.zones) > 0 {
		return mended{up: u}
	}
	nodes := slices.Clone(u.nodes)
	out := mended{fix: Fix{Label: map[string]string{}, CPU: map[string]int64{}}}
	out.texts = append(out.texts, labelNodes(&out.fix, nodes)...)
	out.texts = append(out.texts, reportCPU(&out.fix, nodes)...)
	out.texts = append(out.texts, secondZone(&out.fix, &nodes)...)
	out.up = New(nodes)
	out.assumed = assumed(out.fix)
	return out
}

// assumed tells what the numbers that follow from a fix of the nodes depend on.
func assumed(f Fix) string {
	switch {
	case len(f.Label)+len(f.CPU)+len(f.Add) == 0:
		return ""
	case len(f.Label) == 1 && len(f.CPU)+len(f.Add) == 0:
		for _, zone := range f.Label {
			return " if that is zone " + zone
		}
	case len(f.Label) == 0 && len(f.Add) == 0:
		return " if the CPU is as elsewhere"
	}
	return " if the zones are as even as can be"
}

// usual is the mean allocatable CPU of nodes that have some.
func usual(nodes []model.Node) int64 {
	sum, n := int64(0), int64(0)
	for _, x := range nodes {
		if x.MilliCPU > 0 {
			sum += x.MilliCPU
			n++
		}
	}
	if n == 0 {
		return 1000
	}
	return max(1, sum/n)
}

// byZone returns the CPU of each zone; zones without nodes that count have 0.
func byZone(nodes []model.Node) map[string]int64 {
	out := map[string]int64{}
	for _, n := range nodes {
		switch {
		case n.Zone == "":
		case counts(n):
			out[n.Zone] += n.MilliCPU
		default:
			out[n.Zone] += 0 // known, but nobody is there
		}
	}
	return out
}

// least returns the zone with the least CPU, by name the first.
func least(cpu map[string]int64) string {
	return slices.MinFunc(slices.Collect(maps.Keys(cpu)), func(a, b string) int {
		return cmp.Or(cmp.Compare(cpu[a], cpu[b]), strings.Compare(a, b))
	})
}

// newZones adds made-up zones until there are two.
func newZones(cpu map[string]int64) {
	for i := 1; len(cpu) < 2; i++ {
		if name := fmt.Sprintf("zone-%d", i); cpu[name] == 0 {
			cpu[name] = 0
		}
	}
}

// labelNodes gives a zone to nodes that count.
func labelNodes(fix *Fix, nodes []model.Node) []string {
	cpu := byZone(nodes)
	newZones(cpu)
	var names []string
	for i, n := range nodes {
		if !counts(n) || n.Zone != "" {
			continue
		}
		zone := least(cpu)
		cpu[zone] += max(n.MilliCPU, 1)
		nodes[i].Zone = zone
		fix.Label[n.Name] = zone
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return nil
	}
	return []string{labelText(names)}
}

// reportCPU gives CPU to nodes that count.
func reportCPU(fix *Fix, nodes []model.Node) []string {
	cpu := usual(nodes)
	var names []string
	for i, n := range nodes {
		if !counts(n) || n.MilliCPU != 0 {
			continue
		}
		nodes[i].MilliCPU = cpu
		fix.CPU[n.Name] = cpu
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return nil
	}
	return []string{"let " + list("node", names) + " report allocatable CPU"}
}

// secondZone makes nodes ready, or adds some, until two zones have nodes that count.
func secondZone(fix *Fix, nodes *[]model.Node) (texts []string) {
	cpu := map[string]int64{} // of zones with nodes that count
	for _, n := range *nodes {
		if counts(n) {
			cpu[n.Zone] += n.MilliCPU
		}
	}
	var names []string
	for i, n := range *nodes {
		if _, has := cpu[n.Zone]; len(cpu) < 2 && !has && !n.Ready && !n.ControlPlane && n.Zone != "" && n.MilliCPU > 0 {
			(*nodes)[i].Ready = true
			cpu[n.Zone] = n.MilliCPU
			fix.Ready = append(fix.Ready, n.Name)
			names = append(names, fmt.Sprintf("%s (zone %s)", n.Name, n.Zone))
		}
	}
	if len(names) > 0 {
		texts = append(texts, "make ready "+list("node", names))
	}
	text := "add ready nodes in two zones, with equal CPU"
	size := usual(*nodes)
	switch len(cpu) {
	case 0:
	case 1:
		text = "add ready nodes in a second zone, with as much CPU"
		for _, there := range cpu {
			size = there
		}
	default:
		return texts
	}
	all := maps.Clone(cpu)
	newZones(all)
	for _, z := range slices.Sorted(maps.Keys(all)) {
		if _, has := cpu[z]; !has {
			fix.Add = append(fix.Add, model.Node{Name: "new-in-" + z, Zone: z, Ready: true, MilliCPU: size})
		}
	}
	*nodes = append(*nodes, fix.Add...)
	return append(texts, text)
}
