package agent

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// tally adds up what the kernel counted by Service and zone. The kernel's own counts end with the
// endpoint; these do not.
type tally struct {
	mu    sync.Mutex
	began bool
	last  map[source]uint64
	sums  map[flow]map[string]uint64 // connections by the endpoint's zone
}

// source is a counter of the kernel. Each path counts for itself, and forgets for itself.
type source struct {
	path string
	service.Pair
}

// flow is a Service in one address family.
type flow struct {
	model.Name
	v6 bool
}

func (f flow) family() string {
	if f.v6 {
		return "IPv6"
	}
	return "IPv4"
}

func (f flow) compare(o flow) int {
	return cmp.Or(f.Compare(o.Name), strings.Compare(f.family(), o.family()))
}

// add takes what each path has counted by now. The first time only tells where counts begin.
func (t *tally) add(snap *state.Snapshot, counted map[string]map[service.Pair]service.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	flows := clusterFlows(snap)
	sums, last := map[flow]map[string]uint64{}, map[source]uint64{}
	for _, f := range flows {
		if had := t.sums[f]; had != nil {
			sums[f] = had
		}
	}
	zones := map[model.Name]map[netip.Addr]string{}
	for path, pairs := range counted {
		for pair, now := range pairs {
			f, ok := flows[pair.Frontend]
			if !ok {
				continue
			}
			n := now.Connections
			if was := t.last[source{path, pair}]; was <= n { // else the pair was gone meanwhile and came again
				n -= was
			}
			last[source{path, pair}] = now.Connections
			if n == 0 || !t.began {
				continue
			}
			if zones[f.Name] == nil {
				zones[f.Name] = zonesOf(snap.Slices(f.Name))
			}
			if sums[f] == nil {
				sums[f] = map[string]uint64{}
			}
			sums[f][zones[f.Name][pair.Backend.Addr()]] += n
		}
	}
	t.began, t.last, t.sums = true, last, sums
}

// view returns the sums.
func (t *tally) view(node model.Node) view.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := view.Traffic{Schema: view.TrafficSchema, Node: node.Name, Zone: node.Zone, Services: []view.ServiceTraffic{}}
	flows := make([]flow, 0, len(t.sums))
	for f := range t.sums {
		flows = append(flows, f)
	}
	slices.SortFunc(flows, flow.compare)
	for _, f := range flows {
		s := view.ServiceTraffic{Namespace: f.Namespace, Name: f.Name.Name, Family: f.family()}
		for zone, n := range t.sums[f] {
			s.EndpointZones = append(s.EndpointZones, view.ZoneTraffic{Zone: zone, Connections: n})
		}
		slices.SortFunc(s.EndpointZones, func(a, b view.ZoneTraffic) int { return strings.Compare(a.Zone, b.Zone) })
		out.Services = append(out.Services, s)
	}
	return out
}

// clusterFlows tells whose each cluster address and port is.
func clusterFlows(snap *state.Snapshot) map[service.Key]flow {
	out := map[service.Key]flow{}
	for svc := range snap.Services() {
		for _, ip := range svc.ClusterIPs {
			for _, p := range svc.Ports {
				k := service.Key{Addr: netip.AddrPortFrom(ip, p.Port), Protocol: p.Protocol}
				out[k] = flow{svc.Name, ip.Is6()}
			}
		}
	}
	return out
}

func zonesOf(list []model.Slice) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for _, s := range list {
		for _, e := range s.Endpoints {
			if out[e.Addr] == "" {
				out[e.Addr] = e.Zone
			}
		}
	}
	return out
}
