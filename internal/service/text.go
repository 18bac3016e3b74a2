package service

import (
	"fmt"
	"math"
	"strings"
)

// Text prints a plan, one frontend after another. Golden tests hold this text.
func Text(plan []Frontend) string {
	var b strings.Builder
	for _, f := range plan {
		b.WriteString(f.String())
	}
	return b.String()
}

// String prints the frontend: a line of its own, one for who may use it, one for each choice, a line for each backend,
// with its share where shares differ.
func (f Frontend) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", f.Kind, f.Addr, f.Protocol, f.Service)
	if f.Port != "" {
		fmt.Fprintf(&b, ":%s", f.Port)
	}
	if f.Masquerade {
		b.WriteString(" masquerade")
	}
	if f.Affinity > 0 {
		fmt.Fprintf(&b, " affinity %s to %s", f.Affinity, f.Group.Addr)
	}
	b.WriteByte('\n')
	if len(f.Sources) > 0 {
		fmt.Fprintf(&b, "  only from %s\n", strings.Trim(fmt.Sprint(f.Sources), "[]"))
	}
	f.print(&b, "")
	if f.Inside != nil {
		f.Inside.print(&b, "inside: ")
	}
	return b.String()
}

func (c Choice) print(b *strings.Builder, prefix string) {
	fmt.Fprintf(b, "  %s%s (%s)\n", prefix, c.Verdict, c.Why)
	for _, e := range c.Backends {
		fmt.Fprintf(b, "    %s", e.Addr)
		for _, s := range []string{e.Zone, e.Node, e.Pod} {
			if s == "" {
				s = "-"
			}
			b.WriteString(" " + s)
		}
		if e.Local {
			b.WriteString(" local")
		}
		if math.Abs(e.Share*float64(len(c.Backends))-1) > 1e-9 {
			fmt.Fprintf(b, " %.4f", e.Share)
		}
		b.WriteByte('\n')
	}
}
