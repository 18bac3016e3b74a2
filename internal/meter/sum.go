package meter

import (
	"cmp"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Sum returns flows with each key once, ordered: minutes into hours.
func Sum(flows []model.Flow) []model.Flow {
	var s sum
	for i := range flows {
		s.add(&flows[i])
	}
	return s.sorted()
}

// sum adds up flows by key. There are millions of flows, and thousands of parties: so keys are
// numbers, and texts are hashed and compared no more often than they must.
type sum struct {
	parties numbered[model.Party]
	ways    numbered[way]
	at      map[triple]int
	keys    []triple
	counts  []model.FlowCount
}

// triple is a key: the numbers of client, server and way.
type triple [3]uint32

// way is what of a flow's key is neither client nor server.
type way struct {
	service  model.Name
	port     uint16
	protocol model.Protocol
	via      model.Via
	v6       bool
}

func (w way) compare(o way) int {
	return w.key(model.Party{}, model.Party{}).Compare(o.key(model.Party{}, model.Party{}))
}

func (w way) key(client, server model.Party) model.FlowKey {
	return model.FlowKey{Client: client, Server: server, Service: w.service, Port: w.port, Protocol: w.protocol, Via: w.via, V6: w.v6}
}

func (s *sum) add(f *model.Flow) {
	if s.at == nil {
		s.at = map[triple]int{}
	}
	k := triple{s.parties.number(f.Client), s.parties.number(f.Server), s.ways.number(way{f.Service, f.Port, f.Protocol, f.Via, f.V6})}
	i, ok := s.at[k]
	if !ok {
		i = len(s.keys)
		s.at[k] = i
		s.keys, s.counts = append(s.keys, k), append(s.counts, model.FlowCount{})
	}
	s.counts[i].Add(f.FlowCount)
}

func (s *sum) sorted() []model.Flow {
	parties, ways := s.parties.ranks(model.Party.Compare), s.ways.ranks(way.compare)
	order := make([]int, len(s.keys))
	ranked := make([]triple, len(s.keys))
	for i, k := range s.keys {
		order[i] = i
		ranked[i] = triple{parties[k[0]], parties[k[1]], ways[k[2]]}
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &ranked[a], &ranked[b]
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2]))
	})
	if len(order) == 0 {
		return nil
	}
	out := make([]model.Flow, len(order))
	for i, j := range order {
		k := s.keys[j]
		out[i] = model.Flow{FlowKey: s.ways.values[k[2]].key(s.parties.values[k[0]], s.parties.values[k[1]]), FlowCount: s.counts[j]}
	}
	return out
}

// numbered gives values numbers, in the order in which they come.
type numbered[T comparable] struct {
	values  []T
	numbers map[T]uint32
}

func (n *numbered[T]) number(v T) uint32 {
	i, ok := n.numbers[v]
	if !ok {
		if n.numbers == nil {
			n.numbers = map[T]uint32{}
		}
		i = uint32(len(n.values))
		n.values = append(n.values, v)
		n.numbers[v] = i
	}
	return i
}

// ranks returns for each number the place of its value among all.
func (n *numbered[T]) ranks(compare func(a, b T) int) []uint32 {
	order := make([]uint32, len(n.values))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return compare(n.values[a], n.values[b]) })
	out := make([]uint32, len(order))
	for place, i := range order {
		out[i] = uint32(place)
	}
	return out
}
