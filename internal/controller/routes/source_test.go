package routes

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/hints/kube"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/state"
)

// always are settings that do not change.
func always(mode model.Mode) func() outlook.Settings {
	return func() outlook.Settings { return settings(mode) }
}

// source answers from tables with one Service, web, of two pods in each of three zones.
func source(defaultMode model.Mode, zr *model.ZoneRoute) (*Source, *state.Tables, model.Slice) {
	web := model.Name{Namespace: "default", Name: "web"}
	slice := model.Slice{Name: model.Name{Namespace: "default", Name: "web-1"}, Service: "web"}
	tables := state.New()
	tables.Update(time.Now(), func(tx *state.Tx) {
		for z := range 3 {
			zone := string(rune('a' + z))
			for i := range 2 {
				node := fmt.Sprintf("%s%d", zone, i)
				tx.PutNode(model.Node{Name: node, Zone: zone, Ready: true, MilliCPU: 2000})
				slice.Endpoints = append(slice.Endpoints, model.Endpoint{Addr: netip.AddrFrom4([4]byte{192, 168, byte(z), byte(i + 1)}),
					Zone: zone, Node: node, Ready: true, Serving: true})
			}
		}
		tx.PutService(model.Service{Name: web, Type: model.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.7")}})
		tx.PutSlice(slice)
		if zr != nil {
			zr.Name = web
			tx.PutRoute(*zr)
		}
	})
	return NewSource(tables, always(defaultMode)), tables, slice
}

func TestOnlyOptimalServicesGetHints(t *testing.T) {
	route := func(s model.RouteSpec) *model.ZoneRoute { return &model.ZoneRoute{Spec: s} }
	for _, c := range []struct {
		what string
		mode model.Mode
		zr   *model.ZoneRoute
		want bool
	}{
		{"by its ZoneRoute", model.Observe, route(model.RouteSpec{Mode: model.Optimal}), true},
		{"by default", model.Optimal, route(model.RouteSpec{}), true},
		{"without a ZoneRoute nothing is in force", model.Optimal, nil, false},
		{"against the default", model.Optimal, route(model.RouteSpec{Mode: model.Observe}), false},
		{"observed", "", route(model.RouteSpec{}), false},
		{"what is not valid is not in force", model.Optimal, route(model.RouteSpec{MaxOverload: 10}), false},
		{"nor what cannot be read", model.Optimal, &model.ZoneRoute{Invalid: "spec.maxOverload: 0 is less than 0.01"}, false},
	} {
		s, _, slice := source(c.mode, c.zr)
		target, ours, err := s.Target(slice.ServiceName(), false, []model.Slice{slice})
		if err != nil || ours != c.want || ours != (len(target.Set.Of) == 6) || ours != (len(target.Clients) == 6) {
			t.Errorf("%s: %v, %d hints, %d clients, %v", c.what, ours, len(target.Set.Of), len(target.Clients), err)
		}
		given, err := kube.NewPlanner(s).Hints(slice.ServiceName(), false, slice)
		if err != nil || (len(given) == 6) != c.want {
			t.Errorf("%s: the webhook gives %d hints, %v", c.what, len(given), err)
		}
	}
}

func TestSourceWaitsForTheTables(t *testing.T) {
	s := NewSource(state.New(state.Nodes), always(model.Optimal))
	if _, known := s.Any(); known {
		t.Error("known before the tables are complete")
	}
	if _, _, err := s.Target(model.Name{Namespace: "default", Name: "web"}, false, nil); err == nil {
		t.Error("no error")
	}
	full, tables, slice := source("", &model.ZoneRoute{Spec: model.RouteSpec{Mode: model.Optimal}})
	if wanted, known := full.Any(); wanted || !known {
		t.Error("a plan is in force once the status says so")
	}
	zr, _ := tables.Snapshot().Route(slice.ServiceName())
	zr.Status.Mode = model.Optimal
	tables.Update(time.Now(), func(tx *state.Tx) { tx.PutRoute(zr) })
	if wanted, _ := full.Any(); !wanted || len(full.Services()) != 1 || len(full.Slices(slice.ServiceName())) != 1 {
		t.Error("a plan is in force")
	}
}
