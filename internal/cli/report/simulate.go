package report

import (
	"fmt"
	"io"
	"strconv"

	"github.com/zonewise/zonewise/internal/simulate"
)

// SimulateSchema names the form of Simulation. Fields are only ever added to it.
const SimulateSchema = "zonewise.simulate/v1"

// Simulation is what the simulator found. Shares and loads are fractions, money is USD.
type Simulation struct {
	Schema      string     `json:"schema"`
	Seed        uint64     `json:"seed"`
	Zones       int        `json:"zones"`
	MaxOverload float64    `json:"maxOverload"`
	Scenarios   []Scenario `json:"scenarios"`
	Walk        []WalkRow  `json:"walk"`
}

// Scenario is one table: cases of one range of pods in one placement.
type Scenario struct {
	Pods      string        `json:"pods"`
	Placement string        `json:"placement"`
	Cases     int           `json:"cases"`
	Rows      []ScenarioRow `json:"rows"`
}

// ScenarioRow is one algorithm in it.
type ScenarioRow struct {
	Algorithm    string  `json:"algorithm"`
	NodesPerZone int     `json:"nodesPerZone"` // 0: makes no difference
	InZone       float64 `json:"inZone"`
	MaxLoadP50   float64 `json:"maxLoadP50"`
	MaxLoadP99   float64 `json:"maxLoadP99"`
	AboveBound   float64 `json:"aboveBound"`
	CostPerTB    float64 `json:"costPerTB"`
	Refused      float64 `json:"refused"`
}

// WalkRow is one algorithm under a walking autoscaler.
type WalkRow struct {
	Algorithm    string  `json:"algorithm"`
	NodesPerZone int     `json:"nodesPerZone"`
	Changes      int     `json:"changes"`
	InZone       float64 `json:"inZone"`
	MaxLoadP99   float64 `json:"maxLoadP99"`
	AboveBound   float64 `json:"aboveBound"`
	Moved        float64 `json:"moved"`    // mean of a change: share of connections
	MovedMax     float64 `json:"movedMax"` // of one change
	Writes       float64 `json:"writes"`   // mean of a change: slices
	Refused      float64 `json:"refused"`
}

// MakeSimulation turns a result into a report.
func MakeSimulation(c simulate.Config, r simulate.Result) Simulation {
	out := Simulation{Schema: SimulateSchema, Seed: c.Seed, Zones: c.Zones, MaxOverload: c.MaxOverload,
		Scenarios: []Scenario{}, Walk: []WalkRow{}}
	for _, s := range r.Scenarios {
		t := Scenario{Pods: s.Pods.String(), Placement: string(s.Placement), Cases: s.Cases}
		for _, x := range s.Rows {
			t.Rows = append(t.Rows, ScenarioRow{x.Algorithm, x.NodesPerZone, round(x.InZone), round(x.LoadP50), round(x.LoadP99),
				round(x.Above), round(x.PerTB), round(x.Refused)})
		}
		out.Scenarios = append(out.Scenarios, t)
	}
	for _, x := range r.Walk {
		out.Walk = append(out.Walk, WalkRow{x.Algorithm, x.NodesPerZone, x.Changes, round(x.InZone), round(x.LoadP99), round(x.Above),
			round(x.Moved), round(x.MovedMax), round(x.Writes), round(x.Refused)})
	}
	return out
}

// SimulationTable writes the form for people: a table for each scenario, then that of the walks.
func SimulationTable(w io.Writer, s Simulation) error {
	for i, t := range s.Scenarios {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d zones, %s pods, %s placement, %s\n", s.Zones, t.Pods, t.Placement, count(t.Cases, "case"))
		rows := [][]string{{"ALGORITHM", "NODES/ZONE", "IN-ZONE", "MAX-LOAD P50", "P99", "ABOVE " + load(1+s.MaxOverload), "COST/TB", "REFUSED"}}
		for _, r := range t.Rows {
			rows = append(rows, []string{r.Algorithm, nodesText(r.NodesPerZone), percent(r.InZone), load(r.MaxLoadP50), load(r.MaxLoadP99),
				percent(r.AboveBound), money(r.CostPerTB), percent(r.Refused)})
		}
		if err := fit(w, rows); err != nil {
			return err
		}
	}
	if len(s.Walk) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nA walking autoscaler, a lost node and a lost zone: %s\n", count(s.Walk[0].Changes, "change"))
	rows := [][]string{{"ALGORITHM", "NODES/ZONE", "IN-ZONE", "P99-LOAD", "ABOVE " + load(1+s.MaxOverload), "MOVED", "AT MOST", "WRITES", "REFUSED"}}
	for _, r := range s.Walk {
		rows = append(rows, []string{r.Algorithm, nodesText(r.NodesPerZone), percent(r.InZone), load(r.MaxLoadP99), percent(r.AboveBound),
			percent(r.Moved), percent(r.MovedMax), strconv.FormatFloat(r.Writes, 'f', 2, 64), percent(r.Refused)})
	}
	return fit(w, rows)
}

func nodesText(n int) string {
	if n == 0 {
		return "any"
	}
	return strconv.Itoa(n)
}
