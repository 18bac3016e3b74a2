package route

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

const (
	// drift is by how much a measured share must differ from the one that was planned for to be news:
	// as much as a plan must gain to be worth a change.
	drift = 0.02
	// sure is how many standard deviations are not chance.
	sure = 3
)

// demandOf chooses the source. What is measured gives the bytes whatever the source is.
func demandOf(in Input, c *Cluster) model.Demand {
	d := model.Demand{Source: model.NodeCPU, Shares: c.demand}
	var measured model.Shares
	if in.Measured != nil {
		measured = proportions(slices.Clone(in.Measured.Shares))
	}
	switch {
	case in.Spec.Demand == model.Static:
		if static := proportions(slices.Clone(in.Spec.Static)); static != nil {
			d.Source, d.Shares = model.Static, static
		}
	case in.Spec.Demand != model.NodeCPU && measured != nil:
		d.Source, d.Shares, d.At = model.Measured, measured, in.Measured.At
	}
	d.BytesPerSecond = in.Spec.BytesPerSecond
	if in.Measured != nil && in.Measured.BytesPerSecond > 0 {
		d.BytesPerSecond, d.At = in.Measured.BytesPerSecond, in.Measured.At
	}
	return d
}

// proportions orders shares by zone, each zone once, and makes their sum 1, in place. What is not
// a positive number is left out; nil if nothing is left.
func proportions(s model.Shares) model.Shares {
	s = slices.DeleteFunc(s, func(x model.Share) bool { return !(x.Share > 0) || math.IsInf(x.Share, 0) })
	slices.SortFunc(s, func(a, b model.Share) int {
		return cmp.Or(strings.Compare(a.Zone, b.Zone), cmp.Compare(a.Share, b.Share))
	})
	most := 0.0 // dividing by it first keeps sums of huge numbers finite
	for _, x := range s {
		most = max(most, x.Share)
	}
	sum, out := 0.0, s[:0]
	for _, x := range s {
		x.Share /= most
		sum += x.Share
		if last := len(out) - 1; last >= 0 && out[last].Zone == x.Zone {
			out[last].Share += x.Share
			continue
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil
	}
	for i := range out {
		out[i].Share /= sum
	}
	return slices.DeleteFunc(out, func(x model.Share) bool { return x.Share == 0 })
}

// Moved tells whether a measured demand is news to a plan that was made for a measured demand: a
// share differs by more than drift, and by more than chance does; or, if traffic follows the plan,
// its weights take a zone over its bound now. What is no news is not planned for, so that demand
// which wavers changes neither plans nor what is said of them.
func Moved(p model.RoutePlan, m model.Demand, followed bool) bool {
	shares := proportions(slices.Clone(m.Shares))
	if shares == nil {
		return false
	}
	doubt := chance(&m)
	tolerance := drift
	if !math.IsInf(doubt, 1) {
		tolerance = max(drift, doubt)
	}
	if apart(p.Demand.Shares, shares) > tolerance+same {
		return true
	}
	if !followed {
		return false
	}
	var capacity model.Shares
	for _, z := range p.Zones {
		capacity = append(capacity, model.Share{Zone: z.Name, Share: z.Capacity})
	}
	over := 0.0
	for _, l := range Load(p.Matrix(), shares, capacity) {
		if k := capacity.Of(l.Zone); k > 0 {
			over += max(0, l.Share-1-p.MaxOverload) * k
		}
	}
	return over > leeway(doubt)+same
}

// apart is by how much the shares of a zone differ at the most.
func apart(a, b model.Shares) float64 {
	most := 0.0
	for _, s := range [][2]model.Shares{{a, b}, {b, a}} {
		for _, x := range s[0] {
			most = max(most, math.Abs(x.Share-s[1].Of(x.Zone)))
		}
	}
	return most
}

// chance is by how much a share that was counted may be off, at the worst; +Inf where it is not known
// how many connections were counted.
func chance(d *model.Demand) float64 {
	if d == nil || !(d.Connections > 0) {
		return math.Inf(1)
	}
	return sure * 0.5 / math.Sqrt(d.Connections)
}

// leeway is the share of all connections by which zones may be over their bounds before a plan for a
// measured demand is changed at once: none, unless chance alone does more than drift.
func leeway(chance float64) float64 { return max(0, chance-drift) }
