package service_test

import (
	"fmt"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// many are slices of 100 endpoints each, with zone hints.
func many(n int) []model.Slice {
	var out []model.Slice
	for i := range n {
		out = append(out, slice(fmt.Sprint(i)))
		for j := range 100 {
			out[i].Endpoints = append(out[i].Endpoints, ep(fmt.Sprintf("10.1.%d.%d", i, j), "a", zones("a")))
		}
	}
	return out
}

// Work grows with endpoints, memory requests do not: no endpoint is worth one of its own.
func TestPlanOfThousands(t *testing.T) {
	few, lots, svc := many(5), many(50), balanced(externalLocal)
	count := func(list []model.Slice) float64 {
		return testing.AllocsPerRun(5, func() { service.Plan(nodeA, svc, list, nil) })
	}
	if a, b := count(few), count(lots); b > a+20 {
		t.Errorf("%v allocations for 500 endpoints, %v for 5,000", a, b)
	}
}

func BenchmarkManyPorts(b *testing.B) {
	svc, s := clusterIP(), slice("s", ep("10.0.0.1", "a"), ep("10.0.0.2", "b"))
	svc.Ports, s.Ports = nil, nil
	for i := range uint16(1000) {
		name := fmt.Sprint("p", i)
		svc.Ports = append(svc.Ports, model.ServicePort{Name: name, Protocol: model.UDP, Port: 1000 + i})
		s.Ports = append(s.Ports, model.EndpointPort{Name: name, Protocol: model.UDP, Port: 1000 + i})
	}
	for b.Loop() {
		service.Plan(nodeA, svc, []model.Slice{s}, nil)
	}
}

func BenchmarkFaults(b *testing.B) {
	two, lots := []model.Slice{slice("s", ep("10.0.0.1", "a"), ep("10.0.0.2", "b"))}, many(50)
	for name, list := range map[string][]model.Slice{"two endpoints": two, "5,000 endpoints": lots} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				service.Faults(clusterIP(), list)
			}
		})
	}
}
