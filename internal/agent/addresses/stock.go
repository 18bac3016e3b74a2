package addresses

import (
	"cmp"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/vpc"
)

const (
	// samples is how many are kept of a subnet: of the last minutes all, and fewer of what was before.
	samples = 64
	// stockSpan is for how long a subnet must have been looked at before anything is said of its future.
	stockSpan = 30 * time.Minute
)

// stock is how many addresses subnets had, each time the cloud was asked.
type stock struct {
	past map[string][]vpc.Sample // by subnet
	now  []view.AddressSubnet
}

func (s *stock) note(subnets []vpc.Subnet, at time.Time) {
	past := map[string][]vpc.Sample{}
	s.now = []view.AddressSubnet{}
	for _, n := range subnets {
		out := view.AddressSubnet{ID: n.ID, CIDR: n.CIDR.String(), Free: n.Free}
		if n.Free >= 0 {
			list := vpc.Thin(append(s.past[n.ID], vpc.Sample{At: at, Free: n.Free}), samples)
			past[n.ID] = list
			if f := vpc.NewForecast(list); f.Left > 0 && at.Sub(list[0].At) >= stockSpan {
				out.Empty, out.PerHour = at.Add(f.Left), f.PerHour
			}
		}
		s.now = append(s.now, out)
	}
	s.past = past
	slices.SortFunc(s.now, func(a, b view.AddressSubnet) int { return cmp.Compare(a.ID, b.ID) })
}

func (s *stock) view() []view.AddressSubnet { return append([]view.AddressSubnet{}, s.now...) }
