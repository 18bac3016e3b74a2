package state

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
)

// plain is what the tables must be like, in the plainest form.
type plain struct {
	Nodes      map[string]model.Node
	Services   map[model.Name]model.Service
	Unserved   map[model.Name]string
	Slices     map[model.Name]model.Slice
	Routes     map[model.Name]model.ZoneRoute
	Pods       map[model.Name]model.Pod
	Modes      map[string]model.Mode
	ByService  map[model.Name][]model.Slice
	CIDRs      map[string][]netip.Prefix
	AllInOrder bool
	Served     map[model.Name]served
}

// served is a service with what belongs to it, in the plainest form.
type served struct {
	Service model.Service
	Slices  []model.Slice
	Route   *model.ZoneRoute
}

func newPlain() plain {
	return plain{
		Nodes: map[string]model.Node{}, Services: map[model.Name]model.Service{}, Unserved: map[model.Name]string{},
		Slices: map[model.Name]model.Slice{}, Routes: map[model.Name]model.ZoneRoute{}, Pods: map[model.Name]model.Pod{},
		Modes: map[string]model.Mode{}, ByService: map[model.Name][]model.Slice{}, CIDRs: map[string][]netip.Prefix{}, AllInOrder: true,
		Served: map[model.Name]served{},
	}
}

func (p plain) copy() plain {
	out := plain{
		Nodes: maps.Clone(p.Nodes), Services: maps.Clone(p.Services), Unserved: maps.Clone(p.Unserved), Slices: maps.Clone(p.Slices),
		Routes: maps.Clone(p.Routes), Pods: maps.Clone(p.Pods), Modes: maps.Clone(p.Modes), CIDRs: maps.Clone(p.CIDRs),
		ByService: map[model.Name][]model.Slice{}, AllInOrder: true,
		Served: map[model.Name]served{},
	}
	for _, s := range out.Slices {
		all := append(out.ByService[s.ServiceName()], s)
		slices.SortFunc(all, func(a, b model.Slice) int { return a.Name.Compare(b.Name) })
		out.ByService[s.ServiceName()] = all
	}
	for n, v := range out.Services {
		one := served{Service: v, Slices: out.ByService[n]}
		if r, ok := out.Routes[n]; ok {
			one.Route = &r
		}
		out.Served[n] = one
	}
	return out
}

// read brings a snapshot into the plain form, by every method that reads one.
func read(s *Snapshot) plain {
	out := newPlain()
	var names []string
	for n := range s.Nodes() {
		out.Nodes[n.Name], _ = s.Node(n.Name)
		names = append(names, n.Name)
	}
	var in []model.Name
	for v := range s.Services() {
		out.Services[v.Name], _ = s.Service(v.Name)
		in = append(in, v.Name)
	}
	out.AllInOrder = slices.IsSorted(names) && slices.IsSortedFunc(in, model.Name.Compare)
	for n, why := range s.AllUnserved() {
		if again, _ := s.Unserved(n); again == why {
			out.Unserved[n] = why
		}
	}
	in = nil
	for v := range s.AllSlices() {
		out.Slices[v.Name] = v
		in = append(in, v.Name)
		out.ByService[v.ServiceName()] = s.Slices(v.ServiceName())
	}
	out.AllInOrder = out.AllInOrder && slices.IsSortedFunc(in, model.Name.Compare)
	for v := range s.Routes() {
		out.Routes[v.Name], _ = s.Route(v.Name)
	}
	in = nil
	for _, v := range s.Served() {
		out.Served[v.Service.Name] = served{*v.Service, v.Slices(), v.Route}
		in = append(in, v.Service.Name)
	}
	out.AllInOrder = out.AllInOrder && slices.IsSortedFunc(in, model.Name.Compare)
	for v := range s.Pods() {
		out.Pods[v.Name], _ = s.Pod(v.Name)
	}
	for n := range s.Namespaces() {
		out.Modes[n] = s.Mode(n)
	}
	for n := range s.ServiceCIDRNames() {
		out.CIDRs[n], _ = s.cidrs.value(n)
	}
	return out
}

// Whatever is done in whatever order, the tables are as plain maps would be; and a snapshot stays
// what it was, whatever happens after it was taken, forgetting included.
func TestTablesAreLikeMaps(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tb, want := New(), newPlain()
		type moment struct {
			snapshot *Snapshot
			want     plain
			changes  Changes
		}
		var taken []moment
		for range rapid.IntRange(1, 40).Draw(rt, "updates") {
			tb.Update(noon, func(tx *Tx) {
				for range rapid.IntRange(1, 60).Draw(rt, "operations") {
					operate(rt, tx, want)
				}
			})
			if rapid.IntRange(0, 3).Draw(rt, "forget") == 0 {
				tb.Forget(rapid.Uint64Range(0, tb.Snapshot().Revision()).Draw(rt, "until"))
			}
			if s := tb.Snapshot(); rapid.Bool().Draw(rt, "take") {
				taken = append(taken, moment{s, want.copy(), s.Changes(0)})
			}
		}
		s := tb.Snapshot()
		taken = append(taken, moment{s, want.copy(), s.Changes(0)})
		for i, m := range taken {
			if diff := cmp.Diff(m.want, read(m.snapshot), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				rt.Fatalf("snapshot %d of %d: %s", i, len(taken), diff)
			}
			if diff := cmp.Diff(m.changes, m.snapshot.Changes(0)); diff != "" {
				rt.Fatalf("changes of snapshot %d of %d: %s", i, len(taken), diff)
			}
		}
	})
}

// operate does one random thing to the tables and to the maps. Names are few enough to meet again,
// and enough for trees of more than one level.
func operate(rt *rapid.T, tx *Tx, want plain) {
	number := rapid.IntRange(0, 150)
	n := model.Name{Namespace: rapid.SampledFrom([]string{"a", "a-b", "b"}).Draw(rt, "namespace"), Name: fmt.Sprint(number.Draw(rt, "name"))}
	value, put := rapid.IntRange(0, 2).Draw(rt, "value"), rapid.IntRange(0, 2).Draw(rt, "put") > 0
	switch rapid.IntRange(0, 8).Draw(rt, "table") {
	case 0:
		v := model.Node{Name: n.Name, Zone: fmt.Sprint(value)}
		both(put, want.Nodes, v.Name, v, tx.PutNode, tx.DeleteNode)
	case 1, 2:
		v := model.Service{Name: n, TopologyMode: fmt.Sprint(value)}
		both(put, want.Services, n, v, tx.PutService, tx.DeleteService)
		delete(want.Unserved, n)
	case 3:
		tx.PutUnserved(n, fmt.Sprint(value))
		want.Unserved[n] = fmt.Sprint(value)
		delete(want.Services, n)
	case 4, 5:
		v := model.Slice{Name: n, Service: fmt.Sprint(number.Draw(rt, "service") % 5), HintMark: fmt.Sprint(value)}
		both(put, want.Slices, n, v, tx.PutSlice, tx.DeleteSlice)
	case 6:
		v := model.ZoneRoute{Name: n, Generation: int64(value)}
		both(put, want.Routes, n, v, tx.PutRoute, tx.DeleteRoute)
	case 7:
		v := model.Pod{Name: n, MilliCPU: int64(value)}
		both(put, want.Pods, n, v, tx.PutPod, tx.DeletePod)
	case 8:
		mode := []model.Mode{model.Optimal, model.Observe, model.Off}[value]
		both(put, want.Modes, n.Namespace, mode, func(m model.Mode) { tx.PutNamespace(n.Namespace, m) }, tx.DeleteNamespace)
		cidrs := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(value)}), 16)}
		both(put, want.CIDRs, n.Name, cidrs, func(p []netip.Prefix) { tx.PutServiceCIDR(n.Name, p) }, tx.DeleteServiceCIDR)
	}
}

func both[K comparable, V any](put bool, want map[K]V, key K, value V, puts func(V), deletes func(K)) {
	if put {
		puts(value)
		want[key] = value
	} else {
		deletes(key)
		delete(want, key)
	}
}
