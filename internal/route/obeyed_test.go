package route_test

import (
	"math/rand/v2"
	"testing"

	"github.com/zonewise/zonewise/internal/route"
)

func TestObeyed(t *testing.T) {
	plan, _ := route.Plan(input(2, 1, 1)) // b: a 0.1, b 0.9
	empty, _ := route.Plan(input())
	for _, c := range []struct {
		name            string
		counted         []route.Counted
		status, message string
	}{
		{"nothing counted", nil, "Unknown", "no zone has made 100 connections yet"},
		{"too few", []route.Counted{{From: "a", To: "c", Connections: 99}}, "Unknown", "no zone has made 100 connections yet"},
		{"as planned", []route.Counted{{From: "b", To: "a", Connections: 95}, {From: "b", To: "b", Connections: 905}}, "True", "1000 connections from zone b went as planned"},
		{"all zones", []route.Counted{{From: "b", To: "a", Connections: 12}, {From: "b", To: "b", Connections: 88}, {From: "a", To: "a", Connections: 500}}, "True", "600 connections from zones a, b went as planned"},
		{"evenly", []route.Counted{{From: "b", To: "a", Connections: 500}, {From: "b", To: "b", Connections: 250}, {From: "b", To: "c", Connections: 250}}, "False",
			"of 1000 connections from zone b 25% went to zone b, planned are 90%"},
		{"to a zone that is not in the plan", []route.Counted{{From: "a", To: "a", Connections: 900}, {From: "a", To: "x", Connections: 100}}, "False",
			"of 1000 connections from zone a 90% went to zone a, planned are 100%"},
		{"only spilled", []route.Counted{{From: "b", To: "b", Connections: 200}}, "False", "of 200 connections from zone b 0% went to zone a, planned are 10%"},
		{"no plan for the zone", []route.Counted{{From: "x", To: "a", Connections: 1000}}, "Unknown", "no zone has made 100 connections yet"},
	} {
		status, reason, message := route.Obeyed(plan, c.counted)
		if status != c.status || message != c.message || reason == "" {
			t.Errorf("%s: %s %s %q", c.name, status, reason, message)
		}
	}
	if status, reason, _ := route.Obeyed(empty, nil); status != "Unknown" || reason != "NothingPlanned" {
		t.Error(status, reason)
	}
}

// Connections that are drawn by the plan's weights are hardly ever said to disobey.
func TestObeyedByChance(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	plan, _ := route.Plan(input(3, 2, 1))
	off := 0
	for range 2000 {
		var counted []route.Counted
		for _, row := range plan.Matrix() {
			for range 100 + r.IntN(300) {
				x := r.Float64()
				for _, w := range row.To {
					if x -= w.Share; x < 0 {
						counted = append(counted, route.Counted{From: row.Zone, To: w.Zone, Connections: 1})
						break
					}
				}
			}
		}
		if status, _, _ := route.Obeyed(plan, counted); status != "True" {
			off++
		}
	}
	if off > 6 { // 3 standard deviations alone would be 0.27% of each share; the points make it rarer
		t.Errorf("%d of 2000", off)
	}
}
