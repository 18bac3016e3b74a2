package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
)

// NodesSchema names the form of Nodes. Fields are only ever added to it.
const NodesSchema = "zonewise.nodes/v1"

// Nodes are the addresses of several nodes.
type Nodes struct {
	Schema string           `json:"schema"`
	Nodes  []view.Addresses `json:"nodes"` // by zone and name
}

// MakeNodes puts nodes into their order.
func MakeNodes(list []view.Addresses) Nodes {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b view.Addresses) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Name, b.Name)) })
	return Nodes{Schema: NodesSchema, Nodes: list}
}

// NodesTable writes a line for each node.
func NodesTable(w io.Writer, n Nodes) error {
	cols := []column{{title: "NODE", least: leastName}, {title: "ZONE"}, {title: "TYPE"}, {title: "INTERFACES", right: true}, {title: "PODS", right: true},
		{title: "MAX-PODS", right: true}, {title: "WARM", right: true}, {title: "COOLING", right: true}, {title: "ROOM", right: true}, {title: "NEXT POD", least: leastName}}
	var rows [][]string
	for _, v := range n.Nodes {
		warm, cooling := 0, 0
		for _, i := range v.Interfaces {
			warm, cooling = warm+i.Warm, cooling+i.Cooling
		}
		rows = append(rows, []string{v.Name, v.Zone, v.InstanceType, strconv.Itoa(len(v.Interfaces)), strconv.Itoa(v.Pods), strconv.Itoa(v.MaxPods),
			strconv.Itoa(warm), strconv.Itoa(cooling), strconv.Itoa(v.Next.Room), nextPod(v)})
	}
	return columns(w, cols, rows, 0)
}

func nextPod(v view.Addresses) string {
	if v.Next.Waits == "" {
		return "starts at once"
	}
	return "waits for " + v.Next.Waits
}

// NodeText writes all that is known of a node's addresses.
func NodeText(w io.Writer, v view.Addresses, now time.Time) error {
	p := &printer{w: w}
	p.line("%s  %s in %s, %s", v.Name, v.InstanceType, orNone(v.Zone), v.Instance)
	p.line("%s with addresses, of at most %d", count(v.Pods, "pod"), v.MaxPods)
	p.line("")
	cols := []column{{title: "INTERFACE"}, {title: "DEVICE"}, {title: "ADDRESS"}, {title: "SLOTS", right: true}, {title: "ADDRESSES", right: true},
		{title: "USED", right: true}, {title: "WARM", right: true}, {title: "COOLING", right: true}, {title: "STATE"}}
	var rows [][]string
	for _, i := range v.Interfaces {
		state := cmp.Or(i.State, "secondary")
		if i.Primary {
			state = "primary"
		}
		rows = append(rows, []string{i.ID, orNone(i.Device), i.Address, fmt.Sprintf("%d/%d", i.Taken, i.Slots), strconv.Itoa(i.Addresses), strconv.Itoa(i.Used),
			strconv.Itoa(i.Warm), strconv.Itoa(i.Cooling), state})
	}
	p.err = cmp.Or(p.err, columns(w, cols, rows, 0))
	p.line("")
	p.text("The next pod " + nextPod(v) + ".")
	if v.Next.Waiting > 0 {
		p.text(fmt.Sprintf("%s for an address now.", waiting(v.Next.Waiting)))
	}
	p.text("Next limit: " + v.Next.Limit + ". Mend: " + v.Next.Mend + ".")
	p.text("Now: " + v.Doing + ".")
	if v.Failure != "" {
		p.text("Failed, and tried again: " + strings.TrimSuffix(v.Failure, ".") + ".")
	}
	for _, s := range v.Subnets {
		p.text(subnetText(s, now))
	}
	for _, text := range v.Warnings {
		p.text("Warning: " + text + ".")
	}
	return p.err
}

func waiting(n int) string {
	if n == 1 {
		return "1 pod waits"
	}
	return fmt.Sprintf("%d pods wait", n)
}

func subnetText(s view.AddressSubnet, now time.Time) string {
	text := fmt.Sprintf("Subnet %s (%s): %d addresses free", s.ID, s.CIDR, s.Free)
	if s.Free < 0 {
		text = fmt.Sprintf("Subnet %s (%s): how many addresses are free is not known", s.ID, s.CIDR)
	}
	if !s.Empty.IsZero() {
		text += "; at this rate none in " + span(s.Empty.Sub(now))
	}
	return text + "."
}

// span is a time that need not be exact.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// printer writes lines until one cannot be written.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) text(s string) {
	if p.err == nil {
		p.err = paragraph(p.w, "", s)
	}
}
