package state

import (
	"github.com/zonewise/zonewise/internal/model"
)

// Served is a service with what belongs to it.
type Served struct {
	Service *model.Service   // not to be changed
	Route   *model.ZoneRoute // nil: it has none; not to be changed
	slices  []*model.Slice
}

// Slices returns the endpoint slices of the service, by name.
func (s Served) Slices() []model.Slice {
	if len(s.slices) == 0 {
		return nil
	}
	out := make([]model.Slice, len(s.slices))
	for i, slice := range s.slices {
		out[i] = *slice
	}
	return out
}

// Served returns every service, by namespace and name. It goes through the tables side by side, which
// takes a tenth of the time of looking up what belongs to each service.
func (s *Snapshot) Served() []Served {
	all := make([]*model.Slice, 0, s.byService.tree.Len())
	for _, slice := range s.byService.all() {
		all = append(all, slice)
	}
	var routes []*model.ZoneRoute
	for _, route := range s.routes.all() {
		routes = append(routes, route)
	}
	out := make([]Served, 0, s.services.tree.Len())
	for name, svc := range s.services.all() {
		one := Served{Service: svc}
		one.slices, all = those(all, name, (*model.Slice).ServiceName)
		var route []*model.ZoneRoute
		if route, routes = those(routes, name, nameOfRoute); len(route) > 0 {
			one.Route = route[0]
		}
		out = append(out, one)
	}
	return out
}

func nameOfRoute(r *model.ZoneRoute) model.Name { return r.Name }

// those returns, of rows in order of the services that they belong to, the ones of a service, and the ones after.
func those[T any](rows []*T, name model.Name, of func(*T) model.Name) (its, after []*T) {
	from := 0
	for from < len(rows) && of(rows[from]).Compare(name) < 0 {
		from++ // of a service that is not there
	}
	to := from
	for to < len(rows) && of(rows[to]) == name {
		to++
	}
	return rows[from:to:to], rows[to:]
}
