package route

import (
	"fmt"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// Text prints a plan. Golden tests hold this text.
func Text(p model.RoutePlan) string {
	var b strings.Builder
	family := "IPv4"
	if p.V6 {
		family = "IPv6"
	}
	source := p.Demand.Source
	if len(p.Demand.Shares) == 0 {
		source = "unknown"
	}
	fmt.Fprintf(&b, "%s bound %s demand %s\n", family, number(1+p.MaxOverload), source)
	for _, z := range p.Zones {
		name := z.Name
		if name == "" {
			name = "(none)"
		}
		fmt.Fprintf(&b, "  %s: demand %.4f endpoints %d capacity %.4f load %.4f", name, z.Demand, z.Endpoints, z.Capacity, z.Load)
		if z.Drained {
			b.WriteString(" drained")
		}
		for i, w := range z.Weights {
			if i == 0 {
				b.WriteString(" ->")
			}
			to := w.Zone
			if to == "" {
				to = "(none)"
			}
			fmt.Fprintf(&b, " %s %.4f", to, w.Share)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "  in zone %.4f -> %.4f (ideal %.4f), load %.4f -> %.4f, USD/TB %.2f -> %.2f (ideal %.2f)\n",
		p.InZone.Before, p.InZone.Planned, p.InZone.Ideal, p.BeforeLoad, p.MaxLoad, p.PerTB.Before, p.PerTB.Planned, p.PerTB.Ideal)
	for _, c := range p.Capacities {
		fmt.Fprintf(&b, "  %s carries %g\n", c.Addr, c.Capacity)
	}
	if p.Reason != "" {
		fmt.Fprintf(&b, "  reason: %s\n", p.Reason)
	}
	if p.Fix != "" {
		fmt.Fprintf(&b, "  fix: %s\n", p.Fix)
	}
	return b.String()
}
