package hints

import (
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// worth is how much more a new set must keep in its zones to replace hints that are still sound.
const worth = 0.01

// carried is the hints that endpoints had, as they would be now: an endpoint that is new gets its
// own zone's. It is not ok if there were none.
func (b *board) carried(endpoints, previous []model.Endpoint) (s Set, ok bool) {
	had := map[netip.Addr]Hint{}
	byNode := false
	for _, e := range previous {
		if h := (Hint{sorted(e.ZoneHints), sorted(e.NodeHints)}); len(h.Zones) > 0 {
			had[e.Addr] = h
			byNode = byNode || len(h.Nodes) > 0
		}
	}
	if len(had) == 0 {
		return Set{}, false
	}
	s.Of = make(map[netip.Addr]Hint, len(endpoints))
	nobody := []string{NoNode}
	for _, e := range endpoints {
		h, old := had[e.Addr]
		if !old {
			h.Zones = Unplanned(e).Zones
		}
		switch {
		case !byNode:
			h.Nodes = nil
		case len(h.Nodes) == 0:
			h.Nodes = nobody
		}
		s.Of[e.Addr] = h
		ok = ok || old && e.Ready
	}
	if !ok {
		return Set{}, false
	}
	return b.foretell(s), true
}

// sorted returns names in order, each once; those that are so already are not copied.
func sorted(names []string) []string {
	tidy := true
	for i := 1; i < len(names); i++ {
		tidy = tidy && names[i-1] < names[i]
	}
	if tidy {
		return names
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// sound tells whether a set keeps the bounds, and away from endpoints that may not be used.
func (b *board) sound(s Set, bound, older float64) bool {
	_, stray := b.strays(s)
	return !stray && s.Forecast.MaxLoad <= bound+tiny && s.Older.MaxLoad <= older+tiny
}

// strays returns a zone that hints can name and whose clients use an endpoint all the same that may
// not be used.
func (b *board) strays(s Set) (zone string, ok bool) {
	if len(b.use) == len(b.ready) {
		return "", false
	}
	for _, c := range []Consumer{KubeProxy, KubeProxyOld} {
		d := c.directory(len(b.ready), b.hintsIn(s))
		for _, client := range b.clients {
			set := d.choose(client.Node, client.Zone)
			if validZone(client.Zone) && slices.ContainsFunc(set, func(i int) bool { return b.fair[i] == 0 }) {
				return client.Zone, true
			}
		}
	}
	return "", false
}

// astray is how many connections go between zones where the plan sends none.
func (b *board) astray(f Forecast) float64 {
	var sum float64
	for _, g := range b.groups {
		for _, s := range f.Matrix.Of(g.name) {
			if s.Zone != g.name && g.weights != nil && g.weights.Of(s.Zone) == 0 {
				sum += g.demand * s.Share
			}
		}
	}
	return sum
}
