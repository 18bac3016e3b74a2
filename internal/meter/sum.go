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

// sum adds up flows by key.
type sum struct {
	parties Numbers[model.Party]
	ways    Numbers[Way]
	at      map[triple]int
	keys    []triple
	counts  []model.FlowCount
}

// triple is a key: the numbers of client, server and way.
type triple [3]uint32

func (s *sum) add(f *model.Flow) {
	if s.at == nil {
		s.at = map[triple]int{}
	}
	k := triple{s.parties.Number(f.Client), s.parties.Number(f.Server), s.ways.Number(WayOf(f.FlowKey))}
	i, ok := s.at[k]
	if !ok {
		i = len(s.keys)
		s.at[k] = i
		s.keys, s.counts = append(s.keys, k), append(s.counts, model.FlowCount{})
	}
	s.counts[i].Add(f.FlowCount)
}

func (s *sum) sorted() []model.Flow {
	parties, ways := s.parties.Ranks(model.Party.Compare), s.ways.Ranks(Way.Compare)
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
		out[i] = model.Flow{FlowKey: s.ways.Values[k[2]].Key(s.parties.Values[k[0]], s.parties.Values[k[1]]), FlowCount: s.counts[j]}
	}
	return out
}
