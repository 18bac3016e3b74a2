package kube

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/endpointslice/topologycache"

	"github.com/zonewise/zonewise/internal/model"
)

// most is how many names a text lists before it only counts.
const most = 6

// shares returns each zone's share of the CPU of nodes that count, ordered by name; nothing where
// upstream takes no shares at all: a node that counts lacks zone or CPU, or all are in one zone.
func shares(nodes []model.Node) []zone {
	total := int64(0)
	cpu := map[string]int64{}
	for _, n := range nodes {
		if !counts(n) {
			continue
		}
		if n.Zone == "" || n.MilliCPU == 0 {
			return nil
		}
		cpu[n.Zone] += n.MilliCPU
		total += n.MilliCPU
	}
	if total == 0 || len(cpu) < 2 {
		return nil
	}
	var out []zone
	for name, c := range cpu {
		out = append(out, zone{name, float64(c) / float64(total)})
	}
	slices.SortFunc(out, func(a, b zone) int { return strings.Compare(a.name, b.name) })
	return out
}

// counts tells whether upstream expects clients on the node.
func counts(n model.Node) bool { return n.Ready && !n.ControlPlane }

// explain puts numbers and names to a refusal. The culprit is empty where no object is to blame.
func (u *Upstream) explain(reason string, refs []*model.Endpoint) (inequality, culprit string) {
	n := ready(refs)
	is := func(message string) bool { return strings.HasPrefix(reason, message) }
	switch {
	case is(topologycache.InsufficientNodeInfo), is(topologycache.NodesReadyInOneZoneOnly):
		return u.blame()
	case is(topologycache.InsufficientNumberOfEndpoints):
		text := fmt.Sprintf("%d zones, %s", len(u.zones), plural(n, "endpoint"))
		if rest := len(refs) - n; rest > 0 {
			text += fmt.Sprintf(" (%d more not ready)", rest)
		}
		return text, ""
	case is(topologycache.MinAllocationExceedsOverloadThreshold):
		return u.minima(refs), ""
	case is(topologycache.NoZoneSpecified):
		return u.zoneless(refs)
	}
	return fmt.Sprintf("%s, %s, none hinted", plural(len(u.zones), "zone"), plural(n, "endpoint")), ""
}

// blame names the nodes for which upstream gives up on the whole cluster.
func blame(nodes []model.Node) (inequality, culprit string) {
	var unlabelled, idle []string
	zones := map[string]bool{}
	for _, n := range nodes {
		if !counts(n) {
			continue
		}
		if n.Zone == "" {
			unlabelled = append(unlabelled, n.Name)
		}
		if n.MilliCPU == 0 {
			idle = append(idle, n.Name)
		}
		zones[n.Zone] = true
	}
	var parts []string
	if len(unlabelled) > 0 {
		parts = append(parts, list("node", unlabelled)+has(unlabelled)+"no label "+corev1.LabelTopologyZone)
	}
	if len(idle) > 0 {
		parts = append(parts, list("node", idle)+has(idle)+"no allocatable CPU")
	}
	switch bad := slices.Concat(unlabelled, idle); {
	case len(bad) > 0:
		slices.Sort(bad)
		bad = slices.Compact(bad)
		return strings.Join(parts, ", ") + ": no Service gets hints", list("node", bad)
	case len(nodes) == 0:
		return "there are no nodes", ""
	case len(zones) == 0:
		return "no node is ready outside the control plane", ""
	}
	for z := range zones {
		return "all ready nodes are in one zone: " + z, ""
	}
	return "", ""
}

// minima shows that the zones together need more endpoints than there are, and the first zone that
// has too few.
func (u *Upstream) minima(refs []*model.Endpoint) string {
	n := ready(refs)
	have := map[string]int{}
	for _, e := range refs {
		if e.Ready {
			have[e.Zone]++
		}
	}
	sum := 0
	var names, least, terms []string
	short := ""
	for _, z := range u.zones {
		need := minimum(z.share, n)
		sum += need
		names = append(names, z.name)
		least = append(least, strconv.Itoa(need))
		if term := formula(z.share, n); !slices.Contains(terms, term) {
			terms = append(terms, term)
		}
		if short == "" && have[z.name] < need {
			short = fmt.Sprintf("; zone %s: %s, needs %s", z.name, plural(have[z.name], "endpoint"), formula(z.share, n))
		}
	}
	who, much := "zones "+strings.Join(names, ", "), strings.Join(least, " + ")+" = "+plural(sum, "endpoint")
	if len(names) > most {
		who, much = plural(len(names), "zone"), plural(sum, "endpoint")
	}
	return fmt.Sprintf("%s need at least %s (%s), there are %d%s", who, much, strings.Join(few(terms), ", "), n, short)
}

// formula shows how upstream comes to a zone's minimum, with as many digits of the share as it takes
// to come to the same.
func formula(share float64, n int) string {
	need := minimum(share, n)
	text := ""
	for digits := 3; digits <= 17; digits++ {
		text = strconv.FormatFloat(math.Round(share*math.Pow10(digits))/math.Pow10(digits), 'f', -1, 64)
		if shown, err := strconv.ParseFloat(text, 64); err == nil && minimum(shown, n) == need {
			break
		}
	}
	return fmt.Sprintf("ceil(%d × %s / 1.2) = %d", n, text, need)
}

// zoneless names the endpoints without a zone, and why the first has none.
func (u *Upstream) zoneless(refs []*model.Endpoint) (inequality, culprit string) {
	var bad []string
	why := ""
	for _, e := range refs {
		if !e.Ready || e.Zone != "" {
			continue
		}
		if len(bad) == 0 {
			why, culprit = u.whyZoneless(e), label(e)
			if e.Node != "" {
				culprit += " on node " + e.Node
			}
		}
		bad = append(bad, label(e))
	}
	if len(bad) == 0 {
		return "", ""
	}
	text := bad[0] + " has no zone"
	if rest := len(bad) - 1; rest > 0 {
		text = fmt.Sprintf("%s and %d more have no zone", bad[0], rest)
	}
	return text + ": " + why, culprit
}

func (u *Upstream) whyZoneless(e *model.Endpoint) string {
	if e.Node == "" {
		return "it names no node"
	}
	n, known := u.node(e.Node)
	switch {
	case !known:
		return "there is no node " + e.Node
	case n.Zone == "":
		return "its node " + e.Node + " has no label " + corev1.LabelTopologyZone
	}
	return "its slice is older than the zone " + n.Zone + " of its node " + e.Node
}

func (u *Upstream) node(name string) (model.Node, bool) {
	i, ok := slices.BinarySearchFunc(u.nodes, name, func(n model.Node, name string) int { return strings.Compare(n.Name, name) })
	if !ok {
		return model.Node{}, false
	}
	return u.nodes[i], true
}

// label names an endpoint for people.
func label(e *model.Endpoint) string {
	if e.Pod != "" {
		return "pod " + e.Pod
	}
	return "endpoint " + e.Addr.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list is "node a", or "nodes a, b".
func list(noun string, names []string) string {
	if len(names) > 1 {
		noun += "s"
	}
	return noun + " " + strings.Join(few(names), ", ")
}

func has(names []string) string {
	if len(names) > 1 {
		return " have "
	}
	return " has "
}

// few shortens a list that nobody would read.
func few(names []string) []string {
	if len(names) <= most {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("… (%d more)", len(names)-most))
}
