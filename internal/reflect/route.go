package reflect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
)

// LabelManagedBy on a ZoneRoute tells who made it; with the value ManagedBy it was the controller.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "zonewise"
)

// Route returns a ZoneRoute in our terms. Times keep their seconds only, as the API has them.
func Route(zr *v1alpha1.ZoneRoute) model.ZoneRoute {
	out := model.ZoneRoute{
		Name:       name(zr),
		UID:        string(zr.UID),
		Generation: zr.Generation,
		Automatic:  zr.Labels[LabelManagedBy] == ManagedBy,
		Spec: model.RouteSpec{
			Mode:           model.Mode(zr.Spec.Mode),
			MaxOverload:    value(zr.Spec.MaxOverload, 0),
			Capacity:       model.CapacitySource(zr.Spec.Capacity),
			Demand:         model.DemandSource(zr.Spec.Demand.Source),
			BytesPerSecond: value(zr.Spec.Demand.BytesPerSecond, 0),
			Drained:        sortedSet(zr.Spec.DrainedZones),
		},
		Invalid: invalid(&zr.Spec),
	}
	out.Spec.Static = shares(zr.Spec.Demand.Shares, func(s v1alpha1.DemandShare) (string, float64) { return s.Zone, s.Share })
	out.Status = status(&zr.Status)
	return out
}

// invalid says what a spec has that model.RouteSpec cannot hold. The API server turns it away
// already; a file does not.
func invalid(spec *v1alpha1.ZoneRouteSpec) string {
	if m := spec.MaxOverload; m != nil && *m == 0 {
		return "spec.maxOverload: 0 is less than 0.01"
	}
	seen := map[string]bool{}
	for _, s := range spec.Demand.Shares {
		if seen[s.Zone] {
			return fmt.Sprintf("spec.demand.shares: zone %q more than once", s.Zone)
		}
		seen[s.Zone] = true
	}
	if spec.Demand.Source != string(model.Static) && len(spec.Demand.Shares) > 0 {
		return "spec.demand.shares: needed with source Static, and only there"
	}
	return ""
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// shares orders by zone and keeps the first of each zone.
func shares[T any](in []T, of func(T) (zone string, share float64)) model.Shares {
	var out model.Shares
	for _, x := range in {
		zone, share := of(x)
		out = append(out, model.Share{Zone: zone, Share: share})
	}
	slices.SortStableFunc(out, func(a, b model.Share) int { return strings.Compare(a.Zone, b.Zone) })
	return slices.CompactFunc(out, func(a, b model.Share) bool { return a.Zone == b.Zone })
}

func status(s *v1alpha1.ZoneRouteStatus) model.RouteStatus {
	out := model.RouteStatus{Generation: s.ObservedGeneration, Mode: model.Mode(s.Mode), Summary: model.Summary(s.Summary)}
	for i := range s.Plans {
		out.Plans = append(out.Plans, plan(&s.Plans[i]))
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, model.Condition{
			Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message, Since: moment(&c.LastTransitionTime),
		})
	}
	slices.SortStableFunc(out.Conditions, func(a, b model.Condition) int { return strings.Compare(a.Type, b.Type) })
	return out
}

func plan(p *v1alpha1.Plan) model.RoutePlan {
	out := model.RoutePlan{
		V6:          p.Family == familyV6,
		MaxOverload: p.MaxOverload,
		Demand: model.Demand{
			Source:         model.DemandSource(p.Demand.Source),
			BytesPerSecond: value(p.Demand.BytesPerSecond, 0),
			At:             moment(p.Demand.MeasuredAt),
		},
		InZone:     model.Outcome(p.InZone),
		MaxLoad:    p.MaxLoad,
		BeforeLoad: p.BeforeLoad,
		PerTB:      model.Outcome(p.CostPerTB),
		Hints:      model.HintOutcome{InZone: p.Hints.InZone, MaxLoad: p.Hints.MaxLoad, Reason: p.Hints.Reason, None: !p.Hints.Given},
		Upstream:   model.Verdict(p.Upstream),
		Reason:     p.Reason,
		Fix:        p.Fix,
		At:         moment(p.ChangedAt),
	}
	if m := p.Measured; m != nil {
		out.Measured = model.Realised{At: moment(&m.At), BytesPerSecond: m.BytesPerSecond, InZone: model.Compared(m.InZone), PerMonth: model.Compared(m.CostPerMonth)}
	}
	for _, z := range p.Zones {
		out.Zones = append(out.Zones, model.ZonePlan{
			Name: z.Name, Demand: z.Demand, Endpoints: z.Endpoints, Capacity: z.Capacity, Load: z.Load, Drained: z.Drained,
			Weights: weights(z.Weights),
		})
		if z.Demand > 0 {
			out.Demand.Shares = append(out.Demand.Shares, model.Share{Zone: z.Name, Share: z.Demand})
		}
	}
	slices.SortStableFunc(out.Zones, func(a, b model.ZonePlan) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(out.Demand.Shares, func(a, b model.Share) int { return strings.Compare(a.Zone, b.Zone) })
	for _, c := range p.Capacities {
		if ip, ok := addr(c.Address); ok {
			out.Capacities = append(out.Capacities, model.Capacity{Addr: ip, Capacity: c.Capacity})
		}
	}
	slices.SortStableFunc(out.Capacities, func(a, b model.Capacity) int { return a.Addr.Compare(b.Addr) })
	return out
}

func weights(in map[string]float64) model.Shares {
	var out model.Shares
	for zone, share := range in {
		out = append(out, model.Share{Zone: zone, Share: share})
	}
	slices.SortFunc(out, func(a, b model.Share) int { return strings.Compare(a.Zone, b.Zone) })
	return out
}

// Values of a plan's family.
const (
	familyV4 = "IPv4"
	familyV6 = "IPv6"
)

// Status returns what the API keeps of a status. Route gives it back, except that times keep
// their seconds only, and that a zone without demand is not among the demand's shares.
func Status(s model.RouteStatus) v1alpha1.ZoneRouteStatus {
	out := v1alpha1.ZoneRouteStatus{ObservedGeneration: s.Generation, Mode: string(s.Mode), Summary: v1alpha1.Summary(s.Summary)}
	for _, p := range s.Plans {
		out.Plans = append(out.Plans, planStatus(p))
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, metav1.Condition{
			Type: c.Type, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message,
			LastTransitionTime: metav1.NewTime(c.Since.Truncate(time.Second)), ObservedGeneration: s.Generation,
		})
	}
	return out
}

func planStatus(p model.RoutePlan) v1alpha1.Plan {
	out := v1alpha1.Plan{
		Family:      familyV4,
		MaxOverload: p.MaxOverload,
		Demand:      v1alpha1.Demand{Source: string(p.Demand.Source), MeasuredAt: timestamp(p.Demand.At)},
		InZone:      v1alpha1.Outcome(p.InZone),
		MaxLoad:     p.MaxLoad,
		BeforeLoad:  p.BeforeLoad,
		CostPerTB:   v1alpha1.Outcome(p.PerTB),
		Hints:       v1alpha1.Hints{Given: !p.Hints.None, InZone: p.Hints.InZone, MaxLoad: p.Hints.MaxLoad, Reason: p.Hints.Reason},
		Upstream:    v1alpha1.Upstream(p.Upstream),
		Reason:      p.Reason,
		Fix:         p.Fix,
		ChangedAt:   timestamp(p.At),
	}
	if p.V6 {
		out.Family = familyV6
	}
	if at := timestamp(p.Measured.At); at != nil {
		m := p.Measured
		out.Measured = &v1alpha1.Measured{At: *at, BytesPerSecond: m.BytesPerSecond, InZone: v1alpha1.Compared(m.InZone), CostPerMonth: v1alpha1.Compared(m.PerMonth)}
	}
	if b := p.Demand.BytesPerSecond; b > 0 {
		cost := v1alpha1.Outcome(p.PerTB.PerMonth(b))
		out.Demand.BytesPerSecond, out.CostPerMonth = &b, &cost
	}
	for _, z := range p.Zones {
		zone := v1alpha1.Zone{Name: z.Name, Demand: z.Demand, Endpoints: z.Endpoints, Capacity: z.Capacity, Load: z.Load, Drained: z.Drained}
		for _, w := range z.Weights {
			if zone.Weights == nil {
				zone.Weights = make(map[string]float64, len(z.Weights))
			}
			zone.Weights[w.Zone] = w.Share
		}
		out.Zones = append(out.Zones, zone)
	}
	for _, c := range p.Capacities {
		out.Capacities = append(out.Capacities, v1alpha1.Capacity{Address: c.Addr.String(), Capacity: c.Capacity})
	}
	return out
}

// moment is zero where there is none, and in UTC so that equal times are equal values.
func moment(t *metav1.Time) time.Time {
	if t == nil || t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func timestamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	out := metav1.NewTime(t.Truncate(time.Second))
	return &out
}
