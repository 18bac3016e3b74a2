package meter

import (
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Numbers gives values numbers, in the order in which they come. There are millions of flows, and
// thousands of parties and ways: who speaks of them by number writes, hashes and compares them no
// more often than he must.
type Numbers[T comparable] struct {
	Values  []T
	numbers map[T]uint32
}

// Number returns a value's number, which is its place among Values.
func (n *Numbers[T]) Number(v T) uint32 {
	i, ok := n.numbers[v]
	if !ok {
		if n.numbers == nil {
			n.numbers = map[T]uint32{}
		}
		i = uint32(len(n.Values))
		n.Values = append(n.Values, v)
		n.numbers[v] = i
	}
	return i
}

// Ranks returns for each number the place that its value has in order.
func (n *Numbers[T]) Ranks(compare func(a, b T) int) []uint32 {
	order := make([]uint32, len(n.Values))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return compare(n.Values[a], n.Values[b]) })
	out := make([]uint32, len(order))
	for place, i := range order {
		out[i] = uint32(place)
	}
	return out
}

// Sort numbers the values in order, and returns the new number of each old one.
func (n *Numbers[T]) Sort(compare func(a, b T) int) []uint32 {
	ranks, sorted := n.Ranks(compare), make([]T, len(n.Values))
	for old, now := range ranks {
		sorted[now] = n.Values[old]
	}
	*n = Numbers[T]{Values: sorted}
	return ranks
}

// Way is what of a flow's key is neither client nor server.
type Way struct {
	Service  model.Name
	Port     uint16
	Protocol model.Protocol
	Via      model.Via
	V6       bool
}

// WayOf returns a key's way.
func WayOf(k model.FlowKey) Way { return Way{k.Service, k.Port, k.Protocol, k.Via, k.V6} }

// Key is the key of two parties' flow by this way.
func (w Way) Key(client, server model.Party) model.FlowKey {
	return model.FlowKey{Client: client, Server: server, Service: w.Service, Port: w.Port, Protocol: w.Protocol, Via: w.Via, V6: w.V6}
}

// Compare orders ways as keys.
func (w Way) Compare(o Way) int {
	return w.Key(model.Party{}, model.Party{}).Compare(o.Key(model.Party{}, model.Party{}))
}
