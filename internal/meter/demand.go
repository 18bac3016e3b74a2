package meter

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Smoothing tells how demand is made of what was counted.
type Smoothing struct {
	HalfLife time.Duration // after which what was counted has half its weight; more than 0
	Minimum  float64       // connections, weighted by age, below which nobody should plan by their zones
}

// DefaultSmoothing is for a cluster that says nothing. After two half-lives a plan that follows has
// made three quarters of the way; with 100 connections a zone's share of a third is known to within 5
// points (one standard deviation, sqrt(p (1-p) / n)).
func DefaultSmoothing() Smoothing { return Smoothing{HalfLife: time.Minute, Minimum: 100} }

// Demands is the demand for every Service, smoothed. It changes with each interval that is added.
type Demands struct {
	smoothing Smoothing
	of        map[asked]*demand
}

// asked is what demand is kept by.
type asked struct {
	service model.Name
	v6      bool
}

// demand is exponentially weighted sums. Rates are in them as the integral over time of the rate
// times the weight of its age, 2^(-age/HalfLife), over that of the weight from now to the infinite
// past: a constant rate r gives r*weight, however it is cut into intervals.
type demand struct {
	connections map[string]float64 // per second, by client zone
	bytes       float64            // per second
	weight      float64            // of the time that was watched: 0 at first, near 1 in the end
	end         time.Time          // of what was watched
}

// NewDemands returns one that knows of no demand.
func NewDemands(s Smoothing) *Demands {
	if s.HalfLife <= 0 {
		s.HalfLife = DefaultSmoothing().HalfLife
	}
	return &Demands{smoothing: s, of: map[asked]*demand{}}
}

// Add tells what went in an interval of length d that ended at end. Services that it lacks had no
// connection. Intervals may be of any length; time between them was not watched and takes weight
// from what was before. Intervals that overlap, because the clock was set, count whole.
func (m *Demands) Add(end time.Time, d time.Duration, flows []model.Flow) {
	if d <= 0 {
		return
	}
	type count struct {
		connections map[string]uint64
		bytes       uint64
	}
	counts := map[asked]*count{}
	for _, f := range flows {
		if !Chosen(f.FlowKey) {
			continue
		}
		k := asked{f.Service, f.V6}
		c := counts[k]
		if c == nil {
			c = &count{connections: map[string]uint64{}}
			counts[k] = c
		}
		c.bytes += f.Bytes()
		if f.Client.Zone != "" || f.Client.Kind == model.PodParty || f.Client.Kind == model.NodeParty {
			c.connections[f.Client.Zone] += f.Connections
		}
		if m.of[k] == nil {
			m.of[k] = &demand{connections: map[string]float64{}}
		}
	}
	for k, e := range m.of {
		fading := m.fade(d)
		keep := fading
		if gap := end.Add(-d).Sub(e.end); e.weight > 0 && gap > 0 {
			keep *= m.fade(gap)
		}
		c := counts[k]
		if c == nil {
			c = &count{}
		}
		e.add(keep, (1-fading)/d.Seconds(), c.connections, c.bytes)
		e.weight = e.weight*keep + 1 - fading
		e.end = end
		if m.behind(e) < forgotten && e.bytes < forgotten {
			delete(m.of, k)
		}
	}
}

// forgotten is how little, in connections or bytes a second, is left of a demand that is over.
const forgotten = 1e-3

// fade is the weight that is left after some time.
func (m *Demands) fade(d time.Duration) float64 {
	return math.Exp2(-d.Seconds() / m.smoothing.HalfLife.Seconds())
}

func (e *demand) add(keep, each float64, connections map[string]uint64, bytes uint64) {
	for z := range e.connections {
		e.connections[z] *= keep
		if e.connections[z] < 1e-12 {
			delete(e.connections, z)
		}
	}
	for z, n := range connections {
		if n > 0 {
			e.connections[z] += each * float64(n)
		}
	}
	e.bytes = e.bytes*keep + each*float64(bytes)
}

// behind is how many connections, weighted by age, a demand is made of: the integral of the weight
// from now to the infinite past is HalfLife / ln 2.
func (m *Demands) behind(e *demand) float64 {
	sum := 0.0
	for _, z := range slices.Sorted(maps.Keys(e.connections)) {
		sum += e.connections[z]
	}
	return sum * m.smoothing.HalfLife.Seconds() / math.Ln2
}

// Estimate is the demand for a Service in one family, and how well it is known.
type Estimate struct {
	model.Demand         // Shares are nil if too few connections are behind them
	PerSecond    float64 // connections
	Age          time.Duration
}

// Of returns the demand for a Service; false if there is none.
func (m *Demands) Of(svc model.Name, v6 bool, now time.Time) (Estimate, bool) {
	e := m.of[asked{svc, v6}]
	if e == nil {
		return Estimate{}, false
	}
	out := Estimate{Demand: model.Demand{Source: model.Measured, At: e.end}, Age: max(now.Sub(e.end), 0)}
	out.BytesPerSecond = e.bytes / e.weight
	out.Connections = m.behind(e) * m.fade(out.Age)
	sum := 0.0
	zones := slices.Sorted(maps.Keys(e.connections))
	for _, z := range zones {
		sum += e.connections[z]
	}
	out.PerSecond = sum / e.weight
	if out.Connections >= m.smoothing.Minimum && sum > 0 {
		for _, z := range zones {
			out.Shares = append(out.Shares, model.Share{Zone: z, Share: e.connections[z] / sum})
		}
	}
	return out, true
}

// Measured is Of as planning takes it: nil where nothing is known, and without shares, so that it
// falls back on the nodes' CPU, where too little is.
func (m *Demands) Measured(svc model.Name, v6 bool, now time.Time) *model.Demand {
	e, ok := m.Of(svc, v6, now)
	if !ok {
		return nil
	}
	return &e.Demand
}

// Chosen tells whether one of the Service's endpoints was chosen at the client's node, as a plan has
// it. Such flows alone are demand.
func Chosen(k model.FlowKey) bool {
	switch k.Via {
	case model.ViaClusterIP:
		return k.Service != (model.Name{})
	case model.ViaNodePort, model.ViaLoadBalancer, model.ViaExternalIP:
		return k.Service != (model.Name{}) && !toNode(k)
	}
	return false
}

// toNode tells of a flow to another node's own address, which is where an endpoint is chosen: the
// flow from there on is one of its own.
func toNode(k model.FlowKey) bool {
	return k.Server.Kind == model.NodeParty && k.Server.Workload == ""
}

// Counted returns how many connections to a Service went from which zone to which, ordered, for
// route.Obeyed: those for which an endpoint was chosen at the client's node, between known zones.
func Counted(flows []model.Flow, svc model.Name, v6 bool) []route.Counted {
	sums := map[model.ZonePair]uint64{}
	for _, f := range flows {
		if f.Service == svc && f.V6 == v6 && f.Connections > 0 && f.Client.Zone != "" && f.Server.Zone != "" && Chosen(f.FlowKey) {
			sums[model.ZonePair{From: f.Client.Zone, To: f.Server.Zone}] += f.Connections
		}
	}
	var out []route.Counted
	for pair, n := range sums {
		out = append(out, route.Counted{From: pair.From, To: pair.To, Connections: n})
	}
	slices.SortFunc(out, func(a, b route.Counted) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return out
}
