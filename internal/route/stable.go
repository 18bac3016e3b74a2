package route

import (
	"math"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Stability keeps plans from flapping. Where a zone vanished, or the endpoints or the measured demand have
// become others and the weights of before would overload some, none of it holds: then the bound goes first. Nor do Gain
// and Dwell hold where the bound itself was changed, or the endpoints were: dataplanes have to follow
// anyway, and what stays behind then would stay behind for good.
type Stability struct {
	// Gain is by how much a new plan must raise the in-zone share to be worth a change; a plan
	// that breaks the bound is changed once it does so by more than Slack. Where demand is measured a
	// plan must not break the bound, and one that would is changed to one that has Slack to it.
	Gain  float64
	Slack float64
	Dwell time.Duration // the least time between two changes
	// Move is the share of all connections that may move in a minute; 0: no limit. A change after a
	// quiet minute or more moves that much at once, one after half a minute half of it.
	Move float64
}

// DefaultStability is for a cluster that says nothing. Two points of the connections are less than
// what a rollout shifts anyway; a slack of 0.05 is a quarter of the default bound; half a minute
// lets a rollout's next pod arrive; and with half of the connections a minute, an autoscaler, which
// looks every 15 s, sees load arrive in steps that it can follow.
func DefaultStability() Stability {
	return Stability{Gain: 0.02, Slack: 0.05, Dwell: 30 * time.Second, Move: 0.5}
}

// same is the difference below which weights are the same.
const same = 1e-12

// settled is what becomes of an optimum under stability.
type settled struct {
	weights []float64
	at      time.Time // when the weights last changed
	next    time.Time // when to plan again though nothing changes; zero: no need
	why     string    // what holds it back, for people; empty if nothing does
}

// previous reads the weights of the plan before. A row that it lacks is
// empty; nil if there is no plan.
func (f *facts) previous(p *model.RoutePlan) []float64 {
	if p == nil {
		return nil
	}
	m := p.Matrix()
	if len(m) == 0 {
		return nil
	}
	n := len(f.zones)
	out := make([]float64, n*n)
	for z := range n {
		row := out[z*n : (z+1)*n]
		sum := 0.0
		for _, t := range m.Of(f.zones[z]) {
			if !(t.Share > 0) || math.IsInf(t.Share, 0) {
				continue
			}
			sum += t.Share
			if y := f.index(t.Zone); y >= 0 {
				row[y] = t.Share
			}
		}
		// Weights that are right stay as they are to the last bit, or each plan would differ.
		if math.Abs(sum-1) > same {
			for y := range row {
				row[y] /= max(sum, same)
			}
		}
	}
	return out
}

// settle decides how far to go from the previous weights to the ideal ones now.
func (f *facts) settle(in Input, previous, ideal []float64) settled {
	now := settled{weights: ideal, at: in.Now}
	if previous == nil {
		return now
	}
	s := in.Stability
	unfit := f.complete(in.Previous, previous, ideal)
	moved := f.moved(previous, ideal)
	kept := settled{weights: previous, at: in.Previous.At}
	switch {
	case unfit:
		return now
	case f.equal(previous, ideal):
		return kept
	}
	if f.known.Source == model.Measured && f.over(previous) > leeway(f.chance)+same {
		// It is measured, not guessed, that some are over the bound. What rises often rises on: with a
		// little room one change does for many.
		if in.Previous.Demand.Source == model.Measured {
			now.weights = f.roomy(previous, min(s.Slack, f.theta/2))
			now.why = "leaves room for demand that rises"
		}
		return now
	}
	since := in.Now.Sub(in.Previous.At)
	if since < 0 { // another clock's time: it must not hold this one
		since = math.MaxInt64
	}
	intended := math.Abs(in.Previous.MaxOverload-f.theta) > same
	if !intended && !f.others(in.Previous) {
		if !f.worth(s, previous, ideal) {
			return kept
		}
		if since < s.Dwell {
			kept.next = in.Previous.At.Add(s.Dwell)
			kept.why = "waits, for the weights changed a moment ago"
			return kept
		}
	}
	if s.Move <= 0 {
		return now
	}
	allowed := s.Move * min(since, time.Minute).Minutes()
	if moved <= allowed {
		return now
	}
	rest := time.Duration((moved - allowed) / s.Move * float64(time.Minute))
	wait := max(s.Dwell, min(rest, time.Minute), time.Second)
	if allowed < same {
		kept.next, kept.why = in.Now.Add(wait), "goes there in steps"
		return kept
	}
	step := allowed / moved
	now.weights = slices.Clone(previous)
	for i := range now.weights {
		now.weights[i] += step * (ideal[i] - previous[i])
	}
	now.next, now.why = in.Now.Add(wait), "goes there in steps"
	return now
}

// others tells whether a zone has another number of ready endpoints than it was planned for.
func (f *facts) others(p *model.RoutePlan) bool {
	before := map[string]int{}
	for _, z := range p.Zones {
		before[z.Name] = z.Endpoints
	}
	for i, z := range f.zones {
		if f.endpoints[i] != before[z] {
			return true
		}
	}
	return false
}

// complete puts ideal rows where previous has none, and tells whether the weights of before cannot
// stay: a zone to which they send connections has no endpoint for them now, or endpoints have become
// others and some would be over the bound. A new pod is there because the old ones were too few.
func (f *facts) complete(p *model.RoutePlan, previous, ideal []float64) (unfit bool) {
	n := len(f.zones)
	for z := range n {
		row := previous[z*n : (z+1)*n]
		lost := f.lost(p, z, row)
		if lost && f.demand[z] > 0 {
			unfit = true
		}
		if lost || total(row) == 0 {
			copy(row, ideal[z*n:(z+1)*n])
		}
	}
	return unfit || f.others(p) && maximum(f.loads(previous)) > f.bound+same
}

// roomy is the optimum under a bound that is lower by a little.
func (f *facts) roomy(previous []float64, room float64) []float64 {
	lower := *f
	lower.bound -= room
	return lower.optimum(previous)
}

// over is the share of all connections that goes to zones beyond their bounds.
func (f *facts) over(weights []float64) float64 {
	sum := 0.0
	for y, part := range f.arrivals(weights) {
		if k := f.capacity[y]; k > 0 {
			sum += max(0, part-f.bound*k)
		}
	}
	return sum
}

// lost tells whether a client zone's previous weights lead to where nothing takes them now.
func (f *facts) lost(p *model.RoutePlan, z int, row []float64) bool {
	for y, w := range row {
		if w > 0 && f.capacity[y] == 0 {
			return true
		}
	}
	for _, t := range p.Matrix().Of(f.zones[z]) {
		if t.Share > 0 && f.index(t.Zone) < 0 {
			return true
		}
	}
	return false
}

// worth tells whether ideal is better than previous by enough.
func (f *facts) worth(s Stability, previous, ideal []float64) bool {
	if maximum(f.loads(previous)) > f.bound+s.Slack+same {
		return true
	}
	gain := f.inZone(ideal) - f.inZone(previous)
	if dearest := f.dearest(); !f.uniform && dearest > 0 {
		// Money counts as the connections that it would take across the dearest pair of zones.
		gain = max(gain, (f.perTB(previous)-f.perTB(ideal))/1000/dearest)
	}
	return gain >= s.Gain
}

func (f *facts) dearest() float64 {
	most := 0.0
	for _, from := range f.zones {
		for _, to := range f.zones {
			most = max(most, price(f.prices, from, to))
		}
	}
	return most
}

// moved returns the share of all connections that goes elsewhere.
func (f *facts) moved(before, after []float64) float64 {
	sum := 0.0
	for i := range before {
		sum += f.demand[i/len(f.zones)] * math.Abs(after[i]-before[i])
	}
	return sum / 2
}

func (f *facts) equal(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Abs(x-y) <= same })
}
