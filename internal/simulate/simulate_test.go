package simulate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// small is a run that takes no time.
func small() Config {
	return Config{Seed: 1, Cases: 40, Zones: 3, NodesPerZone: []int{2, 6}, Pods: []Range{{3, 12}}, Placements: []Placement{Even, Random},
		MaxOverload: .2, Prices: model.Prices{PerGB: .02}, Algorithms: append(Plain(), Ours()...), Walks: 1, WalkPods: 8}
}

func run(t *testing.T, c Config) Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r Result) find(t *testing.T, pods Range, p Placement, algorithm string, nodes int) Row {
	t.Helper()
	for _, s := range r.Scenarios {
		for _, row := range s.Rows {
			if s.Pods == pods && s.Placement == p && row.Algorithm == algorithm && row.NodesPerZone == nodes {
				return row
			}
		}
	}
	t.Fatalf("no row of %s, %s, %s, %d", pods, p, algorithm, nodes)
	return Row{}
}

// What earlier simulations of the same question found, in points: of 20,000 cases each with demand
// of gamma(8), three zones, a bound of 1.2.
func TestFiguresAreThoseOfEarlierStudies(t *testing.T) {
	few, many := Range{3, 12}, Range{3, 30}
	c := Config{Seed: 1, Cases: 4000, Zones: 3, NodesPerZone: []int{1}, Pods: []Range{few, many}, Placements: []Placement{Even, Random},
		MaxOverload: .2, Prices: model.Prices{PerGB: .02}, Algorithms: append(Plain(), Ours()[0])}
	r := run(t, c)
	for _, w := range []struct {
		algorithm     string
		pods          Range
		placement     Placement
		inZone, above float64
		p99           float64 // 0: not told
	}{
		{"no hints", few, Even, 33.3, 0, 1}, {"no hints", many, Even, 33.3, 0, 1}, {"no hints", many, Random, 33.3, 0, 1},
		{"PreferSameZone", few, Even, 100, 77.6, 2.36}, {"PreferSameZone", many, Even, 100, 72.4, 2.10}, {"PreferSameZone", many, Random, 96.8, 85.8, 4.95},
		{"Envoy's formula", few, Even, 86.7, 0, 1}, {"Envoy's formula", many, Even, 87.8, 0, 1}, {"Envoy's formula", many, Random, 80, 0, 1},
		{"Zonewise, weights", few, Even, 93.5, 0, 1.2}, {"Zonewise, weights", many, Even, 94.8, 0, 1.2}, {"Zonewise, weights", many, Random, 86, 0, 1.2},
	} {
		got := r.find(t, w.pods, w.placement, w.algorithm, 0)
		if math.Abs(100*got.InZone-w.inZone) > .5 {
			t.Errorf("%s, %s %s: in zone %.1f, want %.1f", w.algorithm, w.pods, w.placement, 100*got.InZone, w.inZone)
		}
		if math.Abs(100*got.Above-w.above) > 2 || w.above == 0 && got.Above != 0 {
			t.Errorf("%s, %s %s: %.1f%% above the bound, want %.1f%%", w.algorithm, w.pods, w.placement, 100*got.Above, w.above)
		}
		if math.Abs(got.LoadP99-w.p99) > .15 {
			t.Errorf("%s, %s %s: p99 of the load %.2f, want %.2f", w.algorithm, w.pods, w.placement, got.LoadP99, w.p99)
		}
		if cost := (1 - got.InZone) * 20; math.Abs(got.PerTB-cost) > 1e-9 {
			t.Errorf("%s, %s %s: %f USD for a TB, want %f", w.algorithm, w.pods, w.placement, got.PerTB, cost)
		}
	}
}

// Hints never break the bound, whatever is lost on the way to it.
func TestHintsKeepTheBound(t *testing.T) {
	c := small()
	c.Cases, c.Walks, c.WalkPods = 300, 3, 20
	c.Algorithms = Ours()[1:]
	r := run(t, c)
	for _, s := range r.Scenarios {
		for _, row := range s.Rows {
			if row.Above != 0 {
				t.Errorf("%s %s, %d nodes: %.2f%% of cases above the bound", s.Pods, s.Placement, row.NodesPerZone, 100*row.Above)
			}
		}
	}
	for _, row := range r.Walk {
		if row.Above != 0 {
			t.Errorf("walk, %d nodes: %.2f%% of states above the bound", row.NodesPerZone, 100*row.Above)
		}
	}
}

func TestSameSeedSameFigures(t *testing.T) {
	first := run(t, small())
	backwards := small()
	backwards.Each = func(n int, do func(int)) error {
		for i := range n {
			do(n - 1 - i)
		}
		return nil
	}
	if diff := cmp.Diff(first, run(t, backwards)); diff != "" {
		t.Errorf("the order of jobs matters:\n%s", diff)
	}
	fewer := small()
	fewer.Placements, fewer.Algorithms = []Placement{Random}, Ours()[1:]
	if diff := cmp.Diff(first.find(t, Range{3, 12}, Random, "Zonewise, hints", 6), run(t, fewer).find(t, Range{3, 12}, Random, "Zonewise, hints", 6)); diff != "" {
		t.Errorf("what else is played matters:\n%s", diff)
	}
	other := small()
	other.Seed = 2
	if cmp.Equal(first, run(t, other)) {
		t.Error("another seed gives the same figures")
	}
}

// What others' algorithms come to is written down whole: only a change of this package changes it.
func TestGolden(t *testing.T) {
	var b strings.Builder
	c := small()
	c.Algorithms = Plain()
	r := run(t, c)
	for _, s := range r.Scenarios {
		fmt.Fprintf(&b, "%s pods, %s, %d cases\n", s.Pods, s.Placement, s.Cases)
		for _, x := range s.Rows {
			fmt.Fprintf(&b, "  %-18s %2d  in zone %.4f  load %.3f %.3f  above %.3f  USD/TB %.3f  refused %.3f\n", x.Algorithm, x.NodesPerZone,
				x.InZone, x.LoadP50, x.LoadP99, x.Above, x.PerTB, x.Refused)
		}
	}
	for _, x := range r.Walk {
		fmt.Fprintf(&b, "%-18s %2d  %d changes  in zone %.4f  load %.3f  above %.3f  moved %.4f %.4f  writes %.3f  refused %.3f\n", x.Algorithm, x.NodesPerZone,
			x.Changes, x.InZone, x.LoadP99, x.Above, x.Moved, x.MovedMax, x.Writes, x.Refused)
	}
	golden.Check(t, "small.txt", b.String())
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"cases: 0 is less than 1":                               func(c *Config) { c.Cases = 0 },
		"zones: 1 is not in 2 to 64":                            func(c *Config) { c.Zones = 1 },
		"nodes-per-zone: none given":                            func(c *Config) { c.NodesPerZone = nil },
		"nodes-per-zone: 0 is not in 1 to 500":                  func(c *Config) { c.NodesPerZone = []int{0} },
		"pods: none given":                                      func(c *Config) { c.Pods = nil },
		"pods: 5-2 is not a range in 1 to 1000":                 func(c *Config) { c.Pods = []Range{{5, 2}} },
		"placement: none given":                                 func(c *Config) { c.Placements = nil },
		`placement: "heap" is neither even nor random`:          func(c *Config) { c.Placements = []Placement{"heap"} },
		"max-overload: NaN is not in 0.01 to 4":                 func(c *Config) { c.MaxOverload = math.NaN() },
		"no algorithm":                                          func(c *Config) { c.Algorithms = nil },
		"walks: 1 to 0 pods":                                    func(c *Config) { c.WalkPods = 0 },
		"cases: -1 is less than 1\nzones: 65 is not in 2 to 64": func(c *Config) { c.Cases, c.Zones = -1, 65 },
	} {
		c := small()
		change(&c)
		if _, err := Run(c); err == nil || err.Error() != want {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

func TestStopped(t *testing.T) {
	c, stopped := small(), errors.New("stopped")
	c.Each = func(n int, do func(int)) error { do(0); return stopped }
	if _, err := Run(c); !errors.Is(err, stopped) {
		t.Errorf("error is %v, want %v", err, stopped)
	}
}

// oneEach is a zone each for two endpoints, and for two nodes of the first zone.
func oneEach() Case {
	all := []model.Node{{Name: "a1", Zone: "a", Ready: true, MilliCPU: 1}, {Name: "a2", Zone: "a", Ready: true, MilliCPU: 1}, {Name: "b1", Zone: "b", Ready: true, MilliCPU: 1}}
	demand := model.Shares{{Zone: "a", Share: .6}, {Zone: "b", Share: .4}}
	return Case{Nodes: all, Demand: demand, Clients: hints.Clients(all, demand), Endpoints: []model.Endpoint{endpoint(0, all[0]), endpoint(1, all[2])},
		MaxOverload: .2, Prices: model.Prices{PerGB: .02}}
}

func TestJudge(t *testing.T) {
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	c := oneEach()
	byHints := judge(c, Stateless(preferSameZone))
	near("in zone by hints", byHints.inZone, 1)
	near("load by hints", byHints.maxLoad, 1.2)
	byWeights := judge(c, Stateless(func(Case) Answer {
		return Answer{Weights: model.Matrix{{Zone: "a", To: model.Shares{{Zone: "a", Share: .75}, {Zone: "b", Share: .25}}}, {Zone: "b", To: model.Shares{{Zone: "b", Share: 1}}}}}
	}))
	near("in zone by weights", byWeights.inZone, .85)
	near("load by weights", byWeights.maxLoad, 1.1)
	near("cost by weights", byWeights.perTB, .15*20)
	// A quarter of what comes from zone a moved, which is 0.6 of all.
	near("moved", moved(c.Clients, byHints, byWeights), .15)
	near("nothing moved", moved(c.Clients, byHints, byHints), 0)
}

func TestWrites(t *testing.T) {
	e := oneEach().Endpoints
	hint := func(i int, zone string) []model.Endpoint {
		out := append([]model.Endpoint{}, e...)
		out[i].ZoneHints = []string{zone}
		return out
	}
	for _, w := range []struct {
		name        string
		before, now outcome
		want        int
	}{
		{"nothing", outcome{endpoints: e}, outcome{endpoints: e}, 0},
		{"an endpoint", outcome{endpoints: e}, outcome{endpoints: e[:1]}, 1},
		{"a hint", outcome{endpoints: e}, outcome{endpoints: hint(0, "a")}, 1},
		{"a hint apart", outcome{endpoints: e}, outcome{endpoints: hint(0, "a"), steps: 2}, 2},
		{"an endpoint and hints apart", outcome{endpoints: e[1:]}, outcome{endpoints: hint(0, "a"), steps: 2}, 3},
	} {
		if got := writes(w.before, w.now); got != w.want {
			t.Errorf("%s: %d writes, want %d", w.name, got, w.want)
		}
	}
}

// A walk goes through what it promises, and every state makes sense.
func TestStates(t *testing.T) {
	c := small()
	c.WalkPods = 20
	states := c.states(2, 0)
	most, fewestNodes, zonesLost := 0, 6, false
	for i, s := range states {
		most, fewestNodes = max(most, len(s.Endpoints)), min(fewestNodes, len(s.Nodes))
		zonesLost = zonesLost || len(s.Demand) == 2
		alive, seen, sum := map[string]string{}, map[netip.Addr]bool{}, 0.0
		for _, n := range s.Nodes {
			alive[n.Name] = n.Zone
		}
		for _, e := range s.Endpoints {
			if alive[e.Node] != e.Zone || seen[e.Addr] {
				t.Fatalf("state %d: endpoint %s on node %q of zone %q", i, e.Addr, e.Node, alive[e.Node])
			}
			seen[e.Addr] = true
		}
		for _, d := range s.Demand {
			sum += d.Share
		}
		if len(s.Endpoints) == 0 || math.Abs(sum-1) > 1e-12 {
			t.Errorf("state %d: %d endpoints, demand %v", i, len(s.Endpoints), sum)
		}
		if i > 0 && !s.Now.After(states[i-1].Now) {
			t.Errorf("state %d: time stands still", i)
		}
	}
	if first, last := states[0], states[len(states)-1]; len(first.Endpoints) != 1 || len(last.Endpoints) != 1 || most != 20 {
		t.Errorf("from %d pods by %d to %d, want 1, 20, 1", len(first.Endpoints), most, len(last.Endpoints))
	}
	if fewestNodes != 4 || !zonesLost {
		t.Errorf("never fewer than %d of 6 nodes; a zone lost: %v", fewestNodes, zonesLost)
	}
}

func TestDemandIsAsSaid(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	sum, square := 0.0, 0.0
	const n = 5000
	for range n {
		d := demand(r, 3)
		sum += d[0].Share
		square += d[0].Share * d[0].Share
	}
	// A share of three gamma(8) is beta(8,16): mean 1/3, variance 8·16/(24²·25).
	m := sum / n
	v := square/n - m*m
	if math.Abs(m-1./3) > .005 || math.Abs(v-128./(576*25)) > .001 {
		t.Errorf("mean %v, variance %v", m, v)
	}
}

func TestZoneNamesAreInOrder(t *testing.T) {
	for i := 1; i < maxZones; i++ {
		if zoneName(i-1) >= zoneName(i) {
			t.Errorf("%s before %s", zoneName(i-1), zoneName(i))
		}
	}
}

func BenchmarkCase(b *testing.B) {
	c := small()
	c.Pods, c.Placements, c.Walks = []Range{{3, 30}}, []Placement{Random}, 0
	players := c.players()
	s := newScenario(Range{3, 30}, Random, len(players), 1)
	for b.Loop() {
		c.play(s, players, 0)
	}
}
