package report

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/simulate"
)

func TestSimulation(t *testing.T) {
	s := MakeSimulation(simulate.Config{Seed: 7, Zones: 3, MaxOverload: .2}, simulate.Result{
		Scenarios: []simulate.Scenario{
			{Pods: simulate.Range{From: 3, To: 12}, Placement: simulate.Even, Cases: 20000, Rows: []simulate.Row{
				{Algorithm: "no hints", InZone: 1. / 3, LoadP50: 1, LoadP99: 1, PerTB: 40. / 3},
				{Algorithm: "topology-mode Auto", InZone: .734, LoadP50: 1.1, LoadP99: 1.9, Above: .438, PerTB: 5.32, Refused: .399},
				{Algorithm: "Zonewise, hints", NodesPerZone: 12, InZone: .935, LoadP50: 1.19, LoadP99: 1.2, PerTB: 1.3},
			}},
			{Pods: simulate.Range{From: 4, To: 4}, Placement: simulate.Random, Cases: 1},
		},
		Walk: []simulate.WalkRow{{Algorithm: "Zonewise, hints", NodesPerZone: 6, Changes: 84, InZone: .8, LoadP99: 1.2, Above: 0, Moved: .09, MovedMax: .5, Writes: 1.6, Refused: .02}},
	})
	golden.Check(t, "simulate.txt", text(t, func(w io.Writer) error { return SimulationTable(w, s) }))
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "simulate.json", string(b)+"\n")
}
