package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/zonewise/zonewise/internal/agent/view"
)

// Table writes the form for people: a table for each port, in it a group of lines for each node,
// in it a line for each endpoint. An address that is served otherwise than the ClusterIP gets a
// group of its own below it.
func Table(w io.Writer, s Service) error {
	for i, p := range s.Ports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := port(w, s, p); err != nil {
			return err
		}
	}
	return nil
}

func port(w io.Writer, s Service, p Port) error {
	title := fmt.Sprintf("%s/%s  %d/%s", s.Namespace, s.Name, p.Port, p.Protocol)
	if p.Name != "" {
		title += " (" + p.Name + ")"
	}
	fmt.Fprintln(w, title)
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tZONE\tENDPOINT\tENDPOINT-ZONE\tSHARE\tCONNECTIONS\tBYTES\tWHY")
	for _, n := range p.Nodes {
		group(t, n.Node, orNone(n.Zone), view.Choice{Verdict: n.Verdict, Why: n.Why, Endpoints: n.Endpoints})
		first := slices.IndexFunc(n.Frontends, func(f view.Frontend) bool { return f.Kind == clusterIP })
		for i, f := range n.Frontends {
			if i == first {
				continue
			}
			for label, c := range others(n, f) {
				group(t, "  "+label, "", c)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for l := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(l, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// others yields what an address does otherwise than the first ClusterIP does, and for whom.
func others(n Node, f view.Frontend) func(func(string, view.Choice) bool) {
	return func(yield func(string, view.Choice) bool) {
		label := f.Kind + " " + f.Address
		if f.Kind == nodePort && strings.Contains(f.Address, ".") { // the same on all of the node's addresses, as a rule
			label = f.Kind + " " + f.Address[strings.LastIndexByte(f.Address, ':')+1:]
		}
		if f.Inside != nil {
			label += " from outside"
		}
		if differs(n, f.Choice) && !yield(label, f.Choice) {
			return
		}
		if f.Inside != nil && differs(n, *f.Inside) {
			yield(strings.Replace(label, "outside", "inside", 1), *f.Inside)
		}
	}
}

func differs(n Node, c view.Choice) bool {
	if n.Verdict != c.Verdict || len(n.Endpoints) != len(c.Endpoints) {
		return true
	}
	for i := range c.Endpoints {
		a, b := n.Endpoints[i], c.Endpoints[i]
		if a.Address != b.Address || percent(a.Share) != percent(b.Share) {
			return true
		}
	}
	return false
}

func group(w io.Writer, who, zone string, c view.Choice) {
	if len(c.Endpoints) == 0 {
		line(w, who, zone, c.Verdict, "-", "-", "-", "-", c.Why)
	}
	for i, e := range c.Endpoints {
		why := c.Why
		if i > 0 {
			who, zone, why = "", "", ""
		}
		line(w, who, zone, e.Address, orNone(e.Zone), percent(e.Share), strconv.FormatUint(e.Connections, 10), traffic(e), why)
	}
}

// traffic is the bytes that were counted, if the agent counts them. Those of connections that went by
// the socket path pass by no counter: what was counted is then the least that there was.
func traffic(e view.Endpoint) string {
	switch {
	case e.Bytes == 0 && e.Connections > 0:
		return "n/a"
	case e.AtSocket == 0:
		return size(e.Bytes)
	}
	return "≥ " + size(e.Bytes)
}

func line(w io.Writer, cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }

func orNone(s string) string { return cmp.Or(s, "<none>") }

// percent keeps one decimal where it says something.
func percent(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f*100, 'f', 1, 64), ".0") + "%"
}

// size writes bytes in powers of 1000, as the cloud's bill does.
func size(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 999.95 && unit < 5 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, " kMGTP"[unit])
}
