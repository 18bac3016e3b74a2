package reflect

import (
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// serviceRanges is what one ServiceCIDR says.
type serviceRanges struct {
	name   string
	ranges []netip.Prefix
}

// serviceCIDR takes also one that is being deleted: until it is gone, Services may have addresses of it.
func serviceCIDR(c *networkingv1.ServiceCIDR) (serviceRanges, bool) {
	out := serviceRanges{name: c.Name}
	for _, s := range c.Spec.CIDRs {
		if p, ok := prefix(s); ok {
			out.ranges = append(out.ranges, p)
		}
	}
	return out, true
}

func cidrStore(t *state.Tables, now func() time.Time) *store[*networkingv1.ServiceCIDR, serviceRanges] {
	return &store[*networkingv1.ServiceCIDR, serviceRanges]{
		tables: t, now: now, source: state.ServiceCIDRs, convert: serviceCIDR,
		put:    func(tx *state.Tx, c serviceRanges) { tx.PutServiceCIDR(c.name, c.ranges) },
		remove: func(tx *state.Tx, n model.Name) { tx.DeleteServiceCIDR(n.Name) },
		have: func(s *state.Snapshot) (out []model.Name) {
			for n := range s.ServiceCIDRNames() {
				out = append(out, model.Name{Name: n})
			}
			return out
		},
	}
}
