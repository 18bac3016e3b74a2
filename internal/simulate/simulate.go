// Package simulate plays many placements of pods and demands through several ways of choosing
// among zones, and tells what comes of each. It is pure and seeded: the same Config gives the same
// figures, and every algorithm sees the same cases.
package simulate

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Config says what is played.
type Config struct {
	Seed         uint64
	Cases        int // of each scenario
	Zones        int
	NodesPerZone []int // algorithms that work by node are played with each
	Pods         []Range
	Placements   []Placement
	MaxOverload  float64
	Prices       model.Prices
	Algorithms   []Algorithm
	Walks        int // of the second table; 0: none
	WalkPods     int // how far up a walk goes
	// Each does jobs 0 to n-1, in any order and perhaps several at once, and returns the reason if it
	// did not do them all. Nil does one after the other.
	Each func(n int, do func(job int)) error
}

// Range is a range of numbers of pods, both ends included.
type Range struct{ From, To int }

// String returns "3-12", or "4" if there is only one.
func (r Range) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// Placement is how pods spread over zones.
type Placement string

// The placements.
const (
	Even   Placement = "even"   // zones differ by one pod at most
	Random Placement = "random" // each pod in any zone
)

// Limits keep a wrong number from taking a day.
const (
	maxZones = 64
	maxNodes = 500
	maxPods  = 1000
)

// Validate says everything that is wrong with the configuration, in the words of the flags.
func (c Config) Validate() error {
	var wrong []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	add(c.Cases < 1, "cases: %d is less than 1", c.Cases)
	add(c.Zones < 2 || c.Zones > maxZones, "zones: %d is not in 2 to %d", c.Zones, maxZones)
	add(len(c.NodesPerZone) == 0, "nodes-per-zone: none given")
	for _, n := range c.NodesPerZone {
		add(n < 1 || n > maxNodes, "nodes-per-zone: %d is not in 1 to %d", n, maxNodes)
	}
	add(len(c.Pods) == 0, "pods: none given")
	for _, r := range c.Pods {
		add(r.From < 1 || r.To < r.From || r.To > maxPods, "pods: %s is not a range in 1 to %d", r, maxPods)
	}
	add(len(c.Placements) == 0, "placement: none given")
	for _, p := range c.Placements {
		add(p != Even && p != Random, "placement: %q is neither %s nor %s", string(p), Even, Random)
	}
	add(!(c.MaxOverload > 0 && c.MaxOverload <= 4), "max-overload: %v is not in 0.01 to 4", c.MaxOverload)
	add(len(c.Algorithms) == 0, "no algorithm")
	add(c.Walks < 0 || c.Walks > 0 && (c.WalkPods < 1 || c.WalkPods > maxPods), "walks: %d to %d pods", c.Walks, c.WalkPods)
	return errors.Join(wrong...)
}

// Result is what came of it.
type Result struct {
	Scenarios []Scenario
	Walk      []WalkRow // in the order of the algorithms
}

// Scenario is one table: cases of one range of pods in one placement.
type Scenario struct {
	Pods      Range
	Placement Placement
	Cases     int
	Rows      []Row
}

// Row is what one algorithm made of a scenario.
type Row struct {
	Algorithm    string
	NodesPerZone int     // 0: makes no difference
	InZone       float64 // mean share of connections that stay in their zone
	LoadP50      float64 // median over cases of the most loaded endpoint's load; 1 is the fair share
	LoadP99      float64
	Above        float64 // share of cases in which an endpoint is above the bound
	PerTB        float64 // mean USD per 10^12 bytes
	Refused      float64 // share of cases in which the algorithm gave up
}

// epsilon keeps sums of fractions from counting as a breach of the bound.
const epsilon = 1e-9

// Run plays everything.
func Run(c Config) (Result, error) {
	if err := c.Validate(); err != nil {
		return Result{}, err
	}
	players := c.players()
	var scenarios []*scenario
	for _, pods := range c.Pods {
		for _, placement := range c.Placements {
			scenarios = append(scenarios, newScenario(pods, placement, len(players), c.Cases))
		}
	}
	walks := make([]walkTally, len(players)*c.Walks) // a player's walks stand together
	each := c.Each
	if each == nil {
		each = inTurn
	}
	err := each(len(walks)+len(scenarios)*c.Cases, func(job int) { // walks first: they take longest
		if job < len(walks) {
			pl := players[job/c.Walks]
			walks[job].walk(c.states(pl.nodes, job%c.Walks), pl.New())
			return
		}
		job -= len(walks)
		c.play(scenarios[job/c.Cases], players, job%c.Cases)
	})
	if err != nil {
		return Result{}, err
	}
	var out Result
	for _, s := range scenarios {
		out.Scenarios = append(out.Scenarios, s.table(players, c.MaxOverload))
	}
	if c.Walks > 0 {
		for i, pl := range players {
			out.Walk = append(out.Walk, walkRow(pl, walks[i*c.Walks:(i+1)*c.Walks], c.MaxOverload))
		}
	}
	return out, nil
}

func inTurn(n int, do func(int)) error {
	for i := range n {
		do(i)
	}
	return nil
}

// player is an algorithm with the number of nodes that it is played with.
type player struct {
	Algorithm
	nodes int // of a zone
	label int // the same, 0 if it makes no difference
}

func (c Config) players() []player {
	var out []player
	for _, a := range c.Algorithms {
		if !a.ByNode {
			out = append(out, player{a, c.NodesPerZone[0], 0})
			continue
		}
		for _, n := range c.NodesPerZone {
			out = append(out, player{a, n, n})
		}
	}
	return out
}

// scenario collects what comes of its cases, each in a place of its own: sums of fractions depend
// on the order, and jobs have none.
type scenario struct {
	pods      Range
	placement Placement
	worth     [][]worth // by player and case
}

func newScenario(pods Range, placement Placement, players, cases int) *scenario {
	s := &scenario{pods, placement, make([][]worth, players)}
	for i := range s.worth {
		s.worth[i] = make([]worth, cases)
	}
	return s
}

// play lets every player answer one case.
func (c Config) play(s *scenario, players []player, n int) {
	draw := c.draw(s.pods, s.placement, n)
	for i, pl := range players {
		s.worth[i][n] = judge(draw.with(pl.nodes), pl.New()).worth
	}
}

func (s *scenario) table(players []player, maxOverload float64) Scenario {
	out := Scenario{Pods: s.pods, Placement: s.placement, Cases: len(s.worth[0])}
	for i, pl := range players {
		var t tally
		for _, w := range s.worth[i] {
			t.add(w)
		}
		row := t.row(maxOverload)
		row.Algorithm, row.NodesPerZone = pl.Name, pl.label
		out.Rows = append(out.Rows, row)
	}
	return out
}

// tally sums the outcomes of one algorithm.
type tally struct {
	inZone, perTB float64
	refused       int
	loads         []float64
}

func (t *tally) add(o worth) {
	t.inZone += o.inZone
	t.perTB += o.perTB
	t.loads = append(t.loads, o.maxLoad)
	if o.refused {
		t.refused++
	}
}

func (t *tally) row(maxOverload float64) Row {
	n := float64(len(t.loads))
	slices.Sort(t.loads)
	within, _ := slices.BinarySearchFunc(t.loads, 1+maxOverload+epsilon, func(l, bound float64) int {
		if l <= bound {
			return -1
		}
		return 1
	})
	return Row{
		InZone: t.inZone / n, PerTB: t.perTB / n, Refused: float64(t.refused) / n,
		LoadP50: quantile(t.loads, .5), LoadP99: quantile(t.loads, .99),
		Above: (n - float64(within)) / n,
	}
}

// quantile is the smallest of sorted values that the share q of them does not exceed.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// zoneName returns a, b, … z, then z26 and so on: in the order of the alphabet.
func zoneName(i int) string {
	if i < 26 {
		return string(rune('a' + i))
	}
	return fmt.Sprintf("z%02d", i)
}
